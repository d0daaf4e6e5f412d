"""What no packing can beat, and which nodes a packing should begin with. Pure.

A linear program in which pods may be cut into pieces: nodes of every kind, as many as have room for
the sums of what is requested, each pod on nodes that take it. Every packing is a solution of it, so
its least cost is a lower bound. With whole nodes the bound is tighter; HiGHS solves both.
"""

from __future__ import annotations

import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import highspy
import numpy as np

from lambdas.common.errors import PermanentError
from savings.problem import Bools, Floats, Ints, Problem

_CLASSES: Final = 40
"""Classes of pods by where they may go; the smallest further ones become one, which may go wherever
one of them may. That can only lower the bound."""
_WHOLE_NODES: Final = 60
"""Up to so many nodes whole ones are asked for: beyond, a part of a node is less than the gap."""
_OPTIONS: Final = {
    "output_flag": False,
    "threads": 1,
    "random_seed": 1,
    "mip_rel_gap": 0.005,
    "mip_max_nodes": 50,  # not seconds: the result must not depend on the machine
}
_EVEN: Final = 0.05
_SLACK: Final = 1e-6  # part of the bound: the solver's tolerance


@dataclass(frozen=True)
class Guide:
    """The program's solution."""

    bound: float
    """Per hour, kept nodes not counted."""
    nodes: Floats
    """Of each offer: how many."""
    weights: Floats
    """By resource, in its own unit: what a unit of it costs."""


def solve(problem: Problem) -> Guide:
    """The least cost of the nodes that are not kept."""
    offers, resources = problem.offers, len(problem.cluster.resources)
    if not problem.groups:
        return Guide(0.0, np.zeros(offers), np.ones(resources))
    found = _solved(_Program(problem, _new_nodes(problem)))
    bound = found.bound
    wider = _Program(problem, _with_existing(problem))
    if wider.differs:
        bound = min(bound, _solved(wider).bound)
    return Guide(max(0.0, bound * (1 - _SLACK)), found.nodes[:offers], found.weights)


def _solved(program: _Program) -> Guide:
    bound, nodes, weights = program.solved()
    if 0 < nodes.sum() <= _WHOLE_NODES:
        tighter, whole = program.solved_with_whole_nodes()
        bound = max(bound, tighter)
        nodes = nodes if whole is None else whole
    return Guide(bound, nodes, weights)


@dataclass(frozen=True)
class _Nodes:
    """The nodes of a program, those without a limit first."""

    eligible: Bools
    """Groups x nodes."""
    free: Ints
    prices: Floats
    limits: Floats
    """How many there can be of each."""
    kept: Bools
    """Groups x kept nodes."""
    kept_free: Ints


def _new_nodes(problem: Problem) -> _Nodes:
    offers = problem.offers
    return _Nodes(
        problem.eligible[:, :offers],
        problem.free[:offers],
        problem.prices[:offers],
        np.full(offers, np.inf),
        problem.eligible[:, offers:],
        problem.free[offers:],
    )


def _with_existing(problem: Problem) -> _Nodes:
    """The new nodes, and those that exist: a packing may keep any of them with its pods."""
    new = _new_nodes(problem)
    if not problem.existing:
        return replace(new, kept=new.kept | problem.home)
    return _Nodes(
        np.column_stack([new.eligible, *(each.may for each in problem.existing)]),
        np.vstack([new.free, *(each.free for each in problem.existing)]),
        np.append(new.prices, [each.price for each in problem.existing]),
        np.append(new.limits, [float(each.count) for each in problem.existing]),
        new.kept | problem.home,
        new.kept_free,
    )


