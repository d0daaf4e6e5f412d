"""The columns that `kubectl get` prints."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from kubesim.eviction import is_ready
from kubesim.registry import seconds_of
from kubesim.resources import Obj, Resource

Cells = Callable[[Obj, str], list[Any]]
_NAME = "Name"
_AGE = "Age"


def duration(seconds: float) -> str:
    """A duration as kubectl writes it: 45s, 3m20s, 2h5m, 4d."""
    whole = max(0, int(seconds))
    if whole < 120:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 10:
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    hours, minutes = divmod(minutes, 60)
    if hours < 8:
        return f"{hours}h{minutes}m" if minutes else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return f"{hours // 24}d"


def _pod_status(pod: Obj) -> str:
    if "deletionTimestamp" in pod["metadata"]:
        return "Terminating"
    for container in pod["status"].get("containerStatuses", ()):
        for state in ("waiting", "terminated"):
            reason: str = container.get("state", {}).get(state, {}).get("reason", "")
            if reason:
                return reason
    phase: str = pod["status"].get("phase", "Unknown")
    return phase


def _pod(pod: Obj, age: str) -> list[Any]:
    statuses = pod["status"].get("containerStatuses", ())
    ready = sum(1 for status in statuses if status.get("ready"))
    restarts = sum(status.get("restartCount", 0) for status in statuses)
    total = len(pod["spec"].get("containers", ()))
    return [
        f"{ready}/{total}",
        _pod_status(pod),
        restarts,
        age,
        pod["status"].get("podIP", "<none>"),
        pod["spec"].get("nodeName", "<none>"),
        "<none>",
        "<none>",
    ]


def _node(node: Obj, age: str) -> list[Any]:
    status = "Ready" if is_ready(node) else "NotReady"
    if node["spec"].get("unschedulable"):
        status += ",SchedulingDisabled"
    prefix = "node-role.kubernetes.io/"
    labels = node["metadata"].get("labels", {})
    roles = ",".join(label[len(prefix) :] for label in labels if label.startswith(prefix))
    info = node["status"].get("nodeInfo", {})
    addresses = {a["type"]: a["address"] for a in node["status"].get("addresses", ())}
    return [
        status,
        roles or "<none>",
        age,
        info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"),
        addresses.get("ExternalIP", "<none>"),
        info.get("osImage", ""),
        info.get("kernelVersion", ""),
        info.get("containerRuntimeVersion", ""),
    ]


def _budget(budget: Obj, age: str) -> list[Any]:
    spec = budget["spec"]
    return [
        str(spec.get("minAvailable", "N/A")),
        str(spec.get("maxUnavailable", "N/A")),
        budget["status"].get("disruptionsAllowed", 0),
        age,
    ]


def _deployment(obj: Obj, age: str) -> list[Any]:
    status = obj.get("status", {})
    return [
        f"{status.get('readyReplicas', 0)}/{obj['spec'].get('replicas', 1)}",
        status.get("updatedReplicas", 0),
        status.get("availableReplicas", 0),
        age,
    ]


def _replica_set(obj: Obj, age: str) -> list[Any]:
    status = obj.get("status", {})
    replicas = obj["spec"].get("replicas", 1)
    return [replicas, status.get("replicas", 0), status.get("readyReplicas", 0), age]


def _stateful_set(obj: Obj, age: str) -> list[Any]:
    ready = obj.get("status", {}).get("readyReplicas", 0)
    return [f"{ready}/{obj['spec'].get('replicas', 1)}", age]


def _daemon_set(obj: Obj, age: str) -> list[Any]:
    status = obj.get("status", {})
    names = (
        "desiredNumberScheduled",
        "currentNumberScheduled",
        "numberReady",
        "updatedNumberScheduled",
        "numberAvailable",
    )
    selector = obj["spec"]["template"]["spec"].get("nodeSelector") or {}
    text = ",".join(f"{key}={value}" for key, value in selector.items()) or "<none>"
    return [*(status.get(name, 0) for name in names), text, age]


def _event(event: Obj, age: str) -> list[Any]:
    about = event.get("involvedObject", {})
    return [
        age,
        event.get("type", ""),
        event.get("reason", ""),
        f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        event.get("message", ""),
    ]


def _namespace(namespace: Obj, age: str) -> list[Any]:
    return [namespace.get("status", {}).get("phase", "Active"), age]


def _data(obj: Obj, age: str) -> list[Any]:
    return [len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), age]


def _secret(obj: Obj, age: str) -> list[Any]:
    return [obj.get("type", "Opaque"), *_data(obj, age)]


def _binding(obj: Obj, age: str) -> list[Any]:
    role = obj.get("roleRef", {})
    return [f"{role.get('kind')}/{role.get('name')}", age]


def _plain(_obj: Obj, age: str) -> list[Any]:
    return [age]


_COLUMNS: dict[str, tuple[tuple[str, ...], Cells]] = {
    "Pod": (
        ("Ready", "Status", "Restarts", _AGE, "*IP", "*Node", "*Nominated Node",
         "*Readiness Gates"),
        _pod,
    ),
    "Node": (
        ("Status", "Roles", _AGE, "Version", "*Internal-IP", "*External-IP", "*OS-Image",
         "*Kernel-Version", "*Container-Runtime"),
        _node,
    ),
    "PodDisruptionBudget": (
        ("Min Available", "Max Unavailable", "Allowed Disruptions", _AGE), _budget,
    ),
    "Deployment": (("Ready", "Up-to-date", "Available", _AGE), _deployment),
    "ReplicaSet": (("Desired", "Current", "Ready", _AGE), _replica_set),
    "StatefulSet": (("Ready", _AGE), _stateful_set),
    "DaemonSet": (
        ("Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", _AGE),
        _daemon_set,
    ),
    "Event": (("Last Seen", "Type", "Reason", "Object", "Message"), _event),
    "Namespace": (("Status", _AGE), _namespace),
    "ConfigMap": (("Data", _AGE), _data),
    "Secret": (("Type", "Data", _AGE), _secret),
    "ClusterRoleBinding": (("Role", _AGE), _binding),
    "RoleBinding": (("Role", _AGE), _binding),
}  # fmt: skip
"""Kind → columns after the name (`*`: only with -o wide) and the function that fills them."""


def table(resource: Resource, objects: list[Obj], metadata: Obj, now: float, include: str) -> Obj:
    """A meta.k8s.io/v1 Table.

    `include`: the object in each row: Metadata (default), Object or None.
    """
    columns, cells = _COLUMNS.get(resource.kind, ((_AGE,), _plain))
    named = columns if resource.kind == "Event" else (_NAME, *columns)
    rows = []
    for obj in objects:
        since = obj.get("lastTimestamp") or obj["metadata"].get("creationTimestamp")
        age = duration(now - seconds_of(since)) if since else "<unknown>"
        values = cells(obj, age)
        if resource.kind != "Event":
            values = [obj["metadata"]["name"], *values]
        row: Obj = {"cells": values}
        if include == "Object":
            row["object"] = resource.typed(obj)
        elif include != "None":
            row["object"] = {
                "kind": "PartialObjectMetadata",
                "apiVersion": "meta.k8s.io/v1",
                "metadata": obj["metadata"],
            }
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": metadata,
        "columnDefinitions": [
            {
                "name": name.lstrip("*"),
                "type": "string",
                "format": "name" if name == _NAME else "",
                "description": "",
                "priority": 1 if name.startswith("*") else 0,
            }
            for name in named
        ],
        "rows": rows,
    }
