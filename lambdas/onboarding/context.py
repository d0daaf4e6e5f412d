"""What one run of the steps knows: the wish, the clients, the clock, and what it has found out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lambdas.common import aws, retry
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster
from lambdas.common.errors import AwsRefusedError, PermanentError, RetryableError
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.kubernetes_session import KubernetesSession
from lambdas.common.names import CLUSTER_ID_TAG
from lambdas.onboarding import ownership
from lambdas.onboarding.ledger import Ledger
from lambdas.onboarding.ownership import Owner
from lambdas.onboarding.policies import Scope
from lambdas.onboarding.properties import Onboarding

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

T = TypeVar("T")

# s. One AWS call with its retries: throttling and IAM's propagation usually pass in 10-20 s.
CALL_PATIENCE: Final = 60.0
# Where to go on in a listing, in answer and request alike: of IAM, of EC2, of EKS.
_TOKENS: Final = ("Marker", "NextToken", "nextToken")


@dataclass(frozen=True)
class Clients:
    """The AWS clients of one region."""

    iam: IAMClient
    ec2: EC2Client
    eks: EKSClient
    secrets: SecretsManagerClient
    functions: LambdaClient


@dataclass(frozen=True)
class Place:
    """Where this run works."""

    partition: str
    region: str
    account: str


@dataclass(frozen=True)
class Key:
    """The user's access key; its secret half is in no repr."""

    id: str
    secret: str = field(repr=False)


@dataclass
class Facts:
    """What the steps find out and make, for the steps after them and for the attributes."""

    cluster: Cluster | None = None
    """None where EKS does not know the cluster (any more)."""
    cluster_id: str = ""
    former_ids: tuple[str, ...] = ()
    """Ids that the cluster had at CAST AI before, as our tags and the old properties tell."""
    principal: str = ""
    """Who may assume the role in role mode; empty when planning without asking CAST AI."""
    policy_arn: str = ""
    identity_arn: str = ""
    identity_is_new: bool = False
    identity_is_adopted: bool = False
    node_role_arn: str = ""
    instance_profile_arn: str = ""
    security_group_ids: tuple[str, ...] = ()
    secret_arn: str = ""
    key: Key | None = None
    key_is_new: bool = False
    replaced_keys: tuple[str, ...] = ()
    """Ids of access keys that have no use once the new one is handed over."""
    access_method: str = ""
    next_step: str = ""
    """What is left to do by hand; empty where nothing is."""


