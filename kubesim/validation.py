"""Validation of written objects, as in kube-apiserver: all causes at once.

The metadata of all kinds is validated. Of the kinds' own fields those are validated that a client
of this project sets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from kubesim import selectors, syntax
from kubesim.errors import (
    Cause,
    duplicate,
    forbidden_field,
    immutable,
    invalid_value,
    invalid_values,
    not_supported,
    required,
    too_long,
)
from kubesim.resources import (
    BUDGETS,
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    CONFIG_MAPS,
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
    SERVICES,
    STATEFUL_SETS,
    Json,
    Obj,
    Resource,
)

_ANNOTATIONS_SIZE = 256 * 1024
_DATA_SIZE = 1024 * 1024
_TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
_RBAC_GROUP = "rbac.authorization.k8s.io"
_RBAC = (ROLES, CLUSTER_ROLES, ROLE_BINDINGS, CLUSTER_ROLE_BINDINGS)
_WORKLOADS = (DEPLOYMENTS, REPLICA_SETS, STATEFUL_SETS, DAEMON_SETS)
_FINALIZERS = ("orphan", "foregroundDeletion")

_NAMES: Mapping[Resource, Callable[[str], list[str]]] = {
    NAMESPACES: syntax.dns_label,
    SERVICES: syntax.dns_1035_label,
    **dict.fromkeys((*_RBAC, BUDGETS, EVENTS), syntax.path_segment),
}
"""The syntax of names; of other kinds: a DNS subdomain."""

_LATE_METADATA = (BUDGETS, EVENTS)
"""Kinds whose metadata is validated only if their own fields are valid."""

_REPEATED = {
    **dict.fromkeys(("poddisruptionbudgets", "events"), 2),
    **dict.fromkeys(
        ("pods", "nodes", "namespaces", "serviceaccounts", "configmaps", "secrets", "roles",
         "clusterroles", "rolebindings", "clusterrolebindings", "persistentvolumeclaims",
         "storageclasses", "jobs"),
        4,
    ),
}  # fmt: skip
"""kube-apiserver validates the labels and annotations of an update several times (3 times, if not
said here), and reports each cause as often."""


def create_errors(resource: Resource, obj: Obj) -> list[Cause]:
    """The validation errors of a new object."""
    own = _KINDS[resource](obj) if resource in _KINDS else []
    metadata = _name_errors(resource, obj["metadata"]) + _metadata_errors(obj["metadata"])
    metadata += _finalizer_errors(obj["metadata"].get("finalizers") or ())
    if resource in _LATE_METADATA:
        return own or metadata
    return metadata + own


def update_errors(resource: Resource, obj: Obj, old: Obj) -> list[Cause]:
    """The validation errors of an object that replaces `old`."""
    repeated = _REPEATED.get(resource.plural, 3)
    found = _metadata_errors(obj["metadata"]) * repeated
    found += _metadata_change_errors(obj["metadata"], old["metadata"]) * min(repeated - 1, 2)
    if resource in _KINDS:
        found += _KINDS[resource](obj)
    if resource in _CHANGES:
        found += _CHANGES[resource](obj, old)
    return found


# Metadata


def _name_errors(resource: Resource, metadata: Obj) -> list[Cause]:
    valid = _NAMES.get(resource, syntax.subdomain)
    name, prefix = metadata.get("name", ""), metadata.get("generateName", "")
    found = []
    if prefix:
        start = f"{prefix[:-2]}a" if prefix.endswith("-") else prefix  # a suffix follows
        found += invalid_values("metadata.generateName", prefix, valid(start))
    if not name:
        return [*found, required("metadata.name", "name or generateName is required")]
    return found + invalid_values("metadata.name", name, valid(name))


def _metadata_errors(metadata: Obj) -> list[Cause]:
    found = _label_errors(metadata.get("labels"), "metadata.labels")
    found += _annotation_errors(metadata.get("annotations"), "metadata.annotations")
    found += _owner_errors(metadata.get("ownerReferences") or ())
    return found


def _finalizer_errors(finalizers: Sequence[str]) -> list[Cause]:
    field = "metadata.finalizers"
    found = []
    for index, each in enumerate(finalizers):
        found += invalid_values(field, each, syntax.qualified_name(each))
        if "/" not in each and each not in (*_FINALIZERS, "kubernetes"):
            why = "name is neither a standard finalizer name nor is it fully qualified"
            found.append(invalid_value(f"{field}[{index}]", each, why))
    if set(_FINALIZERS) <= set(finalizers):
        why = f"finalizer {' and '.join(_FINALIZERS)} cannot be both set"
        found.append(invalid_value(field, list(finalizers), why))
    return found


def _label_errors(labels: Mapping[str, str] | None, field: str) -> list[Cause]:
    found = []
    for key, value in (labels or {}).items():
        found += invalid_values(field, key, syntax.qualified_name(key))
        found += invalid_values(field, value, syntax.label_value(value))
    return found


def _annotation_errors(annotations: Mapping[str, str] | None, field: str) -> list[Cause]:
    found = []
    for key in annotations or {}:
        found += invalid_values(field, key, syntax.qualified_name(key.lower()))
    size = sum(len(k.encode()) + len(v.encode()) for k, v in (annotations or {}).items())
    return [*found, too_long(field, _ANNOTATIONS_SIZE)] if size > _ANNOTATIONS_SIZE else found


def _owner_errors(owners: Sequence[Obj]) -> list[Cause]:
    field = "metadata.ownerReferences"
    found = [
        invalid_value(f"{field}.{key}", "", "must not be empty")
        for owner in owners
        for key in ("apiVersion", "kind", "name", "uid")
        if not owner.get(key)
    ]
    if sum(bool(owner.get("controller")) for owner in owners) > 1:
        why = "Only one reference can have Controller set to true"
        found.append(invalid_value(field, list(owners), why))
    return found


def _metadata_change_errors(metadata: Obj, old: Obj) -> list[Cause]:
    found = [
        immutable(f"metadata.{key}", metadata[key])
        for key in ("uid", "deletionTimestamp", "deletionGracePeriodSeconds")
        if metadata.get(key) is not None and metadata[key] != old.get(key)
    ]
    found += _finalizer_errors(metadata.get("finalizers") or ())
    added = set(metadata.get("finalizers") or ()) - set(old.get("finalizers") or ())
    if "deletionTimestamp" in old and added:
        why = "no new finalizers can be added if the object is being deleted, found new finalizers"
        found.append(forbidden_field("metadata.finalizers", f"{why} {sorted(added)}"))
    return found


# Parts that several kinds have


def _selector_errors(selector: Obj | None, field: str) -> list[Cause]:
    found = _label_errors((selector or {}).get("matchLabels"), f"{field}.matchLabels")
    for index, each in enumerate((selector or {}).get("matchExpressions") or ()):
        found += _requirement_errors(each, f"{field}.matchExpressions[{index}]")
    return found


def _requirement_errors(requirement: Obj, field: str) -> list[Cause]:
    operator, values = requirement.get("operator", ""), requirement.get("values") or []
    found = []
    if operator in ("In", "NotIn"):
        if not values:
            why = "must be specified when `operator` is 'In' or 'NotIn'"
            found.append(required(f"{field}.values", why))
    elif operator not in ("Exists", "DoesNotExist"):
        why = "not a valid selector operator"
        found.append(invalid_value(f"{field}.operator", operator, why))
    elif values:
        why = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
        found.append(forbidden_field(f"{field}.values", why))
    key = requirement.get("key", "")
    found += invalid_values(f"{field}.key", key, syntax.qualified_name(key))
    for index, value in enumerate(values):
        found += invalid_values(f"{field}.values[{index}]", value, syntax.label_value(value))
    return found


def _non_negative(spec: Obj, field: str, *keys: str) -> list[Cause]:
    return [
        invalid_value(f"{field}.{key}", spec[key], "must be greater than or equal to 0")
        for key in keys
        if spec.get(key, 0) < 0
    ]


def _one_of(value: Json, field: str, supported: tuple[str, ...]) -> list[Cause]:
    return [] if value in supported else [not_supported(field, value, supported)]


def _data_errors(obj: Obj, *fields: str) -> list[Cause]:
    found, size = [], 0
    for field in fields:
        for key, value in (obj.get(field) or {}).items():
            found += invalid_values(f"{field}[{key}]", key, syntax.data_key(key))
            size += len(value.encode())
    if size > _DATA_SIZE:
        found.append(too_long("data" if len(fields) == 1 else "[]", _DATA_SIZE))
    return found


def _frozen_data_errors(obj: Obj, old: Obj) -> list[Cause]:
    if not old.get("immutable"):
        return []
    why = "field is immutable when `immutable` is set"
    changed = [key for key in ("data", "binaryData") if obj.get(key) != old.get(key)]
    if not obj.get("immutable"):
        changed.insert(0, "immutable")
    return [forbidden_field(key, why) for key in changed]


# Pods and workloads


def _pod_spec_errors(spec: Obj, field: str) -> list[Cause]:
    volumes = [volume.get("name", "") for volume in spec.get("volumes") or ()]
    found = _volume_errors(spec, field)
    if not spec.get("containers"):
        found.append(required(f"{field}.containers"))
    seen: Counter[str] = Counter()
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            path = f"{field}.{kind}[{index}]"
            found += _container_errors(container, path, volumes)
            seen[container.get("name", "")] += 1
            if container.get("name") and seen[container["name"]] > 1:
                found.append(duplicate(f"{path}.name", container["name"]))
    for key, supported in _POD_CHOICES.items():
        found += _one_of(spec.get(key), f"{field}.{key}", supported)
    found += _identity_errors(spec.get("securityContext") or {}, f"{field}.securityContext")
    for index, toleration in enumerate(spec.get("tolerations") or ()):
        found += _toleration_errors(toleration, f"{field}.tolerations[{index}]")
    for key in ("serviceAccountName", "nodeName"):
        if spec.get(key):
            found += invalid_values(f"{field}.{key}", spec[key], syntax.subdomain(spec[key]))
    return found + _label_errors(spec.get("nodeSelector"), f"{field}.nodeSelector")


_POD_CHOICES = {
    "restartPolicy": ("Always", "OnFailure", "Never"),
    "dnsPolicy": ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"),
}
_TOLERATION_OPERATORS = ("Equal", "Exists", "Lt", "Gt")


def _toleration_errors(toleration: Obj, field: str) -> list[Cause]:
    key, operator = toleration.get("key", ""), toleration.get("operator") or "Equal"
    found = []
    if key:
        found += invalid_values(f"{field}.key", key, syntax.qualified_name(key))
    elif operator != "Exists":
        why = "operator must be Exists when `key` is empty, which means all values and all keys"
        found.append(invalid_value(f"{field}.operator", operator, why))
    found += _one_of(operator, f"{field}.operator", _TOLERATION_OPERATORS)
    if operator == "Exists" and toleration.get("value"):
        why = "value must be empty when `operator` is 'Exists'"
        found.append(invalid_value(f"{field}.operator", toleration["value"], why))
    if toleration.get("effect"):
        found += _one_of(toleration["effect"], f"{field}.effect", _TAINT_EFFECTS)
    return found


def _identity_errors(context: Obj, field: str) -> list[Cause]:
    return [
        invalid_value(f"{field}.{key}", context[key], "must be between 0 and 2147483647, inclusive")
        for key in ("runAsUser", "runAsGroup", "fsGroup")
        if not 0 <= context.get(key, 0) < 2**31
    ]


def _volume_errors(spec: Obj, field: str) -> list[Cause]:
    found = []
    seen: set[str] = set()
    for index, volume in enumerate(spec.get("volumes") or ()):
        path, name = f"{field}.volumes[{index}]", volume.get("name", "")
        if not name:
            found.append(required(f"{path}.name"))
        else:
            found += invalid_values(f"{path}.name", name, syntax.dns_label(name))
        if name in seen:
            found.append(duplicate(f"{path}.name", name))
        seen.add(name)
    return found


def _container_errors(container: Obj, field: str, volumes: list[str]) -> list[Cause]:
    name, image = container.get("name", ""), container.get("image", "")
    found = invalid_values(f"{field}.name", name, syntax.dns_label(name) if name else [])
    if not name:
        found.append(required(f"{field}.name"))
    if not image:
        found.append(required(f"{field}.image"))
    elif image != image.strip():
        why = "must not have leading or trailing whitespace"
        found.append(invalid_value(f"{field}.image", image, why))
    found += _one_of(
        container.get("imagePullPolicy"),
        f"{field}.imagePullPolicy",
        ("Always", "IfNotPresent", "Never"),
    )
    for index, port in enumerate(container.get("ports") or ()):
        if not 0 < port.get("containerPort", 0) < 2**16:
            path = f"{field}.ports[{index}].containerPort"
            found.append(
                invalid_value(path, port["containerPort"], "must be between 1 and 65535, inclusive")
                if port.get("containerPort")
                else required(path)
            )
    for index, variable in enumerate(container.get("env") or ()):
        path, key = f"{field}.env[{index}].name", variable.get("name", "")
        found += (
            invalid_values(path, key, syntax.environment_name(key)) if key else [required(path)]
        )
    found += _identity_errors(container.get("securityContext") or {}, f"{field}.securityContext")
    found += _mount_errors(container, field, volumes)
    return found + _resource_errors(container.get("resources") or {}, f"{field}.resources")


def _mount_errors(container: Obj, field: str, volumes: list[str]) -> list[Cause]:
    found = []
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        path = f"{field}.volumeMounts[{index}]"
        if not mount.get("name"):
            found.append(required(f"{path}.name"))
        elif mount["name"] not in volumes:
            found.append(
                Cause("FieldValueNotFound", f'Not found: "{mount["name"]}"', f"{path}.name")
            )
        if not mount.get("mountPath"):
            found.append(required(f"{path}.mountPath"))
    return found


def _resource_errors(resources: Obj, field: str) -> list[Cause]:
    found = []
    limits = resources.get("limits") or {}
    for kind in ("limits", "requests"):
        for name, amount in (resources.get(kind) or {}).items():
            found += _resource_name_errors(name, f"{field}.{kind}[{name}]", _CONTAINER_RESOURCES)
            if (syntax.quantity(amount) or 0) < 0:
                why = "must be greater than or equal to 0"
                found.append(invalid_value(f"{field}.{kind}[{name}]", amount, why))
    for name, amount in (resources.get("requests") or {}).items():
        if name in limits and (syntax.quantity(amount) or 0) > (syntax.quantity(limits[name]) or 0):
            why = f"must be less than or equal to {name} limit of {limits[name]}"
            found.append(invalid_value(f"{field}.requests", amount, why))
    return found


_CONTAINER_RESOURCES = re.compile(r"cpu|memory|ephemeral-storage|hugepages-.+")


def _resource_name_errors(name: str, field: str, standard: re.Pattern[str]) -> list[Cause]:
    found = invalid_values(field, name, syntax.qualified_name(name))
    if "/" not in name and not standard.fullmatch(name):
        # kube-apiserver checks this in two places.
        found += invalid_values(
            field, name, ["must be a standard resource type or fully qualified"] * (2 - len(found))
        )
    return found


def _pod_errors(pod: Obj) -> list[Cause]:
    return _pod_spec_errors(pod["spec"], "spec")


def _pod_change_errors(pod: Obj, old: Obj) -> list[Cause]:
    kinds = ("containers", "initContainers")
    for kind in kinds:
        if len(pod["spec"].get(kind) or ()) != len(old["spec"].get(kind) or ()):
            why = "pod updates may not add or remove containers"
            return [forbidden_field(f"spec.{kind}", why)]
    found = []
    limit, was = (each["spec"].get("activeDeadlineSeconds") for each in (pod, old))
    if was is not None and (limit is None or limit > was):
        why = "must be less than or equal to previous value"
        found.append(invalid_value("spec.activeDeadlineSeconds", limit, why))
    tolerations = pod["spec"].get("tolerations") or []
    if any(each not in tolerations for each in old["spec"].get("tolerations") or ()):
        why = "existing toleration can not be modified except its tolerationSeconds"
        found.append(forbidden_field("spec.tolerations", why))
    if _fixed_part(pod["spec"]) != _fixed_part(old["spec"]):
        why = "pod updates may not change fields other than" + ",".join(
            f" `spec.{each}`" for each in (*(f"{kind}[*].image" for kind in kinds), *_FREE_IN_PODS)
        )
        found.append(forbidden_field("spec", why))
    return found


_FREE_IN_PODS = ("activeDeadlineSeconds", "tolerations", "schedulingGates")


def _fixed_part(spec: Obj) -> Obj:
    """The part of a pod's spec that never changes: all but a few fields and the images."""
    fixed = {k: v for k, v in spec.items() if k not in _FREE_IN_PODS}
    for kind in ("containers", "initContainers"):
        if kind in fixed:
            fixed[kind] = [{k: v for k, v in c.items() if k != "image"} for c in fixed[kind]]
    return fixed


