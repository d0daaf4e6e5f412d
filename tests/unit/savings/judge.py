"""A judge of packings, from the rules that Kubernetes documents.

It shares only the data model with the planner, so that a fault of the planner cannot hide in both.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from savings.prices import InstanceType, Prices
from savings.snapshot import DaemonSet, Demand, Node, Pod, PodTerm, Snapshot, Spread, Taint, Term

if TYPE_CHECKING:
    from savings.plan import Packing, PlannedNode

HOSTNAME = "kubernetes.io/hostname"
ZONE_KEYS = (
    "topology.kubernetes.io/zone",
    "failure-domain.beta.kubernetes.io/zone",
    "topology.ebs.csi.aws.com/zone",
)
ARCH_KEYS = ("kubernetes.io/arch", "beta.kubernetes.io/arch")
PASSING = (
    "node.kubernetes.io/",
    "node.cloudprovider.kubernetes.io/",
    "ToBeDeletedByClusterAutoscaler",
    "DeletionCandidateOfClusterAutoscaler",
    "karpenter.sh/disrupt",
    "aws-node-termination-handler/",
    "autoscaling.cast.ai/",
    "castai-eks/",
)
NEARLY = 1e-6  # per hour: sums of floats differ by less
MIB = 2**20


@dataclass
class Host:
    """A node of the final state with all its pods."""

    name: str
    """Empty: new."""
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    daemons: list[DaemonSet] = field(default_factory=list)
    fixed: list[Pod] = field(default_factory=list)
    """Static pods, and all pods of a node that is left out."""
    pods: list[Pod] = field(default_factory=list)

    def everything(self) -> Iterator[Pod | DaemonSet]:
        """All that runs there."""
        yield from (*self.daemons, *self.fixed, *self.pods)

    def overhead(self) -> Counter[str]:
        """What runs there in any case."""
        return sum((used(each.demand) for each in (*self.daemons, *self.fixed)), Counter())


# Kubernetes' rules --------------------------------------------------------------------------------


def fulfils(labels: Mapping[str, str], term: Term) -> bool:
    """Whether labels match all requirements of a label selector or node selector term."""
    for each in term:
        there, value = each.key in labels, labels.get(each.key, "")
        holds = {
            "In": there and value in each.values,
            "NotIn": not there or value not in each.values,
            "Exists": there,
            "DoesNotExist": not there,
        }
        if each.operator in holds:
            if not holds[each.operator]:
                return False
        else:
            if not value.lstrip("-").isdigit():
                return False
            difference = int(value) - int(each.values[0])
            if difference <= 0 if each.operator == "Gt" else difference >= 0:
                return False
    return True


def wants(demand: Demand, name: str, labels: Mapping[str, str]) -> bool:
    """Whether node selector and required node affinity select the node."""
    with_name = {**labels, "metadata.name": name}
    return all(labels.get(key) == value for key, value in demand.node_selector.items()) and all(
        any(fulfils(with_name, term) for term in terms) for terms in demand.node_terms
    )


def lasting(taints: Iterable[Taint]) -> tuple[Taint, ...]:
    """Taints that keep pods away and do not pass by themselves."""
    kinds = ("NoSchedule", "NoExecute")
    return tuple(t for t in taints if t.effect in kinds and not t.key.startswith(PASSING))


def repelled(demand: Demand, taints: Iterable[Taint]) -> list[Taint]:
    """The taints that the pod does not tolerate."""

    def tolerated(taint: Taint) -> bool:
        for each in demand.tolerations:
            same_key = each.key == taint.key or (not each.key and each.operator == "Exists")
            same_value = each.operator == "Exists" or each.value == taint.value
            if same_key and same_value and each.effect in ("", taint.effect):
                return True
        return False

    return [taint for taint in taints if not tolerated(taint)]


def meant(of: Pod, term: PodTerm | Spread, other: Pod | DaemonSet) -> bool:
    """Whether a pod's term is about the other pod."""
    spaces = () if isinstance(term, Spread) else term.namespaces
    if spaces is not None and other.namespace not in (spaces or (of.namespace,)):
        return False
    return fulfils(other.labels, term.selector)


