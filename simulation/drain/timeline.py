"""A day for a reader: what happened, in order, and what it contained."""

from __future__ import annotations

from collections import Counter

from kubesim.resources import NODES, PODS
from simulation.drain.function import Function, Sent
from simulation.drain.world import Moment, World

_MESSAGE = 100  # characters of a server's text


def timeline(world: World, function: Function) -> list[str]:
    """A line for each note, request, and change of a pod or node; seconds from the first event."""
    lines = [(at, text) for at, text in world.notes]
    for run in function.runs:
        lines += [(sent.at, f"  [{run.number}] {_request(sent)}") for sent in run.sent]
    lines += [(moment.at, f"    {text}") for moment in world.moments if (text := _change(moment))]
    lines.sort(key=lambda line: line[0])
    return [f"{at - world.start:8.2f}  {text}" for at, text in lines]


def seen(world: World, function: Function) -> Counter[str]:
    """Outcomes, answers and actors of the day."""
    found: Counter[str] = Counter()
    for run in function.runs:
        outcome = run.result["outcome"] if run.result else run.error.partition(":")[0] or "killed"
        found[f"outcome {outcome}"] += 1
        for sent in run.sent:
            found[f"answer {sent.status}"] += 1
            if sent.uid and sent.method == "DELETE":
                found["forced"] += 1
    for act in world.day.acts:
        found[f"actor {act.kind}"] += 1
    return found


def _request(sent: Sent) -> str:
    what = sent.path.removeprefix("/api/v1").removeprefix("/namespaces/default")
    watch = " (watch)" if "watch=1" in sent.query else ""
    grace = f" with {sent.grace} s" if sent.uid else ""
    answer = "no answer" if sent.answered is None else str(sent.status)
    late = (sent.answered or sent.at) - sent.at
    after = f" after {late:.1f} s" if late > 0.05 else ""
    text = ""
    if sent.status >= 400:
        text = ": " + " ".join(sent.answer.split())[:_MESSAGE]
    return f"{sent.method} {what}{watch}{grace} → {answer}{after}{text}"


def _change(moment: Moment) -> str:
    change = moment.change
    name = change.new["metadata"]["name"]
    if change.resource is PODS:
        return f"pod {name}: {text}" if (text := _pod_change(moment)) else ""
    if change.resource is NODES:
        if change.kind != "MODIFIED" or change.old is None:
            return f"node {name}: {change.kind.lower()}"
        was, now = (bool(node["spec"].get("unschedulable")) for node in (change.old, change.new))
        if was != now:
            return f"node {name}: {'cordoned' if now else 'uncordoned'}"
    return ""


def _pod_change(moment: Moment) -> str:
    change = moment.change
    old, new = change.old, change.new
    if change.kind == "DELETED":
        return "gone"
    node = new["spec"].get("nodeName", "")
    if old is None:
        return f"created{f' on {node}' if node else ''}"
    if not old["spec"].get("nodeName") and node:
        return f"bound to {node}"
    graces = [pod["metadata"].get("deletionGracePeriodSeconds") for pod in (old, new)]
    if graces[0] != graces[1]:
        return f"terminating, with {graces[1]} s"
    phases = [pod.get("status", {}).get("phase") for pod in (old, new)]
    if phases[0] != phases[1]:
        return str(phases[1])
    return ""
