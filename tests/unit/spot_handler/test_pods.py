from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.spot_handler import pods
from lambdas.spot_handler.objects import Pod
from lambdas.spot_handler.pods import Skip, Wave
from tests.support.pods import owned_by, pod

TAINT = "autoscaling.cast.ai/draining"


@pytest.mark.parametrize(
    ("candidate", "reason"),
    [
        (pod(), None),
        (pod(metadata=owned_by("ReplicaSet")), None),
        (pod(metadata=owned_by("StatefulSet")), None),
        (pod(spec={"volumes": [{"name": "scratch", "emptyDir": {}}]}), None),
        (pod(metadata={"annotations": {"kubernetes.io/config.mirror": "x"}}), Skip.STATIC),
        (pod(metadata=owned_by("Node")), Skip.STATIC),
        (pod(metadata=owned_by("DaemonSet")), Skip.DAEMON_SET),
        (pod(metadata=owned_by("DaemonSet", controller=False)), None),
        (pod(status={"phase": "Succeeded"}), Skip.FINISHED),
        (pod(status={"phase": "Failed"}), Skip.FINISHED),
        (pod(status={"phase": "Pending"}), None),
        (pod(status={"phase": "Unknown"}), None),
    ],
)
def test_the_reasons_to_skip_a_pod(candidate: Pod, reason: Skip | None) -> None:
    assert pods.skip(candidate) == reason


@pytest.mark.parametrize(
    ("toleration", "stays"),
    [
        ({"key": TAINT, "operator": "Exists"}, True),
        ({"key": TAINT, "operator": "Exists", "effect": "NoSchedule"}, True),
        ({"key": TAINT, "value": "true"}, True),
        ({"key": TAINT, "operator": "Equal", "value": "true", "effect": "NoSchedule"}, True),
        ({"key": TAINT, "value": "false"}, False),
        ({"key": TAINT, "operator": "Exists", "effect": "NoExecute"}, False),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "node.kubernetes.io/not-ready", "operator": "Exists"}, False),
        ({"key": TAINT, "operator": "Gt", "value": "true"}, False),
    ],
)
def test_a_pod_that_tolerates_drain_taint_and_cordon_is_skipped(
    toleration: dict[str, Any], *, stays: bool
) -> None:
    reason = Skip.TOLERATES if stays else None
    both = [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}, toleration]
    assert pods.skip(pod(spec={"tolerations": both})) == reason
    # The NodeUnschedulable filter does not schedule a pod that tolerates the drain taint only.
    assert pods.skip(pod(spec={"tolerations": [toleration]})) is None


def test_a_pod_that_tolerates_every_taint_is_skipped() -> None:
    wildcard = {"tolerations": [{"operator": "Exists"}]}
    assert pods.skip(pod(spec=wildcard)) is Skip.TOLERATES


@pytest.mark.parametrize(
    ("priority_class", "wave"),
    [
        ("", Wave.ORDINARY),
        ("batch", Wave.ORDINARY),
        ("system-cluster-critical", Wave.SYSTEM),
        ("system-node-critical", Wave.SYSTEM),
    ],
)
def test_system_critical_pods_are_in_the_second_wave(priority_class: str, wave: Wave) -> None:
    assert pods.wave(pod(spec={"priorityClassName": priority_class})) is wave


@pytest.mark.parametrize(
    ("own", "left", "expected"),
    [(30, 100, 30), (600, 100, 100), (30, 12.9, 12), (0, 100, 1), (30, -5, 1), (None, 100, 30)],
)
def test_the_grace_is_the_pods_own_cut_to_the_time_that_is_left(
    own: int | None, left: float, expected: int
) -> None:
    candidate = pod(spec={"terminationGracePeriodSeconds": own})
    assert pods.grace(candidate, now=1000.0, end=1000.0 + left) == expected


@given(own=st.integers(0, 10**6), now=st.floats(0, 2e9), left=st.floats(-1e4, 1e4, allow_nan=False))
def test_the_grace_ends_before_the_given_end_and_is_at_least_the_floor(
    own: int, now: float, left: float
) -> None:
    given_grace = pods.grace(
        pod(spec={"terminationGracePeriodSeconds": own}), now=now, end=now + left
    )
    assert given_grace >= pods.GRACE_FLOOR
    assert given_grace <= max(pods.GRACE_FLOOR, left + 1e-6, 1) or given_grace == pods.GRACE_FLOOR
    assert given_grace <= max(own, pods.GRACE_FLOOR)


def test_the_last_moment_of_a_pod_leaves_its_whole_grace() -> None:
    assert pods.last_moment(pod(), end=1000.0) == 970.0


def test_the_time_at_which_a_terminating_pod_stops() -> None:
    stopping = pod(metadata={"deletionTimestamp": "1970-01-01T00:01:40Z"})
    assert pods.stops_at(stopping) == 100.0
    assert pods.stops_at(pod()) is None
    assert pods.stops_at(pod(metadata={"deletionTimestamp": "soon"})) == math.inf
