"""EventBridge rules on the default bus: which events reach the spot handler."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from aws_cdk import (
    Duration,
)
from aws_cdk import aws_events as events
from aws_cdk import aws_events_targets as targets
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from constructs import Construct


class EventKind(NamedTuple):
    """A kind of event that the handler has a parser for (lambdas/spot_handler/notices.py)."""

    id: str
    source: str
    detail_type: str
    description: str
    detail: Mapping[str, Sequence[str]] | None = None
    """What the event's detail must say; None: anything."""


EVENT_KINDS = (
    EventKind(
        "SpotInterruption",
        "aws.ec2",
        "EC2 Spot Instance Interruption Warning",
        "Spot interruption notices, two minutes before the instance goes",
    ),
)

RETURNED = EventKind(
    "InstanceRunning",
    "aws.ec2",
    "EC2 Instance State-change Notification",
    "Instances that run: one that a spot interruption stopped may be back",
    {"state": ["running"]},
)

# Retried as often as fits into the age: a delivery that fails is throttled, not wrong.
DELIVERY_ATTEMPTS = 185


class SpotRules(Construct):
    """A rule for each kind of event; undeliverable ones go to the queue.

    drill_sources: further sources whose events of the same detail-types are handled as well.
    returned: also a rule for instances that run again.
    max_age: how old an event may become before its delivery is given up.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,  # noqa: A002 - CDK's own name for it
        *,
        name: str,
        target: lambda_.IFunction,
        drill_sources: Sequence[str],
        returned: bool,
        undelivered: sqs.IQueue,
        max_age: Duration,
    ) -> None:
        super().__init__(scope, id)
        for kind in (*EVENT_KINDS, RETURNED) if returned else EVENT_KINDS:
            events.Rule(
                self,
                kind.id,
                rule_name=f"{name}-{kind.id}",
                description=kind.description,
                event_pattern=events.EventPattern(
                    source=[kind.source, *drill_sources],
                    detail_type=[kind.detail_type],
                    detail=kind.detail,
                ),
                targets=[
                    targets.LambdaFunction(
                        target,
                        dead_letter_queue=undelivered,
                        max_event_age=max_age,
                        retry_attempts=DELIVERY_ATTEMPTS,
                    )
                ],
            )
