"""Binds pods to nodes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

from kubesim import requests
from kubesim.binding import bind
from kubesim.controllers.base import Controller, Key
from kubesim.eviction import is_ready, with_condition
from kubesim.registry import FINISHED, Registry
from kubesim.resources import NODES, PODS, Obj
from kubesim.selectors import labels_of, match_selector
from kubesim.store import Change, controller_uid, node_of

ENOUGH_NODES = 100
"""After so many nodes that fit, the search ends, as in kube-scheduler for large clusters."""


BIND_SECONDS = 0.01
"""From the choice of a node to the binding. A cordon in between does not stop the binding."""


class _Assumed(NamedTuple):
    """A pod whose node is chosen."""

    uid: str
    node: str


def tolerates(tolerations: list[dict[str, Any]], taint: dict[str, Any]) -> bool:
    """Whether one of the tolerations matches the taint."""
    return any(
        (not t.get("key") or t["key"] == taint.get("key"))
        and (not t.get("effect") or t["effect"] == taint.get("effect"))
        and (t.get("operator") == "Exists" or t.get("value", "") == taint.get("value", ""))
        for t in tolerations
    )


def selects(spec: Obj, node: Obj) -> bool:
    """Whether nodeSelector and required node affinity of a pod spec match a node."""
    labels = labels_of(node)
    if any(labels.get(k) != v for k, v in (spec.get("nodeSelector") or {}).items()):
        return False
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
        "requiredDuringSchedulingIgnoredDuringExecution"
    )
    terms = affinity.get("nodeSelectorTerms", []) if affinity else None
    return terms is None or any(match_selector(term)(labels) for term in terms)


def misfit(pod: Obj, node: Obj) -> str:
    """Why a pod does not fit a node, in kube-scheduler's words; empty: it fits."""
    tolerations = pod["spec"].get("tolerations") or []
    spec = node["spec"]
    if spec.get("unschedulable") and not tolerates(
        tolerations, {"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}
    ):
        return "node(s) were unschedulable"
    for taint in spec.get("taints") or ():
        if taint["effect"] != "PreferNoSchedule" and not tolerates(tolerations, taint):
            return f"node(s) had untolerated taint {{{taint['key']}: {taint.get('value', '')}}}"
    if not selects(pod["spec"], node):
        return "node(s) didn't match Pod's node affinity/selector"
    return "" if is_ready(node) else "node(s) were not ready"


class Scheduler(Controller):
    """Chooses nodes for pods, and binds the pods `bind_seconds` later.

    It chooses the node with the fewest pods of the same controller; of these, the one with the
    fewest pods.
    """

    name = "scheduler"

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.bind_seconds = BIND_SECONDS
        self._unscheduled: set[Key] = set()
        self._assumed: dict[Key, _Assumed] = {}
        self._assumed_on: Counter[str] = Counter()
        self._next = 0

    def on_change(self, change: Change) -> None:
        if change.resource is PODS:
            if change.kind == "DELETED":
                self._retry()
            elif _is_unbound(change.new):
                self.enqueue(_key(change.new))
        elif change.resource is NODES and change.kind != "DELETED":
            self._retry()

    def _retry(self) -> None:
        for key in sorted(self._unscheduled):
            self.enqueue(key)

    def sync(self, key: Key) -> None:
        if key[2:]:  # (namespace, name, "binding")
            self._bind(key[:2])
            return
        self._unscheduled.discard(key)
        pod = self.store.get(PODS, *key)
        if pod is None or not _is_unbound(pod) or key in self._assumed:
            return
        node, why = self._choose(pod)
        if node is None:
            self._unscheduled.add(key)
            self._report_unschedulable(pod, why)
            return
        self._assumed[key] = _Assumed(pod["metadata"]["uid"], node)
        self._assumed_on[node] += 1
        self.enqueue((*key, "binding"), self.bind_seconds)

    def _bind(self, key: Key) -> None:
        """Bind the pod to the node that was chosen for it, if it still waits."""
        assumed = self._assumed.pop(key)
        self._assumed_on[assumed.node] -= 1
        pod = self.store.get(PODS, *key)
        if pod is None or not _is_unbound(pod):
            return
        if pod["metadata"]["uid"] == assumed.uid:
            bind(self.registry, pod, assumed.node)
        else:
            self.enqueue(key)

    def _choose(self, pod: Obj) -> tuple[str | None, dict[str, int]]:
        reasons: dict[str, int] = {}
        fitting: list[tuple[int, int, str]] = []
        nodes = list(self.store.objects(NODES))
        siblings = self._siblings(pod)
        asked = requests.of_pod(pod["spec"])
        for offset in range(len(nodes)):
            node = nodes[(self._next + offset) % len(nodes)]
            name = node["metadata"]["name"]
            count = self.store.pods_bound(name) + self._assumed_on[name]
            why = misfit(pod, node)
            if whys := [why] if why else self._lacks(asked, node, count):
                for each in whys:
                    reasons[each] = reasons.get(each, 0) + 1
                continue
            fitting.append((siblings.get(name, 0), count, name))
            if len(fitting) >= ENOUGH_NODES:
                self._next = (self._next + offset + 1) % len(nodes)
                break
        return (min(fitting)[2] if fitting else None), reasons

    def _lacks(self, asked: requests.Amounts, node: Obj, pods: int) -> list[str]:
        """What the node has too little of."""
        allocatable = node["status"].get("allocatable", {})
        full = ["Too many pods"] if pods >= int(allocatable.get("pods", 110)) else []
        others = self._specs(node["metadata"]["name"])
        return full + requests.insufficient(asked, allocatable, others)

    def _specs(self, node: str) -> Iterator[Obj]:
        """Specs of the pods that take room on a node, read only if a pod asks for any."""
        assumed = (self.store.get(PODS, *key) for key, each in self._assumed.items()
                   if each.node == node)  # fmt: skip
        for pod in (*self.store.pods_on(node), *assumed):
            if pod is not None and pod["status"].get("phase") not in FINISHED:
                yield pod["spec"]

    def _siblings(self, pod: Obj) -> dict[str, int]:
        """Pods of the same controller by node."""
        owner = controller_uid(pod)
        counts: dict[str, int] = {}
        for sibling in self.store.pods_of(owner) if owner else ():
            assumed = self._assumed.get(_key(sibling))
            node = assumed.node if assumed else node_of(sibling)
            counts[node] = counts.get(node, 0) + 1
        return counts

    def _report_unschedulable(self, pod: Obj, reasons: dict[str, int]) -> None:
        total = sum(1 for _ in self.store.objects(NODES))
        listed = ", ".join(sorted(f"{count} {why}" for why, count in reasons.items()))
        condition = {
            "type": "PodScheduled",
            "status": "False",
            "lastProbeTime": None,
            "lastTransitionTime": self.registry.stamp(),
            "reason": "Unschedulable",
            "message": f"0/{total} nodes are available: {listed}." if listed else "no nodes",
        }
        for found in pod["status"].get("conditions", ()):
            if found["type"] == "PodScheduled" and found.get("message") == condition["message"]:
                return
        self.registry.set_status(PODS, pod, with_condition(pod["status"], condition))


def _key(pod: Obj) -> Key:
    return pod["metadata"]["namespace"], pod["metadata"]["name"]


def _is_unbound(pod: Obj) -> bool:
    return (
        not node_of(pod)
        and "deletionTimestamp" not in pod["metadata"]
        and pod["status"].get("phase") not in FINISHED
        and not pod["spec"].get("schedulingGates")
    )
