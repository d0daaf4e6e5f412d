"""Days of the onboarding keep their promises, are repeatable, and find faults of the code."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from simulation.engine import draw
from simulation.resources import onboarding
from simulation.resources.calls import KINDS, Fault
from simulation.resources.edits import EDITS
from simulation.resources.onboarding import Day, Deploy, Edit, Remove, story

SEEDS = range(20)


def broken(day: Day) -> list[str]:
    return onboarding.run(day).faults


@pytest.mark.parametrize("seed", SEEDS)
def test_a_day_keeps_the_promises(seed: int) -> None:
    verdict = story().run(draw(story(), seed))
    assert verdict.faults == [], "\n".join(verdict.timeline)


def test_a_seed_gives_the_same_day_and_the_same_timeline() -> None:
    day = draw(story(), 52)
    assert draw(story(), 52) == day
    assert story().run(day).timeline == story().run(day).timeline


@pytest.mark.parametrize("edit", EDITS)
def test_a_day_makes_each_kind_of_edit(edit: str) -> None:
    day = Day((Deploy(0, ("spot handler",)), Edit(edit, 0), Deploy(0, ("new code",)), Remove(0)))
    verdict = onboarding.run(day)
    assert verdict.faults == []
    assert verdict.seen[edit] == (0 if edit.startswith("takes the name") else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_day_meets_each_kind_of_fault(kind: str) -> None:
    verdict = onboarding.run(Day((Deploy(0, faults=(Fault(kind, at=9),), twice=True),)))
    assert verdict.faults == []
    assert verdict.seen[kind] == 1


@pytest.fixture
def no_memory() -> Iterator[None]:
    """What a first Create makes is not remembered from one code to another."""
    onboarding._made_by_a_create.cache_clear()
    yield
    onboarding._made_by_a_create.cache_clear()
