"""The cluster as a packing problem: groups of like pods, and the nodes that can take them. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from savings import capacity
from savings.instance_types import family
from savings.offers import (
    ARCH_LABELS,
    HOSTNAME,
    Offer,
    Signature,
    asked_keys,
    binding_taints,
    offers,
    price_of,
    profiles,
    selectable,
    stays_in,
)
from savings.prices import InstanceType, Prices
from savings.snapshot import (
    CPU,
    MEMORY,
    PODS,
    SPOT,
    Amounts,
    Demand,
    Market,
    Node,
    Pod,
    PodTerm,
    Snapshot,
    Spread,
    Taint,
    Term,
    matches,
    total,
)
from savings.tolerance import reasons, workload_of

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_PORT: Final = "port:"
_DAEMON_SET: Final = "DaemonSet/"


@dataclass(frozen=True)
class HostTerm:
    """A term of pods about other pods of the same node."""

    selector: Term
    namespaces: frozenset[str] | None
    """None: every namespace."""


@dataclass(frozen=True)
class Needs:
    """What makes pods alike: pods with the same needs are interchangeable."""

    requests: tuple[int, ...]
    signature: Signature
    own: Signature
    """Without what comes with the pod's present place: the domain of its topology spread."""
    markets: frozenset[Market]
    arch: str
    """Empty: its selector decides."""
    family: str
    """The instance family that a pod with an accelerator stays in. Empty: any."""
    anti_affinity: tuple[int, ...]
    affinity: tuple[int, ...]
    spread: tuple[tuple[int, int], ...]
    """(term, largest skew)."""
    matched: frozenset[int]
    """Terms of any pod whose selector matches these pods."""


@dataclass
class Group:
    """Pods that are alike, and where they may go."""

    needs: Needs
    pods: list[int] = field(default_factory=list)
    """Indices in the snapshot's pods."""


@dataclass(frozen=True)
class LeftOut:
    """A node that the estimate leaves out, and why."""

    node: Node
    reason: str


