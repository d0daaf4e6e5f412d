"""Bad days, by the thousand: `make simulate`.

    python -m simulation [STORY …] [--seeds N] [--first N]   days, on all cores
    python -m simulation STORY --seed N                      one day, with its timeline
    python -m simulation STORY --known-faults [--seeds N]    how many days find each known fault

Exit code 1: a promise is broken. The first failing days are made smaller and printed, each with the
command that repeats it. With --known-faults: a known fault is found by no day.
"""

from __future__ import annotations

import argparse
import importlib
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from simulation import engine
from simulation.engine import Story

STORIES = {
    "drain": "simulation.drain.story",
    "onboarding": "simulation.resources.onboarding",
    "agent": "simulation.resources.agent",
}
KNOWN_FAULTS = {
    "drain": "simulation.drain.known_faults",
    "onboarding": "simulation.resources.known_faults",
    "agent": "simulation.resources.agent_known_faults",
}
SHOWN = 3  # failing seeds that are made smaller and shown


def main(arguments: list[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(prog="simulation", description="Lives bad days.")
    parser.add_argument("stories", nargs="*", metavar="STORY", help=f"of {', '.join(STORIES)}")
    parser.add_argument("--seeds", type=int, default=100, help="how many days of each story")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--seed", type=int, help="one day, with its timeline")
    parser.add_argument(
        "--known-faults", action="store_true", help="put known faults back, one by one"
    )
    given = parser.parse_args(arguments)
    for name in given.stories:
        if name not in STORIES:
            parser.error(f"{name} is no story: use {', '.join(STORIES)}")
    names = given.stories or list(STORIES)
    if given.known_faults:
        return max(_find_known(name, given.seeds) for name in given.stories or KNOWN_FAULTS)
    if given.seed is not None:
        return max(_show(name, given.seed) for name in names)
    return max(_live(name, range(given.first, given.first + given.seeds)) for name in names)


def _live(name: str, seeds: range) -> int:
    """Live a day for each seed, and show the first failing ones."""
    began, bad, seen = time.monotonic(), list[int](), Counter[str]()
    for failing, what in engine.failing(_factory(name), seeds):
        bad += failing
        if failing:
            print(f"{name}: failing: {', '.join(map(str, failing))}", flush=True)
        seen += what
    print(f"{name}: {len(seeds)} days in {time.monotonic() - began:.0f} s, {len(bad)} fail")
    print("  " + ", ".join(f"{what} {count}" for what, count in sorted(seen.items())))
    for seed in bad[:SHOWN]:
        found = engine.smallest(_factory(name)(), seed)
        print(f"\n{_command(name, seed)}")
        if found is not None:
            _print(found.day, found.verdict)
    if bad:
        print(f"\nFailing seeds of {name}: {', '.join(map(str, bad))}")
    return int(bool(bad))


def _find_known(name: str, seeds: int) -> int:
    """Put each known fault back, and count the days that find it."""
    faults = list(importlib.import_module(KNOWN_FAULTS[name]).KNOWN_FAULTS)
    with ProcessPoolExecutor() as pool:
        found = list(pool.map(partial(_found, name, seeds), faults))
    for fault, days in zip(faults, found, strict=True):
        first = f", the first is {days[0]}" if days else ""
        print(f"{name}: {fault}: found by {len(days)} of {seeds} days{first}")
    return int(not all(found))


def _found(name: str, seeds: int, fault: str) -> list[int]:
    """The seeds whose days find a known fault."""
    story = _factory(name)()
    with importlib.import_module(KNOWN_FAULTS[name]).put_back(fault):
        return [seed for seed in range(seeds) if story.run(engine.draw(story, seed)).faults]


def _show(name: str, seed: int) -> int:
    """The day of a seed, and its smallest failing form."""
    story = _factory(name)()
    verdict = story.run(engine.draw(story, seed))
    if not verdict.faults:
        _print(engine.draw(story, seed), verdict)
        return 0
    found = engine.smallest(story, seed)
    assert found is not None  # noqa: S101 - it failed above, and a run is deterministic
    _print(found.day, found.verdict)
    return 1


def _print(day: object, verdict: engine.Verdict) -> None:
    print(day)
    print(*verdict.timeline, sep="\n")
    print(*(f"BROKEN {fault}" for fault in verdict.faults), sep="\n")


def _command(name: str, seed: int) -> str:
    return f"make simulate STORY={name} SEED={seed}"


def _factory(name: str) -> Callable[[], Story[Any]]:
    factory: Callable[[], Story[Any]] = importlib.import_module(STORIES[name]).story
    return factory


if __name__ == "__main__":
    sys.exit(main())