def used(demand: Demand) -> Counter[str]:
    """What a pod takes of its node; a host port is a resource of which each node has one."""
    ports = {f"port:{port}": 1 for port in demand.host_ports}
    return Counter({**demand.requests, "pods": 1, **ports})


def selects(each: DaemonSet, name: str, labels: Mapping[str, str], taints: Iterable[Taint]) -> bool:
    """Whether the DaemonSet runs a pod on the node."""
    return wants(each.demand, name, labels) and not repelled(each.demand, taints)


def left_out(node: Node, types: Mapping[str, InstanceType]) -> bool:
    """Whether the estimate says nothing about the node."""
    kind = types.get(node.instance_type)
    return node.fargate or node.os != "linux" or kind is None or price_of(kind, node) is None


def price_of(kind: InstanceType, node: Node | PlannedNode) -> float | None:
    """Per hour."""
    spot = kind.spot.get(node.zone)
    return kind.on_demand if node.market == "on-demand" else spot.now if spot else None


# What EKS gives -----------------------------------------------------------------------------------


def given(kind: InstanceType, *, prefixes: bool) -> dict[str, int]:
    """What pods can request of a node: the rule of docs/savings.md."""
    pods = kind.interfaces * (kind.addresses - 1) + 2
    if prefixes:
        pods = 110 if kind.vcpus < 30 else 250
    reserved = sum([60, 10, 5, 5][: kind.vcpus]) + 2.5 * max(0, kind.vcpus - 4)
    return {
        "cpu": kind.vcpus * 1000 - int(reserved),
        "memory": kind.memory * 925 // 1000 - (11 * pods + 255 + 100) * MIB,
        "pods": pods,
        **kind.accelerators,
    }


def well_known(kind: InstanceType, node: Node | PlannedNode, region: str) -> dict[str, str]:
    """Labels that kubelet and node managers set on an instance."""
    spot = node.market == "spot"
    return {
        **dict.fromkeys(ZONE_KEYS, node.zone),
        **dict.fromkeys(ARCH_KEYS, kind.arch),
        **dict.fromkeys(("kubernetes.io/os", "beta.kubernetes.io/os"), "linux"),
        "node.kubernetes.io/instance-type": kind.name,
        "beta.kubernetes.io/instance-type": kind.name,
        "topology.kubernetes.io/region": region,
        "failure-domain.beta.kubernetes.io/region": region,
        "eks.amazonaws.com/capacityType": "SPOT" if spot else "ON_DEMAND",
        "karpenter.sh/capacity-type": "spot" if spot else "on-demand",
        "karpenter.k8s.aws/instance-category": kind.name[0],
        "karpenter.k8s.aws/instance-cpu": str(kind.vcpus),
        **({"scheduling.cast.ai/spot": "true"} if spot else {}),
    }


# Pods about each other ----------------------------------------------------------------------------


def excluded(hosts: Iterable[Host]) -> Iterator[str]:
    """Pods that share a domain with a pod of their anti-affinity."""
    domains = _Domains(hosts)
    for pod, host in domains.owners(lambda pod: pod.anti_affinity):
        for term in pod.anti_affinity:
            for other in domains.beside(host, term.topology_key):
                if other is not pod and meant(pod, term, other):
                    yield f"{pod.name} and {other.name} exclude each other by {term.topology_key}"


def lonely(hosts: Iterable[Host]) -> Iterator[str]:
    """Pods without a pod of their affinity. kube-scheduler counts a pod only if all terms are about
    it. The first one may be its own; so the pods with the same terms can begin in one domain.
    """
    domains = _Domains(hosts)
    begun: dict[tuple[str, object], set[str]] = defaultdict(set)
    for pod, host in domains.owners(lambda pod: pod.affinity):
        for key in sorted({term.topology_key for term in pod.affinity}):
            found = [
                other
                for other in domains.beside(host, key)
                if all(meant(pod, term, other) for term in pod.affinity)
            ]
            if not found:
                yield f"{pod.name} misses a pod of its affinity by {key}"
            elif all(isinstance(o, Pod) and _company(o) == _company(pod) for o in found):
                begun[key, _company(pod)].add(host.labels[key])
    for (key, _), values in begun.items():
        if len(values) > 1:
            yield f"the pods of one affinity by {key} begin in {sorted(values)}"


