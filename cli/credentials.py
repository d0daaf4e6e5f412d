"""`castai-eks credentials`: the access key of user mode, from its secret."""

from __future__ import annotations

from typing import Annotated

import typer

from cli import session
from lambdas.common import aws
from lambdas.onboarding import names

app = typer.Typer(help="The access key of user mode.", no_args_is_help=True)


@app.callback()
def _group() -> None:
    """Keep `show` a command of its own: typer would merge a single one into the group."""


@app.command()
def show(
    cluster: session.Cluster,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    region: session.Region = None,
) -> None:
    """Print the key in the form that CAST AI's console takes. No other command prints it."""
    name = names.credentials_secret_name(cluster)
    if not yes:
        typer.confirm(f"Print the secret key of {cluster} to this terminal?", abort=True, err=True)
    secrets = session.dependencies(region).clients.secrets
    with aws.translated_errors("secretsmanager:GetSecretValue"):
        answer = secrets.get_secret_value(SecretId=name)
    typer.echo(answer["SecretString"])
