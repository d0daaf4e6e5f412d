"""The timeline of a drain, which the demo shows and which the tests compare results with."""

from __future__ import annotations

import pytest

from sandbox.demo.timeline import PodState, Timeline
from tests.unit.sandbox.objects import NODE, OTHER, budget, node, pod


@pytest.fixture
def timeline() -> Timeline:
    """A node with pods of a ReplicaSet and a DaemonSet, a bare, a static and a finished pod."""
    timeline = Timeline(NODE)
    timeline.pod_changed(pod("web-1", owner="web"), 0)
    timeline.pod_changed(pod("shell"), 0)
    timeline.pod_changed(pod("agent", owner="agent", owner_kind="DaemonSet"), 0)
    timeline.pod_changed(pod("proxy", annotations={"kubernetes.io/config.mirror": "x"}), 0)
    timeline.pod_changed(pod("done", phase="Succeeded"), 0)
    timeline.pod_changed(pod("web-2", owner="web", node=OTHER), 0)
    timeline.begin()
    return timeline


def texts(timeline: Timeline) -> list[str]:
    return [line.text for line in timeline.lines]


def test_the_initial_state_gives_no_lines(timeline: Timeline) -> None:
    assert texts(timeline) == []


def test_only_pods_that_a_drain_must_move_are_leaving(timeline: Timeline) -> None:
    assert [p.name for p in timeline.leaving] == ["shop/shell", "shop/web-1"]
    assert {p.name: p.stays for p in timeline.staying} == {
        "shop/agent": "DaemonSet",
        "shop/proxy": "static pod",
        "shop/done": "finished",
    }


def test_evicted_pods_are_distinguished_from_pods_deleted_past_their_budget(
    timeline: Timeline,
) -> None:
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1)
    timeline.pod_changed(pod("shell", terminating=True), 2)
    assert timeline.count() == (1, 1, 0)
    assert texts(timeline) == ["shop/web-1 evicted", "shop/shell deleted past its budget"]


def test_a_pod_that_still_runs_is_left(timeline: Timeline) -> None:
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1)
    assert timeline.count() == (1, 0, 1)
    assert not timeline.empty()


def test_a_repeated_watch_event_gives_one_line(timeline: Timeline) -> None:
    for _ in range(2):
        timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1)
        timeline.pod_changed(pod("web-1", owner="web", evicted=True), 3, deleted=True)
    assert texts(timeline) == ["shop/web-1 evicted", "shop/web-1 gone"]


def test_the_node_is_empty_when_the_last_leaving_pod_is_gone(timeline: Timeline) -> None:
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1, deleted=True)
    timeline.pod_changed(pod("shell", evicted=True), 1)
    assert not timeline.empty()
    timeline.pod_changed(pod("shell", evicted=True), 2, deleted=True)
    assert timeline.empty()


def test_a_replacement_is_the_new_pod_of_the_same_controller(timeline: Timeline) -> None:
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1)
    timeline.pod_changed(pod("web-2", owner="other", node=OTHER), 1)  # of another controller
    timeline.pod_changed(pod("web-3", owner="web", node=OTHER, ready=False), 2)
    web = timeline.pods["uid-web-1"]
    assert (web.replacement, web.replacement_ready) == ("shop/web-3", False)
    timeline.pod_changed(pod("web-3", owner="web", node=OTHER), 3)
    assert web.replacement_ready
    assert web.replacement_node == OTHER
    assert f"shop/web-3 ready on {OTHER}" in texts(timeline)


def test_one_pod_replaces_one_pod(timeline: Timeline) -> None:
    timeline.pod_changed(pod("web-9", owner="web"), 1)
    for name in ("web-1", "web-9"):
        timeline.pod_changed(pod(name, owner="web", evicted=True), 1)
    timeline.pod_changed(pod("web-3", owner="web", node=OTHER), 2)
    assert len(timeline.lost()) == 1
    timeline.pod_changed(pod("web-4", owner="web", node=OTHER), 2)
    assert timeline.lost() == []


def test_a_replacement_seen_before_the_eviction_is_not_claimed_by_a_pod_that_was_there(
    timeline: Timeline,
) -> None:
    """A change of a pod that ran elsewhere before is no replacement."""
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1)
    timeline.pod_changed(pod("web-2", owner="web", node=OTHER), 2)
    assert timeline.lost() == ["shop/web-1"]


def test_a_bare_pod_is_not_awaited(timeline: Timeline) -> None:
    timeline.pod_changed(pod("shell", evicted=True), 1, deleted=True)
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1, deleted=True)
    assert not timeline.settled()
    timeline.pod_changed(pod("web-3", owner="web", node=OTHER), 2)
    assert timeline.settled()


def test_a_pod_that_is_bound_later_must_leave_too(timeline: Timeline) -> None:
    timeline.pod_changed(pod("late", owner="web"), 1)
    assert timeline.pods["uid-late"].state is PodState.RUNNING
    assert "shop/late bound to the node" in texts(timeline)


def test_a_stateful_pod_under_its_old_name_is_another_pod(timeline: Timeline) -> None:
    timeline.pod_changed(pod("db-0", uid="old", owner="db", owner_kind="StatefulSet"), 1)
    timeline.pod_changed(
        pod("db-0", uid="old", owner="db", owner_kind="StatefulSet", evicted=True), 1, deleted=True
    )
    timeline.pod_changed(
        pod("db-0", uid="new", owner="db", owner_kind="StatefulSet", node=OTHER), 2
    )
    assert timeline.pods["old"].replacement_uid == "new"


def test_the_cordon_gives_one_line_and_only_for_this_node(timeline: Timeline) -> None:
    timeline.node_changed(node(OTHER, cordoned=True), 1)
    timeline.node_changed(node(), 1)
    timeline.node_changed(node(cordoned=True), 2)
    timeline.node_changed(node(cordoned=True), 3)
    assert texts(timeline) == ["node cordoned and tainted"]
    assert timeline.cordoned_at == 2


def test_a_budget_gives_a_line_when_its_allowed_evictions_change(timeline: Timeline) -> None:
    timeline.budget_changed(budget("web", healthy=3, desired=2, allowed=1), 0)
    timeline.budget_changed(budget("web", healthy=2, desired=2, allowed=0), 1)
    timeline.budget_changed(budget("web", healthy=2, desired=2, allowed=0), 2)
    timeline.budget_changed(budget("web", healthy=3, desired=2, allowed=1), 3)
    assert texts(timeline) == [
        "budget shop/web, evictions allowed: 0 (2 must stay ready)",
        "budget shop/web, evictions allowed: 1 (3 ready, 2 required)",
    ]


def test_a_pod_that_a_list_lacks_is_gone_and_gets_its_replacement(timeline: Timeline) -> None:
    """Its end was not seen: the watch was broken."""
    there = [pod("shell"), pod("web-2", owner="web", node=OTHER)]
    timeline.pods_listed([*there, pod("web-3", owner="web", node=OTHER)], 5)
    web = timeline.pods["uid-web-1"]
    assert (web.state, web.gone_at) == (PodState.GONE, 5)
    assert web.replacement == "shop/web-3"
    assert texts(timeline)[0] == "shop/web-1 gone"
    assert timeline.pods["uid-shell"].state is PodState.RUNNING
