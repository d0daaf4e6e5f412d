"""What every command needs: the user's AWS account and region, and the shared arguments."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from lambdas.onboarding.session import Dependencies, dependencies_of

RESOURCE: Final = "castai-eks"
"""Owner of what the CLI creates, as a stack's resource is the owner of what it creates."""

RUN_TIME: Final = 900.0  # s, as Lambda gives the custom resource's function

Cluster = Annotated[str, typer.Argument(help="Name of the EKS cluster.")]
Region = Annotated[
    str | None, typer.Option(help="Region of the cluster; by default the AWS SDK's own.")
]


def dependencies(region: str | None) -> Dependencies:
    """Clients in the region, with the user's own identity, which has access to the cluster already.

    Raises AwsRefusedError where credentials or region are missing.
    """
    if region:
        os.environ["AWS_REGION"] = region
    return dependencies_of(None)
