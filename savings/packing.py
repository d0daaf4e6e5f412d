"""Packs groups of like pods into kept and new nodes. Pure, and the same for the same input.

It opens the nodes that the bound's program chose, puts the largest pods first on the fullest node
that takes them, and opens the best further node for what is left. Then it gives every node the
cheapest type that holds its pods, moves the pods of nodes that others have room for, and packs
some nodes of a small cluster anew.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final, Self

import numpy as np

from savings.bound import Guide
from savings.host_terms import HostTerms, rank
from savings.problem import Bools, Floats, Ints, Problem

_MORE: Final = 64  # rows by which the arrays grow at least
_ANY: Final = 2**40  # room for pods that request nothing
_ROUNDING: Final = 1e-9  # per hour: less is no saving
_EMPTIED: Final = 400
"""Nodes whose pods are tried elsewhere, the emptiest first."""
_FEW_NODES: Final = 150
"""New nodes up to which some of them are packed anew, so often: the search is random, from a fixed
seed."""
_SMALL: Final = 50_000
"""New nodes x groups up to which every rule of choice is tried: beyond, the others gain less than a
percent."""
_LOOKED_AHEAD: Final = 100
"""Groups, the largest first, with which the further nodes are compared."""
_TRIES: Final = 60
_IN_VAIN: Final = 12  # tries that gained nothing, after which it ends
_LARGEST_TRY: Final = 6  # nodes


@dataclass
class Result:
    """Where the pods are."""

    columns: list[int]
    """Of each node: its offer, or its kept node. The kept nodes come first."""
    content: list[Counter[int]]
    """Of each node: how many pods of which group."""
    cost: float
    """Of the new nodes, per hour."""
    unplaced: Counter[int]
    """Pods that found no place, by group."""


def pack(problem: Problem, guide: Guide) -> Result | None:
    """The cheapest of some packings: a rule of choice for each, with the program's nodes to begin
    with; with none, too, where the program has few. None if a topology spread holds in none of
    them.
    """
    planned = np.floor(guide.nodes + _ROUNDING)
    few = planned.sum() <= _FEW_NODES
    starts = [planned, np.zeros_like(planned)] if few else [planned]
    small = planned.sum() * len(problem.groups) <= _SMALL
    choices = _CHOICES if small else _CHOICES[:1]
    best: Packer | None = None
    for strict in (False, True):
        for start in starts:
            for choice in choices:
                packer = Packer(problem, guide, choice, strict=strict)
                packer.fill(problem.counts, start)
                packer.improve()
                if not packer.broken and (best is None or packer.rating < best.rating):
                    best = packer
        if best is not None:
            break
    if best is None:
        return None
    if small and len(best.new_nodes) <= _FEW_NODES:
        best.pack_anew()
    return Result(best.column.tolist(), best.content, best.cost, best.unplaced)


# How a pod is chosen for a node, from parts (pods x resources: the part of the node that each asks
# for) and free (by resource: the part of it that is free): the highest first.

Choice = Callable[[Floats, Floats], Floats]


def _alike(parts: Floats, free: Floats) -> Floats:
    """Of the same shape as what is free."""
    return parts @ free / _length(parts)


def _alike_and_large(parts: Floats, free: Floats) -> Floats:
    """Of the same shape, and large."""
    return (parts @ free) ** 2 / _length(parts)


def _near(parts: Floats, free: Floats) -> Floats:
    """What leaves the least."""
    left: Floats = ((free - parts) ** 2).sum(axis=1)
    return -left


def _length(parts: Floats) -> Floats:
    length: Floats = np.sqrt((parts**2).sum(axis=1))
    return np.maximum(length, _ROUNDING)


_CHOICES: Final[tuple[Choice, ...]] = (_alike_and_large, _near, _alike)


class Packer:
    """Nodes that fill up."""

    def __init__(self, problem: Problem, guide: Guide, choice: Choice, *, strict: bool) -> None:
        """`strict`: see HostTerms."""
        self.problem = problem
        self._choice = choice
        self.terms = HostTerms(problem, strict=strict)
        self.content: list[Counter[int]] = []
        self.unplaced: Counter[int] = Counter()
        self._weights = guide.weights
        self._sizes: Floats = problem.requests @ guide.weights
        # How scarce each resource is where the program's nodes are filled to the brim.
        there = guide.nodes @ problem.free[: problem.offers]
        scarce = problem.counts @ problem.requests / np.maximum(there, 1)
        self._scarce: Floats = np.minimum(scarce, 1.0) ** 2
        self._order = sorted(
            range(len(problem.groups)),
            key=lambda group: (rank(problem.groups[group].needs), -self._sizes[group], group),
        )
        self._free: Ints = np.zeros((_MORE, problem.requests.shape[1]), dtype=np.int64)
        self._column: Ints = np.zeros(_MORE, dtype=np.int64)
        self._twins = _twins(problem)
        self._leading = np.array(sorted({twins[0] for twins in self._twins.values()}), np.int64)
        self._turns: Counter[int] = Counter()
        self._puts: list[tuple[int, int, int]] | None = None
        for column in range(problem.offers, len(problem.prices)):
            self.open(column)

    def copy(self) -> Self:
        """The same state, to try something."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other.terms = self.terms.copy()
        other.unplaced = Counter(self.unplaced)
        other.content = [Counter(each) for each in self.content]
        other._free, other._column = self._free.copy(), self._column.copy()
        other._turns = Counter(self._turns)
        return other

    @property
    def cost(self) -> float:
        """Of the new nodes, per hour."""
        return float(self.problem.prices[self.column].sum())

    @property
    def rating(self) -> tuple[int, float]:
        """The lower, the better."""
        return self.unplaced.total(), self.cost

    @property
    def broken(self) -> bool:
        """Whether a topology spread does not hold."""
        return self.terms.broken(self.column)

    @property
    def column(self) -> Ints:
        """Of each node."""
        return self._column[: len(self.content)]

    @property
    def new_nodes(self) -> range:
        return range(len(self.problem.kept), len(self.content))

    # Nodes

    def open(self, column: int) -> int:
        """A new node of the column; returns its number."""
        at = len(self.content)
        if at == len(self._free):
            self._free = np.vstack([self._free, np.zeros_like(self._free)])
            self._column = np.concatenate([self._column, np.zeros_like(self._column)])
        self._free[at] = self.problem.free[column]
        self._column[at] = column
        self.content.append(Counter())
        self.terms.grow(at + 1)
        return at

    def close(self, nodes: Iterable[int]) -> None:
        """Drop nodes without pods; the numbers of later ones change."""
        gone = set(nodes)
        if not gone:
            return
        stay = [at for at in range(len(self.content)) if at not in gone]
        self._free = np.vstack([self._free[stay], np.zeros_like(self._free[:_MORE])])
        self._column = np.concatenate([self._column[stay], np.zeros_like(self._column[:_MORE])])
        self.content = [self.content[at] for at in stay]
        self.terms.keep(stay)

    def _twin(self, offer: int) -> int:
        """Offers that differ in nothing but the zone take turns."""
        twins = self._twins.get(offer, [offer])
        self._turns[twins[0]] += 1
        return twins[(self._turns[twins[0]] - 1) % len(twins)]

    # Pods

    def _place(self, group: int, count: int) -> int:
        """Put pods of the group on open nodes; returns how many found no place."""
        if self.terms.one_by_one(group):
            return self._place_singly(group, count)
        where = self._possible(group)
        room = self._room(group, where)
        for at in np.argsort(self._free[where] @ self._weights, kind="stable"):
            number = min(count, int(room[at]))
            self._put(group, int(where[at]), number)
            count -= number
            if not count:
                break
        return count

    def _place_singly(self, group: int, count: int) -> int:
        for left in range(count, 0, -1):
            where = self._possible(group)
            if self.terms.together(group):
                where = where[self._room(group, where) >= left]
            if not len(where):
                return left
            best = np.argmin(self._free[where] @ self._weights)
            self._put(group, int(where[best]), 1)
        return 0

    def _place_on(self, group: int, node: int, count: int) -> int:
        """As `_place`, on one node."""
        while count and self._takes(group, node):
            room = int(self._room(group, np.array([node]))[0])
            if self.terms.together(group) and room < count:
                break
            number = 1 if self.terms.one_by_one(group) else min(count, room)
            self._put(group, node, number)
            count -= number
        return count

    def _takes(self, group: int, node: int) -> bool:
        return bool(
            self.problem.eligible[group, self._column[node]]
            and np.all(self._free[node] >= self.problem.requests[group])
            and self.terms.allow(group, node, self.column)
        )

    def _possible(self, group: int) -> Ints:
        """The nodes that can take one more pod of the group."""
        free, column = self._free[: len(self.content)], self.column
        fits = np.all(free >= self.problem.requests[group], axis=1)
        may: Bools = np.logical_and(self.problem.eligible[group][column], fits)
        self.terms.restrict(group, may, column)
        return np.flatnonzero(may)

    def _room(self, group: int, where: Ints) -> Ints:
        """How many more pods of the group each of these nodes has room for."""
        room = _quotient(self._free[where], self.problem.requests[group])
        return np.minimum(room, 1) if self.terms.alone(group) else room

    def _put(self, group: int, node: int, count: int) -> None:
        """Put pods on a node; fewer than 0: take them away."""
        self._free[node] -= self.problem.requests[group] * count
        self.content[node][group] += count
        if not self.content[node][group]:
            del self.content[node][group]
        self.terms.count(group, node, count)
        if self._puts is not None:
            self._puts.append((group, node, count))

    # Nodes filled one by one

    def fill(self, counts: Ints, planned: Floats | None = None) -> None:
        """Place so many pods of each group on the open nodes, then on planned ones, then on
        further ones. Groups that no node takes are `unplaced`.
        """
        left = counts.copy()
        self._fill_planned(left, planned if planned is not None else np.zeros(0))
        for group in self._order:
            if left[group]:
                left[group] = self._place(group, int(left[group]))
        self._open_for(left)

    def _fill_planned(self, left: Ints, planned: Floats) -> None:
        """Open so many nodes of each offer, and fill each with pods of its shape."""
        for offer in sorted(np.flatnonzero(planned), key=lambda at: -self.problem.prices[at]):
            nodes = int(planned[offer])
            while nodes:
                node = self.open(self._twin(int(offer)))
                self._fill_node(node, left)
                nodes -= 1 + self._repeat(node, left, nodes - 1)

    def _open_for(self, left: Ints) -> None:
        waiting = [group for group in self._order if left[group]]
        while waiting:
            first, before = waiting[0], left.copy()
            node = self.open(self._best(first, waiting, left))
            left[first] = self._place_on(first, node, 1) + left[first] - 1
            if left[first] == before[first]:
                self.unplaced[first] += int(left[first])
                left[first] = 0
                self.close([node])
            else:
                self._fill_node(node, left)
                self._repeat(node, left, int(left.sum()))
            waiting = [group for group in waiting if left[group]]

    def _fill_node(self, node: int, left: Ints) -> None:
        """Put the pods on a node whose requests are most like what is free there, the larger ones
        first, by this packing's rule of choice.
        """
        problem, column = self.problem, self._column[node]
        size = np.maximum(problem.free[column], 1)
        groups = np.flatnonzero((left > 0) & problem.eligible[:, column])
        asked = problem.requests[groups]
        parts = asked / size * self._scarce
        while len(groups):
            fits = np.all(asked <= self._free[node], axis=1) & (left[groups] > 0)
            if not fits.all():
                groups, asked, parts = groups[fits], asked[fits], parts[fits]
                continue
            at = int(np.argmax(self._choice(parts, self._free[node] / size * self._scarce)))
            group = int(groups[at])
            room = int(_quotient(self._free[node][None], problem.requests[group])[0])
            count = max(1, min(room, int(left[group])) // 2)
            rest = 0
            if self.terms.bound(group):
                rest = self._place_on(group, node, count)
            else:
                self._put(group, node, count)
            left[group] -= count - rest
            if rest:
                keep = np.arange(len(groups)) != at
                groups, asked, parts = groups[keep], asked[keep], parts[keep]

    def _repeat(self, node: int, left: Ints, most: int) -> int:
        """Open the same node with the same pods as often as there are such pods; how often."""
        pattern = list(self.content[node].items())
        if not pattern or any(self.terms.bound(group) for group, _ in pattern):
            return 0
        times = min(most, *(int(left[group]) // count for group, count in pattern))
        for _ in range(times):
            again = self.open(self._twin(int(self._column[node])))
            for group, count in pattern:
                self._put(group, again, count)
                left[group] -= count
        return times

    def _best(self, first: int, waiting: list[int], left: Ints) -> int:
        """The offer that costs least for what it would hold of the waiting pods, the first of which
        among them.
        """
        problem = self.problem
        offers = self._leading[problem.eligible[first, self._leading]]
        free = problem.free[offers].copy()
        value = np.zeros(len(offers))
        for group in waiting[:_LOOKED_AHEAD]:
            asked = problem.requests[group]
            most = 1 if self.terms.alone(group) else int(left[group])
            number = np.minimum(_quotient(free, asked), most) * problem.eligible[group, offers]
            free -= number[:, None] * asked
            value += number * self._sizes[group]
        ratio = problem.prices[offers] / np.maximum(value, _ROUNDING)
        return self._twin(int(offers[np.argmin(ratio)]))

    # Improvements

    def improve(self) -> None:
        """Cheaper types and fewer nodes for the same pods."""
        self._fit_types()
        self._empty_nodes()
        self._fit_types()

    def _fit_types(self) -> None:
        """Give every new node the cheapest offer that takes its pods."""
        problem, offers = self.problem, self.problem.offers
        for node in self.new_nodes:
            price = problem.prices[self._column[node]]
            used = problem.free[self._column[node]] - self._free[node]
            may = problem.eligible[list(self.content[node]), :offers].all(axis=0)
            may &= np.all(problem.free[:offers] >= used, axis=1)
            may &= problem.prices[:offers] < price - _ROUNDING
            cheaper = np.flatnonzero(may)
            if len(cheaper):
                column = self._twin(int(cheaper[np.argmin(problem.prices[cheaper])]))
                self._free[node] = problem.free[column] - used
                self._column[node] = column

    def _empty_nodes(self) -> None:
        """Move all pods of a node to others that have room, the emptiest nodes first."""
        worth = self._worth()
        emptiest = sorted(self.new_nodes, key=lambda at: (worth[at], at))[:_EMPTIED]
        self.close([node for node in emptiest if self._emptied(node)])

    def _worth(self) -> Floats:
        """Of each node: what its pods are worth of its price."""
        used = (self.problem.free[self.column] - self._free[: len(self.content)]) @ self._weights
        worth: Floats = used / np.maximum(self.problem.prices[self.column], _ROUNDING)
        return worth

    def _emptied(self, node: int) -> bool:
        """Move the node's pods to others; if one fits nowhere, nothing has changed."""
        pods = sorted(self.content[node].items(), key=lambda each: -self._sizes[each[0]])
        puts: list[tuple[int, int, int]] = []
        self._puts = puts
        for group, count in pods:
            self._put(group, node, -count)
        room = self._free[node].copy()
        self._free[node] = -1  # it takes none of them again
        moved = all(not self._place(group, count) for group, count in pods)
        self._puts = None
        if not moved:
            self._free[node] = room
            for group, at, count in reversed(puts):
                self._put(group, at, -count)
        return moved

    def pack_anew(self) -> None:
        """Open some nodes again and pack their pods anew; keep what is cheaper."""
        chance = random.Random(0)  # noqa: S311 - no secret
        in_vain = 0
        for _ in range(_TRIES):
            nodes = list(self.new_nodes)
            if len(nodes) < 2 or in_vain == _IN_VAIN:  # noqa: PLR2004 - one has its best type
                return
            in_vain += 1
            worth = self._worth()
            first = min(chance.sample(nodes, min(3, len(nodes))), key=lambda at: worth[at])
            others = [at for at in nodes if at != first]
            some = chance.sample(others, min(len(others), chance.randint(1, _LARGEST_TRY - 1)))
            trial = self.copy()
            trial.pack_again([first, *some])
            if trial.rating < self.rating and not trial.broken:
                self.__dict__.update(trial.__dict__)
                in_vain = 0

    def pack_again(self, nodes: list[int]) -> None:
        """Take the pods of these nodes, close them, and fill again."""
        counts = np.zeros_like(self.problem.counts)
        for node in nodes:
            for group, count in list(self.content[node].items()):
                counts[group] += count
                self._put(group, node, -count)
        self.close(nodes)
        self.fill(counts)
        self._fit_types()


def _quotient(free: Ints, asked: Ints) -> Ints:
    """How often what is asked fits, by row; -1 in `free` is none."""
    some = asked > 0
    found: Ints = (free[:, some] // asked[some]).min(axis=1, initial=_ANY)
    return found


def _twins(problem: Problem) -> dict[int, list[int]]:
    """By offer: those that differ from it in nothing that matters, itself among them."""
    alike: dict[Any, list[int]] = defaultdict(list)
    for at in range(problem.offers):
        kind = problem.step.offers[at].kind.name
        alike[
            kind,
            problem.prices[at],
            problem.free[at].tobytes(),
            problem.eligible[:, at].tobytes(),
            problem.domain[:, at].tobytes(),
        ].append(at)
    return {at: twins for twins in alike.values() for at in twins}
