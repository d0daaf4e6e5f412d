"""What is drawn for one day of a custom resource: its steps, its clusters, its faults."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from simulation.resources import edits
from simulation.resources.calls import ANY, KINDS, SERVICES, Fault
from simulation.resources.requests import Function, Resource
from simulation.resources.world import PLACES, Place, World


class Deploy(msgspec.Struct, frozen=True, tag=True):
    """The stack is deployed with changed properties of a resource."""

    resource: int
    changes: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()
    stack_fails: bool = False
    """Another resource of the stack fails afterwards: CloudFormation rolls back."""
    twice: bool = False
    """The request is delivered a second time; after the end of a killed function, again."""


class Remove(msgspec.Struct, frozen=True, tag=True):
    """The stack, or the resource in it, is removed."""

    resource: int
    faults: tuple[Fault, ...] = ()
    twice: bool = False


class Edit(msgspec.Struct, frozen=True, tag=True):
    """Others edit something of a cluster."""

    edit: str
    place: int


Step = Deploy | Remove | Edit


class Day(msgspec.Struct, frozen=True):
    """A day of an account."""

    steps: tuple[Step, ...]
    resources: tuple[int, ...] = (0,)
    """The clusters' numbers in PLACES, one for each custom resource."""
    modes: tuple[str, ...] = ("API_AND_CONFIG_MAP",) * len(PLACES)
    """The clusters' authentication modes."""
    log_level: str = "INFO"
    """Of the functions."""


@dataclass(frozen=True)
class Kind:
    """What differs between the days of one custom resource and of another."""

    base: Callable[[Place], dict[str, Any]]
    """The properties of a first Create."""
    changes: Mapping[str, Mapping[str, Any]]
    edits: Mapping[str, edits.Edit]
    function: Callable[[World, Resource], Function]
    physical_id: str
    """A pattern; {region} stands for the region."""
    obstacles: Callable[[World], set[Place]]
    """Clusters with something of others for which a request may have to be refused."""
    clear_obstacles: Callable[[World], None]
    """Do what the refusals ask for."""
    controllers: bool = False
    """Whether the clusters' controllers run."""
    cleans_up_at_rollback: bool = False
    """Whether a rollback removes what a killed Update made in another cluster."""
    settles: float = 0.0
    """Seconds after a request until the controllers have done what follows from it."""


@dataclass(frozen=True)
class Focus:
    """What a day has much of. A day of everything has little of each."""

    faulty: float = 0.4
    """Share of the requests with faults."""
    faults: tuple[str, ...] = tuple(sorted(KINDS))
    lasting: bool = False
    """Whether a fault stays until the end of the request, and meets the middle of it."""
    pairs: bool = False
    """Whether a second fault meets what the function does about the first."""
    edits: float = 0.25
    """Share of the steps that are edits."""
    steps: tuple[int, int] = (1, 5)
    resources: tuple[tuple[int, ...], ...] = ((0,), (0,), (0, 1), (0, 2), (0, 0))


FOCUS: Final = (
    Focus(),
    Focus(faulty=0.0, edits=0.1, steps=(3, 6), resources=((0,),)),
    Focus(faulty=0.0, edits=0.5, steps=(4, 8), resources=((0,),)),
    Focus(faulty=0.0, edits=0.5, steps=(4, 8), resources=((0,), (0, 0), (0, 1))),
    Focus(faulty=0.9, faults=("refused", "failing"), lasting=True, edits=0.0, steps=(1, 3)),
    Focus(faulty=0.9, faults=("refused",), pairs=True, edits=0.0, steps=(1, 2), resources=((0,),)),
    Focus(faulty=0.9, faults=("answer lost", "failing after its effect"), edits=0.1, steps=(1, 3)),
    Focus(faulty=0.7, faults=("killed", "killed after its effect"), edits=0.2),
    Focus(faulty=0.2, edits=0.1, steps=(3, 6), resources=((0, 0), (0, 1))),
)
"""The next focus is a row."""
MODES: Final = ("API_AND_CONFIG_MAP", "API", "CONFIG_MAP")


def days(kind: Kind) -> st.SearchStrategy[Day]:
    """The days of a custom resource."""
    return st.binary(min_size=16, max_size=16).map(lambda seed: _drawn(kind, random.Random(seed)))  # noqa: S311 - no secret


def _drawn(kind: Kind, rng: random.Random) -> Day:
    focus = rng.choice(FOCUS)
    # A day has a part of the changes and edits, so that those that belong together meet.
    changes = rng.sample(sorted(kind.changes), rng.randint(2, 8))
    kinds = rng.sample(sorted(kind.edits), rng.randint(1, 4))
    resources = rng.choice(focus.resources)
    steps = [_step(rng, focus, changes, kinds) for _ in range(rng.randint(*focus.steps))]
    deploys = _deploy(rng, focus, changes)
    return Day(
        steps=(*steps[:1], deploys, *steps[1:]) if rng.random() < 0.4 else (deploys, *steps),
        resources=resources,
        modes=tuple(rng.choice(MODES) for _ in PLACES),
        log_level="DEBUG" if rng.random() < 0.15 else "INFO",
    )


def _step(rng: random.Random, focus: Focus, changes: list[str], kinds: list[str]) -> Step:
    if rng.random() < focus.edits:
        return Edit(rng.choice(kinds), rng.choice((0, 0, 0, 1, 2)))
    if rng.random() < 0.15:
        return Remove(rng.randint(0, 1), _faults(rng, focus), twice=rng.random() < 0.3)
    return _deploy(rng, focus, changes)


def _deploy(rng: random.Random, focus: Focus, changes: list[str]) -> Deploy:
    return Deploy(
        resource=rng.randint(0, 1),
        changes=tuple(rng.sample(changes, rng.randint(1, min(3, len(changes))))),
        faults=_faults(rng, focus),
        stack_fails=rng.random() < 0.2,
        twice=rng.random() < 0.3,
    )


def _faults(rng: random.Random, focus: Focus) -> tuple[Fault, ...]:
    """Faults of a request: short or lasting, of its first calls or any."""
    if rng.random() >= focus.faulty:
        return ()
    first = _fault(rng, focus)
    if focus.pairs:
        # An undo follows a write that is refused, and has its reads and writes later.
        second = _fault(rng, focus)
        later = Fault(second.kind, first.service, second.writes, first.at + 1 + second.at)
        return (Fault(first.kind, first.service, at=first.at), later)
    return (first, _fault(rng, focus)) if rng.random() < 0.3 else (first,)


def _fault(rng: random.Random, focus: Focus) -> Fault:
    if focus.lasting:
        return Fault(
            rng.choice(focus.faults),
            rng.choice((ANY, *SERVICES)),
            at=rng.randint(1, 25),
            times=1000,
        )
    return Fault(
        kind=rng.choice(focus.faults),
        service=rng.choice((ANY, *SERVICES)),
        writes=rng.random() < 0.7,
        at=rng.choice((rng.randint(0, 4), rng.randint(0, 20), rng.randint(0, 40))),
        times=rng.choice((1, 1, 2, 4, 1000)),
    )
