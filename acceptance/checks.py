"""The verdict: comparisons of what was said, what was seen and what was there before. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from acceptance.kubernetes import NodeState
from acceptance.scope import Scope
from sandbox.demo.inventory import Thing, named
from sandbox.demo.timeline import PodState, Timeline

NOTICE = 120.0  # s between a spot notice and the end of the instance


@dataclass(frozen=True)
class Check:
    """One comparison. `passed` None: a remark that does not decide."""

    name: str
    passed: bool | None
    detail: str


def of_drill(scope: Scope, result: Mapping[str, Any], timeline: Timeline) -> Iterator[Check]:
    """Compare the handler's result with the timeline of the cluster."""
    outcome, reason = result["outcome"], result.get("reason", "")
    yield Check(
        "outcome",
        outcome == scope.expected,
        f"{outcome}, expected {scope.expected}" + (f": {reason}" if reason else ""),
    )
    cordoned = timeline.cordoned_at is not None
    if scope.expected == "dry_run":
        plan = len(result.get("plan") or ()) - 1  # its first entry is the patch of the node
        yield Check("nothing written", not cordoned, f"plan for {plan} pods, node unchanged")
        return
    seconds = result.get("seconds_to_cordon", "not known, ")
    yield Check("cordon", cordoned, f"{seconds} s after the notice")
    if scope.expected == "drained":
        yield from _of_drain(result, timeline)


def _of_drain(result: Mapping[str, Any], timeline: Timeline) -> Iterator[Check]:
    seconds = result.get("seconds_to_drained")
    yield Check(
        "within the two minutes",
        seconds is not None and seconds <= NOTICE,
        f"drained after {seconds} s" if seconds is not None else "not drained",
    )
    pods = result["pods"]
    left = [pod.name for pod in timeline.leaving if pod.state is PodState.RUNNING]
    yield Check(
        "no pod left", not left and not pods["left"], ", ".join(left) or "the cluster shows none"
    )
    ended = sum(pods[word] for word in ("evicted", "forced", "gone", "left"))
    yield Check(
        "counts",
        ended == len(timeline.leaving),
        f"the handler counted {pods['evicted']} evicted, {pods['forced']} forced, {pods['gone']} "
        f"ended by others, {pods['left']} left; the cluster shows {len(timeline.leaving)} pods",
    )
    waiting = timeline.lost()
    yield Check(
        "replacements",
        None if waiting else True,
        f"not ready yet: {', '.join(waiting)}. The drain does not decide that: see their Events"
        if waiting
        else "every controller's pod has a ready replacement",
    )


def of_inventory(
    scope: Scope, before: Collection[Thing], after: Collection[Thing]
) -> Iterator[Check]:
    """Compare account and cluster with before. Others may have changed something meanwhile."""
    appeared, vanished = set(after) - set(before), set(before) - set(after)
    ours = {thing for thing in appeared if scope.ours(thing[1])}
    lost = {thing for thing in vanished if scope.ours(thing[1])}
    yield Check("nothing left", not ours, named(ours) or f"of {len(after)} resources none is ours")
    yield Check("nothing removed", not lost, named(lost) or "all that was there is there")
    others = (appeared - ours) | (vanished - lost)
    if others:
        yield Check("changed by others meanwhile", None, named(others))


def of_node(before: NodeState, after: NodeState | None) -> Check:
    """Compare what a drain sets on a node with before. A node that is gone was not removed by us:
    the handler may not delete one.
    """
    if after is None:
        return Check("node as before", None, "the node is gone: another tool removed it")
    return Check(
        "node as before",
        before == after,
        "schedulable, with the taints and labels of before"
        if before == after
        else f"before: {before}, now: {after}",
    )


def of_trust(document: Mapping[str, Any], *, principal: str, cluster_id: str) -> Check:
    """Check that only CAST AI's principal can assume the role, for this cluster only."""
    (statement, *others) = document["Statement"]
    external = statement.get("Condition", {}).get("StringEquals", {}).get("sts:ExternalId")
    alone = not others and statement["Principal"] == {"AWS": principal}
    return Check(
        "trust policy",
        alone and external == cluster_id,
        f"only {principal} can assume the role" if alone else f"it trusts {statement['Principal']}",
    )


def passed(checks: Collection[Check]) -> bool:
    """Whether no check failed, and there was one."""
    return bool(checks) and all(check.passed is not False for check in checks)
