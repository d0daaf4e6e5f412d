"""Seeds to days, days to verdicts, and failing days to smaller ones.

A day is a value that a hypothesis strategy draws. A seed always draws the same day, on every
machine with the locked version of hypothesis. A failing day is made smaller here: hypothesis knows
only how it drew the day, and stops with ten pods where one is enough.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Generic, TypeVar

import hypothesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.strategies import SearchStrategy
from msgspec import NODEFAULT, Struct, structs

D = TypeVar("D")

BATCH = 20  # seeds that a process takes at a time


@dataclass
class Verdict:
    """What a day showed."""

    faults: list[str] = field(default_factory=list)
    """Each broken promise, as a sentence that begins with the promise's name and a colon."""
    timeline: list[str] = field(default_factory=list)
    """What happened, a line for each event, in order."""
    seen: Counter[str] = field(default_factory=Counter)
    """What the day contained: shows that the simulation reaches what it is for."""


@dataclass(frozen=True)
class Story(Generic[D]):
    """One kind of simulation: how to draw a day, and how to live it.

    `run` must be deterministic, must not wait in real time, and must leave nothing behind.
    """

    name: str
    days: SearchStrategy[D]
    run: Callable[[D], Verdict]


@dataclass(frozen=True)
class Found:
    """A failing seed, with its smallest failing day."""

    seed: int
    day: object
    verdict: Verdict


def draw(story: Story[D], seed: int) -> D:
    """The day of a seed."""
    days: list[D] = []
    # The first day that hypothesis draws is always the smallest one; the second follows the seed.
    _with_seed(story, seed, days.append)()
    return days[-1]


def smallest(story: Story[D], seed: int) -> Found | None:
    """The failing day of a seed, made smaller; None: the day does not fail.

    No element of a list can go, and no field can have its default, without that the day keeps all
    the promises that the seed's own day breaks.
    """
    day = draw(story, seed)
    verdict = story.run(day)
    broken = promises(verdict)
    if not broken:
        return None
    while True:
        for candidate in _smaller(day):
            tried = story.run(candidate)
            if promises(tried) & broken:
                day, verdict = candidate, tried
                break
        else:
            return Found(seed, day, verdict)


def _smaller(value: Any) -> Iterator[Any]:
    """The value without a part of it: the larger parts first."""
    if isinstance(value, list | tuple):
        yield from _shorter(value)
    elif isinstance(value, Struct):
        for each in structs.fields(value):
            now = getattr(value, each.name)
            usual = each.default_factory() if callable(each.default_factory) else each.default
            single = not isinstance(now, list | tuple)  # a list's default may be the longer one
            if single and usual is not NODEFAULT and now != usual:
                yield structs.replace(value, **{each.name: usual})
            for part in _smaller(now):
                yield structs.replace(value, **{each.name: part})


def _shorter(value: Any) -> Iterator[Any]:
    """Without a half, without one element, with a smaller element."""
    size = len(value) // 2
    if size > 1:
        yield value[size:]
        yield value[:size]
    for at, element in enumerate(value):
        yield value[:at] + value[at + 1 :]
        for part in _smaller(element):
            yield value[:at] + type(value)([part]) + value[at + 1 :]


def promises(verdict: Verdict) -> set[str]:
    """The names of the broken promises."""
    return {fault.partition(":")[0] for fault in verdict.faults}


def failing(
    story_of: Callable[[], Story[Any]], seeds: Iterable[int], *, processes: int | None = None
) -> Iterator[tuple[list[int], Counter[str]]]:
    """Live the days of all seeds; yields, batch by batch, the failing seeds and what was seen.

    `story_of`: importable by the processes.
    """
    seeds = list(seeds)
    batches = [seeds[at : at + BATCH] for at in range(0, len(seeds), BATCH)]
    work = partial(_batch, story_of)
    number = min(processes or os.cpu_count() or 1, len(batches))
    if number <= 1:
        yield from map(work, batches)
        return
    with ProcessPoolExecutor(number) as pool:
        yield from pool.map(work, batches)


def _batch(story_of: Callable[[], Story[Any]], seeds: list[int]) -> tuple[list[int], Counter[str]]:
    story, bad, seen = story_of(), [], Counter[str]()
    for seed in seeds:
        verdict = story.run(draw(story, seed))
        seen += verdict.seen
        if verdict.faults:
            bad.append(seed)
    return bad, seen


def _with_seed(story: Story[D], seed: int, live: Callable[[D], object]) -> Callable[[], None]:
    quiet = settings(
        max_examples=2,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )

    def lived(day: D) -> None:
        live(day)

    test: Callable[[], None] = hypothesis.seed(seed)(quiet(given(story.days)(lived)))
    return test