def _workload_errors(obj: Obj) -> list[Cause]:
    spec = obj["spec"]
    template = spec.get("template") or {}
    metadata = template.get("metadata") or {}
    found = _non_negative(
        spec, "spec", "replicas", "minReadySeconds", "revisionHistoryLimit",
        "progressDeadlineSeconds",
    )  # fmt: skip
    selector = spec.get("selector")
    if selector is None:
        found.append(required("spec.selector"))
    else:
        found += _selector_errors(selector, "spec.selector")
        if not any(selector.values()):
            why = "empty selector is invalid"
            found.append(invalid_value("spec.selector", selector, why))
        elif not found and not selectors.match_selector(selector)(metadata.get("labels") or {}):
            why = "`selector` does not match template `labels`"
            field = "spec.template.metadata.labels"
            found.append(invalid_value(field, metadata.get("labels") or {}, why))
    found += _label_errors(metadata.get("labels"), "spec.template.labels")
    found += _annotation_errors(metadata.get("annotations"), "spec.template.annotations")
    pod = template.get("spec") or {}
    found += _pod_spec_errors(pod, "spec.template.spec")
    return found + _one_of(
        pod.get("restartPolicy"), "spec.template.spec.restartPolicy", ("Always",)
    )


def _deployment_errors(deployment: Obj) -> list[Cause]:
    found, spec = _workload_errors(deployment), deployment["spec"]
    ready, deadline = spec.get("minReadySeconds", 0), spec.get("progressDeadlineSeconds")
    if deadline is not None and deadline <= ready:
        why = "must be greater than minReadySeconds"
        found.append(invalid_value("spec.progressDeadlineSeconds", deadline, why))
    strategy = spec.get("strategy") or {}
    field, rolling = "spec.strategy.rollingUpdate", strategy.get("rollingUpdate") or {}
    if strategy.get("type") == "Recreate":
        if rolling:
            why = "may not be specified when strategy `type` is 'Recreate'"
            found.append(forbidden_field(field, why))
        return found
    found += _one_of(strategy.get("type"), "spec.strategy", ("Recreate", "RollingUpdate"))
    for key in ("maxUnavailable", "maxSurge"):
        if key in rolling:
            messages = syntax.int_or_percent(rolling[key])
            found += invalid_values(f"{field}.{key}", rolling[key], messages)
    if all(rolling.get(key) in (0, "0%") for key in ("maxUnavailable", "maxSurge")):
        why = "may not be 0 when `maxSurge` is 0"
        found.append(invalid_value(f"{field}.maxUnavailable", 0, why))
    return found


