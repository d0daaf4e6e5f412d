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
    """The values that the event's detail must have; None: any."""


EVENT_KINDS = (
    EventKind(
        "SpotInterruption",
        "aws.ec2",
        "EC2 Spot Instance Interruption Warning",
        "Spot interruption notices, two minutes before the interruption",
    ),
)

RETURNED = EventKind(
    "InstanceRunning",
    "aws.ec2",
    "EC2 Instance State-change Notification",
    "Instances that start: also those that a spot interruption has stopped",
    {"state": ["running"]},
)

# EventBridge's maximum: the event's age is the limit. A delivery fails if it is throttled, and then
# a retry helps.
DELIVERY_ATTEMPTS = 185


class SpotRules(Construct):
    """A rule for each kind of event. Events that cannot be delivered go to the queue.

    `drill_sources` are further sources whose events of the same detail-types are also handled. With
    `returned` there is also a rule for instances that run again. `max_age` is the age of an event
    at which its delivery is no longer retried.
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
