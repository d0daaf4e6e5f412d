"""Which workloads tolerate spot instances, and why others do not. Pure."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

from savings.snapshot import Budget, Demand, Pod, Requirement, Snapshot, Term, matches

NOTICE: Final = 120
"""Seconds between a spot notice and the end of the instance."""
MARGIN: Final = 5
"""Seconds that the spot handler keeps free before the end: the default of castai:marginSeconds."""
CAPACITY_LABELS: Final[Mapping[str, tuple[str, str]]] = {
    "eks.amazonaws.com/capacityType": ("ON_DEMAND", "SPOT"),
    "scheduling.cast.ai/spot": ("", "true"),
    "karpenter.sh/capacity-type": ("on-demand", "spot"),
}
"""Label of a node, its value on demand (empty: it has no such label) and on spot. The first that a
node has says in which market it is, as for CAST AI's agent."""

_SPOT_LABELS: Final = {key: spot for key, (_, spot) in CAPACITY_LABELS.items()}
_RESTARTED: Final = ("Job", "CronJob")

Name = tuple[str, str]
"""Namespace, and kind with name: ("shop", "Deployment/web")."""


def workload_of(pod: Pod) -> Name:
    """The workload that a pod is counted under; one without controller is its own."""
    return pod.namespace, pod.owner or f"Pod/{pod.name}"


def reasons(snapshot: Snapshot, pods: Iterable[Pod]) -> dict[Name, tuple[str, ...]]:
    """By workload of these pods: why it does not tolerate spot instances. Empty: it does."""
    replicas = {(each.namespace, each.owner): each.replicas for each in snapshot.workloads}
    by_workload: dict[Name, list[Pod]] = defaultdict(list)
    for pod in pods:
        by_workload[workload_of(pod)].append(pod)
    strict = _StrictBudgets(snapshot)
    return {
        name: tuple(_reasons(name, of, replicas.get(name, len(of)), strict))
        for name, of in by_workload.items()
    }


def _reasons(
    name: Name, pods: Sequence[Pod], replicas: int, strict: _StrictBudgets
) -> Iterator[str]:
    kind = name[1].partition("/")[0]
    if not pods[0].owner:
        yield "no controller would create it again"
    elif kind in _RESTARTED:
        yield f"a {kind} would begin again"
    elif replicas <= 1:
        yield "it has one replica, which would be away until the next is ready"
    if local := sorted({volume for pod in pods for volume in pod.local_volumes}):
        yield f"it uses the node's own disk ({', '.join(local)})"
    if budget := strict.of(pods):
        yield f"its budget {budget} allows no eviction"
    if (grace := max(pod.grace for pod in pods)) > NOTICE - MARGIN:
        yield f"its grace of {grace} s does not fit the {NOTICE} s of a spot notice"
    if refused := sorted({each for pod in pods for each in pod.opt_outs}):
        yield f"it opts out ({', '.join(refused)})"
    if any(_demands_on_demand(pod.demand) for pod in pods):
        yield "its node selector or affinity demands on-demand nodes"


class _StrictBudgets:
    """The budgets that never allow an eviction, whatever is ready."""

    def __init__(self, snapshot: Snapshot) -> None:
        by_namespace: dict[str, list[Pod]] = defaultdict(list)
        for pod in snapshot.pods:
            by_namespace[pod.namespace].append(pod)
        self._budgets: dict[str, list[tuple[str, Term]]] = defaultdict(list)
        for budget in snapshot.budgets:
            selector = budget.selector
            if selector is None:
                continue
            pods = sum(matches(selector, pod.labels) for pod in by_namespace[budget.namespace])
            if pods and not _allowed(budget, pods):
                self._budgets[budget.namespace].append((budget.name, selector))

    def of(self, pods: Iterable[Pod]) -> str:
        """The name of one that selects a pod; empty: none does."""
        return next(
            (
                name
                for pod in pods
                for name, selector in self._budgets[pod.namespace]
                if matches(selector, pod.labels)
            ),
            "",
        )


def _allowed(budget: Budget, pods: int) -> int:
    """Evictions at a time while all pods are ready. Percentages are rounded up, both, as the
    disruption controller does.
    """
    if budget.max_unavailable is not None:
        return _number(budget.max_unavailable, pods)
    if budget.min_available is not None:
        return max(0, pods - _number(budget.min_available, pods))
    return pods


def _number(given: int | str, pods: int) -> int:
    if isinstance(given, int):
        return given
    text = given.strip()
    try:
        return math.ceil(int(text.removesuffix("%")) * pods / 100)
    except ValueError:
        return 0  # the disruption controller allows nothing then


def _demands_on_demand(demand: Demand) -> bool:
    own = (Requirement(key=key, operator="In", values=(value,)) for key, value in
           demand.node_selector.items())  # fmt: skip
    if not _holds_on_spot(tuple(own)):
        return True
    return any(not any(map(_holds_on_spot, terms)) for terms in demand.node_terms)


def _holds_on_spot(term: Term) -> bool:
    """What a term says of the market. Labels that a cluster does not use are not missed."""
    return matches(tuple(each for each in term if each.key in CAPACITY_LABELS), _SPOT_LABELS)