def _workload_change_errors(obj: Obj, old: Obj) -> list[Cause]:
    if old["spec"].get("selector") == obj["spec"].get("selector"):
        return []
    return [immutable("spec.selector", obj["spec"].get("selector"))]


# Other kinds


def _node_errors(node: Obj) -> list[Cause]:
    found: list[Cause] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate((node.get("spec") or {}).get("taints") or ()):
        field = f"metadata.taints[{index}]"
        key, effect, value = (taint.get(each, "") for each in ("key", "effect", "value"))
        found += invalid_values(f"{field}.key", key, syntax.qualified_name(key))
        found += invalid_values(f"{field}.value", value, syntax.label_value(value))
        if not effect:
            found.append(required(f"{field}.effect"))
        else:
            found += _one_of(effect, f"{field}.effect", _TAINT_EFFECTS)
        if (key, effect) in seen:
            found.append(duplicate(field, taint))
        seen.add((key, effect))
    for kind in ("capacity", "allocatable"):
        for name, amount in ((node.get("status") or {}).get(kind) or {}).items():
            if (syntax.quantity(amount) or 0) < 0:
                why = "must be greater than or equal to 0"
                found.append(invalid_value(f"status.{kind}.{name}", amount, why))
    return found


def _node_change_errors(node: Obj, old: Obj) -> list[Cause]:
    # A node's taints are validated twice in an update, once as those of a new node.
    found = _node_errors({**node, "status": {}})
    for field in ("podCIDRs", "providerID"):
        was = (old.get("spec") or {}).get(field)
        if was and was != (node.get("spec") or {}).get(field):
            why = f'node updates may not change {field} except from "" to valid'
            found.append(forbidden_field(f"spec.{field}", why))
    if (old.get("spec") or {}).get("externalID") != (node.get("spec") or {}).get("externalID"):
        found.append(forbidden_field("spec.externalID", "may not be updated"))
    return found


