"""Defaults and validation of written objects, as in kube-apiserver.

Only the validation errors that this project's code can cause are simulated.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from typing import Any

from kubesim import selectors
from kubesim.errors import Cause
from kubesim.resources import (
    BUDGETS,
    DAEMON_SETS,
    DEPLOYMENTS,
    EVENTS,
    NAMESPACES,
    NODES,
    PODS,
    REPLICA_SETS,
    SECRETS,
    STATEFUL_SETS,
    VOLUME_ATTACHMENTS,
    Json,
    Obj,
    Resource,
)

DEFAULT_GRACE = 30
"""Default of a pod's terminationGracePeriodSeconds."""

_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_NAME = re.compile(r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
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
    """Normalise a written object: set the defaults of pod templates, encode a secret's stringData.

    `obj` may share parts with the object that it replaces. These parts have their defaults already.
    """
    if resource in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS):
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
    tolerations = list(spec.get("tolerations") or ())
    for toleration in _NO_EXECUTE_TOLERATIONS:
        if not any(t.get("key") in (None, "", toleration["key"]) for t in tolerations):
            tolerations.append(dict(toleration))
    spec["tolerations"] = tolerations
    requested = any(
        container.get("resources", {}).get("requests")
        or container.get("resources", {}).get("limits")
        for container in spec.get("containers", ())
    )
    pod["status"] = {"phase": "Pending", "qosClass": "Burstable" if requested else "BestEffort"}


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


def validation_errors(resource: Resource, obj: Obj, old: Obj | None) -> list[Cause]:
    """Return the validation errors of an object. `old`: the object that it replaces."""
    found = _name_errors(obj) if old is None else []
    if resource is NODES:
        found += _node_errors(obj)
    elif resource is PODS:
        found += _pod_errors(obj["spec"], "spec")
    elif resource in (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS):
        found += _workload_errors(obj, old)
    elif resource is EVENTS:
        found += _event_errors(obj)
    elif resource is BUDGETS:
        found += _budget_errors(obj)
    elif resource.group == _RBAC_GROUP and resource.plural.endswith("bindings"):
        found += _binding_errors(obj, old)
    return found


def _required(field: str, message: str = "Required value") -> Cause:
    return Cause("FieldValueRequired", message, field)


def _immutable(field: str, value: Json) -> Cause:
    text = f"Invalid value: {_compact(value)}: field is immutable"
    return Cause("FieldValueInvalid", text, field)


def _compact(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def _name_errors(obj: Obj) -> list[Cause]:
    name = obj["metadata"].get("name", "")
    # RBAC names may contain colons (system:…); they only have to be one path segment.
    if name and (_NAME.match(name) or ("/" not in name and ":" in name)):
        return []
    message = (
        f'Invalid value: "{name}": a lowercase RFC 1123 subdomain must consist of lower case'
        " alphanumeric characters, '-' or '.', and must start and end with an alphanumeric"
        " character (e.g. 'example.com', regex used for validation is"
        " '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
    )
    return [Cause("FieldValueInvalid", message, "metadata.name")]


def _node_errors(node: Obj) -> list[Cause]:
    found: list[Cause] = []
    supported = ", ".join(f'"{effect}"' for effect in _TAINT_EFFECTS)
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(node.get("spec", {}).get("taints") or ()):
        field = f"metadata.taints[{index}]"
        effect = taint.get("effect", "")
        if effect not in _TAINT_EFFECTS:
            cause = Cause(
                "FieldValueNotSupported",
                f'Unsupported value: "{effect}": supported values: {supported}',
                f"{field}.effect",
            )
            # kube-apiserver validates the effect in two places and reports it twice.
            found += [cause, cause]
        key = taint.get("key", ""), effect
        if key in seen:
            message = f"Duplicate value: {_compact(taint)}"
            found.append(Cause("FieldValueDuplicate", message, field))
        seen.add(key)
    return found


def _pod_errors(spec: dict[str, Any], path: str) -> list[Cause]:
    containers = spec.get("containers")
    if not containers:
        return [_required(f"{path}.containers")]
    found: list[Cause] = []
    for index, container in enumerate(containers):
        if not container.get("name"):
            found.append(_required(f"{path}.containers[{index}].name"))
        if not container.get("image"):
            found.append(_required(f"{path}.containers[{index}].image"))
    grace = spec.get("terminationGracePeriodSeconds", 0)
    if grace < 0:
        message = f"Invalid value: {grace}: must be greater than or equal to 0"
        found.append(Cause("FieldValueInvalid", message, f"{path}.terminationGracePeriodSeconds"))
    return found


def _workload_errors(obj: Obj, old: Obj | None) -> list[Cause]:
    spec = obj["spec"]
    found: list[Cause] = []
    if not spec.get("selector"):
        found.append(_required("spec.selector"))
    else:
        labels = spec.get("template", {}).get("metadata", {}).get("labels") or {}
        if not selectors.match_selector(spec["selector"])(labels):
            message = (
                f"Invalid value: {_compact(labels)}: `selector` does not match template `labels`"
            )
            found.append(Cause("FieldValueInvalid", message, "spec.template.metadata.labels"))
        if old is not None and old["spec"].get("selector") != spec["selector"]:
            found.append(_immutable("spec.selector", spec["selector"]))
    if spec.get("replicas", 0) < 0:
        message = f"Invalid value: {spec['replicas']}: must be greater than or equal to 0"
        found.append(Cause("FieldValueInvalid", message, "spec.replicas"))
    return found + _pod_errors(spec.get("template", {}).get("spec", {}), "spec.template.spec")


def _event_errors(event: Obj) -> list[Cause]:
    namespace = event.get("involvedObject", {}).get("namespace", "")
    own = event["metadata"].get("namespace", "")
    if namespace == own or (not namespace and own == "default"):
        return []
    message = f'Invalid value: "{namespace}": does not match event.namespace'
    return [Cause("FieldValueInvalid", message, "involvedObject.namespace")]


def _budget_errors(budget: Obj) -> list[Cause]:
    spec = budget["spec"]
    if "minAvailable" in spec and "maxUnavailable" in spec:
        message = "Invalid value: {}: minAvailable and maxUnavailable cannot be both set".format(
            _compact({k: spec[k] for k in ("minAvailable", "maxUnavailable")})
        )
        return [Cause("FieldValueInvalid", message, "spec")]
    return []


def _binding_errors(binding: Obj, old: Obj | None) -> list[Cause]:
    role = binding.get("roleRef") or {}
    found = [_required("roleRef.name")] if not role.get("name") else []
    if old is not None and old.get("roleRef") != role:
        found.append(
            Cause("FieldValueInvalid", f"Invalid value: {_compact(role)}: cannot change roleRef",
                  "roleRef")
        )  # fmt: skip
    return found