def _company(pod: Pod) -> object:
    """The pods that it needs beside it."""
    return frozenset(
        (
            term.topology_key,
            term.selector,
            None if term.namespaces is None else (term.namespaces or (pod.namespace,)),
        )
        for term in pod.affinity
    )


def skewed(hosts: Iterable[Host]) -> Iterator[str]:
    """Spread constraints of pods that are placed anew, and do not hold over the domains that the
    pod's own selector allows. kube-scheduler evicts no pod that runs when a domain is added.
    """
    hosts = list(hosts)
    seen = set()
    for host in hosts:
        for pod in host.pods:
            for spread in pod.spread if pod.node != host.name else ():
                key = spread.topology_key
                alike = (
                    spread,
                    pod.namespace,
                    pod.demand.node_terms,
                    tuple(sorted(pod.demand.node_selector.items())),
                    host.labels.get(key),
                )
                if alike in seen:
                    continue
                seen.add(alike)
                counts = spread_counts(pod, spread, hosts)
                if host.labels.get(key) not in counts:
                    yield f"{pod.name} is in no domain of its spread by {key}"
                elif (more := counts[host.labels[key]] - min(counts.values())) > spread.max_skew:
                    yield f"{pod.name} is spread by {key} with a skew of {more}: {dict(counts)}"


def spread_counts(pod: Pod, spread: Spread, hosts: Iterable[Host]) -> Counter[str]:
    """By eligible domain: pods that the constraint counts."""
    counts: Counter[str] = Counter()
    keys = [each.topology_key for each in pod.spread]
    for host in hosts:
        if all(key in host.labels for key in keys) and wants(pod.demand, host.name, host.labels):
            number = sum(meant(pod, spread, other) for other in host.everything())
            counts[host.labels[spread.topology_key]] += number
    return counts


class _Domains:
    def __init__(self, hosts: Iterable[Host]) -> None:
        self._hosts = list(hosts)
        self._by: dict[tuple[str, str], list[Host]] = defaultdict(list)
        for host in self._hosts:
            for item in host.labels.items():
                self._by[item].append(host)

    def owners(self, terms: Callable[[Pod], Collection[PodTerm]]) -> Iterator[tuple[Pod, Host]]:
        for host in self._hosts:
            for pod in host.pods:
                if terms(pod):
                    yield pod, host

    def beside(self, host: Host, key: str) -> Iterator[Pod | DaemonSet]:
        """All pods of the host's domain."""
        for other in self._by.get((key, host.labels.get(key, "")), ()):
            yield from other.everything()


# The judgement ------------------------------------------------------------------------------------

Name = tuple[str, str]