def _budget_errors(budget: Obj) -> list[Cause]:
    spec = budget["spec"]
    found = []
    counts = [key for key in ("minAvailable", "maxUnavailable") if key in spec]
    if len(counts) > 1:
        why = "minAvailable and maxUnavailable cannot be both set"
        found.append(invalid_value("spec", spec, why))
    for key in counts:
        found += invalid_values(f"spec.{key}", spec[key], syntax.int_or_percent(spec[key]))
    found += _selector_errors(spec.get("selector"), "spec.selector")
    policy = spec.get("unhealthyPodEvictionPolicy")
    if policy is not None:
        found += _one_of(
            policy, "spec.unhealthyPodEvictionPolicy", ("AlwaysAllow", "IfHealthyBudget")
        )
    return found


def _event_errors(event: Obj) -> list[Cause]:
    namespace = (event.get("involvedObject") or {}).get("namespace", "")
    own = event["metadata"].get("namespace", "")
    found = []
    if not event.get("eventTime"):
        if namespace != own and (namespace or own != "default"):
            found.append(_wrong_namespace(namespace))
        return found
    if not namespace and own not in ("default", "kube-system"):
        found.append(_wrong_namespace(namespace))
    keys = ("reportingComponent", "reportingInstance", "action", "reason")
    found += [required(key) for key in keys if not event.get(key)]
    component = event.get("reportingComponent", "")
    found += invalid_values("reportingComponent", component, syntax.qualified_name(component))
    for key, limit in (("reportingInstance", 128), ("action", 128), ("reason", 128),
                       ("message", 1024)):  # fmt: skip
        if len(event.get(key, "").encode()) > limit:
            found.append(invalid_value(key, "", f"can have at most {limit} characters"))
    return found


