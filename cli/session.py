"""The user's AWS account and region, as the functions' own boundaries describe theirs."""

from __future__ import annotations

import os
from typing import Annotated, Final

import typer

from lambdas.onboarding import handler
from lambdas.onboarding.handler import Means

RESOURCE: Final = "castai-eks"
"""Who owns what is made from a terminal, as a stack's resource owns what it makes."""

RUN_TIME: Final = 900.0  # s; what the custom resource's function has at most

Cluster = Annotated[str, typer.Argument(help="Name of the EKS cluster.")]
Region = Annotated[
    str | None, typer.Option(help="Region of the cluster; by default the AWS SDK's own.")
]


def means(region: str | None) -> Means:
    """Clients in the region, as the user's own identity, which has its access already.

    Raises AwsRefusedError where credentials or region are missing.
    """
    if region:
        os.environ["AWS_REGION"] = region
    return handler.means_of(None)
