"""What holds of the plan of every cluster, on random small ones."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise
from random import Random
from typing import Any

import msgspec
import pytest

from savings import plan
from savings.estimate import Estimate
from savings.plan import Plan
from savings.prices import Prices
from savings.snapshot import Pod, Snapshot
from tests.unit.savings.judge import NEARLY, Judge, used
from tests.unit.savings.worlds import as_it_is, world

FEW, SEEDS = 11, 60
MANY, PARTS = 10_000, 20
GAP = 0.005  # part: the solver stops when its bound is this near to its best whole nodes


@pytest.fixture(autouse=True)
def _short_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few tries of the random search: it takes most of the time, and its rules are the same."""
    monkeypatch.setattr("savings.packing._TRIES", 3)


def seeds(step: int = 1) -> list[Any]:
    """The first FEW, and the others for `make long`."""
    return [
        pytest.param(seed, marks=() if seed < FEW else pytest.mark.long)
        for seed in range(0, SEEDS, step)
    ]


@pytest.mark.parametrize("seed", seeds())
def test_a_plan_is_legal_and_adds_up(seed: int) -> None:
    snapshot, prices = world(seed)
    assert faults(snapshot, prices, planned(seed)) == []


@pytest.mark.parametrize("seed", seeds(step=5))
def test_the_order_of_what_was_seen_changes_nothing(seed: int) -> None:
    snapshot, prices = world(seed)
    other = shuffled(snapshot, Random(seed))  # noqa: S311 - no secret depends on it
    assert rounded(plan.make(other, prices)) == rounded(planned(seed))


@pytest.mark.parametrize("seed", seeds(step=5))
def test_one_more_pod_costs_no_less(seed: int) -> None:
    snapshot, prices = world(seed)
    more = with_one_more(snapshot, prices)
    if more is None:
        pytest.skip("no pod can be doubled on its node")
    assert cheaper(planned(seed), plan.make(more, prices)) == []


