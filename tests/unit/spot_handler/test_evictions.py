"""The verdict of each answer to an eviction; where possible, recorded answers of an API server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lambdas.common.kubernetes_answers import Status
from lambdas.spot_handler import evictions
from lambdas.spot_handler.evictions import Verdict
from lambdas.spot_handler.node_api import Answer

RECORDED = Path(__file__).parents[2] / "recorded" / "kubernetes-1.36"


def recorded(name: str) -> Answer:
    response = json.loads((RECORDED / f"{name}.json").read_text())["response"]
    retry_after = response["headers"].get("retry-after")
    body = response["body"]
    status = Status(message=body) if isinstance(body, str) else msgspec.convert(body, Status)
    return Answer(
        response["status"],
        status,
        None if retry_after is None else float(retry_after),
    )


def answer(http_code: int, /, **body: Any) -> Answer:
    return Answer(http_code, msgspec.convert({"kind": "Status", **body}, Status), None)


@pytest.mark.parametrize(
    ("name", "verdict"),
    [
        ("evict-accepted", Verdict.ACCEPTED),
        ("evict-again-while-terminating", Verdict.ACCEPTED),
        ("evict-pending-under-budget", Verdict.ACCEPTED),
        ("evict-unready-alwaysallow", Verdict.ACCEPTED),
        ("evict-unknown-field", Verdict.ACCEPTED),
        ("evict-missing", Verdict.GONE),
        ("evict-uid-mismatch", Verdict.GONE),
        ("evict-budget-exhausted", Verdict.BLOCKED),
        ("evict-budget-not-observed", Verdict.RETRY),
        ("evict-unready-ifhealthybudget", Verdict.BLOCKED),
        ("evict-two-budgets", Verdict.BLOCKED),
        ("evict-namespace-terminating", Verdict.RETRY),
        ("evict-name-mismatch", Verdict.REFUSED),
        ("evict-forbidden", Verdict.FORBIDDEN),
        ("evict-disrupted-pods-full", Verdict.REFUSED),
        ("evict-denied-by-policy", Verdict.REFUSED),
        ("evict-webhook-fails", Verdict.RETRY),
        ("evict-priority-and-fairness", Verdict.RETRY),
        ("delete-past-budget", Verdict.ACCEPTED),
        ("delete-uid-mismatch", Verdict.GONE),
    ],
)
def test_the_verdict_of_a_recorded_answer(name: str, verdict: Verdict) -> None:
    assert evictions.read(recorded(name)).verdict is verdict


def test_the_reason_names_the_budget() -> None:
    reading = evictions.read(recorded("evict-budget-exhausted"))
    assert reading.reason == "The disruption budget b needs 2 healthy pods and has 2 currently"
    assert reading.retry_after is None


def test_retry_after_is_in_the_reading() -> None:
    assert evictions.read(recorded("evict-budget-not-observed")).retry_after == 10


@pytest.mark.parametrize(
    ("given", "verdict"),
    [
        # a code of success with a body of failure: one client reports it for a pod with two budgets
        (answer(201, status="Failure", code=500, message="x more than one PodDisruptionBudget"),
         Verdict.BLOCKED),
        (answer(200, status="Failure", code=404), Verdict.GONE),
        (answer(200, status="Failure"), Verdict.RETRY),
        (answer(200, status={"phase": "Running"}), Verdict.ACCEPTED),  # a pod, not a Status
        (answer(429, message="too many requests"), Verdict.RETRY),  # API Priority and Fairness
        (answer(500, message="failed calling webhook"), Verdict.RETRY),
        (answer(502), Verdict.RETRY),
        (answer(503), Verdict.RETRY),
        (answer(504, message="the server was unable to return a response"), Verdict.RETRY),
        (answer(409, message="the object has been modified"), Verdict.RETRY),
        (answer(403, message='admission webhook "policy" denied the request: no'),
         Verdict.REFUSED),
        (answer(422), Verdict.REFUSED),
    ],
)  # fmt: skip
def test_the_verdict_depends_on_code_and_body(given: Answer, verdict: Verdict) -> None:
    assert evictions.read(given).verdict is verdict
