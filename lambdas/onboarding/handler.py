"""The handler of `Custom::CastEksOnboarding`: a request of the Provider framework in, attributes
out.

One invocation does all the work, so there is no isComplete: only the run that created something
knows how to undo it. Every wait lasts seconds.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from lambdas.common import custom_resource, temporary_access
from lambdas.common.cloudformation import Event, RequestType
from lambdas.common.custom_resource import logger
from lambdas.common.errors import PermanentError
from lambdas.common.logs import quiet_libraries
from lambdas.onboarding import names, session, steps
from lambdas.onboarding.ledger import Row
from lambdas.onboarding.properties import Onboarding, Request, parse_request
from lambdas.onboarding.session import Dependencies

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.typing import LambdaContext

# s kept at the end of an invocation: to remove the function's own access to the cluster, which is
# an administrator's, with the retries of that call; and to answer.
RESERVE: Final = temporary_access.CALL_PATIENCE + 15.0

quiet_libraries()


@cache
def dependencies() -> Dependencies:
    """Built once per container. Raises SettingsError, or AwsRefusedError without an identity."""
    return session.dependencies_of(custom_resource.own_role())


def lambda_handler(event: Event, context: LambdaContext) -> dict[str, Any]:
    """Answer the Provider framework's onEvent. Raises RequestFailedError with the reason."""
    remaining = context.get_remaining_time_in_millis() / 1000
    with custom_resource.answered_errors():
        custom_resource.check_stack(event)
        return respond(event, dependencies(), remaining=remaining)


def respond(event: Event, deps: Dependencies, *, remaining: float) -> dict[str, Any]:
    """`remaining`: seconds until Lambda ends this invocation. Raises CastaiError."""
    request = parse_request(event)
    properties = request.onboarding
    if request.type is RequestType.DELETE and properties.retain_on_delete:
        logger().info("Retained", extra={"cluster": properties.cluster_name})
        return {"PhysicalResourceId": request.physical_id}
    until = deps.clock.now() + remaining - RESERVE
    key = _api_key(request, deps, until)
    with session.opened(request, deps, key=key, until=until) as ctx:
        if request.type is RequestType.DELETE:
            _log(properties, steps.offboard(ctx))
            return {"PhysicalResourceId": request.physical_id}
        done = steps.onboard(ctx)
        _log(properties, done.rows)
        place = deps.place
        return {
            "PhysicalResourceId": names.physical_id(
                place.account, place.region, properties.cluster_name
            ),
            "Data": done.attributes,
        }


def _api_key(request: Request, deps: Dependencies, until: float) -> str | None:
    """CAST AI's API key; None without a secret, and on a Delete whose secret cannot be read."""
    secret = request.onboarding.api_key_secret
    if not secret:
        return None
    try:
        return session.read_key(deps, secret, until=until)
    except PermanentError:
        if request.type is not RequestType.DELETE:
            raise
        logger().warning("Disconnect in CAST AI's console: the API key cannot be read")
        return None


def _log(properties: Onboarding, rows: list[Row]) -> None:
    done = [f"{row.action} {row.thing} {row.detail}".rstrip() for row in rows]
    logger().info("Done", extra={"cluster": properties.cluster_name, "rows": done})
