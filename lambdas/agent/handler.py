"""The boundary of `Custom::CastEksAgent`: a request of the Provider framework in, an answer out.

One function serves both of the framework's calls. onEvent does the work; what it returns comes
back with every isComplete, so a request that carries READY_UNTIL is one of those.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aws_lambda_powertools import Logger

from lambdas.agent import lifecycle, readiness
from lambdas.agent.manifest import render
from lambdas.agent.properties import Agent, cluster_of, parse
from lambdas.agent.readiness import Readiness
from lambdas.common import api_key, aws, own_stack, retry, temporary_access
from lambdas.common import eks as clusters
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster
from lambdas.common.errors import (
    AwsRefusedError,
    CastaiError,
    RetryableError,
    SettingsError,
    bug,
)
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.kubernetes_session import Access, KubernetesSession, OpenKube, open_kube
from lambdas.common.logs import quiet_libraries
from lambdas.common.names import AGENT, OWN_ROLE_VARIABLE
from lambdas.common.temporary_access import CLUSTER_ADMIN, VIEW, Grant
from lambdas.common.text import cut_lines

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_secretsmanager import SecretsManagerClient

READY_UNTIL: Final = "ReadyUntil"
"""In onEvent's answer: epoch seconds at which waiting for the agent ends."""
RESERVE: Final = temporary_access.CALL_PATIENCE + 5.0  # s kept to take our own access back
END_OF_WAIT: Final = 2 * temporary_access.CALL_PATIENCE  # s more, after the last look: two reads

RIGHTS_KNOWN_AFTER: Final = 60.0  # s until EKS knows a new policy of our role; usually a few

_GONE: Final = "ResourceNotFoundException"
_DENIED: Final = "AccessDeniedException"
ADMIN: Final = Grant(CLUSTER_ADMIN)
VIEWER: Final = Grant(VIEW, (AGENT,))

quiet_libraries()

Event = Mapping[str, Any]
T = TypeVar("T")
OpenApi = Callable[[str, str, Clock, float], CastaiApi]


class AgentResourceError(CastaiError):
    """The reason that CloudFormation shows: what failed, and what could not be undone."""


@dataclass(frozen=True)
class Means:
    """What an invocation works with; tests put others in their place."""

    eks: EKSClient
    secrets: SecretsManagerClient
    region: str
    own_role: str
    open_kube: OpenKube
    open_api: OpenApi
    clock: Clock = SYSTEM


@cache
def means() -> Means:
    """Built once per container. Raises SettingsError."""
    own_role = os.environ.get(OWN_ROLE_VARIABLE, "")
    if not own_role:
        raise SettingsError(f"Set {OWN_ROLE_VARIABLE} to the ARN of this function's role")
    session = aws.session()
    return Means(
        eks=session.client("eks", config=aws.CONFIG),
        secrets=session.client("secretsmanager", config=aws.CONFIG),
        region=aws.region(session),
        own_role=own_role,
        open_kube=open_kube,
        open_api=lambda key, url, clock, until: CastaiApi(key, url, clock=clock, deadline=until),
    )


@cache
def logger() -> Logger:
    """The function's logger; requests are never logged."""
    return Logger()


def lambda_handler(event: Event, context: LambdaContext) -> dict[str, Any]:
    """Answer the Provider framework. Raises AgentResourceError with the reason of a failure."""
    remaining = context.get_remaining_time_in_millis() / 1000
    with _reported():
        own_stack.check(event)
        tools = means()
    return respond(event, tools, remaining=remaining)


def respond(event: Event, tools: Means, *, remaining: float) -> dict[str, Any]:
    """`remaining`: seconds until Lambda ends this invocation."""
    until = tools.clock.now() + remaining - RESERVE
    with _reported():
        if READY_UNTIL in event:
            return _is_complete(event, tools, until)
        if event["RequestType"] == "Delete":
            return _delete(event, tools, until)
        return _create_or_update(event, tools, until)


@contextmanager
def _reported() -> Iterator[None]:
    """Every error as an AgentResourceError, without its cause.

    The cause may quote a server at length, or hold a secret: Lambda would log it.
    """
    try:
        yield
    except CastaiError as error:
        raise _failure(error) from None
    except Exception as error:  # noqa: BLE001 - CloudFormation gets an answer on every path
        raise _failure(bug(error)) from None


def _failure(error: CastaiError) -> AgentResourceError:
    """Logged, and cut to what CloudFormation takes."""
    reason = "\n".join([str(error), *getattr(error, "__notes__", ())])
    logger().error("The request failed", extra={"reason": reason})
    return AgentResourceError(cut_lines(reason))


def _create_or_update(event: Event, tools: Means, until: float) -> dict[str, Any]:
    wish = parse(event["ResourceProperties"])
    key = _key(tools, wish)
    cluster = _new_cluster(tools, wish.cluster_name)
    place = lifecycle.place(cluster)
    with _access(tools, cluster, ADMIN, until) as kube, _api(tools, wish, key, until) as api:
        done = lifecycle.connect(
            kube,
            api,
            place,
            render(wish, place, key),
            owner=_owner(event),
            until=until,
            clock=tools.clock,
        )
    logger().info("Applied", extra={"cluster": cluster.name, "changes": vars(done.changes)})
    return {
        "PhysicalResourceId": f"{AGENT}:{place.account}:{place.region}:{place.cluster}",
        READY_UNTIL: int(tools.clock.now()) + wish.ready_within,
        "Data": {"ClusterId": done.cluster_id, "Namespace": AGENT, "Image": wish.image},
    }


