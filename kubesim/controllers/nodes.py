"""The taint of a cordoned node, and the pods of a deleted node."""

from __future__ import annotations

from kubesim.controllers.base import Controller, Key
from kubesim.eviction import is_ready
from kubesim.registry import Deletion
from kubesim.resources import NODES, PODS, Obj
from kubesim.store import Change, node_of

UNSCHEDULABLE = "node.kubernetes.io/unschedulable"
OUT_OF_SERVICE = "node.kubernetes.io/out-of-service"
ORPHAN_QUARANTINE = 40.0
"""Seconds for which pods of a missing node are kept, as in kube-controller-manager's pod GC."""
GC_SECONDS = 20.0
"""The interval of kube-controller-manager's pod GC: the longest wait for it."""


def is_out_of_service(node: Obj) -> bool:
    """Whether the node's machine is off: it is not ready and has the out-of-service taint."""
    taints = node.get("spec", {}).get("taints") or ()
    return any(taint["key"] == OUT_OF_SERVICE for taint in taints) and not is_ready(node)


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
    """Removes pods that no kubelet will remove.

    These are the pods of a node that does not exist, and the terminating pods of a node that is out
    of service.
    """

    name = "pod-garbage-collector"

    def on_change(self, change: Change) -> None:
        if change.resource is NODES:
            name = change.new["metadata"]["name"]
            if change.kind == "DELETED":
                self.enqueue((name,), ORPHAN_QUARANTINE)
            elif is_out_of_service(change.new):
                self.enqueue((name,), GC_SECONDS)
        elif change.resource is PODS and change.kind != "DELETED":
            self._on_pod(change.new)

    def _on_pod(self, pod: Obj) -> None:
        name = node_of(pod)
        if not name:
            return
        node = self.store.get(NODES, "", name)
        if node is None:
            self.enqueue((name,), ORPHAN_QUARANTINE)
        elif "deletionTimestamp" in pod["metadata"] and is_out_of_service(node):
            self.enqueue((name,), GC_SECONDS)

    def sync(self, key: Key) -> None:
        node = self.store.get(NODES, "", key[0])
        if node is not None and not is_out_of_service(node):
            return
        for pod in self.store.pods_on(key[0]):
            metadata = pod["metadata"]
            terminating = "deletionTimestamp" in metadata
            if terminating if node else not (metadata.get("finalizers") and terminating):
                how = Deletion(grace=0, uid=metadata["uid"])
                self.registry.delete(PODS, metadata["namespace"], metadata["name"], how)