class _Program:
    """Columns: how many of each useful node, then what each class puts on each node of each
    resource. Rows: demand of each class and resource; room of each node and resource.
    """

    def __init__(self, problem: Problem, nodes: _Nodes) -> None:
        self._all = nodes
        # In parts of the largest node: the solver is exact for numbers of like size only.
        largest = np.vstack([nodes.free, nodes.kept_free]).max(axis=0, initial=1)
        self._units: Floats = np.maximum(largest, 1).astype(np.float64)
        requests = problem.requests * problem.counts[:, None] / self._units
        columns = len(nodes.prices)
        eligible = np.hstack([nodes.eligible, nodes.kept])
        self._demand, self._may, merged = _classes(eligible, requests)
        self._useful = _undominated(self._may[:, :columns], nodes)
        self._kept = _merged(self._may[:, columns:], nodes.kept_free / self._units)
        self._apart = [] if merged else list(_apart(problem, nodes))
        self._build()
        new = problem.offers
        self.differs = any(at >= new for at in self._useful) or bool(
            (nodes.kept != problem.eligible[:, new:]).any()
        )
        """Whether it is another program than that of new nodes alone."""

    def _build(self) -> None:
        free, useful = self._all.free / self._units, self._useful
        entries: list[tuple[int, int, float]] = []  # row, column, value
        lower: list[float] = []
        columns = len(useful)
        rooms: list[tuple[Bools, Floats, int | None]] = [
            (self._may[:, offer], free[offer], at) for at, offer in enumerate(useful)
        ]
        rooms += [(may, room, None) for may, room in self._kept]
        demand_row: dict[tuple[int, int], int] = {}
        for a_class, resource in zip(*np.nonzero(self._demand), strict=True):
            demand_row[int(a_class), int(resource)] = len(lower)
            lower.append(float(self._demand[a_class, resource]))
        for may, room, at in rooms:
            for resource in range(len(self._units)):
                users = [c for c in np.flatnonzero(may) if (int(c), resource) in demand_row]
                if not users:
                    continue
                row = len(lower)
                lower.append(0.0 if at is not None else -float(room[resource]))
                if at is not None:
                    entries.append((row, at, float(room[resource])))
                for a_class in users:
                    entries.append((demand_row[int(a_class), resource], columns, 1.0))
                    entries.append((row, columns, -1.0))
                    columns += 1
        for may, count in self._apart:
            entries += [(len(lower), at, 1.0) for at, o in enumerate(useful) if may[o]]
            lower.append(float(count))
        self._lower = np.array(lower)
        self._demand_row = demand_row
        self._costs = np.zeros(columns)
        self._costs[: len(useful)] = self._all.prices[useful]
        self._most = np.full(columns, np.inf)
        self._most[: len(useful)] = self._all.limits[useful]
        self._entries = entries

    def solved(self) -> tuple[float, Floats, Floats]:
        """Least cost, nodes by offer, weights; pods and nodes may be cut into pieces."""
        solver = self._run(whole=False)
        if solver.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            raise PermanentError(f"Report this as a bug: the bound is {solver.getModelStatus()}")
        solution = solver.getSolution()
        cost = float(solver.getInfo().objective_function_value)
        return cost, self._nodes(solution.col_value), self._weights(solution.row_dual)

    def solved_with_whole_nodes(self) -> tuple[float, Floats | None]:
        """A lower bound of the least cost, and the best nodes that were found."""
        solver = self._run(whole=True)
        info, solution = solver.getInfo(), solver.getSolution()
        bound = float(info.mip_dual_bound)
        return (
            bound if np.isfinite(bound) else 0.0,
            self._nodes(solution.col_value) if solution.value_valid else None,
        )

    def _run(self, *, whole: bool) -> Any:  # noqa: ANN401 - its classes are dynamic
        with _silent():
            solver: Any = highspy.Highs()  # type: ignore[no-untyped-call] # as its classes
        for name, value in _OPTIONS.items():
            solver.setOptionValue(name, value)
        columns, rows = len(self._costs), len(self._lower)
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = columns, rows
        program.col_cost_ = self._costs
        program.col_lower_ = np.zeros(columns)
        program.col_upper_ = self._most
        program.row_lower_ = self._lower
        program.row_upper_ = np.full(rows, highspy.kHighsInf)
        of_row, of_column, values = zip(*sorted(self._entries), strict=True)
        program.a_matrix_.format_ = highspy.MatrixFormat.kRowwise
        program.a_matrix_.start_ = np.searchsorted(of_row, np.arange(rows + 1))
        program.a_matrix_.index_ = np.array(of_column, dtype=np.int32)
        program.a_matrix_.value_ = np.array(values)
        if whole:
            kinds = [highspy.HighsVarType.kInteger] * len(self._useful)
            kinds += [highspy.HighsVarType.kContinuous] * (columns - len(self._useful))
            program.integrality_ = kinds
        solver.passModel(program)
        solver.run()
        return solver

    def _nodes(self, values: Sequence[float]) -> Floats:
        nodes = np.zeros(len(self._all.prices))
        nodes[self._useful] = np.maximum(values[: len(self._useful)], 0.0)
        return nodes

    def _weights(self, duals: Sequence[float]) -> Floats:
        """The mean price of a unit of each resource, over the classes."""
        paid = np.zeros(len(self._units))
        for (a_class, resource), row in self._demand_row.items():
            paid[resource] += max(0.0, duals[row]) * self._demand[a_class, resource]
        asked = self._demand.sum(axis=0)
        # A part of each weight is the same share of the whole cost for every resource: what is
        # plenty costs nothing in the program, and yet a packing has to tell full from empty.
        even = max(float(paid.sum()), 1.0) * _EVEN / np.count_nonzero(asked)
        weights: Floats = np.divide(paid + even, asked, out=np.zeros_like(paid), where=asked > 0)
        weights /= self._units
        return weights


