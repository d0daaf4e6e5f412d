"""The boundary of `Custom::CastEksOnboarding`: a request of the Provider framework in, attributes
out.

All is done within one invocation, so there is no isComplete: what a run has made is known to that
run only, and it takes it back when it fails. Every wait in it is one of seconds.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from aws_lambda_powertools import Logger

from lambdas.common import agent_status, api_key, aws, own_stack, retry, temporary_access
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster, Token, token_for
from lambdas.common.errors import CastaiError, PermanentError, SettingsError, bug
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.logs import quiet_libraries
from lambdas.common.names import OWN_ROLE_VARIABLE
from lambdas.common.text import cut_lines
from lambdas.onboarding import names, steps
from lambdas.onboarding.context import CALL_PATIENCE, Clients, Context, Place
from lambdas.onboarding.kubernetes_session import Door
from lambdas.onboarding.ledger import Row
from lambdas.onboarding.properties import Kind, Onboarding, Request, parse_request

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# s of an invocation kept for its very end: to take back our own access to the cluster, which is an
# administrator's, with the retries of that call; and to answer.
RESERVE: Final = temporary_access.CALL_PATIENCE + 15.0

quiet_libraries()

OpenApi = Callable[[str, str, Clock, float], CastaiApi]


class OnboardingResourceError(CastaiError):
    """The reason that CloudFormation shows."""


def agent_problem(kube: Kube) -> str:
    """What is wrong with the cluster's castai-agent; empty where nothing is."""
    found = agent_status.check(kube)
    return "" if found.available else found.sentence


@dataclass(frozen=True)
class Means:
    """What an invocation works with; tests put others in their place."""

    clients: Clients
    place: Place
    own_role: str | None
    """Who gives itself access to the cluster; None: whoever we are has it already."""
    open_api: OpenApi = lambda key, url, clock, until: CastaiApi(
        key, url, clock=clock, deadline=until
    )
    agent_problem: Callable[[Kube], str] = agent_problem
    token: Callable[[Cluster], Token] = token_for
    clock: Clock = SYSTEM


@cache
def means() -> Means:
    """Built once per container. Raises SettingsError, or AwsRefusedError without an identity."""
    own_role = os.environ.get(OWN_ROLE_VARIABLE, "")
    if not own_role:
        raise SettingsError(f"Set {OWN_ROLE_VARIABLE} to the ARN of this function's role")
    return means_of(own_role)


def means_of(own_role: str | None) -> Means:
    """As whoever the SDK finds. Raises AwsRefusedError without an identity or a region.

    own_role: see Means.
    """
    session = aws.session()
    region = aws.region(session)
    sts = session.client("sts", config=aws.CONFIG)

    def ask() -> Mapping[str, str]:
        with aws.translated_errors("sts:GetCallerIdentity"):
            return sts.get_caller_identity()  # type: ignore[return-value]

    caller = retry.call(ask, until=SYSTEM.now() + CALL_PATIENCE, clock=SYSTEM)
    return Means(
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


@cache
def logger() -> Logger:
    """The function's logger; requests and attributes are never logged."""
    return Logger()


def lambda_handler(event: Mapping[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Answer the Provider framework's onEvent. Raises OnboardingResourceError with the reason."""
    remaining = context.get_remaining_time_in_millis() / 1000
    try:
        own_stack.check(event)
        return respond(event, means(), remaining=remaining)
    except CastaiError as error:
        raise _failure(error) from None
    except Exception as error:  # noqa: BLE001 - CloudFormation gets an answer on every path
        raise _failure(bug(error)) from None


def respond(event: Mapping[str, Any], tools: Means, *, remaining: float) -> dict[str, Any]:
    """`remaining`: seconds until Lambda ends this invocation. Raises CastaiError."""
    request = parse_request(event)
    wish = request.onboarding
    if request.kind is Kind.DELETE and wish.retain_on_delete:
        logger().info("Retained", extra={"cluster": wish.cluster_name})
        return {"PhysicalResourceId": request.physical_id}
    until = tools.clock.now() + remaining - RESERVE
    with ExitStack() as ways_out:
        api = _api(request, tools, until)
        if api is not None:
            ways_out.enter_context(api)
        door = ways_out.enter_context(Door(tools.own_role, until=until, token=tools.token))
        ctx = context_of(request, tools, api, door, until=until)
        if request.kind is Kind.DELETE:
            _log(wish, steps.offboard(ctx))
            return {"PhysicalResourceId": request.physical_id}
        _log(wish, steps.onboard(ctx))
        place = tools.place
        return {
            "PhysicalResourceId": names.physical_id(place.account, place.region, wish.cluster_name),
            "Data": steps.attributes(ctx),
        }


def context_of(
    request: Request, tools: Means, api: CastaiApi | None, door: Door, *, until: float
) -> Context:
    """A run's context. `until`: the end of its time, that to undo included."""
    previous = request.previous
    if previous and previous.cluster_name != request.onboarding.cluster_name:
        previous = None  # a replacement: CloudFormation sends a Delete for the old one
    return Context(
        onboarding=request.onboarding,
        place=tools.place,
        resource=request.resource,
        clients=tools.clients,
        api=api,
        door=door,
        deadline=until - steps.UNDO_TIME,
        agent_problem=tools.agent_problem,
        clock=tools.clock,
        previous=previous,
    )


def _api(request: Request, tools: Means, until: float) -> CastaiApi | None:
    """CAST AI's API; on a Delete whose secret is gone already, it is left out."""
    wish = request.onboarding
    if not wish.api_key_secret:
        return None
    try:
        key = retry.call(
            lambda: api_key.read(tools.clients.secrets, str(wish.api_key_secret)),
            until=min(until, tools.clock.now() + CALL_PATIENCE),
            clock=tools.clock,
        )
    except PermanentError:
        if request.kind is not Kind.DELETE:
            raise
        logger().warning("Disconnect in CAST AI's console: the API key cannot be read")
        return None
    return tools.open_api(key, wish.api_url, tools.clock, until)


def _failure(error: CastaiError) -> OnboardingResourceError:
    """Logged, and cut to what CloudFormation takes. The cause's own text is not for a log."""
    reason = "\n".join([str(error), *getattr(error, "__notes__", ())])
    logger().error("The request failed", extra={"reason": reason})
    return OnboardingResourceError(cut_lines(reason))


def _log(wish: Onboarding, rows: list[Row]) -> None:
    done = [f"{row.action} {row.thing} {row.detail}".rstrip() for row in rows]
    logger().info("Done", extra={"cluster": wish.cluster_name, "rows": done})
