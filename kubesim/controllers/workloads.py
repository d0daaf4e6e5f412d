"""Deployments, ReplicaSets, StatefulSets and DaemonSets: they re-create deleted pods."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any

from kubesim.controllers.base import Controller, Key
from kubesim.controllers.scheduler import selects, tolerates
from kubesim.errors import ApiError
from kubesim.eviction import is_ready, with_condition
from kubesim.registry import FINISHED
from kubesim.resources import (
    DAEMON_SETS,
    DEPLOYMENTS,
    NODES,
    PODS,
    REPLICA_SETS,
    STATEFUL_SETS,
    Obj,
    Resource,
)
from kubesim.store import Change, controller_uid, node_of

POD_TEMPLATE_HASH = "pod-template-hash"
REFUSED_RETRY_SECONDS = 1.0

_DAEMON_TOLERATIONS = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)


def _owner(resource: Resource, obj: Obj) -> dict[str, Any]:
    return {
        "apiVersion": resource.api_version,
        "kind": resource.kind,
        "name": obj["metadata"]["name"],
        "uid": obj["metadata"]["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _active(pod: Obj) -> bool:
    return pod["status"].get("phase") not in FINISHED and "deletionTimestamp" not in pod["metadata"]


def _template_hash(template: Obj) -> str:
    text = json.dumps(template, sort_keys=True).encode()
    return hashlib.sha256(text).hexdigest()[:10]


class _PodOwner(Controller):
    """A controller of one kind that owns pods."""

    resource: Resource

    def on_change(self, change: Change) -> None:
        metadata = change.new["metadata"]
        if change.resource is self.resource:
            if change.kind != "DELETED":
                self.enqueue((metadata["namespace"], metadata["name"]))
        elif change.resource is PODS:
            for owner in metadata.get("ownerReferences", ()):
                if owner.get("controller") and owner["kind"] == self.resource.kind:
                    self.enqueue((metadata["namespace"], owner["name"]))

    def sync(self, key: Key) -> None:
        obj = self.store.get(self.resource, *key)
        if obj is None or "deletionTimestamp" in obj["metadata"]:
            return
        try:
            self.reconcile(obj, self.store.pods_of(obj["metadata"]["uid"]))
        except ApiError:  # the namespace is terminating, or the template is refused
            self.enqueue(key, REFUSED_RETRY_SECONDS)

    def reconcile(self, obj: Obj, pods: list[Obj]) -> None:
        """Create and delete pods to match the spec, and write the status."""
        raise NotImplementedError

    def new_pod(
        self, obj: Obj, *, name: str = "", edit: Callable[[Obj], None] = lambda _pod: None
    ) -> None:
        """Create a pod from the template."""
        template = deepcopy(obj["spec"]["template"])
        metadata = dict(template.get("metadata") or {})
        if name:
            metadata["name"] = name
        else:
            metadata["generateName"] = f"{obj['metadata']['name']}-"
        metadata["ownerReferences"] = [_owner(self.resource, obj)]
        pod = {"metadata": metadata, "spec": template["spec"]}
        edit(pod)
        self.registry.create(PODS, obj["metadata"]["namespace"], pod)

    def remove(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        self.registry.delete(PODS, metadata["namespace"], metadata["name"])

    def report(self, obj: Obj, status: dict[str, Any]) -> None:
        """Write the status."""
        observed = {"observedGeneration": obj["metadata"]["generation"]}
        self.registry.set_status(self.resource, obj, {**observed, **status})


class ReplicaSetController(_PodOwner):
    """Keeps the number of pods that the spec has."""

    name = "replicaset"
    resource = REPLICA_SETS

    def reconcile(self, obj: Obj, pods: list[Obj]) -> None:
        active = [pod for pod in pods if _active(pod)]
        wanted = obj["spec"].get("replicas", 1)
        for _ in range(wanted - len(active)):
            self.new_pod(obj)
        # Unready pods are removed first, as in kube-controller-manager.
        for pod in sorted(active, key=is_ready)[: max(0, len(active) - wanted)]:
            self.remove(pod)
        ready = sum(1 for pod in active if is_ready(pod))
        self.report(
            obj,
            {
                "replicas": min(len(active), wanted) if len(active) > wanted else len(active),
                "fullyLabeledReplicas": len(active),
                "readyReplicas": ready,
                "availableReplicas": ready,
            },
        )


class DeploymentController(Controller):
    """Keeps one ReplicaSet per template; scales the old ones to 0 when the new one is ready."""

    name = "deployment"

    def on_change(self, change: Change) -> None:
        metadata = change.new["metadata"]
        if change.resource is DEPLOYMENTS and change.kind != "DELETED":
            self.enqueue((metadata["namespace"], metadata["name"]))
        elif change.resource is REPLICA_SETS:
            for owner in metadata.get("ownerReferences", ()):
                if owner["kind"] == "Deployment":
                    self.enqueue((metadata["namespace"], owner["name"]))

    def sync(self, key: Key) -> None:
        deployment = self.store.get(DEPLOYMENTS, *key)
        if deployment is None or "deletionTimestamp" in deployment["metadata"]:
            return
        uid = deployment["metadata"]["uid"]
        owned = [rs for rs in self.store.objects(REPLICA_SETS, key[0]) if controller_uid(rs) == uid]
        name = f"{key[1]}-{_template_hash(deployment['spec']['template'])}"
        current = next((rs for rs in owned if rs["metadata"]["name"] == name), None)
        wanted = deployment["spec"].get("replicas", 1)
        try:
            if current is None:
                current = self._new(deployment, name)
                owned.append(current)
            elif current["spec"]["replicas"] != wanted:
                self._scale(current, wanted)
        except ApiError:  # the namespace is terminating
            self.enqueue(key, REFUSED_RETRY_SECONDS)
            return
        if current.get("status", {}).get("readyReplicas", 0) >= wanted:
            for old in owned:
                if old is not current and old["spec"]["replicas"]:
                    self._scale(old, 0)
        self._report(deployment, current, owned)

    def _new(self, deployment: Obj, name: str) -> Obj:
        template = deepcopy(deployment["spec"]["template"])
        suffix = name.rpartition("-")[2]
        labels = {**template.get("metadata", {}).get("labels", {}), POD_TEMPLATE_HASH: suffix}
        template["metadata"] = {**template.get("metadata", {}), "labels": labels}
        selector = deepcopy(deployment["spec"]["selector"])
        selector["matchLabels"] = {**selector.get("matchLabels", {}), POD_TEMPLATE_HASH: suffix}
        replica_set = {
            "metadata": {
                "name": name,
                "labels": labels,
                "ownerReferences": [_owner(DEPLOYMENTS, deployment)],
            },
            "spec": {
                "replicas": deployment["spec"].get("replicas", 1),
                "selector": selector,
                "template": template,
            },
        }
        return self.registry.create(REPLICA_SETS, deployment["metadata"]["namespace"], replica_set)

    def _scale(self, replica_set: Obj, replicas: int) -> None:
        spec = {**replica_set["spec"], "replicas": replicas}
        self.registry.update(REPLICA_SETS, replica_set, {**replica_set, "spec": spec})

    def _report(self, deployment: Obj, current: Obj, owned: list[Obj]) -> None:
        def total(field: str) -> int:
            return sum(rs.get("status", {}).get(field, 0) for rs in owned)

        wanted = deployment["spec"].get("replicas", 1)
        available = total("availableReplicas")
        status: dict[str, Any] = {
            "observedGeneration": deployment["metadata"]["generation"],
            "replicas": total("replicas"),
            "updatedReplicas": current.get("status", {}).get("replicas", 0),
            "readyReplicas": total("readyReplicas"),
            "availableReplicas": available,
            "unavailableReplicas": max(0, wanted - available),
            "conditions": deployment.get("status", {}).get("conditions", []),
        }
        status = {k: v for k, v in status.items() if v != 0}
        enough = available >= wanted - max(0, wanted // 4)
        available_now = _deployment_condition(
            "Available",
            enough,
            "MinimumReplicasAvailable" if enough else "MinimumReplicasUnavailable",
            "Deployment has minimum availability."
            if enough
            else "Deployment does not have minimum availability.",
        )
        complete = available >= wanted and status.get("updatedReplicas", 0) >= wanted
        name = current["metadata"]["name"]
        progressing = _deployment_condition(
            "Progressing",
            True,
            "NewReplicaSetAvailable" if complete else "ReplicaSetUpdated",
            f'ReplicaSet "{name}" has successfully progressed.'
            if complete
            else f'ReplicaSet "{name}" is progressing.',
        )
        for condition in (available_now, progressing):
            status = self._stamped(status, condition)
        self.registry.set_status(DEPLOYMENTS, deployment, status)

    def _stamped(self, status: dict[str, Any], condition: dict[str, Any]) -> dict[str, Any]:
        """The status with the condition; its times change only if the condition changes."""
        for found in status["conditions"]:
            if all(found.get(key) == value for key, value in condition.items()):
                return status
        stamp = self.registry.stamp()
        times = {"lastUpdateTime": stamp, "lastTransitionTime": stamp}
        return with_condition(status, {**condition, **times})


def _deployment_condition(kind: str, holds: bool, reason: str, message: str) -> dict[str, Any]:
    status = "True" if holds else "False"
    return {"type": kind, "status": status, "reason": reason, "message": message}


class StatefulSetController(_PodOwner):
    """Pods with fixed names; a name is used again only after its pod is removed."""

    name = "statefulset"
    resource = STATEFUL_SETS

    def reconcile(self, obj: Obj, pods: list[Obj]) -> None:
        name, wanted = obj["metadata"]["name"], obj["spec"].get("replicas", 1)
        ordered = obj["spec"].get("podManagementPolicy") == "OrderedReady"
        by_name = {pod["metadata"]["name"]: pod for pod in pods}
        for ordinal in range(wanted):
            pod = by_name.get(f"{name}-{ordinal}")
            if pod is None:
                self._create(obj, f"{name}-{ordinal}")
            elif pod["status"].get("phase") in FINISHED and _undeleted(pod):
                self.remove(pod)
            if ordered and (pod is None or not is_ready(pod) or not _undeleted(pod)):
                break
        else:
            for pod_name in sorted(by_name, reverse=True):
                beyond = int(pod_name.rpartition("-")[2]) >= wanted
                if beyond and _undeleted(by_name[pod_name]):
                    self.remove(by_name[pod_name])
        active = [pod for pod in pods if _active(pod)]
        ready = sum(1 for pod in active if is_ready(pod))
        self.report(
            obj,
            {
                "replicas": len(active),
                "readyReplicas": ready,
                "availableReplicas": ready,
                "currentReplicas": len(active),
            },
        )

    def _create(self, obj: Obj, name: str) -> None:
        if self.store.get(PODS, obj["metadata"]["namespace"], name) is not None:
            return  # a pod of another owner has the name

        def edit(pod: Obj) -> None:
            labels = {"statefulset.kubernetes.io/pod-name": name}
            pod["metadata"]["labels"] = {**pod["metadata"].get("labels", {}), **labels}
            pod["spec"] = {**pod["spec"], "hostname": name}

        self.new_pod(obj, name=name, edit=edit)


def _undeleted(pod: Obj) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


class DaemonSetController(_PodOwner):
    """One pod per node that fits, cordoned or not."""

    name = "daemonset"
    resource = DAEMON_SETS

    def on_change(self, change: Change) -> None:
        super().on_change(change)
        if change.resource is NODES:
            for obj in self.store.objects(DAEMON_SETS):
                self.enqueue((obj["metadata"]["namespace"], obj["metadata"]["name"]))

    def reconcile(self, obj: Obj, pods: list[Obj]) -> None:
        by_node: dict[str, list[Obj]] = {}
        for pod in pods:
            by_node.setdefault(node_of(pod), []).append(pod)
        desired = 0
        for node in self.store.objects(NODES):
            if not self._fits(obj, node):
                continue
            desired += 1
            name = node["metadata"]["name"]
            if name not in by_node:
                self._create(obj, name)
        ready = sum(1 for pod in pods if _active(pod) and is_ready(pod))
        current = sum(1 for pod in pods if _active(pod))
        self.report(
            obj,
            {
                "desiredNumberScheduled": desired,
                "currentNumberScheduled": current,
                "numberMisscheduled": 0,
                "numberReady": ready,
                "numberAvailable": ready,
                "updatedNumberScheduled": current,
            },
        )

    def _fits(self, obj: Obj, node: Obj) -> bool:
        spec = obj["spec"]["template"]["spec"]
        tolerations = [*(spec.get("tolerations") or ()), *_daemon_tolerations()]
        return selects(spec, node) and all(
            tolerates(tolerations, taint)
            for taint in node["spec"].get("taints") or ()
            if taint["effect"] != "PreferNoSchedule"
        )

    def _create(self, obj: Obj, node: str) -> None:
        def edit(pod: Obj) -> None:
            tolerations = [*(pod["spec"].get("tolerations") or ()), *_daemon_tolerations()]
            pod["spec"] = {**pod["spec"], "nodeName": node, "tolerations": tolerations}

        self.new_pod(obj, edit=edit)


def _daemon_tolerations() -> list[dict[str, Any]]:
    return [
        {"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": effect}
        for key, effect in _DAEMON_TOLERATIONS
    ]