def _wrong_namespace(namespace: str) -> Cause:
    return invalid_value("involvedObject.namespace", namespace, "does not match event.namespace")


def _config_map_errors(config_map: Obj) -> list[Cause]:
    found = _data_errors(config_map, "data", "binaryData")
    both = set(config_map.get("data") or ()) & set(config_map.get("binaryData") or ())
    why = "duplicate of key present in binaryData"
    return found + [invalid_value(f"data[{key}]", key, why) for key in sorted(both)]


_SECRET_KEYS = {
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
}
_ACCOUNT_NAME = "kubernetes.io/service-account.name"


def _secret_errors(secret: Obj) -> list[Cause]:
    found = _data_errors(secret, "data")
    kind, data = secret.get("type", ""), secret.get("data") or {}
    found += [required(f"data[{key}]") for key in _SECRET_KEYS.get(kind, ()) if key not in data]
    annotations = secret["metadata"].get("annotations") or {}
    if kind == "kubernetes.io/service-account-token" and not annotations.get(_ACCOUNT_NAME):
        found.append(required(f"metadata.annotations[{_ACCOUNT_NAME}]"))
    return found


def _secret_change_errors(secret: Obj, old: Obj) -> list[Cause]:
    found = _frozen_data_errors(secret, old)
    if secret.get("type") != old.get("type"):
        found.append(immutable("type", secret.get("type")))
    return found


