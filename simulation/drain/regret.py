"""What the shipped drain needs more than a planner that knows the day."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from kubesim.resources import PODS
from simulation.drain import planner, rules
from simulation.drain.judge import SLACK, Judge
from simulation.drain.rules import NOTICE, Obj
from simulation.drain.world import World

STEPS = (0.1, 1.0, 5.0, 15.0, 60.0)  # s: of the table
POLL = 5.0  # s between two looks for the node of a young instance
UNFORESEEN = frozenset({"bind pod"})
"""Acts that put a pod on a node that was drained, past scheduler and cordon."""


@dataclass(frozen=True)
class Regret:
    """The difference between two drains of a node."""

    node: int
    pods: int
    """Pods on the node at the deadline that the planner removes in time."""
    seconds: float
    """From the planner's empty node to the function's; NaN where one of them is never empty."""

    def __str__(self) -> str:
        if self.pods > 0:
            return f"node {self.node}: {self.pods} pods left that a planner removes"
        return f"node {self.node} was empty {self.seconds:.1f} s after a planner's"


def regrets(judge: Judge) -> list[Regret]:
    """The regret of each node that was drained on this day."""
    day = judge.day
    ended = {act.node for act in day.acts if act.kind in rules.END_A_NODE}
    nodes = {each.node for each in day.deliveries if rules.drains(day, each)} - ended
    if not nodes:
        return []
    planned, found = planner.plan(day), []
    for node in sorted(nodes):
        runs = [run for run in judge.runs if judge.drains(run) and run.delivery.node == node]
        registered = judge.world.start + (0 if node else day.registers_at)
        start = max(registered, min(run.started for run in runs))
        deadline = max(judge.window(run).deadline for run in runs)
        ours = _emptied(judge.world, node, start, deadline)
        theirs = _emptied(planned, node, start, deadline)
        seconds = math.nan if math.inf in (ours.at, theirs.at) else ours.at - theirs.at
        found.append(Regret(node, ours.left - theirs.left, seconds))
    return found


def faults(judge: Judge, found: list[Regret]) -> Iterator[str]:
    """The broken promises: without a fault no pod is left that the planner removes, and the node is
    empty as early, but for a wait between two tries for each pod of a budget.
    """
    day = judge.day
    unforeseen = {act.kind for act in day.acts} & UNFORESEEN or day.lifetime < NOTICE
    if day.faults or day.aws_faults or day.kills or day.skew or unforeseen:
        return
    apps = {budget.app for budget in day.budgets}
    # Who goes first decides where one of a budget's pods is not replaced, and nobody can know.
    alone = {pod.app for pod in day.pods if not pod.owner}
    alone |= {act.app for act in day.acts if act.kind == "start pod"}
    if apps & alone:
        return
    budgeted = Counter(pod.app for pod in day.pods if pod.app in apps)
    tries = max(budgeted.values(), default=1)
    allowed = SLACK * tries + (POLL + SLACK if day.registers_at else 0.0)
    for regret in found:
        if regret.pods > 0 or regret.seconds > allowed:
            yield f"regret: {regret}"


def table(found: list[Regret]) -> Counter[str]:
    """How often which regret was seen, and the pods in total."""
    seen: Counter[str] = Counter()
    for regret in found:
        if math.isnan(regret.seconds):
            seen["regret: a node that is never empty"] += 1
        else:
            step = next((step for step in STEPS if regret.seconds <= step), math.inf)
            seen[f"regret ≤ {step:g} s" if step < math.inf else f"regret > {STEPS[-1]:g} s"] += 1
        seen["regret in pods"] += max(0, regret.pods)
    return seen


@dataclass(frozen=True)
class _Emptied:
    """The end of a drain, seen in the history of the cluster."""

    at: float
    """From when on no pod that has to go was on the node; infinite: not before the deadline."""
    left: int
    """The pods that were there at the deadline."""


def _emptied(world: World, node: int, start: float, deadline: float) -> _Emptied:
    """The end of a drain that began at `start`."""
    pods = {pod["metadata"]["uid"]: pod for pod in world.pods_at(node, start)}
    name, since = world.node_name(node), start
    for moment in world.moments:
        change = moment.change
        if not start < moment.at <= deadline or change.resource is not PODS:
            continue
        before = _counted(pods)
        if change.kind == "DELETED" or change.new["spec"].get("nodeName") != name:
            pods.pop(change.new["metadata"]["uid"], None)
        else:
            pods[change.new["metadata"]["uid"]] = change.new
        if before and not _counted(pods):
            since = moment.at
    left = _counted(pods)
    return _Emptied(math.inf if left else since, left)


def _counted(pods: dict[str, Obj]) -> int:
    """The pods that have to go and can: a finalizer is somebody else's."""
    return sum(
        rules.has_to_go(pod) and not pod["metadata"].get("finalizers") for pod in pods.values()
    )
