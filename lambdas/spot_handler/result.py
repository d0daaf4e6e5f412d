"""The result of an event. An outcome is one word in the result, the log and the metrics."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any


class Outcome(StrEnum):
    DRAINED = "drained"  # a list after the last change shows no pod that has to go
    PARTIAL = "partial"  # pods are left, each named with its reason, or no list says that none is
    CORDONED = "cordoned"  # cordon-only mode
    UNCORDONED = "uncordoned"  # the instance was stopped and runs again: our marks are removed
    DRY_RUN = "dry_run"  # planned, nothing written
    IGNORED = "ignored"  # not ours
    NODE_NOT_FOUND = "node_not_found"  # our cluster, but no node of it is this instance
    TOO_LATE = "too_late"  # the instance is already gone, or the notice is stale
    REJECTED = "rejected"  # malformed event


class CastaiState(StrEnum):
    """Result of the report to CAST AI: one word in the result, the log and the metric."""

    REPORTED = "reported"
    NO_CLUSTER_ID = "no_cluster_id"  # neither the instance nor the agent names one
    FAILED = "failed"


@dataclass
class CastaiReport:
    """The report to CAST AI while it is made: its state, and the reason of a failure."""

    state: CastaiState = CastaiState.FAILED
    reason: str = "CAST AI's API has not answered"


@dataclass(frozen=True)
class RemainingPod:
    """A pod that is still on the node, and why."""

    pod: str
    reason: str


@dataclass
class PodCounts:
    """The pods of a drain, counted."""

    evicted: int = 0
    """Gone by our eviction."""
    forced: int = 0
    """Gone by our DELETE, past a budget or with a shortened grace."""
    gone: int = 0
    """Removed by others, or finished."""
    skipped: Counter[str] = field(default_factory=Counter)
    """Pods that stay by the rules, by reason."""
    left: list[RemainingPod] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)
    """Answers to evictions, by HTTP code."""
    emptied_at: float | None = None
    """When the last pod that had to go was gone (epoch seconds); None where no list confirms it."""
    unconfirmed: str = ""
    """Why no list confirms it."""


@dataclass
class Result:
    """What the function returns and logs, and what its metrics count. Points in time are epoch
    seconds.
    """

    outcome: Outcome
    reason: str = ""
    instance: str = ""
    kind: str = ""
    cluster: str = ""
    node: str = ""
    event_id: str = ""
    deadline: float | None = None
    given: float | None = None
    started: float = 0.0
    ended: float = 0.0
    cordoned_at: float | None = None
    drained_at: float | None = None
    pods: PodCounts = field(default_factory=PodCounts)
    castai: str = ""
    """The state of a CastaiReport; empty: there is no API key."""
    castai_reason: str = ""
    plan: list[dict[str, Any]] | None = None

    def as_dict(self) -> dict[str, Any]:
        """The documented JSON shape: docs/spot-handler.md."""
        shape: dict[str, Any] = {
            "outcome": self.outcome.value,
            "instance": self.instance,
            "cluster": self.cluster,
            "node": self.node,
            "deadline": _rfc3339(self.deadline),
            "seconds": round(self.ended - self.started, 3),
            "pods": {
                "evicted": self.pods.evicted,
                "forced": self.pods.forced,
                "gone": self.pods.gone,
                "left": len(self.pods.left),
                "skipped": self.pods.skipped.total(),
            },
            "left": [{"pod": left.pod, "reason": left.reason} for left in self.pods.left],
        }
        if self.reason:
            shape["reason"] = self.reason
        if self.pods.skipped:
            shape["skipped"] = dict(sorted(self.pods.skipped.items()))
        if self.pods.answers:
            shape["answers"] = dict(sorted(self.pods.answers.items()))
        if self.cordoned_at is not None:
            shape["seconds_to_cordon"] = self._since_notice(self.cordoned_at)
        if self.drained_at is not None:
            shape["seconds_to_drained"] = self._since_notice(self.drained_at)
        if self.castai:
            shape["castai"] = self.castai
        if self.castai_reason:
            shape["castai_reason"] = self.castai_reason
        if self.plan is not None:
            shape["plan"] = self.plan
        return shape

    def _since_notice(self, moment: float) -> float:
        return round(moment - (self.started if self.given is None else self.given), 3)


def _rfc3339(epoch: float | None) -> str | None:
    if epoch is None:
        return None
    return datetime.fromtimestamp(epoch, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
