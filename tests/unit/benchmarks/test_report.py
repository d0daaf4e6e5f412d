"""The verdicts of the goals, and the calculation of costs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks import cost, report
from benchmarks.big_cluster import Drain
from benchmarks.cold_start import ColdStart
from benchmarks.full_node import HANDLER_COLD, HANDLER_WARM, KUBECTL, LOOP, FullNode, Run
from benchmarks.outcome import HANDLER, Case, Outcome, Soak
from benchmarks.report import Figures
from benchmarks.savings import Estimated
from benchmarks.storm import Storm

CALLS = {"get nodes": 1, "patch nodes": 1, "list pods": 2, "watch pods": 1}


def node(handler: float, kubectl: float | None, loop: float) -> FullNode:
    runs = {
        HANDLER_COLD: [Run(0.3, handler, handler + 1, CALLS, peak_mb=64)],
        HANDLER_WARM: [Run(0.01, handler / 2, handler, CALLS, processor_seconds=0.25)],
        LOOP: [Run(None, loop, loop + 1)],
    }
    if kubectl is not None:
        runs[KUBECTL] = [Run(0.1, kubectl, kubectl + 1)]
    return FullNode(110, runs, {} if kubectl else {KUBECTL: "no kubectl on PATH"})


COLD = ColdStart(
    samples=3,
    client=0.30,
    handler=0.30,
    sources=0.50,
    first_invocation=0.1,
    modules=[("botocore", 0.04, 78)],
    slowest=[("ssl", 0.01)],
    sizes={"httpx2": (400_000, 90_000)},
    phases={"SDK: import": 0.2, "import the rest": 0.05},
)
STORM = Storm(100, 1000, 100, 1.0, 4.9, 59.9, 60.0, 0, 0, 3, {"drained": 100})
ESTIMATED = Estimated("generated", 5000, 20_000, 10.0, 1e9, (0.0, 0.05, 0.1), 0.4)
UNHARMED = Outcome(
    HANDLER, 250, 250, left=0, lost=0, short=0, broken=0, failed=0, down=0.0, single_down=0.7,
    requests=900, refused=400, seconds=25.0,
)  # fmt: skip
PEER = replace(UNHARMED, peer=KUBECTL, left=40, broken=3)
CASE = Case("A case", "What happens.", [UNHARMED, PEER])
SOAK = Soak("virtual time", 3600, 360, 7200, 0, 0, 9000, (57.0, 57.5, 57.5), (8, 8, 8))
FIGURES = Figures(
    "python -m benchmarks",
    "here",
    {"machine": "this"},
    512,
    full_node=node(0.6, 20.0, 0.5),
    storm=STORM,
    big=(Drain(3, 60, 3, 1, 100, 0.01, 1.1), Drain(5000, 20_000, 4, 1, 100, 0.01, 1.1)),
    cold=COLD,
    crowded=node(0.6, None, 0.5),
    savings=(ESTIMATED,),
    load=(CASE,),
    soaks=(SOAK,),
)


def verdicts(figures: Figures) -> dict[str, str]:
    return {goal: verdict for goal, _, verdict in report.goals(figures)}


def test_a_figure_at_the_limit_meets_its_goal() -> None:
    found = verdicts(FIGURES)
    assert set(found.values()) == {"met"}


@pytest.mark.parametrize(
    ("change", "goal"),
    [
        ({"full_node": node(1.1, 20.0, 0.9)}, "kubectl drain; cold"),
        ({"full_node": node(0.7, 20.0, 0.5)}, "bare loop of 50; cold"),
        ({"full_node": node(1.2, 40.0, 0.5)}, "bare loop of 50; warm"),
        ({"storm": replace(STORM, cordoned_all=5.1)}, "all cordoned"),
        ({"storm": replace(STORM, drained_all=60.1)}, "all drained"),
        ({"storm": replace(STORM, lost=1)}, "no pod lost"),
        ({"cold": replace(COLD, handler=0.31)}, "cold start"),
        ({"cold": replace(COLD, sizes={"x": (9_000_000, 2_100_000)})}, "spot zip"),
        ({"savings": (replace(ESTIMATED, seconds=10.1),)}, "20,000 pods ≤ 10 s"),
        ({"savings": (replace(ESTIMATED, memory=1.1e9),)}, "≤ 1 GB"),
        ({"savings": (ESTIMATED, replace(ESTIMATED, pods=9, above=(0.11,)))}, "lower bound"),
        *(
            ({"load": (replace(CASE, rows=[replace(UNHARMED, **{harm: 1})]),)}, "load: A case")
            for harm in ("left", "lost", "short", "broken")
        ),
        ({"soaks": (replace(SOAK, harm=1),)}, "soak, virtual time"),
        ({"big": (Drain(3, 60, 5, 1, 100, 0.01, 1.1),)}, "reads per drain"),
        ({"big": (Drain(3, 60, 3, 2, 100, 0.01, 1.1),)}, "reads per drain"),
    ],
)
def test_a_figure_beyond_the_limit_does_not_meet_its_goal(
    change: dict[str, object], goal: str
) -> None:
    found = verdicts(replace(FIGURES, **change))
    assert [verdict for name, verdict in found.items() if goal in name] == ["**not met**"]


def test_a_goal_whose_peer_is_missing_is_not_measured() -> None:
    figures = replace(FIGURES, full_node=node(0.6, None, 0.5))
    kubectl = [row[1:] for row in report.goals(figures) if "kubectl" in row[0]]
    assert kubectl == [(report.NOT_MEASURED, "")] * 2  # cold and warm
    assert "Not run: kubectl drain (no kubectl on PATH)." in report.markdown(figures)


def test_the_report_has_no_section_for_what_was_not_measured() -> None:
    text = report.markdown(Figures("command", "here"))
    assert [line for line in text.splitlines() if line.startswith("## ")] == ["## Goals"]


def test_the_report_adds_up_lost_pods_and_conflicts_of_all_runs() -> None:
    run = Run(0.1, 0.543, 1.0, lost=1, conflicts=2)
    runs = {HANDLER_WARM: [run, run], LOOP: [run, replace(run, conflicts=None)]}
    text = report.markdown(replace(FIGURES, full_node=FullNode(110, runs, {})))
    rows = [line.split(" | ")[-2:] for line in text.splitlines() if "0.543 s" in line]
    assert rows == [["2", "4 |"], ["2", "not measured |"]]


def test_the_report_shows_each_peer_of_a_load() -> None:
    text = report.markdown(FIGURES)
    end = " | 0.000 s | 0.700 s | 900 | 400 | 25.00 s |"
    rows = [line.removesuffix(end) for line in text.splitlines() if line.endswith(end)]
    assert rows == [
        "| handler, warm | 250 | 250 | 0 | 0 | 0 | 0 | 0",
        "| kubectl drain | 250 | 250 | 40 | 0 | 0 | 3 | 0",
    ]
    assert "57.0, 57.5, 57.5 | 8, 8, 8 | — |" in text


def test_the_report_says_where_the_replacements_ran() -> None:
    said = "the replacements start when the benchmark has uncordoned the nodes"
    assert said not in report.markdown(FIGURES)
    assert said in report.markdown(replace(FIGURES, storm=replace(STORM, restored=True)))


def test_the_report_marks_and_explains_the_default_memory() -> None:
    text = report.markdown(FIGURES)
    assert "| **512 MB** |" in text
    assert "The default, 512 MB, follows" in text


def test_the_cost_is_memory_times_time_plus_a_request() -> None:
    # 1,000 times 1 GB for 30 s at $0.0000133334, and 1,000 requests at $0.20 a million.
    assert cost.dollars(1024, 30.0) == pytest.approx(0.400202)


def test_less_than_one_processor_takes_longer_and_more_than_one_is_not_faster() -> None:
    sizes = {
        choice.memory_mb: choice.seconds
        for choice in cost.choices(cold_seconds=0.5, drain_processor_seconds=0.25)
    }
    assert sizes[1769] == 0.75
    assert sizes[512] == pytest.approx(0.75 * 1769 / 512)