_COUNTED = re.compile(r"pods|services(\.[a-z]+)?|replicationcontrollers|resourcequotas|secrets|"
                      r"configmaps|persistentvolumeclaims|count/.+")  # fmt: skip
_QUOTA_NAMES = re.compile(
    _COUNTED.pattern + r"|((requests|limits)\.)?(cpu|memory|ephemeral-storage)|requests\.storage"
)


def _quota_errors(quota: Obj) -> list[Cause]:
    found = []
    for name, amount in (quota["spec"].get("hard") or {}).items():
        field = f"spec.hard[{name}]"
        found += _resource_name_errors(name, field, _QUOTA_NAMES)
        value = syntax.quantity(amount) or 0
        if value < 0:
            found.append(invalid_value(field, amount, "must be greater than or equal to 0"))
        if _COUNTED.fullmatch(name) and value % 1:
            found.append(invalid_value(field, amount, "must be an integer"))
    scopes = quota["spec"].get("scopes") or []
    if not set(scopes) <= set(_SCOPES):
        found.append(invalid_value("spec.scopes", scopes, "unsupported scope"))
    selector = quota["spec"].get("scopeSelector") or {}
    for each in selector.get("matchExpressions") or ():
        found += _scope_errors(each, "spec.scopeSelector.matchExpressions")
    return found


