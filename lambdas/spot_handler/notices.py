"""An EventBridge event → a Notice: which instance goes away, why, and when it is gone. Pure.

A kind of event is a row of PARSERS. A new kind needs a new row and nothing else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

import msgspec

from lambdas.common.errors import PermanentError
from lambdas.common.names import INSTANCE_ID_PATTERN
from lambdas.common.text import cut

# s from the notice to the interruption.
# https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
NOTICE_PERIOD = 120


class Kind(StrEnum):
    """What happens to the instance."""

    SPOT_INTERRUPTION = "spot-interruption"
    INSTANCE_RUNNING = "instance-running"  # it does not go away: it may have come back


class NoticeError(PermanentError):
    """The event is of a known kind and lacks what it must have. The message names the fault."""


@dataclass(frozen=True)
class Notice:
    """An instance will go away, or runs again. Times are epoch seconds."""

    kind: Kind
    instance: str
    given: float
    """When AWS gave the notice."""
    deadline: float
    """When the instance is gone."""
    expires: float
    """When the notice is stale: an instance that runs after it was not interrupted."""
    action: str
    event_id: str

    @property
    def may_return(self) -> bool:
        """Whether EC2 may start the instance again: it is stopped or hibernated."""
        return self.action in {"stop", "hibernate"}


class _Event(msgspec.Struct):
    """The fields that every event has. Each parser checks its own `detail`."""

    source: str
    detail_type: str = msgspec.field(name="detail-type")
    detail: Any = None
    id: Any = ""
    time: Any = None


class _SpotDetail(msgspec.Struct):
    instance: str = msgspec.field(name="instance-id")
    action: str = msgspec.field(name="instance-action", default="terminate")


def _spot_interruption(event: _Event, now: float) -> Notice:
    detail = msgspec.convert(event.detail, _SpotDetail)
    given = _epoch(event.time, now)
    # Hibernation begins at once; stop and terminate come two minutes after the notice.
    deadline = now if detail.action == "hibernate" else given + NOTICE_PERIOD
    return Notice(
        kind=Kind.SPOT_INTERRUPTION,
        instance=_instance_id(detail.instance),
        given=given,
        deadline=deadline,
        expires=given + NOTICE_PERIOD,
        action=cut(detail.action),
        event_id=cut(event.id),
    )


class _StateDetail(msgspec.Struct):
    instance: str = msgspec.field(name="instance-id")
    state: str


def _instance_running(event: _Event, now: float) -> Notice | None:
    detail = msgspec.convert(event.detail, _StateDetail)
    if detail.state != "running":
        return None
    given = _epoch(event.time, now)
    return Notice(
        kind=Kind.INSTANCE_RUNNING,
        instance=_instance_id(detail.instance),
        given=given,
        deadline=given + NOTICE_PERIOD,
        expires=given + NOTICE_PERIOD,
        action="",
        event_id=cut(event.id),
    )


Parser = Callable[[_Event, float], Notice | None]

PARSERS: dict[tuple[str, str], Parser] = {
    ("aws.ec2", "EC2 Spot Instance Interruption Warning"): _spot_interruption,
    ("aws.ec2", "EC2 Instance State-change Notification"): _instance_running,
}

# A drill's event has the detail-type of the event that it simulates, under a source of the team's
# own: EventBridge lets AWS alone publish as aws.ec2.
_BY_DETAIL_TYPE = {detail_type: parser for (_, detail_type), parser in PARSERS.items()}


def parse(
    event: object, *, now: float, drill_sources: Collection[str] = frozenset()
) -> Notice | None:
    """The notice in an event, or None where its kind or its source is unknown.

    `now` is in epoch seconds and stands in for a time that is missing or unreadable.
    `drill_sources`: sources beside AWS's own whose events count.
    Raises NoticeError where a known kind of event, or any event at all, is malformed.
    """
    try:
        head = msgspec.convert(event, _Event)
        if head.source in drill_sources:
            parser = _BY_DETAIL_TYPE.get(head.detail_type)
        else:
            parser = PARSERS.get((head.source, head.detail_type))
        return parser(head, now) if parser else None
    except (msgspec.ValidationError, UnicodeEncodeError) as error:  # half of a surrogate pair
        raise NoticeError(f"Malformed event: {cut(error)}") from error


def _instance_id(text: str) -> str:
    if not re.fullmatch(INSTANCE_ID_PATTERN, text):
        raise NoticeError(f"Malformed event: {cut(text)!r} is not an instance id")
    return text


def _epoch(time: object, now: float) -> float:
    """Epoch seconds of an RFC 3339 time; now for one in the future, where clocks differ."""
    if not isinstance(time, str):
        return now
    try:
        moment = datetime.fromisoformat(time)
        return min(moment.timestamp(), now) if moment.tzinfo else now
    except (ValueError, OverflowError, OSError):
        return now
