"""The checks of the demo."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sandbox import __main__ as command
from sandbox.demo import chapters, checks, inventory, steps
from sandbox.demo.timeline import Timeline
from sandbox.errors import SandboxError
from tests.unit.sandbox.objects import NODE, OTHER, pod


@pytest.fixture
def timeline() -> Timeline:
    """One pod evicted, with a replacement on another node."""
    timeline = Timeline(NODE)
    timeline.pod_changed(pod("web-1", owner="web"), 0)
    timeline.begin()
    timeline.pod_changed(pod("web-1", owner="web", evicted=True), 1, deleted=True)
    timeline.pod_changed(pod("web-2", owner="web", node=OTHER), 2)
    return timeline


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


def test_a_result_that_matches_the_cluster_passes(timeline: Timeline) -> None:
    checks.drained(result(), timeline)


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"outcome": "partial"}, id="outcome"),
        pytest.param({"pods": {"evicted": 2, "forced": 0, "left": 0}}, id="one too many"),
        pytest.param({"pods": {"evicted": 0, "forced": 1, "left": 0}}, id="forced, not evicted"),
        pytest.param({"pods": {"evicted": 1, "forced": 0, "left": 1}}, id="left"),
    ],
)
def test_a_result_that_differs_from_the_cluster_fails(
    timeline: Timeline, wrong: dict[str, Any]
) -> None:
    with pytest.raises(checks.DemoError):
        checks.drained(result(**wrong), timeline)


def test_a_pod_without_replacement_fails(timeline: Timeline) -> None:
    timeline.pods["uid-web-1"].replacement_ready = False
    with pytest.raises(checks.DemoError, match="shop/web-1"):
        checks.drained(result(), timeline)


def test_the_conclusion_is_one_line_of_the_handlers_numbers() -> None:
    line = steps.conclusion(result(pods={"evicted": 12, "forced": 1, "left": 0}))
    assert line == f"node {NODE} drained in 8.1 s of 120 s: 12 evicted, 1 forced, 0 left"


def test_every_chapter_needs_an_earlier_one() -> None:
    for number, chapter in enumerate(chapters.CHAPTERS):
        earlier = {before.name for before in chapters.CHAPTERS[:number]}
        assert chapter.needs in (earlier or {""}), chapter.name


def test_one_chapter_runs_with_those_that_it_needs() -> None:
    names = [chapter.name for chapter in chapters.selected("notice")]
    assert names == ["account", "connect", "onboard", "notice"]


def test_the_error_for_an_unknown_chapter_lists_the_known_ones() -> None:
    with pytest.raises(SandboxError, match="account, connect, savings, onboard"):
        chapters.selected("onboarding-2")


def test_expected_permissions_pass() -> None:
    checks.rights("the agent", {"list pods": True, "evict pods": False}, allowed={"list pods"})


@pytest.mark.parametrize(
    ("answers", "fault"),
    [
        ({"list pods": True, "evict pods": True}, "the agent may evict pods"),
        ({"list pods": False, "evict pods": False}, "the agent may not list pods"),
    ],
)
def test_the_error_names_a_permission_too_many_or_too_few(
    answers: dict[str, bool], fault: str
) -> None:
    with pytest.raises(checks.DemoError, match=fault):
        checks.rights("the agent", answers, allowed={"list pods"})


USER, ROLE = ("IAM user", "administrator"), ("IAM role", "cast-demo")


def test_an_estimate_whose_steps_do_not_add_up_fails() -> None:
    checks.adds_up(10.0, [2.0, 0.0, 3.0], 5.0)
    with pytest.raises(checks.DemoError, match="the steps save"):
        checks.adds_up(10.0, [2.0, 0.0, 3.0], 4.0)


def test_an_account_as_before_passes() -> None:
    checks.same({USER}, {USER})


@pytest.mark.parametrize(
    ("after", "fault"),
    [
        ({USER, ROLE}, "did not remove: IAM role cast-demo"),
        (set(), "removed what existed before: IAM user administrator"),
    ],
)
def test_the_error_names_what_was_not_or_wrongly_removed(
    after: set[inventory.Thing], fault: str
) -> None:
    with pytest.raises(checks.DemoError, match=fault):
        checks.same({USER}, after)


def test_the_error_for_a_secret_names_the_place_and_not_the_secret() -> None:
    texts = [("a log", b"nothing"), ("an output", b"key: 5ecret")]
    with pytest.raises(checks.DemoError, match="an output") as raised:
        checks.secret_absent("5ecret", texts)
    assert "5ecret" not in str(raised.value)
    assert checks.secret_absent("other", texts) == len(texts)


@pytest.mark.parametrize(
    "still",
    [
        pytest.param({"status": "ready"}, id="status"),
        pytest.param({"credentials": {"role": "arn"}}, id="credentials"),
        pytest.param({"principal": "arn"}, id="principal"),
    ],
)
def test_a_cluster_that_is_still_connected_fails(still: dict[str, Any]) -> None:
    gone = {"status": "deleting", "credentials": {}, "principal": ""}
    checks.disconnected(gone)
    with pytest.raises(checks.DemoError, match="still connected"):
        checks.disconnected({**gone, **still})


def test_things_are_counted_by_kind() -> None:
    policies = [("IAM policy", "a"), ("IAM policy", "b")]
    assert inventory.counted([*policies, ROLE]) == "2 IAM policies, 1 IAM role"


@pytest.mark.parametrize("error", [checks.DemoError("a check failed"), None])
def test_the_exit_status_follows_the_checks_and_the_sandbox_ends(
    error: SandboxError | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended: list[Path] = []

    def run(*_: object) -> None:
        if error:
            raise error

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command.aws, "isolate", lambda: None)
    monkeypatch.setattr(command.lifecycle, "down", lambda folder, **_: ended.append(folder))
    monkeypatch.setattr(command.signal, "signal", lambda *_: None)
    done = CliRunner().invoke(command.app, ["demo", "--folder", str(tmp_path)])
    assert done.exit_code == (1 if error else 0)
    assert ended == [tmp_path, tmp_path]  # before the demo and after it
    assert ("a check failed" in done.output) is bool(error)
