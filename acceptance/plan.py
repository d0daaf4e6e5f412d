"""What a run will do and what it costs, before anything is touched. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from acceptance.scope import Scope
from benchmarks.cost import DOLLARS_PER_GB_SECOND
from lambdas.common.names import AGENT
from sandbox.demo.timeline import Timeline

# List prices, as in docs/aws-usage.md.
_ALARM = 0.10  # $ a month
_METRIC = 0.30  # $ a month
_HOURS = 730  # of a month: CloudWatch bills alarms and metrics by the hour
_ALARMS, _METRICS = 4, 18
_ATTEMPTS, _TIMEOUT, _GB = 2, 150, 1  # of the function: the most that one event can use
_NODES_SHOWN = 12


@dataclass(frozen=True)
class Cost:
    """An upper bound for one part of a run, in US dollars."""

    part: str
    dollars: float


def costs() -> tuple[Cost, ...]:
    """What AWS bills for a run of less than an hour, at most."""
    return (
        Cost("Lambda: one drain, at most two attempts",
             _ATTEMPTS * _TIMEOUT * _GB * DOLLARS_PER_GB_SECOND),
        Cost(f"CloudWatch: {_ALARMS} alarms for an hour", _ALARMS * _ALARM / _HOURS),
        Cost(f"CloudWatch: {_METRICS} metrics for an hour", _METRICS * _METRIC / _HOURS),
    )  # fmt: skip


def creates(scope: Scope, missing_rbac: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """What the run creates and removes again."""
    yield f"stack {scope.spot_handler}", "function, role, rule, queue, alarms, log, access entry"
    if scope.api_key_secret:
        yield f"stack {scope.agent}", f"its function; in the cluster the namespace {AGENT}"
        yield f"stack {scope.onboarding}", "its function; CAST AI's role, policy, node role, group"
    for kind in missing_rbac:
        yield f"{kind} castai-spot-handler", "what the handler may do in the cluster"


def pods(timeline: Timeline, expected: str) -> Iterator[tuple[str, str]]:
    """What happens to the pods of the node."""
    going, bare = timeline.leaving, [pod for pod in timeline.leaving if not pod.owner]
    if expected != "drained":
        yield f"{len(going)} pods", "stay where they are"
        return
    yield f"{len(going)} pods", "evicted, and deleted past a budget if their grace would not fit"
    for pod in going[:_NODES_SHOWN]:
        yield f"   {pod.name}", "" if pod.owner else "NO CONTROLLER RE-CREATES IT"
    if len(going) > _NODES_SHOWN:
        yield f"   and {len(going) - _NODES_SHOWN} more", ""
    if bare:
        yield f"{len(bare)} of them", "end for good: no controller re-creates them"
    yield f"{len(timeline.staying)} pods", "stay: DaemonSet, static or finished"


def remains(scope: Scope) -> Iterator[str]:
    """What stays after the run."""
    yield "the zips in the bucket of CDK's bootstrap stack, less than 10 MB"
    if scope.expected == "drained":
        yield "evicted pods stay where they were scheduled again, and have lost their local data"
    if scope.api_key_secret:
        yield "CAST AI's console lists the cluster as disconnected"
    yield "records of the calls in CloudTrail and in the cluster's audit log"