@contextmanager
def _silent() -> Iterator[None]:
    """Keep the solver's banner, which it writes when it is made, out of the standard output."""
    sys.stdout.flush()
    output = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        os.dup2(output, 1)
        os.close(output)
        os.close(nothing)


def _classes(eligible: Bools, requests: Floats) -> tuple[Floats, Bools, bool]:
    """Demand and possible columns of the classes of pods that may go to the same columns, and
    whether some of them were merged.
    """
    may, of = np.unique(eligible, axis=0, return_inverse=True)
    demand = np.zeros((len(may), requests.shape[1]))
    np.add.at(demand, of.reshape(-1), requests)
    if len(may) <= _CLASSES:
        return demand, may, False
    total = np.maximum(demand.sum(axis=0), 1e-9)
    order = np.argsort(-(demand / total).max(axis=1), kind="stable")
    large, small = order[: _CLASSES - 1], order[_CLASSES - 1 :]
    return (
        np.vstack([demand[large], demand[small].sum(axis=0)]),
        np.vstack([may[large], may[small].any(axis=0)]),
        True,
    )


def _undominated(may: Bools, nodes: _Nodes) -> list[int]:
    """Nodes that no other one replaces: as cheap, as much room, for the same classes, as many as
    there are pods.
    """
    free, prices = nodes.free, nodes.prices
    order = sorted(
        range(len(free)), key=lambda at: (prices[at], *(-free[at]), nodes.limits[at] < np.inf, at)
    )
    useful: list[int] = []
    alike: dict[bytes, list[int]] = defaultdict(list)
    for offer in order:
        if not may[:, offer].any():
            continue
        before = alike[may[:, offer].tobytes()]
        if before and (free[before] >= free[offer]).all(axis=1).any():
            continue
        if nodes.limits[offer] == np.inf:
            before.append(offer)
        useful.append(offer)
    return sorted(useful)


def _merged(may: Bools, free: Floats) -> list[tuple[Bools, Floats]]:
    """Kept nodes that take the same classes, as one."""
    rooms: dict[bytes, Floats] = {}
    of: dict[bytes, Bools] = {}
    for at in range(may.shape[1]):
        key = may[:, at].tobytes()
        of[key] = may[:, at]
        rooms[key] = rooms.get(key, 0.0) + free[at]
    return [(of[key], room) for key, room in rooms.items() if of[key].any()]


def _apart(problem: Problem, nodes: _Nodes) -> Iterable[tuple[Bools, int]]:
    """(nodes, number): so many nodes among these are needed by pods that keep each other away.

    Pods that have an anti-affinity and are what it is about take a node each: all of them together,
    those of a market, and those that may go to the same nodes.
    """
    together: dict[tuple[object, ...], list[int]] = defaultdict(list)
    for at, group in enumerate(problem.groups):
        needs = group.needs
        for term in needs.matched.intersection(needs.anti_affinity):
            together[term,].append(at)
            together[term, needs.markets].append(at)
            together[term, needs.markets, needs.signature, needs.arch, needs.family].append(at)
    seen = set()
    for some in together.values():
        may: Bools = np.logical_or.reduce(nodes.eligible[some])
        kept: Bools = np.logical_or.reduce(nodes.kept[some])
        count = int(problem.counts[some].sum()) - int(kept.sum())
        key = (may.tobytes(), count)
        if count > 1 and key not in seen:
            seen.add(key)
            yield may, count
