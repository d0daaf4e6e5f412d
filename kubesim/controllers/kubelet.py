"""The kubelets of all nodes: pods start, become ready, and end when they are deleted.

Annotations of a pod define its behaviour:

- `sandbox/ready-seconds`: from running to ready (default 0.5), or `never`.
- `sandbox/shutdown-seconds`: from the deletion to the end of its process (default 1), or `never`:
  it is killed at the end of its grace period.
- `sandbox/waiting`: the reason why its containers never start (`ImagePullBackOff`).

A node with the annotation `sandbox/kubelet: "off"` has no kubelet: a client sets its pods' status.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass
from typing import Any

from kubesim.controllers.base import Controller, Key
from kubesim.eviction import with_condition
from kubesim.registry import FINISHED, Deletion, Registry
from kubesim.resources import NODES, PODS, Obj
from kubesim.store import Change, node_of

READY_SECONDS = "sandbox/ready-seconds"
SHUTDOWN_SECONDS = "sandbox/shutdown-seconds"
WAITING = "sandbox/waiting"
KUBELET = "sandbox/kubelet"

START_SECONDS = 0.2
DEFAULT_READY_SECONDS = 0.5
DEFAULT_SHUTDOWN_SECONDS = 1.0
KILLED = 137
"""Exit code of a process that SIGKILL ended."""


@dataclass
class _Ending:
    """A pod that is being stopped. Times are those of the event loop."""

    done_at: float
    """When its process ends by itself."""
    kill_at: float
    """When its grace period ends."""
    grace: int


class Kubelets(Controller):
    """One controller for the kubelets of all nodes."""

    name = "kubelet"

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self.stopped: set[str] = set()
        self._running_since: dict[str, float] = {}
        self._endings: dict[str, _Ending] = {}
        self._addresses = 0

    def on_change(self, change: Change) -> None:
        metadata = change.new["metadata"]
        if change.resource is NODES and change.kind == "ADDED":
            self.enqueue((metadata["name"],))
            for pod in self.store.pods_on(metadata["name"]):
                self._enqueue_pod(pod)
        elif change.resource is PODS:
            if change.kind == "DELETED":
                self._running_since.pop(metadata["uid"], None)
                self._endings.pop(metadata["uid"], None)
            elif node_of(change.new):
                self._enqueue_pod(change.new)

    def _enqueue_pod(self, pod: Obj) -> None:
        self.enqueue((pod["metadata"]["namespace"], pod["metadata"]["name"]))

    def stop_node(self, node: str) -> None:
        """Stop the machine of a node: its pods do not change any more."""
        self.stopped.add(node)

    def sync(self, key: Key) -> None:
        if len(key) == 1:
            self._register(key[0])
            return
        pod = self.store.get(PODS, *key)
        if pod is None or not self._runs(node_of(pod)):
            return
        if "deletionTimestamp" in pod["metadata"]:
            self._end(pod)
        elif pod["status"].get("phase") == "Pending":
            self._start(pod)
        elif pod["status"].get("phase") == "Running":
            self._make_ready(pod)

    def _runs(self, node: str) -> bool:
        found = self.store.get(NODES, "", node)
        if found is None or node in self.stopped:
            return False
        return (found["metadata"].get("annotations") or {}).get(KUBELET) != "off"

    def _register(self, name: str) -> None:
        """Set the status of a node, as its kubelet does when the node joins."""
        node = self.store.get(NODES, "", name)
        if node is None or not self._runs(name) or node["status"].get("conditions"):
            return
        self._addresses += 1
        address = f"10.0.{self._addresses // 256}.{self._addresses % 256}"
        status = node_status(name, address, self.registry.stamp())
        self.registry.set_status(NODES, node, {**status, **node["status"]})

    def _start(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        now = asyncio.get_running_loop().time()
        since = self._running_since.setdefault(uid, now)
        if now < since + START_SECONDS:
            self._requeue(pod, since + START_SECONDS - now)
            return
        reason = _annotation(pod, WAITING)
        if reason:
            self._wait(pod, reason)
            return
        self._running_since[uid] = now
        ready_after = _seconds(pod, READY_SECONDS, DEFAULT_READY_SECONDS)
        self._set(pod, self._running(pod, ready=ready_after <= 0))

    def _wait(self, pod: Obj, reason: str) -> None:
        statuses = [
            {
                **_container(container, ready=False),
                "state": {
                    "waiting": {
                        "reason": reason,
                        "message": f"{reason} of image {container['image']!r}",
                    }
                },
            }
            for container in pod["spec"]["containers"]
        ]
        status = {**pod["status"], "containerStatuses": statuses}
        for kind in ("Ready", "ContainersReady"):
            condition = _condition(kind, "False", self.registry.stamp())
            status = with_condition(status, {**condition, "reason": "ContainersNotReady"})
        self._set(pod, status)

    def _make_ready(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        if uid not in self._running_since:
            return  # another client has set it to running
        wait = _seconds(pod, READY_SECONDS, DEFAULT_READY_SECONDS)
        left = self._running_since[uid] + wait - asyncio.get_running_loop().time()
        if left > 0:
            self._requeue(pod, left)
            return
        del self._running_since[uid]
        self._set(pod, self._running(pod, ready=True))

    def _running(self, pod: Obj, *, ready: bool) -> Obj:
        node = self.store.get(NODES, "", node_of(pod)) or {}
        status = {"hostIP": _internal_ip(node), "podIP": self._address(), **pod["status"]}
        return running_status(pod, status, self.registry.stamp(), ready=ready)

    def _address(self) -> str:
        self._addresses += 1
        return f"10.244.{self._addresses // 256 % 256}.{self._addresses % 256}"

    def _end(self, pod: Obj) -> None:
        """Stop the pod: its process ends by itself, or is killed at the end of the grace period."""
        metadata = pod["metadata"]
        if metadata["deletionGracePeriodSeconds"] == 0 and metadata.get("finalizers"):
            return
        now = asyncio.get_running_loop().time()
        grace: int = metadata["deletionGracePeriodSeconds"]
        ending = self._endings.get(metadata["uid"])
        if ending is None:
            shutdown = _seconds(pod, SHUTDOWN_SECONDS, DEFAULT_SHUTDOWN_SECONDS)
            if pod["status"].get("phase") == "Pending":
                shutdown = 0.0
            ending = _Ending(now + shutdown, now + grace, grace)
            self._endings[metadata["uid"]] = ending
        elif grace < ending.grace:
            ending.kill_at = min(ending.kill_at, now + grace)
            ending.grace = grace
        end = min(ending.done_at, ending.kill_at)
        if now < end:
            self._requeue(pod, end - now)
            return
        if pod["status"].get("phase") not in FINISHED:
            killed = ending.kill_at < ending.done_at
            pod = self._set(pod, self._finished(pod, KILLED if killed else 0))
        how = Deletion(grace=0, uid=metadata["uid"])
        self.registry.delete(PODS, metadata["namespace"], metadata["name"], how)

    def _finished(self, pod: Obj, exit_code: int) -> Obj:
        stamp = self.registry.stamp()
        terminated = {
            "exitCode": exit_code,
            "reason": "Error" if exit_code else "Completed",
            "startedAt": stamp,
            "finishedAt": stamp,
        }
        status = {**pod["status"], "phase": "Failed" if exit_code else "Succeeded"}
        for kind in ("PodReadyToStartContainers", "ContainersReady", "Ready"):
            status = with_condition(status, _condition(kind, "False", stamp))
        status["containerStatuses"] = [
            {**_container(container, ready=False), "state": {"terminated": terminated}}
            for container in pod["spec"]["containers"]
        ]
        return status

    def _set(self, pod: Obj, status: dict[str, Any]) -> Obj:
        return self.registry.set_status(PODS, pod, status)

    def _requeue(self, pod: Obj, delay: float) -> None:
        if delay < math.inf:
            self.enqueue((pod["metadata"]["namespace"], pod["metadata"]["name"]), delay)


def _annotation(pod: Obj, name: str) -> str:
    value: str = (pod["metadata"].get("annotations") or {}).get(name, "")
    return value


def _seconds(pod: Obj, name: str, default: float) -> float:
    text = _annotation(pod, name)
    if text == "never":
        return math.inf
    try:
        return float(text) if text else default
    except ValueError:
        return default


def _condition(kind: str, status: str, stamp: str) -> dict[str, Any]:
    return {"type": kind, "status": status, "lastProbeTime": None, "lastTransitionTime": stamp}


def _container(container: Obj, *, ready: bool) -> dict[str, Any]:
    return {
        "name": container["name"],
        "state": {},
        "lastState": {},
        "ready": ready,
        "restartCount": 0,
        "image": container["image"],
        "imageID": "sandbox@sha256:0",
        "started": ready,
    }


def _internal_ip(node: Obj) -> str:
    addresses = node.get("status", {}).get("addresses", ())
    return next((a["address"] for a in addresses if a["type"] == "InternalIP"), "")


def running_status(pod: Obj, status: Obj, stamp: str, *, ready: bool) -> Obj:
    """The status of a running pod. `status`: its current status."""
    status = {**status, "phase": "Running", "startTime": status.get("startTime", stamp)}
    if status.get("podIP"):
        status["podIPs"] = [{"ip": status["podIP"]}]
    kinds = {
        "PodScheduled": True,
        "Initialized": True,
        "PodReadyToStartContainers": True,
        "ContainersReady": ready,
        "Ready": ready,
    }
    for kind, holds in kinds.items():
        status = with_condition(status, _condition(kind, "True" if holds else "False", stamp))
    status["containerStatuses"] = [
        {**_container(container, ready=ready), "state": {"running": {"startedAt": stamp}}}
        for container in pod["spec"]["containers"]
    ]
    return status


def node_status(name: str, address: str, stamp: str) -> Obj:
    """The status of a healthy node."""
    capacity = {"cpu": "8", "ephemeral-storage": "100Gi", "memory": "32Gi", "pods": "110"}
    conditions = [
        (kind, "False", f"KubeletHas{good}")
        for kind, good in (
            ("MemoryPressure", "SufficientMemory"),
            ("DiskPressure", "NoDiskPressure"),
            ("PIDPressure", "SufficientPID"),
        )
    ]
    return {
        "capacity": capacity,
        "allocatable": dict(capacity),
        "conditions": [
            {
                "type": kind,
                "status": status,
                "lastHeartbeatTime": stamp,
                "lastTransitionTime": stamp,
                "reason": reason,
                "message": "kubelet is posting ready status" if kind == "Ready" else "ok",
            }
            for kind, status, reason in [*conditions, ("Ready", "True", "KubeletReady")]
        ],
        "addresses": [
            {"type": "InternalIP", "address": address},
            {"type": "Hostname", "address": name},
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 0}},
        "nodeInfo": {
            "machineID": "sandbox",
            "systemUUID": "sandbox",
            "bootID": "sandbox",
            "kernelVersion": "6.1.0-sandbox",
            "osImage": "sandbox",
            "containerRuntimeVersion": "containerd://2.0.0",
            "kubeletVersion": "v1.36.2",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": "amd64",
        },
    }