class Cluster:
    """What all three steps share: the nodes with a price, the pods to place, the possible nodes."""

    def __init__(self, snapshot: Snapshot, prices: Prices, considered: Collection[str]) -> None:
        """`considered`: names of the types that a new node may have."""
        self.snapshot = snapshot
        self.types = {kind.name: kind for kind in prices.types}
        self.left_out, self.nodes = _split(snapshot, self.types)
        self.node_at = {node.name: node for node in self.nodes}
        self.daemons = _Daemons(snapshot)
        self.static = _static(snapshot, self.node_at)
        self.pods = [
            index
            for index, pod in enumerate(snapshot.pods)
            if pod.node in self.node_at and not is_daemon(pod) and not pod.static
        ]
        moving = [snapshot.pods[index] for index in self.pods]
        self.refusals = reasons(snapshot, moving)
        self.resources = _resources(moving)
        self.in_use = {node.instance_type for node in self.nodes}
        self.asked = sorted(asked_keys(moving, snapshot.daemon_sets))
        self.offers = offers(
            profiles(self.nodes, self.static, self.asked),
            [self.types[name] for name in sorted({*considered, *self.in_use} & set(self.types))],
            {node.zone for node in self.nodes},
            seen=capacity.seen(self.nodes, self.types),
            labels=set(self.asked),
            region=snapshot.region,
            daemons=self.daemons.requests,
        )
        self.terms = _Terms(moving)
        out = {each.node.name for each in self.left_out}
        self._pods_left_out: dict[str, list[Pod]] = defaultdict(list)
        for pod in snapshot.pods:
            if pod.node in out:
                self._pods_left_out[pod.node].append(pod)
        self.needs = _needs(self, moving)
        self.offers = [offer for offer in self.offers if not self._adds_domain(offer)]

    def _adds_domain(self, offer: Offer) -> bool:
        """Whether a topology spread over zones, or the like, would get a domain that it has not."""
        return any(
            own.selects(offer.labels) and offer.labels.get(key) not in there
            for own, key, there in self._domains
        )

    def stays(self, pod: Pod, needs: Needs) -> bool:
        """Whether the packing does not know a rule of the pod, so that it stays where it is.

        kube-scheduler takes the terms of an affinity together: a pod counts if all are about it.
        The packing takes each alone. Static pods that others avoid it does not know.
        """
        several = bool(needs.affinity) and len(pod.affinity) > 1
        return several or not self._static_terms.isdisjoint(needs.anti_affinity)

    @cached_property
    def _static_terms(self) -> frozenset[int]:
        """The terms that match a static pod."""
        pods = (pod for pod in self.snapshot.pods if pod.static)
        return frozenset().union(
            *(self.terms.matching(pod.namespace, pod.labels)[0] for pod in pods)
        )

    def avoided_daemons(self, needs: Needs) -> frozenset[int]:
        """The DaemonSets, by number, that the pods' anti-affinity is about."""
        if not needs.anti_affinity:
            return frozenset()
        return frozenset(
            number
            for number, terms in enumerate(self._daemon_terms)
            if not terms.isdisjoint(needs.anti_affinity)
        )

    @cached_property
    def _daemon_terms(self) -> list[frozenset[int]]:
        """Of each DaemonSet: the terms that match its pods."""
        return [
            self.terms.matching(each.namespace, each.labels)[0]
            for each in self.snapshot.daemon_sets
        ]

    @cached_property
    def _domains(self) -> list[tuple[Signature, str, set[str | None]]]:
        """Of each topology spread over several nodes: who has it, its key, the key's values."""
        spreads = {
            (needs.own, each.topology_key)
            for index, needs in zip(self.pods, self.needs, strict=True)
            for each in self.snapshot.pods[index].spread
            if each.topology_key != HOSTNAME
        }
        return [
            (own, key, {node.labels.get(key) for node in self.snapshot.nodes
                        if own.selects(selectable(node))})
            for own, key in spreads
        ]  # fmt: skip

    def tolerant(self, pod: Pod) -> bool:
        """Whether the pod's workload tolerates spot instances."""
        return not self.refusals[workload_of(pod)]

    def name_of(self, index: int) -> tuple[str, str]:
        """Namespace and name of a pod of the snapshot."""
        pod = self.snapshot.pods[index]
        return pod.namespace, pod.name

    def price(self, node: Node) -> float:
        """What the node costs per hour; those without a price are left out."""
        price = price_of(self.types[node.instance_type], node.zone, node.market)
        assert price is not None  # noqa: S101 - _split left the others out
        return price

    def outside(self, needs: Needs) -> dict[int, int]:
        """See Problem.outside."""
        found: dict[int, int] = {}
        for term, _ in needs.spread:
            for each in self.left_out:
                if needs.own.selects(selectable(each.node)):
                    here = self._pods_left_out.get(each.node.name, ())
                    pods = sum(
                        term in self.terms.matching(pod.namespace, pod.labels)[0] for pod in here
                    )
                    found[term] = min(pods, found.get(term, pods))
        return found

    @cached_property
    def requests_by_node(self) -> dict[str, list[Amounts]]:
        """What each pod that the plan places takes of its node now."""
        found: dict[str, list[Amounts]] = defaultdict(list)
        for index in self.pods:
            pod = self.snapshot.pods[index]
            found[pod.node].append(overhead_of(pod.demand))
        return found

    def overhead(self, node: Node) -> Amounts:
        """What DaemonSets' and static pods request of a node that exists."""
        static = self.static.get(node.name, {}).values()
        return total([self.daemons.requests(node.labels, binding_taints(node)), *static])

    def vector(self, allocatable: Amounts, used: Iterable[Amounts] = ()) -> list[int]:
        """What is free, in the order of `resources`. Each host port of a node is there once."""
        taken = total(used)
        return [
            (1 if name.startswith(_PORT) else allocatable.get(name, 0)) - taken.get(name, 0)
            for name in self.resources
        ]


def is_daemon(pod: Pod) -> bool:
    """Whether a DaemonSet runs the pod."""
    return pod.owner.startswith(_DAEMON_SET)


def _split(
    snapshot: Snapshot, types: Mapping[str, InstanceType]
) -> tuple[list[LeftOut], list[Node]]:
    """Nodes without a price, with the reason; and those with one."""
    without, having = [], []
    for node in snapshot.nodes:
        if reason := _no_price(node, types):
            without.append(LeftOut(node, reason))
        else:
            having.append(node)
    return without, having


def _no_price(node: Node, types: Mapping[str, InstanceType]) -> str:
    if node.fargate:
        return "Fargate"
    if node.os != "linux":
        return node.os.capitalize()
    kind = types.get(node.instance_type)
    if kind is None:
        return f"no price for {node.instance_type or 'an unknown type'}"
    if price_of(kind, node.zone, node.market) is None:
        where = f" on spot in {node.zone}" if node.market == SPOT else ""
        return f"no price for {node.instance_type}{where}"
    return ""


