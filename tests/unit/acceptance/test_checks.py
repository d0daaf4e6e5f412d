"""The verdict of a run: what fails it, and what does not."""

from __future__ import annotations

from typing import Any

import pytest

from acceptance import checks
from acceptance.checks import Check
from acceptance.kubernetes import NodeState
from acceptance.scope import Scope
from sandbox.demo.timeline import Timeline
from tests.unit.sandbox.objects import NODE, OTHER, node, pod

SCOPE = Scope("prod", "i-1")
DRY = Scope("prod", "i-1", chosen={"castai:mode": "dry-run"})
CLEAN = NodeState(unschedulable=False, taints=(), labels=())


@pytest.fixture
def timeline() -> Timeline:
    """One pod evicted, with a replacement on another node."""
    timeline = Timeline(NODE)
    timeline.pod_changed(pod("web-1", owner="web"), 0)
    timeline.begin()
    timeline.node_changed(node(cordoned=True), 1)
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1, deleted=True)
    timeline.pod_changed(pod("web-2", owner="web", node=OTHER), 2)
    return timeline


def result(**changes: Any) -> dict[str, Any]:
    return {
        "outcome": "drained",
        "seconds_to_cordon": 1.2,
        "seconds_to_drained": 8.1,
        "pods": {"evicted": 1, "forced": 0, "gone": 0, "left": 0},
        **changes,
    }


def failed(found: list[Check]) -> list[str]:
    return [check.name for check in found if check.passed is False]


def test_a_result_that_the_cluster_confirms_passes(timeline: Timeline) -> None:
    found = list(checks.of_drill(SCOPE, result(), timeline))
    assert [check.passed for check in found] == [True] * 6
    assert checks.passed(found)


@pytest.mark.parametrize(
    ("wrong", "check"),
    [
        pytest.param({"outcome": "partial", "reason": "budget"}, "outcome", id="partial"),
        pytest.param({"seconds_to_drained": 130.0}, "within the two minutes", id="late"),
        pytest.param(
            {"pods": {"evicted": 2, "forced": 0, "gone": 0, "left": 0}}, "counts", id="too many"
        ),
        pytest.param(
            {"pods": {"evicted": 0, "forced": 0, "gone": 0, "left": 1}}, "no pod left", id="left"
        ),
    ],
)
def test_a_result_that_differs_fails(timeline: Timeline, wrong: dict[str, Any], check: str) -> None:
    assert failed(list(checks.of_drill(SCOPE, result(**wrong), timeline))) == [check]


def test_a_pod_that_still_runs_fails_whatever_was_said(timeline: Timeline) -> None:
    timeline.pod_changed(pod("late"), 3)
    assert "no pod left" in failed(list(checks.of_drill(SCOPE, result(), timeline)))


def test_a_pod_that_others_ended_is_counted_once(timeline: Timeline) -> None:
    """A busy cluster: the handler says `gone`, the cluster shows a plain deletion."""
    timeline.pod_changed(pod("job-1"), 1)
    timeline.pod_changed(pod("job-1", terminating=True), 2, deleted=True)
    pods = {"evicted": 1, "forced": 0, "gone": 1, "left": 0}
    assert failed(list(checks.of_drill(SCOPE, result(pods=pods), timeline))) == []


def test_a_replacement_that_is_not_ready_is_a_remark(timeline: Timeline) -> None:
    timeline.pods["uid-web-1"].replacement_ready = False
    found = list(checks.of_drill(SCOPE, result(), timeline))
    assert checks.passed(found)
    (remark,) = [check for check in found if check.passed is None]
    assert "shop/web-1" in remark.detail


def test_without_a_cordon_it_fails() -> None:
    quiet = Timeline(NODE)
    quiet.begin()
    pods = {"evicted": 0, "forced": 0, "gone": 0, "left": 0}
    assert failed(list(checks.of_drill(SCOPE, result(pods=pods), quiet))) == ["cordon"]


def test_a_dry_run_that_cordons_fails(timeline: Timeline) -> None:
    planned = {"outcome": "dry_run", "plan": [{"node": NODE}, {"pod": "shop/web-1"}]}
    assert failed(list(checks.of_drill(DRY, planned, timeline))) == ["nothing written"]
    (_, check) = checks.of_drill(DRY, planned, Timeline(NODE))
    assert (check.passed, check.detail) == (True, "plan for 1 pods, node unchanged")


def test_what_the_run_left_fails_and_what_others_made_does_not() -> None:
    before = [("IAM role", "theirs"), ("rule", "old")]
    others = [("IAM role", "theirs"), ("queue", "new")]
    found = list(checks.of_inventory(SCOPE, before, others))
    assert checks.passed(found)
    assert found[-1].detail == "queue new, rule old"
    left = [*before, ("log group", "/aws/lambda/castai-acceptance-spot-handler")]
    assert failed(list(checks.of_inventory(SCOPE, before, left))) == ["nothing left"]
    assert failed(list(checks.of_inventory(SCOPE, left, before))) == ["nothing removed"]


def test_a_node_that_is_not_as_before_fails() -> None:
    assert checks.of_node(CLEAN, CLEAN).passed
    tainted = CLEAN._replace(taints=(("a", "", "NoSchedule"),))
    assert checks.of_node(CLEAN, tainted).passed is False
    assert checks.of_node(CLEAN, None).passed is None


@pytest.mark.parametrize(
    ("principal", "external", "good"),
    [
        pytest.param({"AWS": "arn:castai"}, "id-1", True, id="right"),
        pytest.param({"AWS": "arn:other"}, "id-1", False, id="principal"),
        pytest.param({"AWS": "*"}, "id-1", False, id="anybody"),
        pytest.param({"AWS": "arn:castai"}, "id-2", False, id="external id"),
    ],
)
def test_the_trust_policy_names_castai_and_the_cluster(
    principal: dict[str, str], external: str, good: bool
) -> None:
    statement = {
        "Principal": principal,
        "Condition": {"StringEquals": {"sts:ExternalId": external}},
    }
    check = checks.of_trust({"Statement": [statement]}, principal="arn:castai", cluster_id="id-1")
    assert check.passed is good
    twice = {"Statement": [statement, statement]}
    assert checks.of_trust(twice, principal="arn:castai", cluster_id="id-1").passed is False


def test_no_check_is_no_pass() -> None:
    assert not checks.passed([])
