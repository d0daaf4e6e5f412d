"""What every command needs: the user's AWS account and region, and the shared arguments."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

import typer

from lambdas.common import eks, retry
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.kubernetes_session import KubernetesSession, existing_access
from lambdas.onboarding.context import CALL_PATIENCE
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


def described(deps: Dependencies, cluster: str) -> eks.Cluster:
    """The cluster as EKS describes it."""
    return retry.call(
        lambda: eks.describe(deps.clients.eks, cluster, region=deps.place.region),
        until=deps.clock.now() + CALL_PATIENCE,
        clock=deps.clock,
    )


@contextmanager
def kube(deps: Dependencies, cluster: eks.Cluster, until: float) -> Iterator[Kube]:
    """The cluster's API with the user's own access: no command grants access."""
    with KubernetesSession(
        existing_access, until=until, open_kube=deps.open_kube, clock=deps.clock
    ) as opened:
        yield opened.kube(cluster)