class _Daemons:
    """Which DaemonSets run on a node with given labels and taints."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._sets = snapshot.daemon_sets
        self._signatures = [Signature(each.demand) for each in self._sets]
        self._keys = sorted({key for signature in self._signatures for key in signature.keys})
        self._running = cache(self._find)
        self._requests = cache(self._sum)

    def running(self, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> tuple[int, ...]:
        """Their numbers in the snapshot."""
        return self._running(tuple(map(labels.get, self._keys)), taints)

    def requests(self, labels: Mapping[str, str], taints: tuple[Taint, ...]) -> Amounts:
        """What they request there, host ports included."""
        return self._requests(self.running(labels, taints))

    def _find(self, values: tuple[str | None, ...], taints: tuple[Taint, ...]) -> tuple[int, ...]:
        labels = {key: v for key, v in zip(self._keys, values, strict=True) if v is not None}
        return tuple(
            number
            for number, signature in enumerate(self._signatures)
            if signature.tolerates(taints) and signature.selects(labels)
        )

    def _sum(self, numbers: tuple[int, ...]) -> Amounts:
        return total(overhead_of(self._sets[number].demand) for number in numbers)


def overhead_of(demand: Demand) -> Amounts:
    """What a pod takes of its node: its requests, one of the pods, its host ports."""
    return {**demand.requests, PODS: 1} | {f"{_PORT}{port}": 1 for port in demand.host_ports}


def _static(snapshot: Snapshot, nodes: Collection[str]) -> dict[str, dict[str, Amounts]]:
    """By node, by name without the node's: what static pods request."""
    found: dict[str, dict[str, Amounts]] = defaultdict(dict)
    for pod in snapshot.pods:
        if pod.static and pod.node in nodes:
            name = pod.name.removesuffix(f"-{pod.node}")
            found[pod.node][f"{pod.namespace}/{name}"] = overhead_of(pod.demand)
    return found


def _resources(pods: Iterable[Pod]) -> list[str]:
    """Processor, memory and pods first; then what else a pod asks for, and host ports."""
    named = {name for pod in pods for name in pod.demand.requests}
    ports = {f"{_PORT}{port}" for pod in pods for port in pod.demand.host_ports}
    return [CPU, MEMORY, PODS, *sorted(named - {CPU, MEMORY, PODS}), *sorted(ports)]


class _Terms:
    """The pods' required terms about other pods.

    Those about the same node are terms of the packing. Those about a zone, or another domain of
    several nodes, are not: the pods that have them, and those that they match, stay in the domain
    where they are, so that they hold as they hold now.
    """

    def __init__(self, pods: Iterable[Pod]) -> None:
        pods = list(pods)
        self.host: dict[HostTerm, int] = {}
        self._wide: dict[HostTerm, set[str]] = defaultdict(set)
        for pod in pods:
            for each in _terms_of(pod):
                term = _term(pod, each)
                if each.topology_key == HOSTNAME:
                    self.host.setdefault(term, len(self.host))
                else:
                    self._wide[term].add(each.topology_key)
        terms = dict.fromkeys((*self.host, *self._wide))
        self._keys = sorted({r.key for term in terms for r in term.selector})
        self._by_label: dict[tuple[str, str], list[HostTerm]] = defaultdict(list)
        self._others: list[HostTerm] = []
        for term in terms:
            named = next((r for r in term.selector if r.operator == "In"), None)
            if named is None:
                self._others.append(term)
                continue
            for value in named.values:
                self._by_label[named.key, value].append(term)
        self._matched = cache(self._match)

    def of(self, pod: Pod, kind: Iterable[PodTerm]) -> tuple[int, ...]:
        """The terms about a pod's own node, by number."""
        return tuple(
            self.host[_term(pod, each)] for each in kind if each.topology_key == HOSTNAME
        )  # fmt: skip

    def spread_of(self, pod: Pod) -> tuple[tuple[int, int], ...]:
        return tuple(
            (self.host[_term(pod, each)], each.max_skew)
            for each in pod.spread
            if each.topology_key == HOSTNAME
        )

    def matching(
        self, namespace: str, labels: Mapping[str, str]
    ) -> tuple[frozenset[int], frozenset[str]]:
        """Terms about nodes that match such pods; topology keys of other terms that do."""
        return self._matched(namespace, tuple(map(labels.get, self._keys)))

    def _match(
        self, namespace: str, values: tuple[str | None, ...]
    ) -> tuple[frozenset[int], frozenset[str]]:
        labels = {k: v for k, v in zip(self._keys, values, strict=True) if v is not None}

        candidates = [*self._others]
        for label in labels.items():
            candidates += self._by_label.get(label, ())
        found = [
            term
            for term in candidates
            if (term.namespaces is None or namespace in term.namespaces)
            and matches(term.selector, labels)
        ]
        host = frozenset(self.host[term] for term in found if term in self.host)
        return host, frozenset().union(*(self._wide[term] for term in found if term in self._wide))


