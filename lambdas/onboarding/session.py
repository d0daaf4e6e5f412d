"""Opens a run of the steps: clients, CAST AI's API, the cluster. For the handler and the CLI."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from lambdas.common import agent_status, api_key, aws, retry, temporary_access
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.kubernetes_session import (
    Access,
    KubernetesSession,
    OpenKube,
    existing_access,
    open_kube,
)
from lambdas.onboarding import steps
from lambdas.onboarding.context import CALL_PATIENCE, Clients, Context, Place
from lambdas.onboarding.properties import Request

OpenApi = Callable[[str, str, Clock, float], CastaiApi]


def agent_problem(kube: Kube) -> str:
    """What is wrong with the cluster's castai-agent; empty where it is available."""
    found = agent_status.check(kube)
    return "" if found.available else found.sentence


@dataclass(frozen=True)
class Dependencies:
    """The services that a run uses; tests replace them."""

    clients: Clients
    place: Place
    own_role: str | None
    """The role that gets temporary access to the cluster; None: the caller has access already."""
    open_api: OpenApi = lambda key, url, clock, until: CastaiApi(
        key, url, clock=clock, deadline=until
    )
    agent_problem: Callable[[Kube], str] = agent_problem
    open_kube: OpenKube = open_kube
    clock: Clock = SYSTEM


def dependencies_of(own_role: str | None) -> Dependencies:
    """The dependencies with the AWS identity that the SDK finds. `own_role`: see Dependencies.

    Raises AwsRefusedError without an identity or a region.
    """
    session = aws.session()
    region = aws.region(session)
    sts = session.client("sts", config=aws.CONFIG)
    calls = AwsCalls(SYSTEM, until=lambda: SYSTEM.now() + CALL_PATIENCE)
    caller = calls.call(sts.get_caller_identity)
    return Dependencies(
        clients=Clients(
            iam=session.client("iam", config=aws.CONFIG),
            ec2=session.client("ec2", config=aws.CONFIG),
            eks=session.client("eks", config=aws.CONFIG),
            secrets=session.client("secretsmanager", config=aws.CONFIG),
            functions=session.client("lambda", config=aws.CONFIG),
        ),
        place=Place(
            partition=caller["Arn"].split(":")[1], region=region, account=caller["Account"]
        ),
        own_role=own_role,
    )


def read_key(deps: Dependencies, secret: str, *, until: float) -> str:
    """CAST AI's API key. Raises AwsRefusedError, AwsUnavailableError or PermanentError."""
    return retry.call(
        lambda: api_key.read(deps.clients.secrets, secret),
        until=min(until, deps.clock.now() + CALL_PATIENCE),
        clock=deps.clock,
    )


@contextmanager
def opened(
    request: Request, deps: Dependencies, *, key: str | None, until: float
) -> Iterator[Context]:
    """The context of one run; connections and temporary access end with the `with`.

    `key`: CAST AI's API key; without it CAST AI's API is not called.
    `until`: epoch seconds at which the run has to end, the time to undo included.
    """
    access: Access = existing_access
    if deps.own_role is not None:
        access = temporary_access.access_for(deps.clients.eks, deps.own_role, clock=deps.clock)
    kubernetes = KubernetesSession(access, until=until, open_kube=deps.open_kube, clock=deps.clock)
    api = deps.open_api(key, request.onboarding.api_url, deps.clock, until) if key else None
    with api or nullcontext(), kubernetes:
        yield context_of(request, deps, api, kubernetes, until=until)


def context_of(
    request: Request,
    deps: Dependencies,
    api: CastaiApi | None,
    kubernetes: KubernetesSession,
    *,
    until: float,
) -> Context:
    """The context of one run. `until`: see `opened`."""
    previous = request.previous
    if previous and previous.cluster_name != request.onboarding.cluster_name:
        previous = None  # a replacement: CloudFormation sends a Delete for the old one
    return Context(
        onboarding=request.onboarding,
        place=deps.place,
        resource=request.resource,
        clients=deps.clients,
        api=api,
        kubernetes=kubernetes,
        deadline=until - steps.UNDO_TIME,
        agent_problem=deps.agent_problem,
        clock=deps.clock,
        previous=previous,
    )
