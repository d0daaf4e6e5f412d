"""What of a cluster the estimate depends on: nodes, pods, workloads, budgets. Plain data.

No environment variable, image, ConfigMap or Secret is in it, not even a Secret's name.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Final, Literal

import msgspec

FORMAT: Final = "castai-eks-savings-snapshot/1"

Market = Literal["on-demand", "spot"]
ON_DEMAND: Final[Market] = "on-demand"
SPOT: Final[Market] = "spot"

Amounts = dict[str, int]
"""Amount by resource name: `cpu` in millicores, everything else as Kubernetes counts it (bytes of
`memory` and `ephemeral-storage`, number of `pods` or of `nvidia.com/gpu`)."""

CPU, MEMORY, PODS, STORAGE = "cpu", "memory", "pods", "ephemeral-storage"


class Data(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    rename="camel",
    omit_defaults=True,
    forbid_unknown_fields=True,
):
    """Written as JSON and read from it."""


class Requirement(Data, frozen=True, kw_only=True):
    """A term of a label selector or of a node selector."""

    key: str
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]
    values: tuple[str, ...] = ()


Term = tuple[Requirement, ...]
"""Requirements that all have to hold."""


class Toleration(Data, frozen=True, kw_only=True):
    """As in a pod's spec. An empty key tolerates every key, an empty effect every effect."""

    key: str = ""
    operator: Literal["Equal", "Exists"] = "Equal"
    value: str = ""
    effect: str = ""


class Taint(Data, frozen=True, kw_only=True):
    """As in a node's spec."""

    key: str
    effect: str
    value: str = ""


class PodTerm(Data, frozen=True, kw_only=True):
    """A required pod affinity or anti-affinity."""

    topology_key: str
    selector: Term
    """Empty: every pod."""
    namespaces: tuple[str, ...] | None = ()
    """None: every namespace. Empty: the pod's own."""


class Spread(Data, frozen=True, kw_only=True):
    """A topology spread constraint with `DoNotSchedule`; others do not bind."""

    topology_key: str
    max_skew: int
    selector: Term
    """Of pods in the pod's own namespace. Empty: every pod."""


class Demand(Data, frozen=True, kw_only=True):
    """What a pod needs of a node."""

    requests: Amounts
    """Of the whole pod: containers, init containers, sidecars, overhead. Without `pods`."""
    node_selector: dict[str, str] = msgspec.field(default_factory=dict)
    node_terms: tuple[tuple[Term, ...], ...] = ()
    """Required node affinity: of each entry one term has to hold. The pod's own, and one entry for
    each of its volumes that only some nodes reach. A requirement for the node's own name has the
    key `metadata.name`."""
    tolerations: tuple[Toleration, ...] = ()
    host_ports: tuple[str, ...] = ()
    """`TCP/8080`: one pod of a node can have it."""


class Pod(Data, frozen=True, kw_only=True):
    """A pod that is not finished."""

    namespace: str
    name: str
    demand: Demand
    node: str = ""
    """Empty: it waits for one."""
    owner: str = ""
    """`Deployment/web`: the top controller in the pod's namespace. Empty: no controller."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    affinity: tuple[PodTerm, ...] = ()
    anti_affinity: tuple[PodTerm, ...] = ()
    spread: tuple[Spread, ...] = ()
    grace: int = 30
    """terminationGracePeriodSeconds."""
    local_volumes: tuple[str, ...] = ()
    """What of the node's own disk it uses, in words: `hostPath`, `PersistentVolumeClaim data`.
    An emptyDir is none: its content ends with every pod."""
    opt_outs: tuple[str, ...] = ()
    """Annotations or labels by which it refuses to be moved, as `key: value`."""
    without_requests: bool = False
    """A container of it has no request for processor or for memory."""
    static: bool = False
    """A mirror pod: the kubelet runs it from a file on the node."""


class DaemonSet(Data, frozen=True, kw_only=True):
    """Runs a pod on every node that it selects."""

    namespace: str
    name: str
    demand: Demand
    """With the tolerations that the DaemonSet controller adds."""
    labels: dict[str, str] = msgspec.field(default_factory=dict)


class Workload(Data, frozen=True, kw_only=True):
    """The top controller of pods."""

    namespace: str
    owner: str
    """`Deployment/web`."""
    replicas: int
    """As wanted; for a kind without replicas the number of its pods."""


class Budget(Data, frozen=True, kw_only=True):
    """A PodDisruptionBudget."""

    namespace: str
    name: str
    selector: Term | None
    """Empty: every pod of the namespace. None: no pod."""
    min_available: int | str | None = None
    """A number, or `50%`."""
    max_unavailable: int | str | None = None


class Node(Data, frozen=True, kw_only=True):
    """A node that takes part in the cluster, ready or not."""

    name: str
    instance_type: str = ""
    zone: str = ""
    market: Market = ON_DEMAND
    group: str = ""
    """Its node group or node pool, for people. Empty: none is known."""
    os: str = "linux"
    arch: str = "amd64"
    fargate: bool = False
    allocatable: Amounts
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    taints: tuple[Taint, ...] = ()
    unschedulable: bool = False


class Snapshot(Data, frozen=True, kw_only=True, tag_field="format", tag=FORMAT):
    """A cluster at one moment."""

    cluster: str
    region: str
    account: str = ""
    """Empty where it is not known, as with a kubeconfig."""
    taken: str
    """UTC, `2026-01-31T12:00:00Z`."""
    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    daemon_sets: tuple[DaemonSet, ...] = ()
    workloads: tuple[Workload, ...] = ()
    budgets: tuple[Budget, ...] = ()


def total(each: Iterable[Amounts]) -> Amounts:
    """The sum."""
    found: dict[str, int] = defaultdict(int)
    for amounts in each:
        for name, amount in amounts.items():
            found[name] += amount
    return dict(found)


def matches(term: Term, labels: Mapping[str, str]) -> bool:
    """Whether labels fulfil every requirement.

    `NotIn` holds for a missing label; `Gt` and `Lt` compare integers and hold for nothing else.
    """
    return all(_holds(each, labels) for each in term)


def _holds(requirement: Requirement, labels: Mapping[str, str]) -> bool:
    value = labels.get(requirement.key)
    match requirement.operator:
        case "In":
            return value in requirement.values
        case "NotIn":
            return value is None or value not in requirement.values
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt":
            return _compared(value, requirement.values) > 0
        case "Lt":
            return _compared(value, requirement.values) < 0


def _compared(value: str | None, values: tuple[str, ...]) -> int:
    try:
        return int(value or "") - int(values[0])
    except (ValueError, IndexError):
        return 0


def tolerates(tolerations: tuple[Toleration, ...], taint: Taint) -> bool:
    """Whether one of the tolerations matches the taint."""
    return any(
        (not each.key or each.key == taint.key)
        and (not each.effect or each.effect == taint.effect)
        and (each.operator == "Exists" or each.value == taint.value)
        for each in tolerations
    )
