"""Notice → the node of the cluster, or why there is none.

Instance by EC2, cluster by the instance's tags and EKS, node by the Kubernetes API: nothing about
a cluster is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdas.common import aws, backoff
from lambdas.common.clock import Clock
from lambdas.common.cluster import Cluster, Token, describe, token_for
from lambdas.common.errors import AwsRefusedError, ClusterUnavailableError
from lambdas.spot_handler.kubernetes import ClusterApi, Node
from lambdas.spot_handler.retry import never, retried

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_eks import EKSClient

# EKS's own tags first: they name the cluster. The last is a family of tags: its key names it.
NAME_TAGS = ("aws:eks:cluster-name", "eks:cluster-name")
OWNERSHIP_TAG = "kubernetes.io/cluster/"
OWNERSHIP = ("owned", "shared")
GONE = frozenset({"shutting-down", "terminated", "stopping", "stopped"})


@dataclass(frozen=True)
class Instance:
    """What EC2 knows of the instance. `dns_name` may be empty even while it runs."""

    id: str
    state: str
    dns_name: str
    tags: Mapping[str, str]

    @property
    def gone(self) -> bool:
        return self.state in GONE

    @property
    def cluster(self) -> str:
        """The name of the cluster that the instance belongs to; empty where no tag tells."""
        for key in NAME_TAGS:
            if self.tags.get(key):
                return self.tags[key]
        for ownership in OWNERSHIP:
            for key, value in sorted(self.tags.items()):
                name = key.removeprefix(OWNERSHIP_TAG)
                if value == ownership and name != key and name:
                    return name
        return ""


def instance(ec2: EC2Client, instance_id: str) -> Instance | None:
    """One DescribeInstances; None where EC2 does not know the id.

    Raises AwsUnavailableError or AwsRefusedError.
    """
    try:
        with aws.explained("ec2:DescribeInstances"):
            answer = ec2.describe_instances(InstanceIds=[instance_id])
    except AwsRefusedError as error:
        if error.code.startswith("InvalidInstanceID."):
            return None
        raise
    for reservation in answer["Reservations"]:
        for found in reservation["Instances"]:
            return Instance(
                id=instance_id,
                state=found["State"]["Name"],
                dns_name=found.get("PrivateDnsName", ""),
                tags={tag["Key"]: tag.get("Value", "") for tag in found.get("Tags", ())},
            )
    return None


class Clusters:
    """The clusters that this container has met: described once, and again when one has moved.

    eks: a function that gives the client, called only when a description is needed.
    """

    def __init__(self, eks: Callable[[], EKSClient], region: str, clock: Clock) -> None:
        self._eks = eks
        self._region = region
        self._clock = clock
        self._known: dict[str, tuple[Cluster, Token]] = {}

    def get(self, name: str, *, until: float, fresh: bool = False) -> tuple[Cluster, Token] | None:
        """The cluster and our token for it; None where EKS has no cluster of this name.

        Retries until `until` (epoch seconds). Raises as `describe` does.
        """
        if name not in self._known or fresh:
            try:
                cluster = backoff.call(
                    lambda: describe(self._eks(), name, region=self._region),
                    until=until,
                    clock=self._clock,
                )
            except AwsRefusedError as error:
                if error.code == "ResourceNotFoundException":
                    return None
                raise
            self._known[name] = (cluster, token_for(cluster, clock=self._clock))
        return self._known[name]


async def node(
    api: ClusterApi, found: Instance, *, until: float, clock: Clock, patient: bool
) -> Node | None:
    """The node that is this instance, by name where EC2 knows it, else by provider id.

    Retries until `until`. Raises ClusterUnavailableError after that; unless `patient`, at once
    where the endpoint cannot be reached, so that the caller can ask EKS for the current one.
    """
    unless = never if patient else _unreachable

    async def by_name() -> Node | None:
        return await api.node(found.dns_name)

    async def by_provider_id() -> Node | None:
        async for candidate in api.nodes():
            if candidate.instance == found.id:
                return candidate
        return None

    if found.dns_name:
        named = await retried(by_name, until=until, clock=clock, unless=unless)
        if named is not None and named.instance == found.id:
            return named
    return await retried(by_provider_id, until=until, clock=clock, unless=unless)


def _unreachable(error: Exception) -> bool:
    return isinstance(error, ClusterUnavailableError) and error.unreachable
