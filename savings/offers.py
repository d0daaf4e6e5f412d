"""Which new nodes a cluster could have: an instance type in a zone and market, with the labels and
taints of nodes that the cluster has. Pure.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Final

from savings import capacity
from savings.prices import InstanceType
from savings.snapshot import (
    ON_DEMAND,
    SPOT,
    Amounts,
    DaemonSet,
    Demand,
    Market,
    Node,
    Pod,
    Requirement,
    Taint,
    Term,
    matches,
    tolerates,
    total,
)
from savings.tolerance import CAPACITY_LABELS

HOSTNAME: Final = "kubernetes.io/hostname"
NODE_NAME: Final = "metadata.name"
ZONE_LABELS: Final = (
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.ebs.csi.aws.com/zone",
)
ARCH_LABELS: Final = ("kubernetes.io/arch", "beta.kubernetes.io/arch")
TYPE_LABELS: Final = ("node.kubernetes.io/instance-type", "beta.kubernetes.io/instance-type")
OS_LABELS: Final = ("kubernetes.io/os", "beta.kubernetes.io/os")
REGION_LABELS: Final = (
    "topology.kubernetes.io/region",
    "failure-domain.beta.kubernetes.io/region",
)
FAMILY: Final = re.compile(r"([a-z]+)\D*(\d+)")  # category and generation: m7i, u-6tb1
_INSTANCE_LABELS: Final = ("karpenter.k8s.aws/instance-", "eks.amazonaws.com/instance-")
# Taints of a state of the node that passes, by the prefix of their key.
_PASSING: Final = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/disrupt",
    "aws-node-termination-handler/",
    "autoscaling.cast.ai/",
    "castai-eks/",
)
_KEEPS_AWAY: Final = ("NoSchedule", "NoExecute")


@dataclass(frozen=True)
class Profile:
    """Labels and taints that a group of nodes shares, as far as a pod asks for them."""

    labels: Mapping[str, str]
    taints: tuple[Taint, ...]
    groups: Mapping[Market, str]
    """The node group that most of these nodes are of, for people: of those in a market, of all
    where it has none."""
    keys: frozenset[str]
    """All label keys that a node of it has."""
    static: Amounts
    """What the static pods of such a node request, `pods` included."""


@dataclass(frozen=True)
class Offer:
    """A new node."""

    profile: Profile
    kind: InstanceType
    zone: str
    market: Market
    price: float
    labels: Mapping[str, str]
    """Those that a pod asks for."""
    allocatable: Amounts
    overhead: Amounts
    """What DaemonSets' and static pods take of it."""


def binding_taints(node: Node) -> tuple[Taint, ...]:
    """Taints that keep pods away for longer than a passing state of the node."""
    return tuple(
        taint
        for taint in node.taints
        if taint.effect in _KEEPS_AWAY and not taint.key.startswith(_PASSING)
    )


def selectable(node: Node) -> dict[str, str]:
    """What node affinity can ask of a node: its labels, and its name as `metadata.name`."""
    return node.labels | {NODE_NAME: node.name}


def asked_keys(pods: Iterable[Pod], daemon_sets: Iterable[DaemonSet]) -> set[str]:
    """The label keys that decide where a pod may run."""
    keys: set[str] = set()
    demands: list[Demand] = [each.demand for each in daemon_sets]
    for pod in pods:
        demands.append(pod.demand)
        keys.update(term.topology_key for term in (*pod.affinity, *pod.anti_affinity))
        keys.update(spread.topology_key for spread in pod.spread)
    for demand in demands:
        keys.update(demand.node_selector)
        keys.update(r.key for terms in demand.node_terms for term in terms for r in term)
    return keys - {NODE_NAME}


def price_of(kind: InstanceType, zone: str, market: Market) -> float | None:
    """Per hour; None where none is known."""
    if market == ON_DEMAND:
        return kind.on_demand
    spot = kind.spot.get(zone)
    return spot.now if spot else None


def profiles(
    nodes: Sequence[Node], static: Mapping[str, Mapping[str, Amounts]], asked: Collection[str]
) -> list[Profile]:
    """One for each set of labels and taints among the nodes. `static`: by node, by name of the
    static pod without the node's.
    """
    own = [key for key in asked if not _is_of_the_instance(key)]
    alike: dict[tuple[object, ...], list[Node]] = defaultdict(list)
    for node in nodes:
        labels = tuple(sorted((key, node.labels[key]) for key in own if key in node.labels))
        taints = tuple(sorted((t.key, t.effect, t.value) for t in binding_taints(node)))
        # Nodes of EKS's groups and of Karpenter have other labels that say the same.
        instance = tuple(sorted(set(asked).intersection(node.labels).difference(own)))
        alike[labels, taints, instance].append(node)
    return [_profile(of, dict(labels), static) for (labels, *_), of in sorted(alike.items())]  # type: ignore[call-overload]


