"""The judge of the spot handler's days sees what a function does that breaks a promise."""

from __future__ import annotations

import json
from collections.abc import Callable, Coroutine
from typing import Any
from unittest.mock import patch

import httpx2
import pytest

from lambdas.spot_handler import drain, handler, interruption, report
from lambdas.spot_handler.interruption import Dependencies
from simulation.drain.days import Act, AwsFault, Budget, Day, Delivery, Fault, Pod, Settings
from simulation.drain.faults import WHY
from simulation.drain.known_faults import put_back
from simulation.drain.story import run
from simulation.engine import promises

Respond = Callable[..., Coroutine[Any, Any, dict[str, Any]]]
NODE = "/api/v1/nodes/ip-10-0-0-0.eu-central-1.compute.internal"
RESPOND = handler.respond
TAINT = {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"}


def afterwards(act: Callable[[dict[str, Any], Dependencies], Coroutine[Any, Any, None]]) -> Respond:
    """The handler, and what it does wrong at its end."""

    async def respond(event: object, deps: Dependencies, *, remaining: float) -> dict[str, Any]:
        result = await RESPOND(event, deps, remaining=remaining)
        await act(result, deps)
        return result

    return respond


def found(day: Day, respond: Respond) -> set[str]:
    """The promises that are broken only by what was put in."""
    assert run(day).faults == []
    with patch.object(handler, "respond", respond):
        return promises(run(day))


async def api(deps: Dependencies, method: str, **further: Any) -> Any:
    async with httpx2.AsyncClient(
        transport=deps.transport("", 1),
        base_url="https://cluster.invalid",
        headers={
            "authorization": "Bearer k8s-aws-v1.x",
            "content-type": "application/merge-patch+json",
        },
    ) as client:
        return (await client.request(method, NODE, **further)).json()


@pytest.mark.parametrize(
    "write",
    [
        {"spec": {"taints": [TAINT]}},
        {"spec": {"unschedulable": None}},
        {"metadata": {"labels": {"aws-node-termination-handler/action": None}}},
        {"metadata": {"annotations": {"example.com/note": "x"}}},
        {"status": {}},
    ],
    ids=["taints", "cordon", "label", "annotation", "status"],
)
@pytest.mark.parametrize("names_version", [True, False])
def test_a_later_write_that_takes_a_mark_of_others(
    write: dict[str, Any], *, names_version: bool
) -> None:
    async def overwrite(_result: object, deps: Dependencies) -> None:
        node = await api(deps, "GET")
        version = {"resourceVersion": node["metadata"]["resourceVersion"]} if names_version else {}
        body = {**write, "metadata": {**write.get("metadata", {}), **version}}
        await api(deps, "PATCH", content=json.dumps(body))

    day = Day([Pod()], acts=[Act("taint", 0.1), Act("mark", 0.1)])
    assert found(day, afterwards(overwrite)) == {"marks"}


@pytest.mark.parametrize(
    "kind", ["busy", "policy", "webhook fails", "server error", "timed out", "bad gateway", "reset"]
)
def test_a_deletion_past_a_budget_that_was_not_asked(kind: str) -> None:
    day = Day([Pod(grace=90)], [Budget(value=0)], faults=[Fault(kind, "evict")])
    assert run(day).faults == []
    with put_back("force after any refusal"):
        assert "budgets" in promises(run(day))


@pytest.mark.parametrize("fault", [None, Fault("busy", "list", 60.0), Fault("policy", "evict", 80)])
def test_a_pod_that_is_named_and_was_never_there(fault: Fault | None) -> None:
    async def lie(result: dict[str, Any], _deps: object) -> None:
        if result["outcome"] == "partial":
            result["left"] = [{"pod": "default/nobody", "reason": ""}]

    day = Day(
        [Pod()],
        [Budget(value=0)],
        settings=Settings(on_deadline="leave"),
        faults=[fault] if fault else [],
    )
    assert found(day, afterwards(lie)) == {"truth"}


@pytest.mark.parametrize("kind", ["terminate", "running", "foreign"])
def test_an_error_after_the_work(kind: str) -> None:
    def broken(_result: object) -> None:
        raise KeyError("metric")

    with patch.object(report, "measure", broken):
        assert promises(run(Day([Pod()], deliveries=[Delivery(kind)]))) == {"outcome"}


def test_a_run_that_waits_for_castai_a_little_too_long() -> None:
    day = Day([Pod()], castai="slow")
    with patch.object(interruption, "CASTAI_WAIT", 11.0):
        assert promises(run(day)) == {"time"}


@pytest.mark.parametrize("fault", [None, Fault("busy", "evict")])
def test_a_run_that_waits_for_a_pod_that_never_ends(fault: Fault | None) -> None:
    stuck = Pod(grace=5, shutdown=None)
    day = Day([stuck], acts=[Act("machine hangs", 2.5)], faults=[fault] if fault else [])
    assert run(day).faults == []
    with patch.object(drain, "STUCK", 1e6):
        assert promises(run(day)) == {"time"}


def test_a_text_of_a_server_that_fills_the_log() -> None:
    async def log(_result: object, _deps: object) -> None:
        report.logger().warning(WHY)

    assert found(Day([Pod()]), afterwards(log)) == {"words"}


def test_more_requests_than_are_bounded() -> None:
    async def ask(_result: object, deps: Dependencies) -> None:
        for _ in range(50):
            await api(deps, "GET")

    assert found(Day([Pod()]), afterwards(ask)) == {"storms"}


@pytest.mark.parametrize("kind", ["not known", "not shown"])
def test_a_young_instance_that_ec2_does_not_know_yet(kind: str) -> None:
    day = Day([Pod()], aws_faults=[AwsFault(kind, times=5), AwsFault(kind, skip=5, times=5)])
    assert run(day).faults == []
    with put_back("EC2's first answer is final"):
        assert promises(run(day)) == {"off by the deadline"}
