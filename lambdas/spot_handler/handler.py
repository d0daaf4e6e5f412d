"""The boundary: an EventBridge event in, an outcome out. No logic."""

from __future__ import annotations

import asyncio
import os
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from lambdas.common import aws
from lambdas.common.clock import SYSTEM
from lambdas.common.errors import CastaiError, bug
from lambdas.common.logs import quiet_libraries
from lambdas.common.text import cut
from lambdas.spot_handler import interruption, lean_sdk, notices, report
from lambdas.spot_handler.interruption import Dependencies
from lambdas.spot_handler.node_api import transport
from lambdas.spot_handler.nodes import Clusters
from lambdas.spot_handler.result import Outcome, Result
from lambdas.spot_handler.settings import Environment

if TYPE_CHECKING:
    import botocore.session
    from aws_lambda_powertools.utilities.typing import LambdaContext
    from mypy_boto3_ec2 import EC2Client

    from lambdas.spot_handler.notify_castai import CastAi

quiet_libraries()

# s kept for the report when the function's own time runs out before the notice does
REPORT_RESERVE = 3.0


@cache
def dependencies() -> Dependencies:
    """Built once per container. Raises SettingsError."""
    settings = Environment.from_env(os.environ)
    report.logger().setLevel(settings.log_level.value)
    session = lean_sdk.session()
    return Dependencies(
        settings=settings,
        ec2=cast("EC2Client", session.create_client("ec2", config=aws.CONFIG)),
        clusters=Clusters(session, SYSTEM),
        transport=lambda ca_pem, connections: transport(ca_pem, connections=connections),
        clock=SYSTEM,
        castai=_castai(settings, session),
    )


def _castai(settings: Environment, session: botocore.session.Session) -> CastAi | None:
    if not settings.api_key_secret:
        return None
    from lambdas.spot_handler import notify_castai  # noqa: PLC0415 - httpx2 and botocore only then

    read_key = notify_castai.key_reader(session, settings.api_key_secret)
    return notify_castai.CastAi(settings.api_url, read_key, SYSTEM)


def lambda_handler(event: object, context: LambdaContext) -> dict[str, Any]:
    """Handle one EventBridge event; the result's shape is in docs/spot-handler.md.

    Returns for everything that a retry would not change: unknown, foreign and malformed events,
    nodes that are gone, pods that are left. Raises where AWS or the cluster did not answer within
    the deadline, or where rights or settings are missing, so that Lambda tries again and then hands
    the event to the on-failure destination.
    """
    remaining = context.get_remaining_time_in_millis() / 1000
    return asyncio.run(respond(event, dependencies(), remaining=remaining))


async def respond(event: object, deps: Dependencies, *, remaining: float) -> dict[str, Any]:
    """As `lambda_handler`, in the running event loop.

    `remaining`: seconds until Lambda ends this invocation.
    """
    now = deps.clock.now()
    log = report.logger()
    try:
        notice = notices.parse(event, now=now, drill_sources=deps.settings.drill_sources)
        if notice is None:
            reason = "no parser for this kind of event, or its source is not in DRILL_SOURCES"
            result = Result(Outcome.IGNORED, reason=reason, started=now, ended=now)
        else:
            log.append_keys(instance=notice.instance, event_id=notice.event_id)
            time_limit = now + remaining - REPORT_RESERVE
            result = await interruption.handle(notice, deps, time_limit=time_limit)
    except notices.NoticeError as error:
        event_id = cut(event.get("id", "")) if isinstance(event, dict) else ""
        result = Result(
            Outcome.REJECTED, reason=str(error), event_id=event_id, started=now, ended=now
        )
    except CastaiError as error:
        raise _logged(error) from None
    except Exception as error:  # noqa: BLE001 - its text may hold anything
        raise _logged(bug(error)) from None
    finally:
        log.remove_keys(["instance", "event_id"])
    report.log(result)
    report.measure(result)
    return result.as_dict()


def _logged(error: CastaiError) -> CastaiError:
    """Log the error without its cause, whose text may be long or repeat a signed request."""
    fault = "; ".join([str(error), *getattr(error, "__notes__", ())])
    report.logger().error("The drain failed", extra={"fault": fault})
    return error
