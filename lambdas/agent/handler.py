"""The boundary of `Custom::CastEksAgent`: a request of the Provider framework in, an answer out.

One function serves both of the framework's calls. onEvent does the work; what it returns comes
back with every isComplete, so a request that carries READY_UNTIL is one of those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from lambdas.agent import lifecycle, readiness
from lambdas.agent.lifecycle import Connected
from lambdas.agent.manifest import render
from lambdas.agent.properties import Agent, cluster_of, parse
from lambdas.agent.readiness import Readiness
from lambdas.common import api_key, aws, cloudformation, custom_resource, retry, temporary_access
from lambdas.common import eks as clusters
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.cloudformation import Event, RequestType
from lambdas.common.custom_resource import RequestFailedError, logger
from lambdas.common.eks import Cluster
from lambdas.common.errors import AwsRefusedError, CastaiError, RetryableError
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.kubernetes_session import Access, KubernetesSession, OpenKube, open_kube
from lambdas.common.logs import quiet_libraries
from lambdas.common.names import AGENT, CLUSTER_ADMIN, VIEW
from lambdas.common.temporary_access import Grant

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

READY_UNTIL: Final = "ReadyUntil"
"""In onEvent's answer: epoch seconds at which waiting for the agent ends."""
RESERVE: Final = temporary_access.CALL_PATIENCE + 5.0  # s kept to remove the function's own access
END_OF_WAIT: Final = 2 * temporary_access.CALL_PATIENCE  # s more, after the last check: two reads

RIGHTS_KNOWN_AFTER: Final = 60.0  # s until EKS knows a new policy of our role; usually a few

_GONE: Final = "ResourceNotFoundException"
_DENIED: Final = "AccessDeniedException"
ADMIN: Final = Grant(CLUSTER_ADMIN)
VIEWER: Final = Grant(VIEW, (AGENT,))

quiet_libraries()

T = TypeVar("T")
OpenApi = Callable[[str, str, Clock, float], CastaiApi]


@dataclass(frozen=True)
class Dependencies:
    """Clients and openers of an invocation; tests replace them."""

    eks: EKSClient
    secrets: SecretsManagerClient
    region: str
    own_role: str
    open_kube: OpenKube
    open_api: OpenApi
    clock: Clock = SYSTEM


@cache
def dependencies() -> Dependencies:
    """Built once per container. Raises SettingsError."""
    own_role = custom_resource.own_role()
    session = aws.session()
    return Dependencies(
        eks=session.client("eks", config=aws.CONFIG),
        secrets=session.client("secretsmanager", config=aws.CONFIG),
        region=aws.region(session),
        own_role=own_role,
        open_kube=open_kube,
        open_api=lambda key, url, clock, until: CastaiApi(key, url, clock=clock, deadline=until),
    )


def lambda_handler(event: Event, context: LambdaContext) -> dict[str, Any]:
    """Answer the Provider framework. Raises RequestFailedError with the reason of a failure."""
    remaining = context.get_remaining_time_in_millis() / 1000
    with custom_resource.answered_errors():
        custom_resource.check_stack(event)
        return respond(event, dependencies(), remaining=remaining)


def respond(event: Event, deps: Dependencies, *, remaining: float) -> dict[str, Any]:
    """`remaining`: seconds until Lambda ends this invocation. Raises CastaiError."""
    until = deps.clock.now() + remaining - RESERVE
    if READY_UNTIL in event:
        return _is_complete(event, deps, until)
    if cloudformation.request_type(event) is RequestType.DELETE:
        return _delete(event, deps, until)
    return _create_or_update(event, deps, until)


def _create_or_update(event: Event, deps: Dependencies, until: float) -> dict[str, Any]:
    agent = parse(cloudformation.resource_properties(event))
    key = _key(deps, agent)
    cluster = _new_cluster(deps, agent.cluster_name)
    ref = lifecycle.cluster_ref(cluster)
    done: Connected | None = None
    try:
        with _access(deps, cluster, ADMIN, until) as kube, _api(deps, agent, key, until) as api:
            done = lifecycle.connect(
                kube,
                api,
                ref,
                render(agent, ref, key),
                owner=cloudformation.owner(event),
                until=until,
                clock=deps.clock,
            )
    except CastaiError as error:
        if done is None:
            raise
        # A Create that fails now would leave all objects. The wait replaces the entry and ends it.
        logger().warning("The function's access stays for now", extra={"error": str(error)})
    logger().info("Applied", extra={"cluster": cluster.name, "changes": vars(done.changes)})
    physical_id = f"{AGENT}:{ref.account}:{ref.region}:{ref.name}"
    if left := _left_cluster(event, cluster.name, physical_id):
        _clean_up(deps, left, event, until)
    return {
        "PhysicalResourceId": physical_id,
        READY_UNTIL: int(deps.clock.now()) + agent.ready_within,
        "Data": {"ClusterId": done.cluster_id, "Namespace": AGENT, "Image": agent.image},
    }


def _is_complete(event: Event, deps: Dependencies, until: float) -> dict[str, Any]:
    """Check once. The function's access stays from one check to the next and ends with the wait."""
    if cloudformation.request_type(event) is RequestType.DELETE:
        return {"IsComplete": True}  # onEvent returned when everything was gone
    agent = parse(cloudformation.resource_properties(event))
    over = deps.clock.now() >= _ready_until(event)
    cluster_id = _cluster_id(event)
    try:
        found = _check(agent, cluster_id, deps, until - END_OF_WAIT)
        logger().info("Looked", extra={"cluster": agent.cluster_name, "found": found.sentence})
        if found.ready:
            _end_wait(deps, agent.cluster_name)
    except RetryableError as error:
        found = Readiness(ready=False, sentence=str(error))
    except BaseException as error:
        _end_wait_after(error, deps, agent.cluster_name)
        raise
    if over and not found.ready:
        failure = RequestFailedError(f"{found.sentence} (waited {agent.ready_within} s)")
        _end_wait_after(failure, deps, agent.cluster_name)
        raise failure
    return {"IsComplete": found.ready}