_SCOPES = ("Terminating", "NotTerminating", "BestEffort", "NotBestEffort", "PriorityClass",
           "CrossNamespacePodAffinity", "VolumeAttributesClass")  # fmt: skip


def _scope_errors(requirement: Obj, field: str) -> list[Cause]:
    scope, operator = requirement.get("scopeName", ""), requirement.get("operator", "")
    found = []
    if scope not in _SCOPES:
        found.append(invalid_value(f"{field}.scopeName", scope, "unsupported scope"))
    if operator in ("In", "NotIn"):
        if not requirement.get("values"):
            why = "must be at least one value when `operator` is 'In' or 'NotIn'"
            found.append(required(f"{field}.values", why))
    elif operator not in ("Exists", "DoesNotExist"):
        why = "not a valid selector operator"
        found.append(invalid_value(f"{field}.operator", operator, why))
    return found


def _quota_change_errors(quota: Obj, old: Obj) -> list[Cause]:
    scopes, was = (set(each["spec"].get("scopes") or ()) for each in (quota, old))
    return [] if scopes == was else [immutable("spec.scopes", sorted(scopes))]


def _role_errors(role: Obj, *, namespaced: bool) -> list[Cause]:
    found = []
    for index, rule in enumerate(role.get("rules") or ()):
        field = f"rules[{index}]"
        if not rule.get("verbs"):
            found.append(required(f"{field}.verbs", "verbs must contain at least one value"))
        if urls := rule.get("nonResourceURLs"):
            if namespaced:
                why = "namespaced rules cannot apply to non-resource URLs"
                found.append(invalid_value(f"{field}.nonResourceURLs", urls, why))
            if any(rule.get(key) for key in ("apiGroups", "resources", "resourceNames")):
                why = "rules cannot apply to both regular resources and non-resource URLs"
                found.append(invalid_value(f"{field}.nonResourceURLs", urls, why))
            continue
        for key in ("apiGroups", "resources"):
            if not rule.get(key):
                what = "api group" if key == "apiGroups" else "resource"
                why = f"resource rules must supply at least one {what}"
                found.append(required(f"{field}.{key}", why))
    return found


