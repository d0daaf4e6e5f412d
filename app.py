"""The CDK app. Settings come from the context: cdk.json or `cdk -c castai:key=value`."""

from __future__ import annotations

import sys

from aws_cdk import App, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from stacks.castai_stack import CastaiStack
from stacks.settings import Settings, SettingsError
from stacks.spot_handler_stack import SpotHandlerStack

STACKS: tuple[type[CastaiStack], ...] = (SpotHandlerStack,)


def main() -> None:
    """Synthesise every stack that the settings ask for. Exits with 1 where they are wrong."""
    app = App(analytics_reporting=False)  # templates hold what is deployed and nothing else
    try:
        settings = Settings.from_context(app.node.get_all_context())
    except SettingsError as error:
        sys.exit(str(error))
    for stack in STACKS:
        if stack.wanted(settings):
            stack(app, settings)
    for key, value in settings.app.tags.items():
        Tags.of(app).add(key, value)
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))
    app.synth()


if __name__ == "__main__":
    main()
