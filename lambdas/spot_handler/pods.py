"""Which pods go, in which order, with how much grace, and until when a budget may hold them.

Pure: rules over a pod and points in time (epoch seconds).
"""

from __future__ import annotations

import math
from datetime import datetime
from enum import IntEnum, StrEnum

from lambdas.spot_handler.objects import Pod, Taint, Toleration
from lambdas.spot_handler.taint import DRAIN_TAINT

GRACE_FLOOR = 1  # s: 0 would drop the object while the container still runs
DEFAULT_GRACE = 30  # s: what the API server sets where the pod says nothing
MIRROR_ANNOTATION = "kubernetes.io/config.mirror"
SYSTEM_PRIORITY_CLASSES = frozenset({"system-cluster-critical", "system-node-critical"})
FINISHED = frozenset({"Succeeded", "Failed"})
# The scheduler keeps a pod off a cordoned node unless it tolerates this taint, whether or not the
# node has it: the NodeUnschedulable filter.
UNSCHEDULABLE = Taint(key="node.kubernetes.io/unschedulable", effect="NoSchedule")


class Skip(StrEnum):
    """Why a pod stays. The value is the reason in the result."""

    STATIC = "static pod: only its node can stop it"
    DAEMON_SET = "DaemonSet pod: it would come straight back"
    FINISHED = "finished: nothing runs"
    TOLERATES = "tolerates the drain taint and unschedulable nodes: it would come straight back"


class Wave(IntEnum):
    """The order: ordinary pods go first, so that DNS and other system pods outlast their users."""

    ORDINARY = 1
    SYSTEM = 2


def skip(pod: Pod) -> Skip | None:
    """Why the pod stays, or None where it has to go."""
    owners = pod.metadata.owner_references or ()
    controller = next((owner.kind for owner in owners if owner.controller), "")
    if MIRROR_ANNOTATION in (pod.metadata.annotations or {}) or controller == "Node":
        return Skip.STATIC
    if controller == "DaemonSet":
        return Skip.DAEMON_SET
    if finished(pod):
        return Skip.FINISHED
    if all(_tolerates(pod, taint) for taint in (DRAIN_TAINT, UNSCHEDULABLE)):
        return Skip.TOLERATES
    return None


def finished(pod: Pod) -> bool:
    return pod.status.phase in FINISHED


def wave(pod: Pod) -> Wave:
    system = pod.spec.priority_class_name in SYSTEM_PRIORITY_CLASSES
    return Wave.SYSTEM if system else Wave.ORDINARY


def own_grace(pod: Pod) -> int:
    """The pod's own grace in seconds, at least GRACE_FLOOR."""
    grace = pod.spec.termination_grace_period_seconds
    return max(GRACE_FLOOR, DEFAULT_GRACE if grace is None else grace)


def grace(pod: Pod, *, now: float, end: float) -> int:
    """Seconds to give the pod: its own grace, never beyond `end`, never below GRACE_FLOOR."""
    return max(GRACE_FLOOR, min(own_grace(pod), math.floor(end - now)))


def last_moment(pod: Pod, *, end: float) -> float:
    """When the pod must begin to stop so that its whole grace fits before `end`.

    A system pod waits for the ordinary ones until then, and a budget may hold a pod until then.
    """
    return end - own_grace(pod)


def stops_at(pod: Pod) -> float | None:
    """When a terminating pod's grace is over; None where it is not terminating."""
    if pod.metadata.deletion_timestamp is None:
        return None
    try:
        return datetime.fromisoformat(pod.metadata.deletion_timestamp).timestamp()
    except ValueError:  # a server that writes no RFC 3339: as late as can be, so it is shortened
        return math.inf


def _tolerates(pod: Pod, taint: Taint) -> bool:
    return any(_matches(toleration, taint) for toleration in pod.spec.tolerations or ())


def _matches(toleration: Toleration, taint: Taint) -> bool:
    """Kubernetes' rule for a toleration and a taint.

    https://kubernetes.io/docs/concepts/scheduling-eviction/taint-and-toleration/
    """
    if toleration.effect not in {"", taint.effect}:
        return False
    if toleration.operator == "Exists":
        return toleration.key in {"", taint.key}
    return (
        toleration.operator in {"", "Equal"}
        and toleration.key == taint.key
        and toleration.value == taint.value
    )
