"""Defaults of written objects, as in kube-apiserver."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from kubesim.resources import (
    BUDGETS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    QUOTAS,
    REPLICA_SETS,
    ROLE_BINDINGS,
    ROLES,
    SECRETS,
    STATEFUL_SETS,
    VOLUME_ATTACHMENTS,
    Obj,
    Resource,
)

DEFAULT_GRACE = 30
"""Default of a pod's terminationGracePeriodSeconds."""

_RBAC_GROUP = "rbac.authorization.k8s.io"

_NO_EXECUTE_TOLERATIONS = tuple(
    {
        "key": f"node.kubernetes.io/{state}",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 300,
    }
    for state in ("not-ready", "unreachable")
)


def set_defaults(resource: Resource, obj: Obj) -> None:
    """Set the defaults of a new object. `obj` is the body of the request: changed in place."""
    if resource in _DEFAULTS:
        _DEFAULTS[resource](obj)


def normalise(resource: Resource, obj: Obj) -> None:
    """Normalise a written object: set its defaults, encode a secret's stringData.

    `obj` may share parts with the object that it replaces. These parts have their defaults already.
    """
    if resource is PODS:
        _pod_spec(obj.setdefault("spec", {}))
        obj["spec"]["tolerations"] = _tolerations(obj["spec"])
    elif resource in (BUDGETS, QUOTAS):
        obj.setdefault("spec", {})
    elif resource in (ROLES, CLUSTER_ROLES):
        obj.setdefault("rules", None)  # the only list here that is shown without an item
    elif resource in (ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS):
        _binding(obj)
    elif resource in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS, EVENTS):
        _DEFAULTS[resource](obj)
    elif resource is SECRETS:
        plain = obj.pop("stringData", None) or {}
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items()}
        if encoded:
            obj["data"] = {**(obj.get("data") or {}), **encoded}
        obj.setdefault("type", "Opaque")


def _pod(pod: Obj) -> None:
    spec = pod.setdefault("spec", {})
    _pod_spec(spec)
    spec.setdefault("serviceAccountName", "default")
    spec.setdefault("serviceAccount", spec["serviceAccountName"])
    spec.setdefault("priority", _priority(spec))
    spec.setdefault("enableServiceLinks", True)
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
    spec["tolerations"] = _tolerations(spec)
    requested = any(
        container.get("resources", {}).get("requests")
        or container.get("resources", {}).get("limits")
        for container in spec.get("containers", ())
    )
    pod["status"] = {"phase": "Pending", "qosClass": "Burstable" if requested else "BestEffort"}


def _tolerations(spec: dict[str, Any]) -> list[dict[str, Any]]:
    tolerations = list(spec.get("tolerations") or ())
    for toleration in _NO_EXECUTE_TOLERATIONS:
        if not any(t.get("key") in (None, "", toleration["key"]) for t in tolerations):
            tolerations.append(dict(toleration))
    return tolerations


def _binding(binding: Obj) -> None:
    """The API group of the role and of users and groups."""
    binding["roleRef"] = {"apiGroup": _RBAC_GROUP, **(binding.get("roleRef") or {})}
    if binding.get("subjects"):
        binding["subjects"] = [
            {"apiGroup": _RBAC_GROUP, **each} if each.get("kind") in ("User", "Group") else each
            for each in binding["subjects"]
        ]


def _priority(spec: dict[str, Any]) -> int:
    built_in = {"system-cluster-critical": 2_000_000_000, "system-node-critical": 2_000_001_000}
    return built_in.get(spec.get("priorityClassName", ""), 0)


def _pod_spec(spec: dict[str, Any]) -> None:
    for container in (*spec.get("containers", ()), *(spec.get("initContainers") or ())):
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        tagged = ":" in container.get("image", "").rpartition("/")[2]
        latest = container.get("image", "").endswith(":latest") or not tagged
        container.setdefault("imagePullPolicy", "Always" if latest else "IfNotPresent")
    for volume in spec.get("volumes") or ():
        if set(volume) <= {"name"}:
            volume["emptyDir"] = {}
    spec.setdefault("restartPolicy", "Always")
    spec.setdefault("terminationGracePeriodSeconds", DEFAULT_GRACE)
    spec.setdefault("dnsPolicy", "ClusterFirst")
    spec.setdefault("securityContext", {})
    spec.setdefault("schedulerName", "default-scheduler")


def _workload(obj: Obj) -> None:
    spec = obj.setdefault("spec", {})
    template = spec.setdefault("template", {})
    _pod_spec(template.setdefault("spec", {}))
    obj.setdefault("status", {})


def _replicated(obj: Obj) -> None:
    _workload(obj)
    obj["spec"].setdefault("replicas", 1)


def _deployment(obj: Obj) -> None:
    _replicated(obj)
    spec = obj["spec"]
    spec.setdefault(
        "strategy",
        {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"},
        },
    )
    spec.setdefault("revisionHistoryLimit", 10)
    spec.setdefault("progressDeadlineSeconds", 600)


def _replica_set(obj: Obj) -> None:
    obj.setdefault("status", {"replicas": 0})
    _replicated(obj)


def _daemon_set(obj: Obj) -> None:
    counts = (
        "currentNumberScheduled",
        "numberMisscheduled",
        "desiredNumberScheduled",
        "numberReady",
    )
    obj.setdefault("status", dict.fromkeys(counts, 0))  # required in its schema
    _workload(obj)


def _stateful_set(obj: Obj) -> None:
    obj.setdefault("status", {"replicas": 0, "availableReplicas": 0})
    _replicated(obj)
    obj["spec"].setdefault("podManagementPolicy", "OrderedReady")
    obj["spec"].setdefault("updateStrategy", {"type": "RollingUpdate"})


def _node(node: Obj) -> None:
    node.setdefault("spec", {})
    node.setdefault("status", {})


def _namespace(namespace: Obj) -> None:
    labels = namespace["metadata"].setdefault("labels", {})
    labels["kubernetes.io/metadata.name"] = namespace["metadata"]["name"]
    namespace.setdefault("spec", {})["finalizers"] = ["kubernetes"]
    namespace["status"] = {"phase": "Active"}


def _budget(budget: Obj) -> None:
    budget.setdefault("spec", {})
    budget["status"] = {
        "disruptionsAllowed": 0,
        "currentHealthy": 0,
        "desiredHealthy": 0,
        "expectedPods": 0,
    }


def _volume_attachment(attachment: Obj) -> None:
    attachment["status"] = {"attached": False}


def _event(event: Obj) -> None:
    event.setdefault("eventTime", None)
    event.setdefault("reportingComponent", "")
    event.setdefault("reportingInstance", "")


_DEFAULTS: dict[Resource, Callable[[Obj], None]] = {
    PODS: _pod,
    NODES: _node,
    NAMESPACES: _namespace,
    DEPLOYMENTS: _deployment,
    REPLICA_SETS: _replica_set,
    STATEFUL_SETS: _stateful_set,
    DAEMON_SETS: _daemon_set,
    BUDGETS: _budget,
    EVENTS: _event,
    VOLUME_ATTACHMENTS: _volume_attachment,
}