def _terms_of(pod: Pod) -> list[PodTerm | Spread]:
    return [*pod.affinity, *pod.anti_affinity, *pod.spread]


def _term(pod: Pod, each: PodTerm | Spread) -> HostTerm:
    if isinstance(each, Spread):
        return HostTerm(each.selector, frozenset({pod.namespace}))
    if each.namespaces is None:
        return HostTerm(each.selector, None)
    return HostTerm(each.selector, frozenset(each.namespaces or {pod.namespace}))


def _needs(cluster: Cluster, pods: Sequence[Pod]) -> list[Needs]:
    """Of each of the pods, without markets, which a step decides; like pods share the object."""
    accelerators = {name for kind in cluster.types.values() for name in kind.accelerators}
    signatures: dict[Any, Signature] = {}
    found: dict[Any, Needs] = {}

    def signature(demand: Demand, further: Term = ()) -> Signature:
        selector = tuple(sorted(demand.node_selector.items()))
        key = (selector, demand.node_terms, demand.tolerations, further)
        if key not in signatures:
            signatures[key] = Signature(demand, further)
        return signatures[key]

    def needs(pod: Pod) -> Needs:
        node = cluster.node_at[pod.node]
        host, wide = cluster.terms.matching(pod.namespace, pod.labels)
        wide |= {each.topology_key for each in _terms_of(pod) if each.topology_key != HOSTNAME}
        further = tuple(stays_in(key, node.labels) for key in sorted(wide))
        own = signature(pod.demand)
        own_family = family(node.instance_type) if accelerators & set(pod.demand.requests) else ""
        asked = overhead_of(pod.demand)
        made = Needs(
            requests=tuple(asked.get(name, 0) for name in cluster.resources),
            signature=signature(pod.demand, further),
            own=own,
            markets=frozenset({node.market}),
            arch="" if set(own.keys) & set(ARCH_LABELS) else node.arch,
            family=own_family,
            anti_affinity=cluster.terms.of(pod, pod.anti_affinity),
            affinity=cluster.terms.of(pod, pod.affinity),
            spread=cluster.terms.spread_of(pod),
            matched=host,
        )
        return found.setdefault(made, made)

    return [needs(pod) for pod in pods]


@dataclass
class Existing:
    """Nodes that exist and are alike."""

    count: int
    price: float
    free: Ints
    """The most that one of them has for pods."""
    may: Bools
    """By group: whether one of its pods runs on them now, or could."""


@dataclass
class Problem:
    """One step: what may go where. A column is an offer, or a node that is kept.

    Rows of `eligible` are groups; rows of `free` are columns, its columns are resources.
    """

    cluster: Cluster
    step: Step
    groups: list[Group]
    kept: list[Node]
    requests: Ints
    counts: Ints
    eligible: Bools
    domain: Bools
    """Whether a node of the column counts as a domain of the group's topology spread."""
    outside: list[dict[int, int]]
    """By group, by term of its topology spread: the fewest matching pods on a node that is left
    out and yet a domain. Without an entry there is none."""
    free: Ints
    prices: Floats
    """0 for a kept node: it is paid anyway."""
    home: Bools
    """Whether a pod of the group runs on the kept node now."""
    existing: list[Existing]
    """Nodes that are not kept, and could be: a packing of an earlier step may keep them."""
    pinned: list[tuple[int, int, Needs]]
    """(pod, column of the kept node, its needs): pods that stay where they are."""

    @property
    def offers(self) -> int:
        """Number of offers: the kept nodes' columns follow."""
        return len(self.prices) - len(self.kept)

    @property
    def kept_cost(self) -> float:
        return float(sum(self.cluster.price(node) for node in self.kept))


