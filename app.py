"""The CDK app. Settings come from the context: cdk.json or `cdk -c castai:key=value`."""

from __future__ import annotations

import sys

from aws_cdk import App, Environment, Tags, Validations
from cdk_nag import AwsSolutionsChecks

from stacks.agent_stack import AgentStack
from stacks.castai_stack import CastaiStack
from stacks.onboarding_stack import OnboardingStack
from stacks.settings import ContextError, Settings
from stacks.spot_handler_stack import SpotHandlerStack

STACKS: tuple[type[CastaiStack], ...] = (AgentStack, SpotHandlerStack, OnboardingStack)


def build(app: App, env: Environment | None = None) -> None:
    """Add the stacks that the context asks for. Raises ContextError where it is wrong.

    env None: templates that fit any account, region and partition; the CLI's profile decides.
    """
    settings = Settings.from_context(app.node.get_all_context())
    for stack in STACKS:
        if stack.wanted(settings):
            stack(app, settings, env=env)
    for key, value in settings.app.tags.items():
        Tags.of(app).add(key, value)
    # A finding without an acknowledged reason stops the synth.
    Validations.of(app).add_plugins(AwsSolutionsChecks(app))


def main() -> None:
    """Synthesise. Exits with 1 and every fault of the settings."""
    app = App(analytics_reporting=False)  # templates hold what is deployed and nothing else
    try:
        build(app)
    except ContextError as error:
        sys.exit(str(error))
    app.synth()


if __name__ == "__main__":
    main()