@pytest.mark.long
@pytest.mark.parametrize("part", range(PARTS))
def test_many_plans_are_legal_and_add_up(part: int, monkeypatch: pytest.MonkeyPatch) -> None:
    if part:  # the solver's search for whole nodes takes most of the time, and changes no rule
        monkeypatch.setattr("savings.bound._WHOLE_NODES", 0)
    found = {}
    for seed in range(part * MANY // PARTS, (part + 1) * MANY // PARTS):
        snapshot, prices = world(seed)
        if wrong := faults(snapshot, prices, plan.make(snapshot, prices)):
            found[seed] = wrong
    assert found == {}


@pytest.mark.parametrize("seed", range(SEEDS))
def test_a_world_is_legal_as_it_is(seed: int) -> None:
    snapshot, prices = world(seed)
    assert Judge(snapshot, prices, ()).faults(as_it_is(snapshot, prices), step=1) == []


@cache
def planned(seed: int) -> Plan:
    """The plan of a world."""
    return plan.make(*world(seed))


# What is asked of a plan --------------------------------------------------------------------------


def faults(snapshot: Snapshot, prices: Prices, made: Plan) -> list[str]:
    """What is wrong with a plan."""
    verdicts = made.estimate.verdicts
    judge = Judge(snapshot, prices, {(v.namespace, v.owner) for v in verdicts if v.tolerates_spot})
    found = [
        f"step {step}: {fault}"
        for step, packing in enumerate(made.packings, 1)
        for fault in judge.faults(packing, step=step)
    ]
    held = sums(made) | counts(judge, made.estimate)
    return found + [name for name, holds in held.items() if not holds]


def sums(made: Plan) -> dict[str, bool]:
    """What has to add up, and whether it does."""
    estimate, steps = made.estimate, made.estimate.steps
    costs = [estimate.now.cost, *(step.cost for step in steps)]
    return {
        "now is the sum of its lines": alike(costs[0], total(estimate.now.lines)),
        "a step is the sum of its lines": all(alike(s.cost, total(s.lines)) for s in steps),
        "a step is the sum of its nodes": all(
            alike(step.cost, sum(node.price for node in packing.nodes))
            and step.nodes == len(packing.nodes) == sum(line.count for line in step.lines)
            for step, packing in zip(steps, made.packings, strict=True)
        ),
        "no step loses": all(step.saved >= 0 for step in steps),
        "a step saves the difference": all(
            alike(before - after, step.saved)
            for (before, after), step in zip(pairwise(costs), steps, strict=True)
        ),
        "what is saved adds up": alike(costs[0] - estimate.saved, costs[-1]),
        "no step costs less than its bound": all(
            step.lower_bound <= step.cost + NEARLY for step in steps
        ),
        "the bounds fall": all(
            after.lower_bound <= before.lower_bound * (1 + GAP) + NEARLY
            for before, after in pairwise(steps)
        ),
        "the cost is between low and high": all(
            step.low - NEARLY <= step.cost <= step.high + NEARLY for step in steps
        ),
        "no workload loses by spot": all(each.gain >= 0 for each in estimate.verdicts),
        "workloads cost no more than their nodes": (
            sum(each.cost for each in estimate.verdicts) <= costs[-1] + NEARLY
        ),
        "a workload's gain is no more than its cost": all(
            each.gain <= each.cost + NEARLY for each in estimate.verdicts
        ),
        "idle is a part of the cost": 0 <= estimate.now.idle_cost <= costs[0] + NEARLY,
    }


def counts(judge: Judge, estimate: Estimate) -> dict[str, bool]:
    """What the estimate says of the cluster, and whether the judge sees the same."""
    pods = judge.snapshot.pods
    there = [pod for pod in pods if pod.node in judge.nodes]
    requested: Counter[str] = sum((used(pod.demand) for pod in there), Counter())
    verdicts = {(each.namespace, each.owner): each for each in estimate.verdicts}
    tolerant = {name for name, each in verdicts.items() if each.tolerates_spot}
    return {
        "nodes": estimate.nodes == len(judge.nodes),
        "nodes left out": sum(each.nodes for each in estimate.unpriced) == len(judge.others),
        "pods left out": sum(each.pods for each in estimate.unpriced)
        == sum(pod.node in {node.name for node in judge.others} for pod in pods),
        "pods": estimate.pods == len(judge.moving) == sum(v.pods for v in estimate.verdicts),
        "pods of DaemonSets and static ones": estimate.daemon_pods
        == len(there) - len(judge.moving),
        "what now costs": alike(estimate.now.cost, judge.cost_now()),
        "no step costs more than the nodes with pods do now": (
            estimate.steps[0].cost <= judge.cost_now(occupied=True) + NEARLY
        ),
        "no bound is above the cost of the nodes with pods now": (
            estimate.steps[0].lower_bound <= judge.cost_now(occupied=True) + NEARLY
        ),
        "what is requested now": all(
            estimate.now.requested[what] == requested[what] for what in ("cpu", "memory")
        ),
        "what tolerates spot": tolerant == judge.tolerant_workloads(),
        "reasons": all(bool(v.reasons) != v.tolerates_spot for v in estimate.verdicts),
        "pods on spot now": sum(each.on_spot for each in estimate.verdicts)
        == sum(judge.nodes[pods[at].node].market == "spot" for at in judge.moving),
    }


def alike(one: float, other: float) -> bool:
    """But for rounding."""
    return abs(one - other) < NEARLY


def total(lines: Any) -> float:
    """The sum of lines, each with its own product."""
    return sum((line.count * line.price for line in lines), 0.0)


def cheaper(before: Plan, after: Plan) -> list[str]:
    """Steps in which more pods cost less.

    The bound with whole nodes is within the solver's gap of the best whole nodes, so it may fall
    by that.
    """
    return [
        f"{old.name}: bound {old.lower_bound} -> {new.lower_bound}, cost {old.cost} -> {new.cost}"
        for old, new in zip(before.estimate.steps, after.estimate.steps, strict=True)
        if new.lower_bound < old.lower_bound * (1 - GAP) - NEARLY
        or new.cost < old.lower_bound - NEARLY
    ]


# Changed clusters ---------------------------------------------------------------------------------


def shuffled(snapshot: Snapshot, random: Random) -> Snapshot:
    """The same cluster in another order."""
    return msgspec.structs.replace(
        snapshot,
        nodes=tuple(random.sample(snapshot.nodes, len(snapshot.nodes))),
        pods=tuple(random.sample(snapshot.pods, len(snapshot.pods))),
    )


def rounded(made: Plan) -> Any:
    """The estimate without the last digits, which depend on the order of sums."""

    def of(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: of(each) for key, each in value.items()}
        if isinstance(value, list | tuple):
            return [of(each) for each in value]
        return round(value, 6) if isinstance(value, float) else value

    return of(msgspec.to_builtins(made.estimate))


def with_one_more(snapshot: Snapshot, prices: Prices) -> Snapshot | None:
    """The cluster with a copy of a pod on the same node, if one has room for it.

    Not of a workload with a budget: of two pods it allows more than of one.
    """
    judge = Judge(snapshot, prices, ())
    budgets = {r.values for each in snapshot.budgets for r in each.selector or ()}
    for at in sorted(judge.moving):
        pod = snapshot.pods[at]
        free = dict(judge.nodes[pod.node].allocatable)
        for other in snapshot.pods:
            if other.node == pod.node:
                for what, number in used(other.demand).items():
                    free[what] = free.get(what, 0) - number
        room = all(free.get(what, 0) >= number for what, number in used(pod.demand).items())
        if room and _free_of_terms(pod) and (pod.labels["app"],) not in budgets:
            copy = msgspec.structs.replace(pod, name=f"{pod.name}-more")
            return msgspec.structs.replace(snapshot, pods=(*snapshot.pods, copy))
    return None


def _free_of_terms(pod: Pod) -> bool:
    return not (pod.affinity or pod.anti_affinity or pod.spread or pod.demand.host_ports)
