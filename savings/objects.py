"""Kubernetes objects → what a snapshot holds of them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from savings.offers import ARCH_LABELS, NODE_NAME, OS_LABELS, TYPE_LABELS, ZONE_LABELS
from savings.requests import amounts, requests_of, with_limits, without_requests
from savings.snapshot import (
    ON_DEMAND,
    SPOT,
    Budget,
    DaemonSet,
    Demand,
    Market,
    Node,
    Pod,
    PodTerm,
    Requirement,
    Spread,
    Taint,
    Term,
    Toleration,
    Workload,
    matches,
)
from savings.tolerance import CAPACITY_LABELS

Object = Mapping[str, Any]
Key = tuple[str, str]
"""Namespace and name; or namespace and `Kind/name`."""

_REQUIRED: Final = "requiredDuringSchedulingIgnoredDuringExecution"
_FINISHED: Final = ("Succeeded", "Failed")
_GROUP_LABELS: Final = (
    "eks.amazonaws.com/nodegroup",
    "karpenter.sh/nodepool",
    "scheduling.cast.ai/node-template",
    "alpha.eksctl.io/nodegroup-name",
)
_SPOT_VALUES: Final = ("spot", "true")
_OPT_OUTS: Final = {
    "cluster-autoscaler.kubernetes.io/safe-to-evict": "false",
    "karpenter.sh/do-not-disrupt": "true",
    "karpenter.sh/do-not-evict": "true",
    "autoscaling.cast.ai/removal-disabled": "true",
}
_DAEMON_TOLERATIONS: Final = (
    ("not-ready", "NoExecute"),
    ("unreachable", "NoExecute"),
    ("disk-pressure", "NoSchedule"),
    ("memory-pressure", "NoSchedule"),
    ("pid-pressure", "NoSchedule"),
    ("unschedulable", "NoSchedule"),
)
"""Source: kubernetes/pkg/controller/daemon/util, `AddOrUpdateDaemonPodTolerations`."""
_ON_HOST_NETWORK: Final = (("network-unavailable", "NoSchedule"),)
_SEVERAL_ZONES: Final = "__"  # in the zone label of a volume that several zones reach


@dataclass
class Around:
    """What else of the cluster a pod's meaning depends on."""

    owners: dict[Key, str] = field(default_factory=dict)
    """By namespace and `ReplicaSet/web-5d8f` or `Job/…`: its own controller, `Deployment/web`."""
    claims: dict[Key, str] = field(default_factory=dict)
    """By namespace and name of a PersistentVolumeClaim: its volume's name."""
    volumes: dict[str, Volume] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    """Their labels."""


class Volume(NamedTuple):
    """A PersistentVolume."""

    terms: tuple[Term, ...]
    """Of the nodes that reach it: one has to hold. None: every node does."""
    local: bool
    """It is on a node's own disk."""


def node(obj: Object) -> tuple[Node, str]:
    """The node, and its EC2 instance if only that says in which market it is."""
    labels = _labels(obj)
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    market = _market(labels)
    provider = str(spec.get("providerID") or "")
    fargate = labels.get("eks.amazonaws.com/compute-type") == "fargate" or "/fargate-" in provider
    made = Node(
        name=_name(obj),
        instance_type=_first(labels, TYPE_LABELS),
        zone=_first(labels, ZONE_LABELS),
        market=market or ON_DEMAND,
        group=_first(labels, _GROUP_LABELS),
        os=_first(labels, OS_LABELS) or "linux",
        arch=_first(labels, ARCH_LABELS) or "amd64",
        fargate=fargate,
        allocatable=amounts(status.get("allocatable"), f"node {_name(obj)}"),
        labels=labels,
        taints=tuple(
            Taint(key=each["key"], effect=each["effect"], value=each.get("value", ""))
            for each in spec.get("taints") or ()
        ),
        unschedulable=bool(spec.get("unschedulable")),
    )
    instance = provider.rpartition("/")[2]
    unknown = market is None and not fargate and instance.startswith("i-")
    return made, instance if unknown else ""


