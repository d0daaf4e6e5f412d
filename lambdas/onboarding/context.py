"""The context of one run: properties, clients, clock, and what the preflight checks found."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar

from lambdas.common.aws_calls import AwsCalls
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster
from lambdas.common.errors import AwsUnavailableError, PermanentError
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.kubernetes_session import KubernetesSession
from lambdas.common.names import CLUSTER_ID_TAG
from lambdas.onboarding import ownership
from lambdas.onboarding.ledger import Ledger
from lambdas.onboarding.ownership import Owner
from lambdas.onboarding.policies.scope import Scope
from lambdas.onboarding.properties import Onboarding

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

P = ParamSpec("P")
T = TypeVar("T")

# s for one AWS call with its retries: throttling and IAM's propagation usually pass in 10-20 s.
CALL_PATIENCE: Final = 60.0


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
    """Partition, region and account of this run."""

    partition: str
    region: str
    account: str


@dataclass(frozen=True)
class Facts:
    """What the preflight checks found. Only `preflight` sets it; no step changes it."""

    cluster: Cluster | None = None
    """None if the cluster does not exist."""
    cluster_id: str = ""
    """CAST AI's id of the cluster."""
    former_ids: tuple[str, ...] = ()
    """CAST AI's former ids of the cluster, from our tags and the previous properties."""
    principal: str = ""
    """CAST AI's principal, which may assume the role in role mode; empty in a plan without it."""


@dataclass
class Context:
    """One run of the steps for one cluster."""

    onboarding: Onboarding
    place: Place
    resource: str
    """Owner of what the run creates: `<stack>/<logical id>`."""
    clients: Clients
    api: CastaiApi | None
    kubernetes: KubernetesSession
    deadline: float
    """Epoch seconds at which the run stops waiting; the time to undo comes after it."""
    agent_problem: Callable[[Kube], str]
    """What is wrong with the castai-agent of the cluster; empty where it is available."""
    clock: Clock = SYSTEM
    previous: Onboarding | None = None
    """The properties before an Update."""
    plan_only: bool = False
    """Nothing is written, also not at CAST AI. Ids that only a write returns stay unknown."""
    discover: bool = False
    """A removal by what exists, because the properties of the onboarding are not known."""
    ledger: Ledger = field(default_factory=Ledger)
    facts: Facts = Facts()
    replaced_keys: tuple[str, ...] = ()
    """Ids of access keys to remove, because CAST AI has a new one."""
    reads: dict[object, Any] = field(default_factory=dict)
    """Users and roles that were read with `plan_only`. They do not change and are read once."""

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
        """The cluster. Raises PermanentError if it does not exist."""
        if self.facts.cluster is None:
            raise PermanentError(
                f"Create cluster {self.onboarding.cluster_name} in {self.place.region} first: "
                "it does not exist"
            )
        return self.facts.cluster

    @property
    def known_ids(self) -> tuple[str, ...]:
        """Every id that the cluster has or had at CAST AI. Names of resources contain it."""
        ids = (self.facts.cluster_id, *self.facts.former_ids)
        return tuple(dict.fromkeys(each for each in ids if each))

    @property
    def replaced_ids(self) -> tuple[str, ...]:
        """CAST AI's former ids of the cluster. Resources with these ids are removed at the end."""
        return tuple(each for each in self.known_ids if each != self.facts.cluster_id)

    @property
    def every_properties(self) -> tuple[Onboarding, ...]:
        """The properties, and those before an Update."""
        return tuple(each for each in (self.onboarding, self.previous) if each)

    @property
    def policy_arn(self) -> str:
        """ARN of the managed policy of CAST AI's identity."""
        return self.scope.policy_arn(account_wide=self.onboarding.account_wide_policy)

    @property
    def owner(self) -> Owner:
        """The owner of what this run creates."""
        return Owner(self.scope.cluster_arn, self.resource)

    @property
    def tags(self) -> dict[str, str]:
        """The tags of everything that this run creates, with CAST AI's id of the cluster."""
        return self.owner.tags({**self.onboarding.tags, CLUSTER_ID_TAG: self.facts.cluster_id})

    def kube(self) -> Kube:
        """A client for the cluster's Kubernetes API."""
        return self.kubernetes.kube(self.cluster)

    @property
    def aws(self) -> AwsCalls:
        """Calls to AWS within the time of this run.

        Raises AwsUnavailableError when that is over: the rest of the time is for the undo, also
        where each call succeeds, but slowly.
        """
        if self.clock.now() >= self.deadline:
            raise AwsUnavailableError(
                "Try again: the calls to AWS took all the time that this run has"
            )
        return AwsCalls(
            self.clock, until=lambda: min(self.deadline, self.clock.now() + CALL_PATIENCE)
        )

    def call(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """`AwsCalls.call`."""
        return self.aws.call(method, *args, **kwargs)

    def find(self, method: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T | None:
        """`AwsCalls.find`: None if the thing does not exist."""
        return self.aws.find(method, *args, **kwargs)

    def pages(self, method: Callable[..., Any], /, **arguments: object) -> Iterator[Any]:
        """`AwsCalls.pages`."""
        return self.aws.pages(method, **arguments)

    def items(self, method: Callable[..., Any], key: str, /, **arguments: object) -> list[Any]:
        """`AwsCalls.items`."""
        return self.aws.items(method, key, **arguments)

    def find_items(self, method: Callable[..., Any], key: str, /, **arguments: object) -> list[Any]:
        """`AwsCalls.find_items`: empty if the thing whose items are listed does not exist."""
        return self.aws.find_items(method, key, **arguments)

    def retrying(self, codes: Collection[str]) -> AwsCalls:
        """Calls that are also retried when AWS refuses them with one of the codes."""
        return self.aws.retrying(codes)

    def may_take(self, label: str, tags: Mapping[str, str], *, shared: bool = False) -> bool:
        """Whether an existing thing is ours or may be adopted; else the ledger gets a conflict."""
        ours = ownership.is_shared(tags) if shared else self.owner.owns(tags)
        if ours or self.onboarding.adopt:
            return True
        self.ledger.conflict(label, ownership.described(tags))
        return False