def _is_complete(event: Event, tools: Means, until: float) -> dict[str, Any]:
    """One look. Our access stays from one look to the next and ends with the wait."""
    if event["RequestType"] == "Delete":
        return {"IsComplete": True}  # onEvent returned when everything was gone
    wish = parse(event["ResourceProperties"])
    over = tools.clock.now() >= float(event[READY_UNTIL])
    try:
        found = _look(wish, event["Data"]["ClusterId"], tools, until - END_OF_WAIT)
        logger().info("Looked", extra={"cluster": wish.cluster_name, "found": found.sentence})
        if found.ready:
            _end_wait(tools, wish.cluster_name)
    except RetryableError as error:
        found = Readiness(ready=False, sentence=str(error))
    except BaseException as error:
        _end_wait_after(error, tools, wish.cluster_name)
        raise
    if over and not found.ready:
        failure = AgentResourceError(f"{found.sentence} (waited {wish.ready_within} s)")
        _end_wait_after(failure, tools, wish.cluster_name)
        raise failure
    return {"IsComplete": found.ready}


def _look(wish: Agent, cluster_id: str, tools: Means, until: float) -> Readiness:
    key = _key(tools, wish)
    cluster = _cluster(tools, wish.cluster_name)

    def access(to: Cluster) -> AbstractContextManager[float]:
        """The access stays from one look to the next, until `_end_wait`."""
        return nullcontext(
            temporary_access.begin_wait(tools.eks, to, tools.own_role, VIEWER, clock=tools.clock)
        )

    with _session(tools, access, until) as session, _api(tools, wish, key, until) as api:
        return readiness.look(session.kube(cluster), api, cluster_id)


def _end_wait(tools: Means, name: str) -> None:
    temporary_access.end_wait(tools.eks, _cluster(tools, name), tools.own_role, clock=tools.clock)


def _end_wait_after(error: BaseException, tools: Means, name: str) -> None:
    """End it although the wait has failed; what fails as well is added to the error."""
    try:
        _end_wait(tools, name)
    except CastaiError as second:
        if not (isinstance(second, AwsRefusedError) and second.code == _GONE):
            error.add_note(f"Remove access entry {tools.own_role} by hand as well: {second}")


def _key(tools: Means, wish: Agent) -> str:
    return _patiently(tools, lambda: api_key.read(tools.secrets, wish.api_key_secret))


def _cluster(tools: Means, name: str) -> Cluster:
    return _patiently(tools, lambda: clusters.describe(tools.eks, name, region=tools.region))


def _new_cluster(tools: Means, name: str) -> Cluster:
    """The cluster, waited for while IAM has not told EKS of the policy that names it.

    That policy is made with the cluster's resource, a moment before the first request.
    """
    until = tools.clock.now() + RIGHTS_KNOWN_AFTER
    calls = AwsCalls(tools.clock, until=lambda: until)
    return calls.retrying({_DENIED}).run(lambda: _cluster(tools, name))


def _patiently(tools: Means, call: Callable[[], T]) -> T:
    """One call to AWS, repeated while it is throttled: the SDK does not (aws.CONFIG)."""
    until = tools.clock.now() + temporary_access.CALL_PATIENCE
    return retry.call(call, until=until, clock=tools.clock)


def _delete(event: Event, tools: Means, until: float) -> dict[str, Any]:
    """Remove what is ours; a cluster that is gone has taken it along."""
    answer = {"PhysicalResourceId": event["PhysicalResourceId"], READY_UNTIL: 0}
    name = cluster_of(event["ResourceProperties"])
    try:
        cluster = _cluster(tools, name)
    except AwsRefusedError as error:
        if error.code == _GONE:
            return answer
        raise
    with _access(tools, cluster, ADMIN, until) as kube:
        changes = lifecycle.disconnect(kube, owner=_owner(event), until=until, clock=tools.clock)
    logger().info("Removed", extra={"cluster": name, "changes": vars(changes)})
    return answer


@contextmanager
def _access(tools: Means, cluster: Cluster, grant: Grant, until: float) -> Iterator[Kube]:
    access = temporary_access.access_for(tools.eks, tools.own_role, grant, clock=tools.clock)
    with _session(tools, access, until) as session:
        yield session.kube(cluster)


def _session(tools: Means, access: Access, until: float) -> KubernetesSession:
    return KubernetesSession(access, until=until, open_kube=tools.open_kube, clock=tools.clock)


def _api(tools: Means, wish: Agent, key: str, until: float) -> CastaiApi:
    return tools.open_api(key, wish.api_url, tools.clock, until)


def _owner(event: Event) -> str:
    """Which resource of which stack: `<stack>/<logical id>`."""
    stack = str(event["StackId"])
    return f"{stack.split('/')[1] if '/' in stack else stack}/{event['LogicalResourceId']}"
