"""Metrics, log queries and costs in the documents are those of the handler."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from benchmarks import cost
from lambdas.common.names import METRICS_NAMESPACE
from lambdas.spot_handler import report
from lambdas.spot_handler.result import Outcome, PodCounts, RemainingPod, Result
from stacks.settings import SPOT_MEMORY_MB
from tests.support import pages
from tests.support.pages import ROOT

OPERATIONS = ROOT / "docs" / "operations.md"
USAGE = ROOT / "docs" / "aws-usage.md"

# Words of the query language, and the names that the queries define.
LANGUAGE = {"fields", "filter", "sort", "stats", "by", "desc", "and", "as", "ispresent"}
LANGUAGE |= {"count", "pct", "bin", "drains", "cordoned", "drained"}
# Fields that Lambda and the logger add to a line, and the handler to the line of a failure.
ADDED = {"@timestamp", "message", "level", "fault"}


def result() -> Result:
    """The result of a drain that left a pod and was reported to CAST AI: no field is empty."""
    return Result(
        Outcome.PARTIAL,
        reason="why",
        cluster="prod",
        given=0.0,
        cordoned_at=1.0,
        drained_at=9.0,
        pods=PodCounts(
            evicted=14,
            left=[RemainingPod("shop/web", "why")],
            skipped=Counter({"why": 1}),
            answers=Counter({"201": 14, "429": 9}),
        ),
        castai="reported",
    )


@pytest.fixture
def written(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> list[dict[str, Any]]:
    """The log lines of one drain: the outcome, then the metrics."""
    fields: dict[str, Any] = {}
    monkeypatch.setattr(report.logger(), "info", lambda _, extra: fields.update(extra))
    report.log(result())
    report.measure(result())
    return [fields, *(json.loads(line) for line in capsys.readouterr().out.splitlines())]


def test_the_table_has_every_metric_with_its_unit(written: list[dict[str, Any]]) -> None:
    emitted = {
        (f"`{metric['Name']}`", metric["Unit"])
        for line in written[1:]
        for metric in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    }
    table = pages.rows(pages.between(OPERATIONS, "metrics"))
    assert {(row[0], row[1]) for row in table} == emitted


def test_the_text_names_the_dimensions_of_the_metrics(written: list[dict[str, Any]]) -> None:
    dimensions = {
        frozenset(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0]) for line in written[1:]
    }
    text = pages.section(OPERATIONS, "Metrics").split("<!--")[0]
    said = {frozenset(each.split(", ")) for each in re.findall(r"`(service[a-z, ]*)`", text)}
    assert said == dimensions
    assert METRICS_NAMESPACE in text
    assert f"`{report.NO_CLUSTER}`" in pages.section(OPERATIONS, "Metrics")


@pytest.mark.parametrize(
    "block", pages.blocks(OPERATIONS, "text"), ids=lambda block: block.text.splitlines()[0]
)
def test_the_fields_of_a_query_are_in_the_log_line(
    block: pages.Block, written: list[dict[str, Any]]
) -> None:
    line = written[0]
    without_values = re.sub(r'"[^"]*"|\b\d+[a-z]?\b(?!\.)', "", block.text)
    for word in re.findall(r"@?[a-z_]+(?:\.[a-z0-9_]+)*", without_values):
        if word in LANGUAGE | ADDED:
            continue
        found: Any = line
        for part in word.split("."):
            found = _part(found, part)


def _part(found: Any, part: str) -> Any:
    """A part of a field's name as Logs Insights resolves it; the items of a list by number."""
    if isinstance(found, list):
        return found[0]  # the list has one item
    assert part in found, part
    return found[part]


@pytest.mark.parametrize("outcome", re.findall(r'outcome = "(\w+)"', OPERATIONS.read_text()))
def test_the_outcomes_in_a_query_exist(outcome: str) -> None:
    assert outcome in list(Outcome)


def test_the_number_of_metrics_is_that_of_a_drain(written: list[dict[str, Any]]) -> None:
    series = Counter(
        frozenset(line["_aws"]["CloudWatchMetrics"][0]["Dimensions"][0])
        for line in written[1:]
        for _ in line["_aws"]["CloudWatchMetrics"][0]["Metrics"]
    )
    service, outcome, code = (series[key] for key in sorted(series, key=len))
    said = re.search(
        r"(\d+) in an hour with a notice: (\d+) by service, (\d+) by cluster and outcome, "
        r"(\d+) codes",
        USAGE.read_text(),
    )
    assert said
    assert [int(each) for each in said.groups()] == [
        service + outcome + code, service, outcome, code,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("seconds", "shown"),
    re.findall(r"pods end in (\d+) s .*\$([\d.]+) \|$", USAGE.read_text(), re.MULTILINE),
)
def test_the_price_of_a_drain_is_that_of_its_time_and_up_to_20_percent_more(
    seconds: str, shown: str
) -> None:
    waiting = cost.dollars(SPOT_MEMORY_MB, float(seconds))
    assert waiting <= float(shown) <= 1.2 * waiting
    assert f"{SPOT_MEMORY_MB:,} MB" in USAGE.read_text()


@pytest.mark.parametrize("event", ["SpotInterruption", "SpotDrained", "SpotDrainIncomplete"])
def test_the_reasons_of_the_events_on_a_node_are_named(event: str) -> None:
    assert f"`{event}`" in OPERATIONS.read_text()
    assert f'"{event}"' in (ROOT / "lambdas/spot_handler/report.py").read_text()