def _part(given: int | str, total: int) -> int:
    """A number of pods, or a percentage of all, rounded up."""
    return given if isinstance(given, int) else -(-int(given.rstrip("%")) * total // 100)


class Judge:
    """What the judge knows of a cluster."""

    def __init__(self, snapshot: Snapshot, prices: Prices, tolerant: Collection[Name]) -> None:
        """`tolerant`: namespace and owner of the workloads that tolerate spot."""
        self.snapshot = snapshot
        self.tolerant = tolerant
        self.types = {kind.name: kind for kind in prices.types}
        self.nodes = {n.name: n for n in snapshot.nodes if not left_out(n, self.types)}
        self.others = [n for n in snapshot.nodes if n.name not in self.nodes]
        self.moving = {
            at
            for at, pod in enumerate(snapshot.pods)
            if pod.node in self.nodes and not pod.static and not pod.owner.startswith("DaemonSet/")
        }
        self.static: dict[str, list[Pod]] = defaultdict(list)
        for pod in snapshot.pods:
            if pod.static:
                self.static[pod.node].append(pod)
        self.asked = self._asked()
        self.in_use = {node.instance_type for node in self.nodes.values()}
        self.prefixes = any(
            n.allocatable["pods"] > given(self.types[n.instance_type], prefixes=False)["pods"]
            for n in self.nodes.values()
        )
        self.stay = self._stay()

    def cost_now(self, *, occupied: bool = False) -> float:
        """Of the nodes that are not left out, per hour; of those with pods to place, if asked."""
        with_pods = {self.snapshot.pods[at].node for at in self.moving}
        return sum(
            price_of(self.types[node.instance_type], node) or 0.0
            for node in self.nodes.values()
            if node.name in with_pods or not occupied
        )

    def tolerant_workloads(self) -> set[Name]:
        """Workloads that tolerate spot: the rule of docs/savings.md."""
        replicas = {(each.namespace, each.owner): each.replicas for each in self.snapshot.workloads}
        pods: dict[Name, list[Pod]] = defaultdict(list)
        for at in self.moving:
            pod = self.snapshot.pods[at]
            pods[pod.namespace, pod.owner or f"Pod/{pod.name}"].append(pod)
        return {
            name
            for name, of in pods.items()
            if name[1].split("/")[0] not in ("Pod", "Job", "CronJob")
            and replicas.get(name, len(of)) >= 2
            and all(self._survives(pod) for pod in of)
        }

    def _survives(self, pod: Pod) -> bool:
        """Whether the pod can be evicted in time and run on spot."""
        if pod.local_volumes or pod.opt_outs or pod.grace > 115:
            return False
        spot = {
            "eks.amazonaws.com/capacityType": "SPOT",
            "karpenter.sh/capacity-type": "spot",
            "scheduling.cast.ai/spot": "true",
        }
        chosen = {key: value for key, value in pod.demand.node_selector.items() if key in spot}
        possible = all(
            any(fulfils(spot, tuple(r for r in term if r.key in spot)) for term in terms)
            for terms in pod.demand.node_terms
        )
        return possible and chosen.items() <= spot.items() and not self._guarded(pod)

    def _guarded(self, pod: Pod) -> bool:
        """Whether a budget never allows to evict it."""
        for budget in self.snapshot.budgets:
            selector = budget.selector
            if selector is None or budget.namespace != pod.namespace:
                continue
            if fulfils(pod.labels, selector):
                of = [p for p in self.snapshot.pods if p.namespace == pod.namespace]
                total = sum(fulfils(each.labels, selector) for each in of)
                most = budget.max_unavailable
                least = 0 if budget.min_available is None else budget.min_available
                if most is not None and _part(most, total) < 1:
                    return True
                if most is None and total - _part(least, total) < 1:
                    return True
        return False

    def faults(self, packing: Packing, *, step: int) -> list[str]:
        """What is wrong with a packing of step 1, 2 or 3. Empty: nothing."""
        found = list(self._bookkeeping(packing))
        if found:
            return found
        hosts = self.hosts(packing)
        found += self._node_faults(packing, hosts, step)
        for index, at in packing.placed:
            found += self._pod_faults(self.snapshot.pods[index], packing.nodes[at], hosts[at], step)
        everywhere = [*hosts, *(self._host_left_out(node) for node in self.others)]
        return [*found, *excluded(everywhere), *lonely(everywhere), *skewed(everywhere)]

    def hosts(self, packing: Packing) -> list[Host]:
        """The final state."""
        hosts = []
        for at, node in enumerate(packing.nodes):
            if node.name:
                seen = self.nodes[node.name]
                host = Host(node.name, dict(seen.labels), lasting(seen.taints))
                host.fixed = list(self.static[node.name])
            else:
                host = Host("", {**node.labels, HOSTNAME: f"new-{at}"}, node.taints)
            host.daemons = [
                each
                for each in self.snapshot.daemon_sets
                if selects(each, host.name, host.labels, host.taints)
            ]
            hosts.append(host)
        for index, at in packing.placed:
            hosts[at].pods.append(self.snapshot.pods[index])
        return hosts

    def _host_left_out(self, node: Node) -> Host:
        host = Host(node.name, dict(node.labels), lasting(node.taints))
        host.fixed = [pod for pod in self.snapshot.pods if pod.node == node.name]
        return host

    def _asked(self) -> set[str]:
        """Label keys by which pods or DaemonSets choose nodes."""
        pods = [self.snapshot.pods[at] for at in self.moving]
        demands = [each.demand for each in (*pods, *self.snapshot.daemon_sets)]
        keys = {key for demand in demands for key in demand.node_selector}
        keys |= {r.key for d in demands for terms in d.node_terms for term in terms for r in term}
        for pod in pods:
            terms = (*pod.affinity, *pod.anti_affinity, *pod.spread)
            keys |= {each.topology_key for each in terms}
        return keys - {"metadata.name"}

    def _stay(self) -> dict[tuple[str, str], set[str]]:
        """By namespace and name of a pod: topology keys, other than the host's name, of terms that
        it has or that are about it. It stays in these domains.
        """
        keys: dict[tuple[str, str], set[str]] = defaultdict(set)
        pods = [self.snapshot.pods[at] for at in self.moving]
        for pod in pods:
            for term in (*pod.affinity, *pod.anti_affinity, *pod.spread):
                if term.topology_key == HOSTNAME:
                    continue
                keys[pod.namespace, pod.name].add(term.topology_key)
                for other in pods:
                    if meant(pod, term, other):
                        keys[other.namespace, other.name].add(term.topology_key)
        return keys

    def _bookkeeping(self, packing: Packing) -> Iterator[str]:
        times = Counter(index for index, _ in packing.placed)
        for index in sorted(self.moving | set(times)):
            name = self.snapshot.pods[index].name
            if index not in self.moving:
                yield f"{name} has no place to be given"
            elif times[index] != 1:
                yield f"{name} is placed {times[index]} times"
        yield from self._wrong_nodes(packing)
        cost = sum(node.price for node in packing.nodes)
        if packing.lower_bound > cost + NEARLY:
            yield f"the cost of {cost} is below the bound of {packing.lower_bound}"

    def _wrong_nodes(self, packing: Packing) -> Iterator[str]:
        names = Counter(node.name for node in packing.nodes if node.name)
        for name, count in names.items():
            if count > 1:
                yield f"node {name} is kept {count} times"
            if name not in self.nodes:
                yield f"node {name} does not exist"
        for node in packing.nodes:
            if node.instance_type not in self.types:
                yield f"{node.instance_type} has no price"
        for _, at in packing.placed:
            if not 0 <= at < len(packing.nodes):
                yield f"a pod is placed on node number {at}"
        hosts = Counter(node.labels.get(HOSTNAME) for node in packing.nodes)
        for host, count in hosts.items():
            if host is not None and count > 1:
                yield f"{count} nodes have the host's name {host}"

    def _node_faults(self, packing: Packing, hosts: list[Host], step: int) -> Iterator[str]:
        as_now = self._as_now(packing)
        for at, (node, host) in enumerate(zip(packing.nodes, hosts, strict=True)):
            name = node.name or f"node number {at} ({node.instance_type})"
            yield from (f"{name}: {fault}" for fault in self._kind_faults(node, step))
            takes = host.overhead()
            for what, number in takes.items():
                if number > (said := node.overhead.get(what, 0)):
                    yield f"{name}: DaemonSets take {number} {what}, not {said}"
            takes |= Counter(node.overhead)
            for pod in host.pods:
                takes += used(pod.demand)
            for what, number in takes.items():
                there = 1 if what.startswith("port:") else node.allocatable.get(what, 0)
                if number > there and not as_now:
                    yield f"{name}: {number} {what} of {there}"

    def _as_now(self, packing: Packing) -> bool:
        names = {node.name for node in packing.nodes}
        return names == set(self.nodes) and all(
            self.snapshot.pods[index].node == packing.nodes[at].name for index, at in packing.placed
        )

    def _kind_faults(self, node: PlannedNode, step: int) -> Iterator[str]:
        """Of a node without its pods."""
        kind = self.types[node.instance_type]
        if node.price != price_of(kind, node):
            yield f"its price is {price_of(kind, node)}, not {node.price}"
        if node.name:
            seen = self.nodes[node.name]
            if (node.instance_type, node.market, node.zone, dict(node.allocatable)) != (
                seen.instance_type, seen.market, seen.zone, seen.allocatable,
            ):  # fmt: skip
                yield "it is kept, and differs from the node that exists"
            return
        if node.zone not in kind.zones:
            yield f"{node.zone} does not offer its type"
        if node.zone not in {each.zone for each in self.nodes.values()}:
            yield f"the cluster has no node in {node.zone}"
        if step == 1 and kind.name not in self.in_use:
            yield "its type is not in use"
        if not self._considered(kind):
            yield "its type is not considered"
        yield from self._too_large(node, kind)
        yield from self._invented(node, kind)

    def _considered(self, kind: InstanceType) -> bool:
        """Whether a new node may be of the type: the rule of docs/savings.md."""
        used = {node.instance_type for node in self.snapshot.nodes}
        families = {name.split(".")[0] for name in used}
        common = kind.name[0] in "cmr" and not kind.burstable and not kind.accelerators
        largest = max([32, *(each.vcpus for each in self.types.values() if each.name in used)])
        return kind.name in used or (
            kind.current
            and not kind.bare_metal
            and (common or kind.name.split(".")[0] in families)
            and 2 <= kind.vcpus <= largest
        )

    def _too_large(self, node: PlannedNode, kind: InstanceType) -> Iterator[str]:
        like = [n.allocatable for n in self.nodes.values() if n.instance_type == kind.name]
        shown = like or [given(kind, prefixes=self.prefixes)]
        for what, amount in node.allocatable.items():
            if what == "ephemeral-storage" and not like:
                continue
            if amount > (most := min(each.get(what, 0) for each in shown)):
                yield f"it has {amount} {what}, EKS gives {most}"

    def _invented(self, node: PlannedNode, kind: InstanceType) -> Iterator[str]:
        """Labels and taints that no node of the cluster has together."""
        fresh = well_known(kind, node, self.snapshot.region)
        for key, value in node.labels.items():
            if key in fresh and fresh[key] != value:
                yield f"its label {key} is {value}, not {fresh[key]}"
        spot_only = {"scheduling.cast.ai/spot"}
        keys = self.asked - {HOSTNAME, *spot_only}
        own = {key: node.labels.get(key) for key in keys - set(fresh)}
        if not any(
            {key: each.labels.get(key) for key in own} == own
            and set(node.labels) - spot_only == set(each.labels) & keys
            and set(lasting(each.taints)) == set(node.taints)
            for each in self.nodes.values()
        ):
            yield f"no node has its labels and taints: {sorted(node.labels)}, {own}, {node.taints}"

    def _pod_faults(self, pod: Pod, node: PlannedNode, host: Host, step: int) -> Iterator[str]:
        before, kind = self.nodes[pod.node], self.types[node.instance_type]
        where = f"{pod.name} on {node.name or node.instance_type}"
        moves = node.name != pod.node
        if not wants(pod.demand, host.name, host.labels):
            yield f"{where}: its selector wants another node"
        for taint in repelled(pod.demand, host.taints):
            yield f"{where}: it does not tolerate {taint.key}"
        if moves and node.name and self.nodes[node.name].unschedulable:
            yield f"{where}: the node is cordoned"
        spot_too = step == 3 and (pod.namespace, pod.owner) in self.tolerant
        if node.market != before.market and not (spot_too and node.market == "spot"):
            yield f"{where}: it runs in the market {before.market}"
        keys = {r.key for terms in pod.demand.node_terms for term in terms for r in term}
        if not (keys | set(pod.demand.node_selector)) & set(ARCH_KEYS) and kind.arch != before.arch:
            yield f"{where}: it runs on {before.arch}"
        accelerators = {name for each in self.types.values() for name in each.accelerators}
        families = [name.split(".")[0] for name in (node.instance_type, before.instance_type)]
        if accelerators & set(pod.demand.requests) and families[0] != families[1]:
            yield f"{where}: it runs on {families[1]}"
        for key in self.stay[pod.namespace, pod.name]:
            if host.labels.get(key) != before.labels.get(key):
                yield f"{where}: it stays in the {key} {before.labels.get(key)}"
