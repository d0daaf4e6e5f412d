"""The soak in virtual time: each drain and each harm is counted."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from benchmarks import soak
from benchmarks.soak import EVERY, PODS
from benchmarks.target import Observed
from kubesim.virtual import run_virtual
from lambdas.spot_handler import interruption
from lambdas.spot_handler.interruption import Interruption


def test_each_notice_is_handled_with_and_without_faults() -> None:
    found = run_virtual(soak.run(2 * EVERY))
    assert (found.notices, found.pods, found.harm, found.undrained) == (2, 2 * PODS, 0, 0)


def test_a_handler_that_drains_nothing_does_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(run: Interruption, *_: object) -> None:
        await asyncio.sleep(1)
        run.end(interruption.Outcome.DRAINED)

    monkeypatch.setattr(interruption, "drain", nothing)
    found = run_virtual(soak.run(EVERY))
    assert (found.notices, found.pods, found.harm, found.undrained) == (1, 0, PODS, 0)


def test_all_kinds_of_harm_add_up() -> None:
    counts: Counter[str] = Counter()
    seen = Observed(accepted={"a": 1.0}, lost=1, short=2, broken=3, calls={"list pods": 2})
    soak.count(counts, seen, left=4, outcome="partial")
    assert counts == {"notices": 1, "pods": 1, "harm": 10, "undrained": 1, "requests": 2}
