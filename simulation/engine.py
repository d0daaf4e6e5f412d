"""Seeds to days, days to verdicts, and failing days to smaller ones.

A day is a value that a hypothesis strategy draws. A seed always draws the same day, on every
machine with the locked version of hypothesis. hypothesis also makes a failing day smaller.
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
    _with_seed(story, seed, days.append, Phase.generate)()
    return days[-1]


def smallest(story: Story[D], seed: int) -> Found | None:
    """The failing day of a seed, made smaller; None: the day does not fail.

    The fewest pods, faults and events with which at least one promise is broken that the seed's own
    day breaks.
    """
    broken = promises(story.run(draw(story, seed)))
    if not broken:
        return None
    last: dict[str, Any] = {}

    def live(day: D) -> None:
        verdict = story.run(day)
        if promises(verdict) & broken:
            last.update(day=day, verdict=verdict)
            raise _BrokenError

    try:
        _with_seed(story, seed, live, Phase.generate, Phase.shrink)()
    except _BrokenError:
        return Found(seed, last["day"], last["verdict"])
    message = f"Seed {seed} of {story.name} fails only sometimes: its run is not deterministic"
    raise RuntimeError(message)


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


class _BrokenError(Exception):
    """A promise is broken. One type, raised in one place: hypothesis takes it for one fault."""


def _with_seed(
    story: Story[D], seed: int, live: Callable[[D], object], *phases: Phase
) -> Callable[[], None]:
    quiet = settings(
        max_examples=2,
        phases=phases,
        database=None,
        deadline=None,
        report_multiple_bugs=False,
        print_blob=False,
        suppress_health_check=list(HealthCheck),
        verbosity=hypothesis.Verbosity.quiet,
    )

    def lived(day: D) -> None:
        live(day)

    test: Callable[[], None] = hypothesis.seed(seed)(quiet(given(story.days)(lived)))
    return test
