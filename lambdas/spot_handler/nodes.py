"""Notice → the node of the cluster, or why there is none.

The instance's tags name the cluster (instances.py), EKS describes it, and the Kubernetes API has
the node: no cluster is configured.
"""

from __future__ import annotations

from functools import cached_property, partial
from typing import TYPE_CHECKING, cast

from lambdas.common import aws, retry
from lambdas.common.clock import Clock
from lambdas.common.eks import Cluster, Token, describe, token_for
from lambdas.common.errors import AwsRefusedError, ClusterUnavailableError
from lambdas.spot_handler.instances import Instance
from lambdas.spot_handler.node_api import NodeApi
from lambdas.spot_handler.objects import Node

if TYPE_CHECKING:
    import botocore.session
    from mypy_boto3_eks import EKSClient


class Clusters:
    """The clusters that this container has described; one is described again when its endpoint has
    changed.
    """

    def __init__(self, session: botocore.session.Session, clock: Clock) -> None:
        self._session = session
        self._clock = clock
        self._known: dict[str, tuple[Cluster, Token]] = {}

    @cached_property
    def _eks(self) -> EKSClient:
        return cast("EKSClient", self._session.create_client("eks", config=aws.CONFIG))

    def get(self, name: str, *, until: float, fresh: bool = False) -> tuple[Cluster, Token] | None:
        """The cluster and our token for it; None where EKS has no cluster of this name.

        Retries until `until` (epoch seconds). Raises as `describe` does.
        """
        if name not in self._known or fresh:
            try:
                cluster = retry.call(
                    lambda: describe(self._eks, name, region=aws.region(self._session)),
                    until=until,
                    clock=self._clock,
                )
            except AwsRefusedError as error:
                if error.code == "ResourceNotFoundException":
                    return None
                raise
            self._known[name] = (
                cluster,
                token_for(cluster, session=self._session, clock=self._clock),
            )
        return self._known[name]


async def find(
    api: NodeApi, instance: Instance, *, until: float, clock: Clock, retry_unreachable: bool
) -> Node | None:
    """The node of this instance: that of its DNS name, that of its id (EKS Auto Mode's names), else
    the one with its provider id.

    Retries until `until`, then raises ClusterUnavailableError. Without `retry_unreachable` an
    endpoint that cannot be reached raises at once: the caller can get the current one from EKS.
    """
    unless = retry.never if retry_unreachable else _unreachable

    async def by_provider_id() -> Node | None:
        async for candidate in api.nodes():
            if candidate.instance == instance.id:
                return candidate
        return None

    for name in filter(None, (instance.dns_name, instance.id)):
        by_name = partial(api.node, name)
        named = await retry.call_async(by_name, until=until, clock=clock, unless=unless)
        if named is not None and named.instance == instance.id:
            return named
    return await retry.call_async(by_provider_id, until=until, clock=clock, unless=unless)


def _unreachable(error: Exception) -> bool:
    return isinstance(error, ClusterUnavailableError) and error.unreachable