def pod(obj: Object, around: Around) -> Pod | None:
    """The pod; None for a finished one."""
    if (obj.get("status") or {}).get("phase") in _FINISHED:
        return None
    spec, labels = obj["spec"], _labels(obj)
    annotations = obj["metadata"].get("annotations") or {}
    affinity = spec.get("affinity") or {}
    volumes = list(_volumes(obj, around))
    return Pod(
        namespace=_namespace(obj),
        name=_name(obj),
        demand=_demand(
            spec,
            f"pod {_namespace(obj)}/{_name(obj)}",
            further=[volume.terms for _, volume in volumes if volume.terms],
        ),
        node=spec.get("nodeName") or "",
        owner=_owner(obj, around),
        labels=labels,
        affinity=tuple(_pod_terms(affinity.get("podAffinity"), obj, around)),
        anti_affinity=tuple(_pod_terms(affinity.get("podAntiAffinity"), obj, around)),
        spread=tuple(_spread(spec, labels)),
        grace=_number(spec.get("terminationGracePeriodSeconds"), 30),
        local_volumes=tuple(sorted({name for name, volume in volumes if volume.local})),
        opt_outs=tuple(
            f"{key}: {value}"
            for key, value in _OPT_OUTS.items()
            if value in (annotations.get(key), labels.get(key))
        ),
        without_requests=without_requests(spec),
        static="kubernetes.io/config.mirror" in annotations,
    )