class Step:
    """What a step allows: offers and markets."""

    def __init__(self, cluster: Cluster, *, all_types: bool, spot: bool) -> None:
        self.cluster = cluster
        self.offers = [
            offer for offer in cluster.offers if all_types or offer.kind.name in cluster.in_use
        ]
        self._columns: dict[Any, Bools] = {}
        self._fits = cache(lambda needs: bool(self._offered(needs).any()))
        free = [cluster.vector(offer.allocatable, [offer.overhead]) for offer in self.offers]
        self._free = np.array(free, dtype=np.int64).reshape(-1, len(cluster.resources))
        self.needs = [
            self._with_market(needs, cluster.snapshot.pods[index], spot=spot)
            for index, needs in zip(cluster.pods, cluster.needs, strict=True)
        ]

    def _with_market(self, needs: Needs, pod: Pod, *, spot: bool) -> Needs:
        if not spot or not self.cluster.tolerant(pod) or SPOT in needs.markets:
            return needs
        return replace(needs, markets=needs.markets | {SPOT})

    def problem(self, stuck: Collection[int] = ()) -> Problem:
        """`stuck`: pods that have to stay where they are, beside those that fit no offer."""
        cluster = self.cluster
        pinned = self._pinned(stuck)
        kept = sorted({cluster.snapshot.pods[index].node for index in pinned})
        nodes = [cluster.node_at[name] for name in kept]
        column = {name: len(self.offers) + at for at, name in enumerate(kept)}
        groups: dict[Needs, Group] = {}
        for index, needs in zip(cluster.pods, self.needs, strict=True):
            if index not in pinned:
                groups.setdefault(needs, Group(needs)).pods.append(index)
        # By name, so that the order in which the pods were listed changes nothing.
        for group in groups.values():
            group.pods.sort(key=cluster.name_of)
        listed = sorted(groups.values(), key=lambda group: cluster.name_of(group.pods[0]))
        return Problem(
            cluster=cluster,
            step=self,
            groups=listed,
            kept=nodes,
            requests=np.array([g.needs.requests for g in listed], dtype=np.int64).reshape(
                len(listed), len(cluster.resources)
            ),
            counts=np.array([len(g.pods) for g in listed], dtype=np.int64),
            eligible=self._table(listed, nodes, self._offered, self._on_kept),
            domain=self._table(listed, nodes, self._domain, _in_domain),
            outside=[cluster.outside(group.needs) for group in listed],
            free=np.vstack([self._free, *self._kept_free(nodes, pinned)]),
            home=self._home(listed, kept),
            existing=self._existing(listed, set(kept)),
            prices=np.array([offer.price for offer in self.offers] + [0.0] * len(nodes)),
            pinned=[
                (index, column[cluster.snapshot.pods[index].node], needs)
                for index, needs in pinned.items()
            ],
        )

    def _home(self, groups: Sequence[Group], kept: Sequence[str]) -> Bools:
        pods = self.cluster.snapshot.pods
        table = np.zeros((len(groups), len(kept)), dtype=np.bool_)
        at = {name: column for column, name in enumerate(kept)}
        for row, group in zip(table, groups, strict=True):
            row[[at[pods[index].node] for index in group.pods if pods[index].node in at]] = True
        return table

    def _existing(self, groups: Sequence[Group], kept: Collection[str]) -> list[Existing]:
        cluster = self.cluster
        alike: dict[Any, list[Node]] = defaultdict(list)
        for node in cluster.nodes:
            if node.name not in kept:
                labels = tuple(node.labels.get(key) for key in cluster.asked if key != HOSTNAME)
                place = (node.instance_type, node.zone, node.market, node.unschedulable)
                alike[place, binding_taints(node), labels].append(node)
        runs: dict[str, set[int]] = defaultdict(set)
        for row, group in enumerate(groups):
            for index in group.pods:
                runs[cluster.snapshot.pods[index].node].add(row)
        return [self._alike(nodes, groups, runs) for nodes in alike.values()]

    def _alike(
        self, nodes: Sequence[Node], groups: Sequence[Group], runs: Mapping[str, set[int]]
    ) -> Existing:
        may = np.array([_kept_accepts(group.needs, nodes[0]) for group in groups], dtype=np.bool_)
        for node in nodes:
            may[list(runs[node.name])] = True
        pods: dict[str, list[Amounts]] = self.cluster.requests_by_node
        free = [
            np.maximum(
                self.cluster.vector(node.allocatable, [self.cluster.overhead(node)]),
                -np.array(self.cluster.vector({}, pods.get(node.name, ())), dtype=np.int64),
            )
            for node in nodes
        ]
        return Existing(len(nodes), self.cluster.price(nodes[0]), np.max(free, axis=0), may)

    def _pinned(self, stuck: Collection[int]) -> dict[int, Needs]:
        """Pods that stay: those that fit no offer, `stuck` ones, and all beside one that needs
        others on its node.
        """
        pods = self.cluster.snapshot.pods
        together: set[str] = set()
        while True:
            pinned = {
                index: needs
                for index, needs in zip(self.cluster.pods, self.needs, strict=True)
                if index in stuck
                or pods[index].node in together
                or self.cluster.stays(pods[index], needs)
                or not self._fits(needs)
            }
            nodes = {pods[index].node for index, needs in pinned.items() if needs.affinity}
            if nodes <= together:
                return pinned
            together |= nodes

    def _table(
        self,
        groups: Sequence[Group],
        kept: Sequence[Node],
        offered: Callable[[Needs], Bools],
        on_kept: Callable[[Needs, Node], bool],
    ) -> Bools:
        """A row for each group, a column for each offer and each kept node."""
        table = np.zeros((len(groups), len(self.offers) + len(kept)), dtype=np.bool_)
        for row, group in zip(table, groups, strict=True):
            row[: len(self.offers)] = offered(group.needs)
            row[len(self.offers) :] = [on_kept(group.needs, node) for node in kept]
        return table

    def _offered(self, needs: Needs) -> Bools:
        """The offers that can take such a pod while they are empty."""
        avoided = self.cluster.avoided_daemons(needs)
        key = (needs.signature, needs.markets, needs.arch, needs.family, avoided)
        if key not in self._columns:
            self._columns[key] = np.array(
                [
                    _accepts(needs, offer)
                    and self._without(avoided, offer.labels, offer.profile.taints)
                    for offer in self.offers
                ],
                dtype=np.bool_,
            )
        fits = np.all(self._free >= np.array(needs.requests, dtype=np.int64), axis=1)
        return np.logical_and(self._columns[key], fits)

    def _without(
        self, daemons: frozenset[int], labels: Mapping[str, str], taints: tuple[Taint, ...]
    ) -> bool:
        """Whether none of these DaemonSets runs on such a node."""
        return not daemons or daemons.isdisjoint(self.cluster.daemons.running(labels, taints))

    def _on_kept(self, needs: Needs, node: Node) -> bool:
        avoided = self.cluster.avoided_daemons(needs)
        return _kept_accepts(needs, node) and self._without(
            avoided, node.labels, binding_taints(node)
        )

    def _domain(self, needs: Needs) -> Bools:
        if not needs.spread:
            return np.zeros(len(self.offers), dtype=np.bool_)
        return np.array([needs.own.selects(offer.labels) for offer in self.offers], dtype=np.bool_)

    def _kept_free(self, nodes: Iterable[Node], pinned: Iterable[int]) -> Iterable[list[int]]:
        pods: dict[str, list[Amounts]] = defaultdict(list)
        for index in pinned:
            pod = self.cluster.snapshot.pods[index]
            pods[pod.node].append(overhead_of(pod.demand))
        for node in nodes:
            used = [self.cluster.overhead(node), *pods[node.name]]
            yield [max(0, free) for free in self.cluster.vector(node.allocatable, used)]


def _accepts(needs: Needs, offer: Offer) -> bool:
    return (
        offer.market in needs.markets
        and needs.arch in ("", offer.kind.arch)
        and needs.family in ("", family(offer.kind.name))
        and needs.signature.tolerates(offer.profile.taints)
        and needs.signature.selects(offer.labels)
    )


def _kept_accepts(needs: Needs, node: Node) -> bool:
    return (
        not node.unschedulable
        and node.market in needs.markets
        and needs.arch in ("", node.arch)
        and needs.family in ("", family(node.instance_type))
        and needs.signature.tolerates(binding_taints(node))
        and needs.signature.selects(selectable(node))
    )


def _in_domain(needs: Needs, node: Node) -> bool:
    return bool(needs.spread) and needs.own.selects(selectable(node))
