"""Outcome → log line, metrics, Events on the node. A report that fails does not fail the drain."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger
from aws_lambda_powertools.metrics import EphemeralMetrics, MetricUnit

from lambdas.common.clock import Clock
from lambdas.common.errors import CastaiError
from lambdas.common.names import METRICS_NAMESPACE, METRICS_SERVICE
from lambdas.common.text import cut
from lambdas.spot_handler.node_api import NodeApi
from lambdas.spot_handler.notices import Kind, Notice
from lambdas.spot_handler.objects import Node
from lambdas.spot_handler.result import Outcome, Result

NO_CLUSTER = "none"  # a CloudWatch dimension must not be empty
MESSAGE_LIMIT = 1024  # characters of a Kubernetes Event's message
PODS_NAMED = 10  # pods an Event names; the log names all


@cache
def logger() -> Logger:
    """The container's logger; its level comes from the environment."""
    return Logger(service=METRICS_SERVICE, use_rfc3339=True)  # what Lambda's own level filter reads


def log(result: Result) -> None:
    """One line for the result; at ERROR for a malformed event."""
    fields = result.as_dict() | {"event_id": result.event_id, "kind": result.kind}
    if result.outcome is Outcome.REJECTED:
        logger().error(result.reason, extra=fields)
    else:
        logger().info(headline(result), extra=fields)


def headline(result: Result) -> str:
    """One sentence that sums the result up, the same in the log and on the node."""
    if result.outcome in {Outcome.DRAINED, Outcome.PARTIAL}:
        pods = result.pods
        return (
            f"{result.outcome.value} in {result.ended - result.started:.1f} s: "
            f"{pods.evicted} evicted, {pods.forced} forced, {len(pods.left)} left"
            + (f": {result.reason}" if result.reason else "")
        )
    return f"{result.outcome.value}: {result.reason}" if result.reason else result.outcome.value


def measure(result: Result) -> None:
    """Print the metrics in CloudWatch's embedded format; Lambda turns them into metrics.

    Every metric stands under (service, cluster, outcome) for people and, for alarms, which must
    name each value of a dimension, under the service alone.
    """
    if result.kind == Kind.INSTANCE_RUNNING:
        return  # no notice: most are instances that EC2 has just launched
    counts: dict[str, float] = {"Notices": 1}
    seconds: dict[str, float] = {}
    if result.given is not None and result.cordoned_at is not None:
        seconds["NoticeToCordon"] = max(0.0, result.cordoned_at - result.given)
    if result.given is not None and result.drained_at is not None:
        seconds["NoticeToDrained"] = max(0.0, result.drained_at - result.given)
    if result.outcome in {Outcome.DRAINED, Outcome.PARTIAL}:
        counts |= {
            "PodsEvicted": result.pods.evicted,
            "PodsForced": result.pods.forced,
            "PodsLeft": len(result.pods.left),
        }
    if result.castai:
        counts["InterruptionsReported"] = int(result.castai == "reported")
        counts["InterruptionsUnreported"] = int(result.castai != "reported")
    dimensions = {"cluster": result.cluster or NO_CLUSTER, "outcome": result.outcome.value}
    for extra in ({}, dimensions):
        _emit(counts, seconds, extra)
    for code, number in sorted(result.pods.answers.items()):
        _emit({"EvictionAnswers": number}, {}, dimensions | {"code": code})


def _emit(
    counts: Mapping[str, float], seconds: Mapping[str, float], dimensions: Mapping[str, str]
) -> None:
    metrics = EphemeralMetrics(namespace=METRICS_NAMESPACE, service=METRICS_SERVICE)
    for key, text in dimensions.items():
        metrics.add_dimension(key, text)
    for name, count in counts.items():
        metrics.add_metric(name, unit=MetricUnit.Count, value=count)
    for name, duration in seconds.items():
        metrics.add_metric(name, unit=MetricUnit.Seconds, value=duration)
    metrics.flush_metrics()


class NodeEvents:
    """Kubernetes Events on the node, which `kubectl describe node` shows."""

    def __init__(self, api: NodeApi, node: Node, notice: Notice, clock: Clock) -> None:
        self._api = api
        self._node = node
        self._notice = notice
        self._clock = clock

    async def begun(self, *, deadline: float | None) -> None:
        left = 0.0 if deadline is None else max(0.0, deadline - self._clock.now())
        await self._create(
            "Warning",
            "SpotInterruption",
            f"{self._notice.instance} will be interrupted ({self._notice.action}) in {left:.0f} s: "
            "node cordoned",
        )

    async def ended(self, result: Result, *, cordoned: bool) -> None:
        if result.outcome is Outcome.CORDONED:
            return  # the first event says the same
        done = result.outcome is Outcome.DRAINED and cordoned
        left = ", ".join(f"{left.pod} ({left.reason})" for left in result.pods.left[:PODS_NAMED])
        result.ended = self._clock.now()
        await self._create(
            "Normal" if done else "Warning",
            "SpotDrained" if done else "SpotDrainIncomplete",
            ("" if cordoned else "the node could not be cordoned; ")
            + headline(result)
            + (f": {left}" if left else ""),
        )

    async def _create(self, kind: str, reason: str, message: str) -> None:
        """Best effort: an error of the cluster is logged only."""
        now = datetime.fromtimestamp(self._clock.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        event: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{self._notice.kind.value}-", "namespace": "default"},
            "involvedObject": {
                "apiVersion": "v1",
                "kind": "Node",
                "name": self._node.metadata.name,
                # As the kubelet does it: `kubectl describe node` looks for events by this.
                "uid": self._node.metadata.name,
            },
            "type": kind,
            "reason": reason,
            "message": cut(message, MESSAGE_LIMIT),
            "source": {"component": "castai-eks-spot-handler"},
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }
        try:
            await self._api.create_event(event)
        except CastaiError as error:
            logger().warning("No event on the node", extra={"reason": str(error)})