def _ready_until(event: Event) -> float:
    try:
        return float(event[READY_UNTIL])
    except (TypeError, ValueError):
        raise cloudformation.malformed(READY_UNTIL) from None


def _cluster_id(event: Event) -> str:
    data = event.get("Data")
    return cloudformation.text(data if isinstance(data, Mapping) else {}, "ClusterId")


def _check(agent: Agent, cluster_id: str, deps: Dependencies, until: float) -> Readiness:
    key = _key(deps, agent)
    cluster = _cluster(deps, agent.cluster_name)

    def access(to: Cluster) -> AbstractContextManager[float]:
        """The access stays from one check to the next, until `_end_wait`."""
        return nullcontext(
            temporary_access.begin_wait(deps.eks, to, deps.own_role, VIEWER, clock=deps.clock)
        )

    with _session(deps, access, until) as session, _api(deps, agent, key, until) as api:
        return readiness.look(session.kube(cluster), api, cluster_id)


def _end_wait(deps: Dependencies, name: str) -> None:
    temporary_access.end_wait(deps.eks, _cluster(deps, name), deps.own_role, clock=deps.clock)


def _end_wait_after(error: BaseException, deps: Dependencies, name: str) -> None:
    """End it after a failed wait. A second error is added to the first as a note."""
    try:
        _end_wait(deps, name)
    except CastaiError as second:
        if not (isinstance(second, AwsRefusedError) and second.code == _GONE):
            error.add_note(f"Remove access entry {deps.own_role} by hand as well: {second}")


def _key(deps: Dependencies, agent: Agent) -> str:
    return _retried(deps, lambda: api_key.read(deps.secrets, agent.api_key_secret))


def _cluster(deps: Dependencies, name: str) -> Cluster:
    return _retried(deps, lambda: clusters.describe(deps.eks, name, region=deps.region))


def _new_cluster(deps: Dependencies, name: str) -> Cluster:
    """The cluster; retried until EKS knows the policy that allows it.

    That policy is made with the cluster's resource, a moment before the first request.
    """
    until = deps.clock.now() + RIGHTS_KNOWN_AFTER
    calls = AwsCalls(deps.clock, until=lambda: until)
    return calls.retrying({_DENIED}).run(lambda: _cluster(deps, name))


def _retried(deps: Dependencies, call: Callable[[], T]) -> T:
    """One call to AWS with its retries, which the SDK leaves to us (aws.CONFIG)."""
    until = deps.clock.now() + temporary_access.CALL_PATIENCE
    return retry.call(call, until=until, clock=deps.clock)


def _left_cluster(event: Event, name: str, physical_id: str) -> str:
    """The cluster of a failed Update that this rollback leaves; empty if there is none.

    CloudFormation sends a Delete only for a physical id that it knows. A failed Update to another
    cluster gave it none: the rollback comes with the id of the former cluster, which it keeps.
    """
    old = event.get("OldResourceProperties")
    if event.get("PhysicalResourceId") != physical_id or not isinstance(old, Mapping):
        return ""
    former = old.get("ClusterName")
    return former if isinstance(former, str) and former != name else ""


def _clean_up(deps: Dependencies, name: str, event: Event, until: float) -> None:
    """Remove what a failed Update made in another cluster. The rollback succeeds without it."""
    try:
        _remove(deps, name, event, until)
    except CastaiError as error:
        logger().warning(
            "A cluster could not be cleaned up", extra={"cluster": name, "error": str(error)}
        )


def _delete(event: Event, deps: Dependencies, until: float) -> dict[str, Any]:
    """Remove what is ours."""
    _remove(deps, cluster_of(cloudformation.resource_properties(event)), event, until)
    return {
        "PhysicalResourceId": cloudformation.text(event, "PhysicalResourceId"),
        READY_UNTIL: 0,
    }


def _remove(deps: Dependencies, name: str, event: Event, until: float) -> None:
    """Remove what is ours in a cluster. One that no longer exists holds nothing."""
    try:
        cluster = _cluster(deps, name)
    except AwsRefusedError as error:
        if error.code == _GONE:
            return
        raise
    with _access(deps, cluster, ADMIN, until) as kube:
        changes = lifecycle.disconnect(
            kube, owner=cloudformation.owner(event), until=until, clock=deps.clock
        )
    logger().info("Removed", extra={"cluster": name, "changes": vars(changes)})


@contextmanager
def _access(deps: Dependencies, cluster: Cluster, grant: Grant, until: float) -> Iterator[Kube]:
    access = temporary_access.access_for(deps.eks, deps.own_role, grant, clock=deps.clock)
    with _session(deps, access, until) as session:
        yield session.kube(cluster)


def _session(deps: Dependencies, access: Access, until: float) -> KubernetesSession:
    return KubernetesSession(access, until=until, open_kube=deps.open_kube, clock=deps.clock)


def _api(deps: Dependencies, agent: Agent, key: str, until: float) -> CastaiApi:
    return deps.open_api(key, agent.api_url, deps.clock, until)