def daemon_set(obj: Object) -> DaemonSet:
    """A DaemonSet, from its template."""
    template = obj["spec"]["template"]
    spec = with_limits(template.get("spec") or {})
    added = (*_DAEMON_TOLERATIONS, *(_ON_HOST_NETWORK if spec.get("hostNetwork") else ()))
    tolerations = [
        {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": effect}
        for name, effect in added
    ]
    what = f"DaemonSet {_namespace(obj)}/{_name(obj)}"
    return DaemonSet(
        namespace=_namespace(obj),
        name=_name(obj),
        demand=_demand(
            {**spec, "tolerations": [*(spec.get("tolerations") or ()), *tolerations]}, what
        ),
        labels=(template.get("metadata") or {}).get("labels") or {},
    )


def workload(obj: Object) -> Workload:
    """A controller that has replicas."""
    replicas = _number((obj.get("spec") or {}).get("replicas"), 1)
    return Workload(
        namespace=_namespace(obj), owner=f"{obj['kind']}/{_name(obj)}", replicas=replicas
    )


def budget(obj: Object) -> Budget:
    """A PodDisruptionBudget."""
    spec = obj.get("spec") or {}
    return Budget(
        namespace=_namespace(obj),
        name=_name(obj),
        selector=_selector(spec.get("selector")),
        min_available=spec.get("minAvailable"),
        max_unavailable=spec.get("maxUnavailable"),
    )


def volume(obj: Object) -> tuple[str, Volume]:
    """Name of a PersistentVolume, and what the node of its pod has to be."""
    spec = obj.get("spec") or {}
    required = ((spec.get("nodeAffinity") or {}).get("required") or {}).get("nodeSelectorTerms")
    terms = tuple(_node_terms(required))
    labels = _labels(obj)
    if not terms and (zones := _first(labels, ZONE_LABELS)):
        key = next(key for key in ZONE_LABELS if key in labels)
        terms = ((Requirement(key=key, operator="In", values=tuple(zones.split(_SEVERAL_ZONES))),),)
    return _name(obj), Volume(terms, local="local" in spec or "hostPath" in spec)


def claim(obj: Object) -> tuple[Key, str]:
    """A PersistentVolumeClaim and its volume's name; empty: it has none yet."""
    return (_namespace(obj), _name(obj)), (obj.get("spec") or {}).get("volumeName") or ""


def owned(obj: Object) -> tuple[Key, str]:
    """A controller, and its own; empty: it has none."""
    return (_namespace(obj), f"{obj['kind']}/{_name(obj)}"), _controller(obj)


def namespace(obj: Object) -> tuple[str, dict[str, str]]:
    """Name and labels."""
    return _name(obj), _labels(obj)


# Parts --------------------------------------------------------------------------------------------


def _name(obj: Object) -> str:
    return str(obj["metadata"]["name"])


def _namespace(obj: Object) -> str:
    return str(obj["metadata"].get("namespace") or "")


def _labels(obj: Object) -> dict[str, str]:
    return dict(obj["metadata"].get("labels") or {})


def _first(labels: Mapping[str, str], keys: tuple[str, ...]) -> str:
    return next((labels[key] for key in keys if labels.get(key)), "")


def _number(given: int | None, default: int) -> int:
    return default if given is None else given


def _market(labels: Mapping[str, str]) -> Market | None:
    value = _first(labels, tuple(CAPACITY_LABELS)).lower()
    if not value:
        return None
    return SPOT if value in _SPOT_VALUES else ON_DEMAND


def _controller(obj: Object) -> str:
    for each in obj["metadata"].get("ownerReferences") or ():
        if each.get("controller"):
            return f"{each['kind']}/{each['name']}"
    return ""


def _owner(obj: Object, around: Around) -> str:
    """The top controller. A pod of the node itself is its own: a mirror pod has no controller."""
    owner = _controller(obj)
    if owner.startswith("Node/"):
        return ""
    return around.owners.get((_namespace(obj), owner)) or owner


def _demand(spec: Object, what: str, *, further: list[tuple[Term, ...]] | None = None) -> Demand:
    affinity = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(_REQUIRED) or {}
    own = tuple(_node_terms(affinity.get("nodeSelectorTerms")))
    entries = [own] if affinity else []
    return Demand(
        requests=requests_of(spec, what),
        node_selector=dict(spec.get("nodeSelector") or {}),
        node_terms=tuple(dict.fromkeys([*entries, *(further or ())])),
        tolerations=tuple(
            Toleration(
                key=each.get("key") or "",
                operator=each.get("operator") or "Equal",
                value=each.get("value") or "",
                effect=each.get("effect") or "",
            )
            for each in spec.get("tolerations") or ()
        ),
        host_ports=tuple(sorted(set(_host_ports(spec)))),
    )


def _host_ports(spec: Object) -> Iterator[str]:
    for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
        for port in container.get("ports") or ():
            number = port.get("hostPort") or (spec.get("hostNetwork") and port["containerPort"])
            if number:
                yield f"{port.get('protocol') or 'TCP'}/{number}"


def _node_terms(terms: list[Object] | None) -> Iterator[Term]:
    """A term without requirements matches no node."""
    for term in terms or ():
        fields = [each for each in term.get("matchFields") or () if each["key"] == NODE_NAME]
        if found := tuple(map(_requirement, (*(term.get("matchExpressions") or ()), *fields))):
            yield found


def _requirement(given: Object) -> Requirement:
    return Requirement(
        key=given["key"], operator=given["operator"], values=tuple(given.get("values") or ())
    )


def _selector(selector: Object | None) -> Term | None:
    """None selects nothing."""
    if selector is None:
        return None
    equal = (
        Requirement(key=key, operator="In", values=(value,))
        for key, value in sorted((selector.get("matchLabels") or {}).items())
    )
    return (*equal, *map(_requirement, selector.get("matchExpressions") or ()))


def _pod_terms(affinity: Object | None, obj: Object, around: Around) -> Iterator[PodTerm]:
    """Required terms. The API server has merged matchLabelKeys into the selector."""
    for term in (affinity or {}).get(_REQUIRED) or ():
        selector = _selector(term.get("labelSelector"))
        if selector is None:
            continue
        yield PodTerm(
            topology_key=term["topologyKey"],
            selector=selector,
            namespaces=_namespaces(term, _namespace(obj), around),
        )


def _namespaces(term: Object, own: str, around: Around) -> tuple[str, ...] | None:
    named, selector = term.get("namespaces") or (), _selector(term.get("namespaceSelector"))
    if selector is None:
        return tuple(sorted(named)) if set(named) - {own} else ()
    if not selector:
        return None
    found = {name for name, labels in around.namespaces.items() if matches(selector, labels)}
    return tuple(sorted({*named, *found})) or (f"{own}/none",)


def _spread(spec: Object, labels: Mapping[str, str]) -> Iterator[Spread]:
    """Constraints that bind. `minDomains` is left out: it asks for nodes that do not exist."""
    for each in spec.get("topologySpreadConstraints") or ():
        selector = _selector(each.get("labelSelector"))
        if each.get("whenUnsatisfiable") != "DoNotSchedule" or selector is None:
            continue
        known = {requirement.key for requirement in selector}
        merged = tuple(
            Requirement(key=key, operator="In", values=(labels[key],))
            for key in each.get("matchLabelKeys") or ()
            if key in labels and key not in known
        )
        yield Spread(
            topology_key=each["topologyKey"],
            max_skew=each["maxSkew"],
            selector=(*selector, *merged),
        )


def _volumes(obj: Object, around: Around) -> Iterator[tuple[str, Volume]]:
    """The pod's volumes that tie it to nodes, in words."""
    for each in obj["spec"].get("volumes") or ():
        if "hostPath" in each:
            yield "hostPath", Volume((), local=True)
            continue
        name = (each.get("persistentVolumeClaim") or {}).get("claimName")
        if "ephemeral" in each:
            name = f"{_name(obj)}-{each['name']}"
        volume = around.volumes.get(around.claims.get((_namespace(obj), name or ""), ""))
        if volume is not None:
            yield f"PersistentVolumeClaim {name}", volume
