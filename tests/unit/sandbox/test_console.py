"""The demo's live view and its plain lines."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any, cast

import pytest
from rich.console import Console

from sandbox.demo.console import Drawing, View
from sandbox.demo.timeline import Timeline
from sandbox.demo.watcher import Watcher
from tests.unit.sandbox.objects import NODE, OTHER, budget, node, pod

GIVEN = 1000.0


@pytest.fixture
def timeline() -> Timeline:
    timeline = Timeline(NODE)
    timeline.pod_changed(pod("web-1", owner="web"), GIVEN)
    timeline.pod_changed(pod("shell"), GIVEN)
    timeline.pod_changed(pod("db-0", owner="db", owner_kind="StatefulSet"), GIVEN)
    timeline.pod_changed(pod("agent", owner="agent", owner_kind="DaemonSet"), GIVEN)
    timeline.budget_changed(budget("db", healthy=1, desired=1, allowed=0), GIVEN)
    timeline.begin()
    timeline.node_changed(node(cordoned=True), GIVEN + 0.5)
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), GIVEN + 1, deleted=True)
    timeline.pod_changed(pod("web-2", owner="web", node=OTHER), GIVEN + 2)
    timeline.pod_changed(pod("shell", evicted=True), GIVEN + 2)
    timeline.pod_changed(
        pod("db-0", owner="db", owner_kind="StatefulSet", terminating=True), GIVEN + 12.5
    )
    return timeline


def view_on(screen: io.StringIO, *, plain: bool) -> View:
    view = View(plain=plain)
    view.console = Console(file=screen, width=120, highlight=False)
    return view


def drawing_on(view: View, timeline: Timeline) -> Drawing:
    watcher = cast("Any", SimpleNamespace(read=lambda function: function(timeline)))
    return Drawing(view, cast("Watcher", watcher), GIVEN, GIVEN + 120)


def test_the_live_view_shows_each_pods_progress_and_the_budgets(timeline: Timeline) -> None:
    screen = io.StringIO()
    view = view_on(screen, plain=False)
    view.console.print(drawing_on(view, timeline).render())
    lines = {line.split()[0]: line for line in screen.getvalue().splitlines() if line.strip()}
    assert "evicted, gone" in lines["shop/web-1"]
    assert "shop/web-2" in lines["shop/web-1"]
    assert "✓ ip-10-0-3-4" in lines["shop/web-1"]
    assert "evicted …" in lines["shop/shell"]
    assert "no controller re-creates it" in lines["shop/shell"]
    assert "forced …" in lines["shop/db-0"]
    assert "stays: DaemonSet" in lines["shop/agent"]
    assert lines["shop/db"].split()[1:] == ["1", "1", "0"]
    assert "of 120 s" in screen.getvalue()


def test_plain_output_has_each_line_once_with_its_second(timeline: Timeline) -> None:
    screen = io.StringIO()
    drawing = drawing_on(view_on(screen, plain=True), timeline)
    drawing.update()
    drawing.update()
    assert [line.strip() for line in screen.getvalue().splitlines()] == [
        "0.5 s  node cordoned and tainted",
        "1.0 s  shop/web-1 evicted",
        "1.0 s  shop/web-1 gone",
        "2.0 s  shop/web-2 ready on ip-10-0-3-4.ec2.internal",
        "2.0 s  shop/shell evicted",
        "12.5 s  shop/db-0 deleted past its budget",
    ]


def test_a_table_is_as_wide_as_its_cells_and_all_printed_lines_are_kept() -> None:
    screen = io.StringIO()
    view = view_on(screen, plain=True)
    view.chapter(1, "Title", "word " * 30)
    view.table([("a", "long name", "why"), ("kind", "b", "")])
    lines = screen.getvalue().splitlines()
    assert lines[-2:] == ["      a     long name  why", "      kind  b"]
    assert max(map(len, lines)) <= 88
    assert view.printed == lines