@dataclass
class Context:
    """One run of the steps for one cluster."""

    onboarding: Onboarding
    place: Place
    resource: str
    clients: Clients
    api: CastaiApi | None
    kubernetes: KubernetesSession
    deadline: float
    """Epoch seconds at which the run stops waiting; the time to undo comes after it."""
    agent_problem: Callable[[Kube], str]
    """What is wrong with the castai-agent of the cluster; empty where nothing is."""
    clock: Clock = SYSTEM
    previous: Onboarding | None = None
    plan_only: bool = False
    """No write anywhere, also none at CAST AI: what is not known stays unknown."""
    discover: bool = False
    """A removal by what is found: no properties tell how this was onboarded."""
    ledger: Ledger = field(default_factory=Ledger)
    facts: Facts = field(default_factory=Facts)

    @property
    def scope(self) -> Scope:
        """The cluster, as the policy documents are scoped to it."""
        return Scope(
            partition=self.place.partition,
            region=self.place.region,
            account=self.place.account,
            cluster=self.onboarding.cluster_name,
            cluster_id=self.facts.cluster_id,
            vpc_id=self.facts.cluster.vpc_id if self.facts.cluster else "",
            path=self.onboarding.path,
        )

    @property
    def cluster(self) -> Cluster:
        """The cluster. Raises PermanentError where EKS does not know it."""
        if self.facts.cluster is None:
            raise PermanentError(
                f"Create cluster {self.onboarding.cluster_name} in {self.place.region} first: "
                "EKS does not know it"
            )
        return self.facts.cluster

    @property
    def known_ids(self) -> tuple[str, ...]:
        """Every id under which CAST AI knows or knew the cluster: names carry it."""
        ids = (self.facts.cluster_id, *self.facts.former_ids)
        return tuple(dict.fromkeys(each for each in ids if each))

    @property
    def replaced_ids(self) -> tuple[str, ...]:
        """CAST AI's former ids of the cluster: what carries them is removed in the end."""
        return tuple(each for each in self.known_ids if each != self.facts.cluster_id)

    @property
    def owner(self) -> Owner:
        """Whose the things are that this run makes."""
        return Owner(self.scope.cluster_arn, self.resource)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything that this run makes; they remember CAST AI's id of the cluster."""
        return self.owner.tags({**self.onboarding.tags, CLUSTER_ID_TAG: self.facts.cluster_id})

    def kube(self) -> Kube:
        """A client for the cluster's Kubernetes API."""
        return self.kubernetes.kube(self.cluster)

    def ask(self, what: str, call: Callable[[], T], *, again_on: Collection[str] = ()) -> T:
        """One AWS call; `what` is its name in IAM. Error codes in `again_on` pass with time.

        Raises AwsRefusedError, or AwsUnavailableError when the time is used up.
        """

        def once() -> T:
            try:
                with aws.explained(what):
                    return call()
            except AwsRefusedError as error:
                if error.code in again_on:
                    raise _NotYetError(error) from error
                raise

        until = min(self.deadline, self.clock.now() + CALL_PATIENCE)
        try:
            return retry.call(once, until=until, clock=self.clock)
        except _NotYetError as error:
            raise error.refusal from error

    def find(
        self,
        what: str,
        call: Callable[[], T],
        *,
        missing: Collection[str],
        again_on: Collection[str] = (),
    ) -> T | None:
        """As `ask`, and None where AWS answers with one of the codes in `missing`."""
        try:
            return self.ask(what, call, again_on=again_on)
        except AwsRefusedError as error:
            if error.code in missing:
                return None
            raise

    def pages(
        self,
        what: str,
        call: Callable[..., Any],
        *,
        missing: Collection[str] = (),
        **arguments: object,
    ) -> Iterator[Any]:
        """Every page of a listing; none where AWS answers with one of the codes in `missing`.

        A page may be empty and not the last. Each is asked for as `ask` does: the SDK's paginator
        would begin the listing anew after a page that was throttled.
        """
        while True:
            page = self.find(what, lambda: call(**arguments), missing=missing)
            if page is None:
                return
            yield page
            token = next((name for name in _TOKENS if page.get(name)), None)
            if token is None:
                return
            arguments[token] = page[token]

    def may_take(self, thing: str, tags: Mapping[str, str], *, shared: bool = False) -> bool:
        """Whether an existing thing is ours, or may be adopted; else it is noted as a conflict."""
        ours = ownership.is_shared(tags) if shared else self.owner.owns(tags)
        if ours or self.onboarding.adopt:
            return True
        self.ledger.conflict(thing, ownership.described(tags))
        return False

    def tag_changes(
        self, found: Mapping[str, str], wanted: Mapping[str, str]
    ) -> tuple[dict[str, str], list[str]]:
        """Tags to set, and keys to remove: those of the user's that an Update no longer has."""
        dropped = set(self.previous.tags if self.previous else ()) - set(wanted)
        missing = {key: value for key, value in wanted.items() if found.get(key) != value}
        return missing, sorted(dropped & set(found))


class _NotYetError(RetryableError):
    """AWS refuses what it will accept in a moment: it has not heard of what was just made."""

    def __init__(self, refusal: AwsRefusedError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


def tag_list(tags: Mapping[str, str]) -> Any:  # noqa: ANN401 - each service has its own type
    """Tags as IAM, EC2 and Secrets Manager take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_map(tags: Any) -> dict[str, str]:  # noqa: ANN401 - each service has its own type
    """Tags as IAM, EC2 and Secrets Manager give them."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}
