"""What no packing can beat, and which nodes a packing should begin with. Pure.

A linear program in which pods may be cut into pieces: nodes of every kind, as many as have room for
the sums of what is requested, each pod on nodes that take it. Every packing is a solution of it, so
its least cost is a lower bound. With whole nodes the bound is tighter; HiGHS solves both.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Final

import highspy
import numpy as np

from savings.problem import Bools, Floats, Ints, Problem
from savings.snapshot import CPU, MEMORY

_CLASSES: Final = 40
"""Classes of pods by where they may go; the smallest further ones become one, which may go wherever
one of them may. That can only lower the bound."""
_WHOLE_NODES: Final = 60
"""Up to so many nodes whole ones are asked for: beyond, a part of a node is less than the gap."""
_GAP: Final = 0.002
_SEARCH: Final = 300  # nodes of the search tree, so that the result does not depend on the machine
_EVEN: Final = 0.05
_SLACK: Final = 1e-6  # part of the bound: the solver's tolerance
_UNITS: Final = {CPU: 1000.0, MEMORY: 2.0**30}  # cores and GiB: numbers of like size


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
    """The least cost of new nodes."""
    offers, resources = problem.offers, len(problem.cluster.resources)
    if not problem.groups:
        return Guide(0.0, np.zeros(offers), np.ones(resources))
    program = _Program(problem)
    cost, nodes, weights = program.solved(whole=False)
    bound = cost
    if 0 < nodes.sum() <= _WHOLE_NODES:
        better, counts, _ = program.solved(whole=True)
        if better >= bound:
            bound, nodes = better, counts
    return Guide(max(0.0, bound * (1 - _SLACK)), nodes, weights)


class _Program:
    """Columns: a number of nodes for each useful offer, then what each class puts on each offer of
    each resource. Rows: demand of each class and resource; room of each offer and resource.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        units = [_UNITS.get(name, 1.0) for name in problem.cluster.resources]
        self._units = np.array(units)
        requests = problem.requests * problem.counts[:, None] / self._units
        self._demand, self._may, merged = _classes(problem.eligible, requests)
        offers = problem.offers
        self._useful = _undominated(self._may[:, :offers], problem.free[:offers], problem.prices)
        self._kept = _merged(self._may[:, offers:], problem.free[offers:] / self._units)
        self._apart = [] if merged else list(_apart(problem))
        self._build()

    def _build(self) -> None:
        free, useful = self._problem.free / self._units, self._useful
        self.costs = [float(self._problem.prices[offer]) for offer in useful]
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
        self._entries, self._lower, self._columns = entries, lower, columns
        self._demand_row = demand_row

    def solved(self, *, whole: bool) -> tuple[float, Floats, Floats]:
        """Least cost (a lower bound of it with whole nodes), nodes by offer, weights."""
        nodes = len(self._useful)
        solver: Any = highspy.Highs()  # type: ignore[no-untyped-call] # as its classes
        for name, value in (
            ("output_flag", False),
            ("log_to_console", False),
            ("threads", 1),
            ("random_seed", 1),
            ("mip_rel_gap", _GAP),
            ("mip_max_nodes", _SEARCH),
        ):
            solver.setOptionValue(name, value)
        program = highspy.HighsLp()
        program.num_col_, program.num_row_ = self._columns, len(self._lower)
        program.col_cost_ = np.array(self.costs + [0.0] * (self._columns - nodes))
        program.col_lower_ = np.zeros(self._columns)
        program.col_upper_ = np.full(self._columns, highspy.kHighsInf)
        program.row_lower_ = np.array(self._lower)
        program.row_upper_ = np.full(len(self._lower), highspy.kHighsInf)
        _fill(program.a_matrix_, sorted(self._entries), len(self._lower))
        if whole:
            kinds = [highspy.HighsVarType.kInteger] * nodes
            kinds += [highspy.HighsVarType.kContinuous] * (self._columns - nodes)
            program.integrality_ = kinds
        solver.passModel(program)
        solver.run()
        return self._read(solver, whole=whole)

    def _read(self, solver: Any, *, whole: bool) -> tuple[float, Floats, Floats]:  # noqa: ANN401 - its classes are dynamic
        info, solution = solver.getInfo(), solver.getSolution()
        found = np.zeros(self._problem.offers)
        values = np.array(solution.col_value)
        if len(values):
            found[self._useful] = np.maximum(values[: len(self._useful)], 0.0)
        cost = info.mip_dual_bound if whole else info.objective_function_value
        return float(cost), found, np.ones(1) if whole else self._weights(solution.row_dual)

    def _weights(self, duals: Any) -> Floats:  # noqa: ANN401
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


def _fill(matrix: Any, entries: list[tuple[int, int, float]], rows: int) -> None:  # noqa: ANN401
    counts = np.bincount([row for row, _, _ in entries], minlength=rows)
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.start_ = np.concatenate([[0], np.cumsum(counts)])
    matrix.index_ = np.array([column for _, column, _ in entries], dtype=np.int32)
    matrix.value_ = np.array([value for _, _, value in entries])


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


def _undominated(may: Bools, free: Ints, prices: Floats) -> list[int]:
    """Offers that no other one replaces: as cheap, as much room, for at least the same classes."""
    order = sorted(range(len(free)), key=lambda at: (prices[at], *(-free[at]), at))
    useful: list[int] = []
    alike: dict[bytes, list[int]] = defaultdict(list)
    for offer in order:
        if not may[:, offer].any():
            continue
        before = alike[may[:, offer].tobytes()]
        if before and (free[before] >= free[offer]).all(axis=1).any():
            continue
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


def _apart(problem: Problem) -> Iterable[tuple[Bools, int]]:
    """(offers, number): so many new nodes among these are needed by pods that keep each other away.

    Pods of one group with an anti-affinity to themselves, or with the same host port, take a node
    each.
    """
    offers = problem.offers
    for at, group in enumerate(problem.groups):
        if set(group.needs.anti_affinity) & group.needs.matched:
            kept = int(problem.eligible[at, offers:].sum())
            count = len(group.pods) - kept
            if count > 1:
                yield problem.eligible[at, :offers], count