def _cluster_role_errors(role: Obj) -> list[Cause]:
    found = _role_errors(role, namespaced=False)
    aggregation = role.get("aggregationRule")
    if aggregation is not None:
        field = "aggregationRule.clusterRoleSelectors"
        chosen = aggregation.get("clusterRoleSelectors") or ()
        if not chosen:
            found.append(required(field, "at least one clusterRoleSelector required"))
        for index, selector in enumerate(chosen):
            found += _selector_errors(selector, f"{field}[{index}]")
    return found


def _binding_errors(binding: Obj, *, namespaced: bool) -> list[Cause]:
    role = binding.get("roleRef") or {}
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    found = _one_of(role.get("apiGroup"), "roleRef.apiGroup", (_RBAC_GROUP,))
    found += _one_of(role.get("kind"), "roleRef.kind", kinds)
    name = role.get("name", "")
    found += (
        invalid_values("roleRef.name", name, syntax.path_segment(name))
        if name
        else [required("roleRef.name")]
    )
    for index, subject in enumerate(binding.get("subjects") or ()):
        found += _subject_errors(subject, f"subjects[{index}]", namespaced=namespaced)
    return found


def _subject_errors(subject: Obj, field: str, *, namespaced: bool) -> list[Cause]:
    kind, name = subject.get("kind", ""), subject.get("name", "")
    group = subject.get("apiGroup", "")
    found = [] if name else [required(f"{field}.name")]
    if kind == "ServiceAccount":
        if name:
            found += invalid_values(f"{field}.name", name, syntax.subdomain(name))
        if not namespaced and not subject.get("namespace"):
            found.append(required(f"{field}.namespace"))
        return found + _one_of(group, f"{field}.apiGroup", ("",))
    if kind in ("User", "Group"):
        return found + _one_of(group, f"{field}.apiGroup", (_RBAC_GROUP,))
    return found + _one_of(kind, f"{field}.kind", ("ServiceAccount", "User", "Group"))


def _binding_change_errors(binding: Obj, old: Obj) -> list[Cause]:
    if old.get("roleRef") == binding.get("roleRef"):
        return []
    return [invalid_value("roleRef", binding.get("roleRef"), "cannot change roleRef")]


_KINDS: Mapping[Resource, Callable[[Obj], list[Cause]]] = {
    NODES: _node_errors,
    PODS: _pod_errors,
    **dict.fromkeys(_WORKLOADS, _workload_errors),
    DEPLOYMENTS: _deployment_errors,
    BUDGETS: _budget_errors,
    EVENTS: _event_errors,
    CONFIG_MAPS: _config_map_errors,
    SECRETS: _secret_errors,
    QUOTAS: _quota_errors,
    ROLES: lambda role: _role_errors(role, namespaced=True),
    CLUSTER_ROLES: _cluster_role_errors,
    ROLE_BINDINGS: lambda binding: _binding_errors(binding, namespaced=True),
    CLUSTER_ROLE_BINDINGS: lambda binding: _binding_errors(binding, namespaced=False),
}
"""Errors of the kinds' own fields."""

_CHANGES: Mapping[Resource, Callable[[Obj, Obj], list[Cause]]] = {
    NODES: _node_change_errors,
    PODS: _pod_change_errors,
    **dict.fromkeys(_WORKLOADS, _workload_change_errors),
    CONFIG_MAPS: _frozen_data_errors,
    SECRETS: _secret_change_errors,
    QUOTAS: _quota_change_errors,
    ROLE_BINDINGS: _binding_change_errors,
    CLUSTER_ROLE_BINDINGS: _binding_change_errors,
}
"""Errors of changes: (new, old)."""