def _profile(
    nodes: Sequence[Node], labels: dict[str, str], static: Mapping[str, Mapping[str, Amounts]]
) -> Profile:
    groups = {
        market: _most_frequent(node.group for node in nodes if node.market == market)
        for market in (ON_DEMAND, SPOT)
    }
    common = _most_frequent(node.group for node in nodes)
    statics: dict[str, Amounts] = {}
    for node in nodes:
        for name, amounts in static.get(node.name, {}).items():
            so_far = statics.setdefault(name, {})
            for resource, amount in amounts.items():
                so_far[resource] = max(amount, so_far.get(resource, 0))
    shown = {market: group or common for market, group in groups.items()}
    keys = frozenset(key for node in nodes for key in node.labels)
    return Profile(labels, binding_taints(nodes[0]), shown, keys, total(statics.values()))


def _most_frequent(groups: Iterable[str]) -> str:
    found = list(groups)
    return max(sorted(set(found)), key=found.count, default="")


def offers(
    profiles: Sequence[Profile],
    types: Iterable[InstanceType],
    zones: Collection[str],
    *,
    seen: capacity.Seen,
    labels: Set[str],
    region: str,
    daemons: Callable[[Mapping[str, str], tuple[Taint, ...]], Amounts],
) -> list[Offer]:
    """Every type, in every of these zones that offers it, in both markets where it has a price.

    `labels`: the keys that pods ask for. `daemons`: what DaemonSets
    request on a node with such labels and taints.
    """
    found = []
    for kind in types:
        amounts = capacity.allocatable(kind, seen)
        for zone in sorted(set(kind.zones) & set(zones)):
            for market in (ON_DEMAND, SPOT):
                price = price_of(kind, zone, market)
                if price is None:
                    continue
                instance = _instance_labels(kind, zone, market, region)
                for profile in profiles:
                    known = labels & profile.keys
                    has = {k: v for k, v in instance.items() if k in known} | dict(profile.labels)
                    overhead = total((daemons(has, profile.taints), profile.static))
                    if all(n >= overhead.get(name, 0) for name, n in amounts.items()):
                        offer = Offer(profile, kind, zone, market, price, has, amounts, overhead)
                        found.append(offer)
    return found


def _is_of_the_instance(key: str) -> bool:
    known = (*ZONE_LABELS, *ARCH_LABELS, *TYPE_LABELS, *OS_LABELS, *REGION_LABELS, HOSTNAME)
    return key in known or key in CAPACITY_LABELS or key.startswith(_INSTANCE_LABELS)


def _instance_labels(kind: InstanceType, zone: str, market: Market, region: str) -> dict[str, str]:
    """What kubelet, cloud provider and node managers set; never the host's name, which is new."""
    family, _, size = kind.name.partition(".")
    named = FAMILY.match(family)
    category, generation = named.groups() if named else (family, "")
    labels = {
        **dict.fromkeys(ZONE_LABELS, zone),
        **dict.fromkeys(ARCH_LABELS, kind.arch),
        **dict.fromkeys(TYPE_LABELS, kind.name),
        **dict.fromkeys(OS_LABELS, "linux"),
        **dict.fromkeys(REGION_LABELS, region),
    }
    for prefix in _INSTANCE_LABELS:
        labels |= {
            f"{prefix}category": category,
            f"{prefix}family": family,
            f"{prefix}generation": generation,
            f"{prefix}size": size,
            f"{prefix}cpu": str(kind.vcpus),
            f"{prefix}memory": str(kind.memory // 2**20),
        }
    for key, (on_demand, spot) in CAPACITY_LABELS.items():
        if value := spot if market == SPOT else on_demand:
            labels[key] = value
    return labels


class Signature:
    """Where a pod may run, as far as labels and taints decide it."""

    def __init__(self, demand: Demand, further: Term = ()) -> None:
        """`further`: requirements that come with the pod's present place."""
        self.selector = demand.node_selector
        self.terms = demand.node_terms
        self.tolerations = demand.tolerations
        self.further = further
        self.keys = tuple(
            sorted(
                {
                    *demand.node_selector,
                    *(r.key for terms in demand.node_terms for term in terms for r in term),
                    *(r.key for r in further),
                }
            )
        )
        self._selected: dict[tuple[str | None, ...], bool] = {}
        self._tolerated: dict[tuple[Taint, ...], bool] = {}

    def selects(self, labels: Mapping[str, str]) -> bool:
        """Whether node selector and node affinity match a node's labels."""
        values = tuple(map(labels.get, self.keys))
        if values not in self._selected:
            self._selected[values] = self._selects(labels)
        return self._selected[values]

    def tolerates(self, taints: tuple[Taint, ...]) -> bool:
        """Whether every taint is tolerated."""
        if taints not in self._tolerated:
            self._tolerated[taints] = all(tolerates(self.tolerations, taint) for taint in taints)
        return self._tolerated[taints]

    def _selects(self, labels: Mapping[str, str]) -> bool:
        if any(labels.get(key) != value for key, value in self.selector.items()):
            return False
        if not matches(self.further, labels):
            return False
        return all(any(matches(term, labels) for term in terms) for terms in self.terms)


def stays_in(key: str, labels: Mapping[str, str]) -> Requirement:
    """The requirement for a node with the same value of a label, or the same lack of it."""
    if key in labels:
        return Requirement(key=key, operator="In", values=(labels[key],))
    return Requirement(key=key, operator="DoesNotExist")
