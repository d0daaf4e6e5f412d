"""`castai-eks`: the work of the custom resources from a terminal, with the user's credentials."""

from __future__ import annotations

import sys
from importlib import metadata
from typing import Annotated, Final

import typer

from cli import agent, credentials, onboarding, policy, savings
from lambdas.common.errors import CastaiError

DISTRIBUTION: Final = "castai-eks-cdk"
"""The name in pyproject.toml, which holds the version."""

app = typer.Typer(
    name="castai-eks",
    help="Give CAST AI access to an EKS cluster, show the access or remove it. Credentials and "
    "region come from the AWS SDK's standard settings (AWS_PROFILE, AWS_REGION, …).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # a frame's values are not for a terminal
)
app.command("onboard")(onboarding.onboard)
app.command("offboard")(onboarding.offboard)
app.command("plan")(onboarding.plan)
app.command("status")(onboarding.status)
app.command("savings")(savings.savings)
app.command("connect")(agent.connect)
app.command("disconnect")(agent.disconnect)
app.add_typer(policy.app, name="policy")
app.add_typer(credentials.app, name="credentials")
app.add_typer(agent.agent_app, name="agent")


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"castai-eks {metadata.version(DISTRIBUTION)}")
        raise typer.Exit


@app.callback()
def options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Define the options that stand before a command."""


def main() -> None:
    """Run the command line. An error of ours is printed as its message, with exit status 1."""
    try:
        app()
    except CastaiError as error:
        lines = [str(error), *getattr(error, "__notes__", ())]
        typer.secho("\n".join(lines), fg="red", err=True)
        sys.exit(1)
