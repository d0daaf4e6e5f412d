"""The rules of a drain in the words of those who judge it: none of the handler's code is used.

Times are those of the event loop.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from kubesim.virtual import EPOCH
from simulation.drain.days import Day, Delivery
from simulation.drain.events import KINDS, Kind

Obj = dict[str, Any]

NOTICE = 120.0  # s from a notice to the interruption
MARGIN = 5.0  # s that a drain leaves free before it
LEAST = 10.0  # s that a run has at least
HARD_END = 30.0  # s before the end of the window, in which any refusal is overridden
RESPECTED = 0.5  # of the time left: how long a budget's refusal is respected at least
DRAIN_KEY = "autoscaling.cast.ai/draining"
END_A_NODE = frozenset({"remove node", "machine hangs"})
"""Acts after which no drain can do anything."""


@dataclass(frozen=True)
class Window:
    """The time of a run's drain."""

    end: float
    """When every grace is over."""
    deadline: float
    hard_end: float


def drains(day: Day, delivery: Delivery) -> bool:
    """Whether the event is a notice after which pods have to go."""
    return KINDS[delivery.kind].drains and day.settings.mode == "drain"


def window(kind: Kind, *, started: float, given: float) -> Window:
    """The time of a drain: from the event and the start of the run alone."""
    ends = started if kind.at_once else given + NOTICE
    deadline = max(ends, started + LEAST)
    end = deadline - MARGIN
    half = started + (end - started) / 2
    return Window(end, deadline, max(end - HARD_END, half))


def force_from(pod: Obj, window: Window, *, refused: float = math.inf) -> float:
    """From when on a DELETE may follow a refused eviction. `refused`: when the budget itself first
    refused it.
    """
    respected = refused + (window.end - refused) * RESPECTED if refused < math.inf else math.inf
    return max(window.end - own_grace(pod), min(respected, window.hard_end))


def has_to_go(pod: Obj) -> bool:
    """Whether a drain removes the pod."""
    metadata = pod["metadata"]
    kinds = {o["kind"] for o in metadata.get("ownerReferences", ()) if o.get("controller")}
    if kinds & {"DaemonSet", "Node"} or finished(pod):
        return False
    if "kubernetes.io/config.mirror" in (metadata.get("annotations") or {}):
        return False
    taints = {DRAIN_KEY: "true", "node.kubernetes.io/unschedulable": ""}
    tolerations = pod["spec"].get("tolerations") or ()
    return not all(
        any(_tolerates(each, key, value) for each in tolerations) for key, value in taints.items()
    )


def _tolerates(toleration: Obj, key: str, value: str) -> bool:
    if toleration.get("effect", "") not in ("", "NoSchedule"):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key", "") in ("", key)
    return toleration.get("key") == key and toleration.get("value", "") == value


def finished(pod: Obj) -> bool:
    return pod.get("status", {}).get("phase") in ("Succeeded", "Failed")


def own_grace(pod: Obj) -> int:
    grace: int = pod["spec"].get("terminationGracePeriodSeconds", 30)
    return max(1, grace)


def stops_at(pod: Obj) -> float:
    """When a terminating pod's grace is over, in the loop's time; infinite: it does not end."""
    text = pod["metadata"].get("deletionTimestamp")
    return datetime.fromisoformat(text).timestamp() - EPOCH if text else math.inf


def budget_refused(status: int, answer: str, retry_after: str) -> bool:
    """Whether a budget itself refused an eviction. With a Retry-After its status only lags behind
    its spec.
    """
    if status == 500:
        return "more than one PodDisruptionBudget" in answer
    return status == 429 and "DisruptionBudget" in answer and not retry_after


def is_system(pod: Obj) -> bool:
    """Whether the pod waits for the ordinary ones."""
    priority: str = pod["spec"].get("priorityClassName", "")
    return priority.startswith("system-")
