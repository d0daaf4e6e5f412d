"""This process's own access to a cluster's Kubernetes API: an access entry that does not stay.

Where the cluster has access entries, one is created for this process's principal and deleted on
every way out. A process that was killed leaves its entry behind. The next run finds it by its tag,
replaces it and deletes it. An entry that another tool created is used as it is and stays.

Clusters that read only `aws-auth` need a mapping that is added by hand: docs/manual-onboarding.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from lambdas.common.aws_calls import MISSING, AwsCalls
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster
from lambdas.common.errors import AwsRefusedError, CastaiError
from lambdas.common.names import CLUSTER_ADMIN, TEMPORARY_TAG

if TYPE_CHECKING:
    from mypy_boto3_eks import EKSClient


CALL_PATIENCE: Final = 30.0  # s for one call to EKS with its retries
KNOWN_AFTER: Final = 60.0  # s until all of a cluster's API servers know a new entry; usually a few

# EKS's answer about a principal that was created some seconds ago: "invalid principal".
UNKNOWN_PRINCIPAL: Final = "InvalidParameterException"

_WAITING: Final = "waiting"  # value of the tag: the entry has its policy
_EXISTS: Final = "ResourceInUseException"


@dataclass(frozen=True)
class Grant:
    """What the entry allows: an access policy of EKS, for the cluster or for some namespaces."""

    policy: str = CLUSTER_ADMIN
    namespaces: Sequence[str] = ()
    """None: the whole cluster."""


@contextmanager
def temporary_access(
    eks: EKSClient,
    cluster: Cluster,
    principal_arn: str,
    grant: Grant | None = None,
    *,
    clock: Clock = SYSTEM,
) -> Iterator[float]:
    """Give `principal_arn`, this process's own identity, access to the cluster inside the `with`.

    Yields until when (epoch seconds) the cluster may still refuse the new entry:
    `refusals_pass_until` of `Kube`.
    Raises AwsRefusedError or AwsUnavailableError. Where the entry cannot be deleted, the error has
    a note about it. It is the error of the body, if that failed.
    """
    entry = _Entry(eks, cluster, principal_arn, clock)
    if "API" not in cluster.authentication_mode or entry.is_foreign():
        yield 0.0
        return
    try:
        entry.create()
        entry.associate(grant or Grant())
        yield clock.now() + KNOWN_AFTER
    except BaseException as error:
        try:
            entry.delete_surely()
        except CastaiError as second:
            error.add_note(f"Remove access entry {principal_arn} by hand as well: {second}")
        raise
    else:
        try:
            entry.delete_surely()
        except CastaiError as error:
            error.add_note(f"Remove access entry {principal_arn} by hand, or try again")
            raise


def access_for(
    eks: EKSClient, principal_arn: str, grant: Grant | None = None, *, clock: Clock = SYSTEM
) -> Callable[[Cluster], AbstractContextManager[float]]:
    """`temporary_access` for the cluster that is still to be given: for a `KubernetesSession`."""
    return lambda cluster: temporary_access(eks, cluster, principal_arn, grant, clock=clock)


def begin_wait(
    eks: EKSClient, cluster: Cluster, principal_arn: str, grant: Grant, *, clock: Clock = SYSTEM
) -> float:
    """Have access to the cluster until `end_wait`, over several invocations.

    A second call writes nothing.
    Returns until when (epoch seconds) the cluster may still refuse the new entry.
    Raises AwsRefusedError or AwsUnavailableError.
    """
    if "API" not in cluster.authentication_mode:
        return 0.0
    entry = _Entry(eks, cluster, principal_arn, clock)
    tags = entry.tags()
    if tags is not None and TEMPORARY_TAG not in tags:
        return 0.0
    if tags is None or tags[TEMPORARY_TAG] != _WAITING:
        entry.create(_WAITING)
        entry.associate(grant)
    return clock.now() + KNOWN_AFTER


def end_wait(
    eks: EKSClient, cluster: Cluster, principal_arn: str, *, clock: Clock = SYSTEM
) -> None:
    """Delete the entry of `begin_wait`, if there is one.

    Raises AwsRefusedError or AwsUnavailableError.
    """
    entry = _Entry(eks, cluster, principal_arn, clock)
    if "API" in cluster.authentication_mode and TEMPORARY_TAG in (entry.tags() or {}):
        entry.delete()


@dataclass(frozen=True)
class _Entry:
    """The calls to EKS about one entry."""

    eks: EKSClient
    cluster: Cluster
    principal: str
    clock: Clock

    def is_foreign(self) -> bool:
        """Whether the entry exists and a person or another tool created it."""
        tags = self.tags()
        return tags is not None and TEMPORARY_TAG not in tags

    @property
    def _calls(self) -> AwsCalls:
        return AwsCalls(self.clock, until=lambda: self.clock.now() + CALL_PATIENCE)

    def tags(self) -> Mapping[str, str] | None:
        """The entry's tags; None where the entry does not exist."""
        answer = self._calls.find(
            self.eks.describe_access_entry,
            clusterName=self.cluster.name,
            principalArn=self.principal,
        )
        return answer["accessEntry"].get("tags", {}) if answer else None

    def create(self, purpose: str = "true") -> None:
        """Create the entry. It replaces one that a killed run left behind.

        EKS binds an entry to the principal's unique id. An old entry does nothing for a principal
        of the same ARN that was created later (EKS API reference, AccessEntry, principalArn).
        """
        try:
            self._create(self._calls.retrying({UNKNOWN_PRINCIPAL}), purpose)
        except AwsRefusedError as error:
            if error.code != _EXISTS:
                raise
            self.delete()
            self._create(self._calls.retrying({_EXISTS, UNKNOWN_PRINCIPAL}), purpose)

    def _create(self, calls: AwsCalls, purpose: str) -> None:
        calls.call(
            self.eks.create_access_entry,
            clusterName=self.cluster.name,
            principalArn=self.principal,
            type="STANDARD",
            tags={TEMPORARY_TAG: purpose},
        )

    def associate(self, grant: Grant) -> None:
        """Give the entry its policy."""
        partition = self.cluster.arn.split(":")[1]
        self._calls.retrying(MISSING).call(
            self.eks.associate_access_policy,
            clusterName=self.cluster.name,
            principalArn=self.principal,
            policyArn=f"arn:{partition}:eks::aws:cluster-access-policy/{grant.policy}",
            accessScope=(
                {"type": "namespace", "namespaces": list(grant.namespaces)}
                if grant.namespaces
                else {"type": "cluster"}
            ),
        )

    def delete_surely(self) -> None:
        """Delete the entry; a refused call is made a second time."""
        try:
            self.delete()
        except AwsRefusedError:
            self.delete()

    def delete(self) -> None:
        """Delete the entry. It is no error when the entry or the cluster does not exist."""
        self._calls.find(
            self.eks.delete_access_entry,
            clusterName=self.cluster.name,
            principalArn=self.principal,
        )
