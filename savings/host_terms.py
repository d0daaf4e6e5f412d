"""Pods' required terms about other pods of the same node, while a packing grows. Pure."""

from __future__ import annotations

from typing import Final, Self

import numpy as np

from savings.problem import Bools, Ints, Needs, Problem

_MORE: Final = 64


class HostTerms:
    """Counts, for each term and node, of the pods that it matches and of those that have it."""

    def __init__(self, problem: Problem, *, strict: bool) -> None:
        """`strict`: a topology spread allows its largest skew on every node, as if a node without
        such a pod existed. Else it is as kube-scheduler has it: more than on the emptiest node.
        """
        self._problem = problem
        self._needs = [group.needs for group in problem.groups]
        self._strict = strict
        terms = len(problem.cluster.terms.host)
        self._nodes = 0
        self._matched: Ints = np.zeros((terms, _MORE), dtype=np.int64)
        self._owned: Ints = np.zeros((terms, _MORE), dtype=np.int64)
        self._avoided: set[int] = set()
        """Anti-affinities that a pod has."""
        for needs in (*self._needs, *(needs for _, _, needs in problem.pinned)):
            self._avoided |= set(needs.anti_affinity)
        for _, column, needs in problem.pinned:
            self.grow(column - problem.offers + 1)
            self._count(needs, column - problem.offers, 1)

    def copy(self) -> Self:
        """The same counts, to try something."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._matched, other._owned = self._matched.copy(), self._owned.copy()
        return other

    def grow(self, nodes: int) -> None:
        """So many nodes there are."""
        self._nodes = max(self._nodes, nodes)
        if nodes > self._matched.shape[1]:
            more = np.zeros_like(self._matched)
            self._matched = np.hstack([self._matched, more])
            self._owned = np.hstack([self._owned, more])
            self.grow(nodes)

    def keep(self, nodes: list[int]) -> None:
        """Only these nodes stay, and get new numbers."""
        rest = np.zeros((len(self._matched), max(_MORE - len(nodes), 0)), dtype=np.int64)
        self._matched = np.hstack([self._matched[:, nodes], rest])
        self._owned = np.hstack([self._owned[:, nodes], rest])
        self._nodes = len(nodes)

    def count(self, group: int, node: int, pods: int) -> None:
        """Pods of the group were put on the node; fewer than 0: taken from it."""
        self._count(self._needs[group], node, pods)

    def alone(self, group: int) -> bool:
        """Whether a node takes only one pod of the group."""
        needs = self._needs[group]
        return not needs.matched.isdisjoint(needs.anti_affinity)

    def together(self, group: int) -> bool:
        """Whether all pods of the group go to one node."""
        needs = self._needs[group]
        return not needs.matched.isdisjoint(needs.affinity)

    def one_by_one(self, group: int) -> bool:
        """Whether a pod of the group decides where the next may go."""
        needs = self._needs[group]
        return bool(needs.spread or needs.affinity)

    def bound(self, group: int) -> bool:
        """Whether other pods have a say in where pods of the group go, or they in theirs."""
        needs = self._needs[group]
        return bool(needs.matched or needs.anti_affinity or needs.affinity or needs.spread)

    def allow(self, group: int, node: int, column: Ints) -> bool:
        """Whether the node's pods let one more pod of the group in. As `restrict`, for one node."""
        needs = self._needs[group]
        if needs.spread or needs.affinity:
            may = np.ones(self._nodes, dtype=np.bool_)
            self.restrict(group, may, column)
            return bool(may[node])
        return not (
            any(self._matched[term, node] for term in needs.anti_affinity)
            or any(self._owned[term, node] for term in needs.matched & self._avoided)
        )

    def restrict(self, group: int, may: Bools, column: Ints) -> None:
        """Take away the nodes whose pods keep one more pod of the group away."""
        needs, nodes = self._needs[group], self._nodes
        for term in needs.anti_affinity:
            may &= self._matched[term, :nodes] == 0
        for term in needs.matched & self._avoided:
            may &= self._owned[term, :nodes] == 0
        for term in needs.affinity:
            matched = self._matched[term, :nodes]
            if matched.any():
                may &= matched > 0
            elif term not in needs.matched:
                may[:] = False
        domain = self._problem.domain[group][column] if needs.spread else may
        for term, skew in needs.spread:
            matched = self._matched[term, :nodes]
            least = 0 if self._strict else self._least(group, term, matched[domain])
            may &= domain & (matched + (term in needs.matched) - least <= skew)

    def broken(self, column: Ints) -> bool:
        """Whether a topology spread does not hold with all pods in their places."""
        for group, needs in enumerate(self._needs):
            domain = self._problem.domain[group][column] if needs.spread else None
            for term, skew in needs.spread:
                matched = self._matched[term, : self._nodes][domain]
                if len(matched) and matched.max() - self._least(group, term, matched) > skew:
                    return True
        return False

    def _least(self, group: int, term: int, matched: Ints) -> int:
        """The fewest pods on a node of the domain; a node that is left out can be one of it."""
        here = self._problem.outside[group].get(term)
        there = [] if here is None else [here]
        return min([*there, *([int(matched.min())] if len(matched) else [])], default=0)

    def _count(self, needs: Needs, node: int, pods: int) -> None:
        for term in needs.matched:
            self._matched[term, node] += pods
        for term in needs.anti_affinity:
            self._owned[term, node] += pods


def rank(needs: Needs) -> int:
    """When a group is placed: those that need nodes of their own first, those that follow others
    last, and before them those that spread over the nodes there are.
    """
    if needs.affinity:
        return 3
    if needs.spread:
        return 2
    return 0 if needs.anti_affinity else 1
