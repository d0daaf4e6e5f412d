"""The demo's verdict."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox import demo
from sandbox.errors import SandboxError
from sandbox.story import Story
from tests.unit.sandbox.objects import NODE, OTHER, pod


@pytest.fixture
def story() -> Story:
    """One pod evicted, back elsewhere."""
    story = Story(NODE)
    story.pod_changed(pod("web-1", owner="web"), 0)
    story.begin()
    story.pod_changed(pod("web-1", owner="web", evicted=True), 1, deleted=True)
    story.pod_changed(pod("web-2", owner="web", node=OTHER), 2)
    return story


def result(**changes: Any) -> dict[str, Any]:
    return {
        "outcome": "drained",
        "node": NODE,
        "seconds": 8.3,
        "seconds_to_drained": 8.1,
        "pods": {"evicted": 1, "forced": 0, "left": 0},
        "left": [],
        **changes,
    }


def test_an_account_that_agrees_with_the_cluster_passes(story: Story) -> None:
    demo.check(result(), story)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"outcome": "partial"}, id="outcome"),
        pytest.param({"pods": {"evicted": 2, "forced": 0, "left": 0}}, id="one too many"),
        pytest.param({"pods": {"evicted": 0, "forced": 1, "left": 0}}, id="forced, not evicted"),
        pytest.param({"pods": {"evicted": 1, "forced": 0, "left": 1}}, id="left"),
    ],
)
def test_an_account_that_differs_from_the_cluster_fails(
    story: Story, wrong: dict[str, Any]
) -> None:
    with pytest.raises(demo.DemoError):
        demo.check(result(**wrong), story)


def test_a_pod_that_did_not_come_back_fails(story: Story) -> None:
    story.pods["uid-web-1"].replacement_ready = False
    with pytest.raises(demo.DemoError, match="shop/web-1"):
        demo.check(result(), story)


def test_the_conclusion_is_one_line_of_the_handlers_numbers() -> None:
    line = demo.conclusion(result(pods={"evicted": 12, "forced": 1, "left": 0}))
    assert line == f"node {NODE} drained in 8.1 s of 120 s: 12 evicted, 1 forced, 0 left"


def test_every_need_of_a_chapter_comes_before_it() -> None:
    for number, chapter in enumerate(demo.CHAPTERS):
        earlier = {before.name for before in demo.CHAPTERS[:number]}
        assert set(chapter.needs) <= earlier, chapter.name


def test_one_chapter_plays_with_what_it_stands_on() -> None:
    assert [chapter.name for chapter in demo.selected("notice")] == ["sandbox", "deploy", "notice"]


def test_an_unknown_chapter_names_the_known_ones() -> None:
    with pytest.raises(SandboxError, match="sandbox, deploy, notice"):
        demo.selected("onboarding-2")
