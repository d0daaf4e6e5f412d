"""The taint of a cordoned node, and the pods of a deleted node."""

from __future__ import annotations

from kubesim.controllers.base import Controller, Key
from kubesim.registry import Deletion
from kubesim.resources import NODES, PODS, Obj
from kubesim.store import Change, node_of

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
ORPHAN_QUARANTINE = 40.0
"""Seconds for which pods of a missing node are kept, as in kube-controller-manager's pod GC."""


class NodeController(Controller):
    """Sets and removes the taint of a cordoned node, as the node lifecycle controller does."""

    name = "node-lifecycle"

    def on_change(self, change: Change) -> None:
        if change.resource is NODES and change.kind != "DELETED":
            self.enqueue((change.new["metadata"]["name"],))

    def sync(self, key: Key) -> None:
        node = self.store.get(NODES, "", key[0])
        if node is None:
            return
        taints = list(node["spec"].get("taints") or ())
        cordoned = bool(node["spec"].get("unschedulable"))
        tainted = any(taint["key"] == UNSCHEDULABLE for taint in taints)
        if cordoned == tainted:
            return
        if cordoned:
            stamp = self.registry.stamp()
            taints.append({"key": UNSCHEDULABLE, "effect": "NoSchedule", "timeAdded": stamp})
        else:
            taints = [taint for taint in taints if taint["key"] != UNSCHEDULABLE]
        spec = {**node["spec"], "taints": taints}
        if not taints:
            del spec["taints"]
        self.registry.update(NODES, node, {**node, "spec": spec})


class PodGarbageCollector(Controller):
    """Removes the pods that are bound to a node that does not exist."""

    name = "pod-garbage-collector"

    def on_change(self, change: Change) -> None:
        if change.resource is NODES and change.kind == "DELETED":
            self.enqueue((change.new["metadata"]["name"],), ORPHAN_QUARANTINE)
        elif change.resource is PODS and change.kind != "DELETED":
            self._on_pod(change.new)

    def _on_pod(self, pod: Obj) -> None:
        node = node_of(pod)
        if node and self.store.get(NODES, "", node) is None:
            self.enqueue((node,), ORPHAN_QUARANTINE)

    def sync(self, key: Key) -> None:
        if self.store.get(NODES, "", key[0]) is not None:
            return
        for pod in self.store.pods_on(key[0]):
            metadata = pod["metadata"]
            if not (metadata.get("finalizers") and "deletionTimestamp" in metadata):
                how = Deletion(grace=0, uid=metadata["uid"])
                self.registry.delete(PODS, metadata["namespace"], metadata["name"], how)
