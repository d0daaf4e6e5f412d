"""The kinds of events of a day, as data: a kind is a row, with what it has to lead to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

REGION = "eu-central-1"
ACCOUNT = "123456789012"
DRILL_SOURCE = "drill.example.com"
SPOT = "EC2 Spot Instance Interruption Warning"
STATE = "EC2 Instance State-change Notification"


@dataclass(frozen=True)
class Kind:
    """A kind of event."""

    detail_type: str
    detail: Callable[[str], dict[str, Any]]
    """The detail for an instance id."""
    drains: bool
    """It is a notice: the node has to be drained. Any other event must leave all pods alone."""
    source: str = "aws.ec2"
    uncordons: bool = False
    at_once: bool = False
    """The interruption begins with the event."""


def _spot(action: str) -> Callable[[str], dict[str, Any]]:
    return lambda instance: {"instance-id": instance, "instance-action": action}


def _state(state: str) -> Callable[[str], dict[str, Any]]:
    return lambda instance: {"instance-id": instance, "state": state}


KINDS: dict[str, Kind] = {
    "terminate": Kind(SPOT, _spot("terminate"), drains=True),
    "stop": Kind(SPOT, _spot("stop"), drains=True),
    "hibernate": Kind(SPOT, _spot("hibernate"), drains=True, at_once=True),
    "drill": Kind(SPOT, _spot("terminate"), drains=True, source=DRILL_SOURCE),
    "running": Kind(STATE, _state("running"), drains=False, uncordons=True),
    "stopped": Kind(STATE, _state("stopped"), drains=False),
    "foreign": Kind(SPOT, _spot("terminate"), drains=False, source="shop.example.com"),
    "rebalance": Kind("EC2 Instance Rebalance Recommendation", _spot("none"), drains=False),
    "malformed": Kind(SPOT, lambda _: {"instance-id": "i-not-hex"}, drains=False),
}


def event(kind: Kind, instance: str, given: float, number: int) -> dict[str, Any]:
    """The event as EventBridge delivers it. `given`: epoch seconds."""
    return {
        "version": "0",
        "id": f"00000000-0000-0000-0000-{number:012}",
        "detail-type": kind.detail_type,
        "source": kind.source,
        "account": ACCOUNT,
        "time": datetime.fromtimestamp(given, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "region": REGION,
        "resources": [f"arn:aws:ec2:{REGION}:{ACCOUNT}:instance/{instance}"],
        "detail": kind.detail(instance),
    }
