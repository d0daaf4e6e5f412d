"""Random small clusters whose pods run where Kubernetes allows them, each from its seed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from random import Random

import msgspec

from savings.plan import Packing, PlannedNode
from savings.prices import InstanceType, Prices, SpotPrice
from savings.snapshot import (
    Budget,
    DaemonSet,
    Demand,
    Market,
    Node,
    Pod,
    PodTerm,
    Requirement,
    Snapshot,
    Spread,
    Taint,
    Term,
    Toleration,
    Workload,
)
from tests.unit.savings import judge
from tests.unit.savings.judge import HOSTNAME, MIB, Host, Judge, lasting, price_of

REGION = "eu-central-1"
ZONES = ("eu-central-1a", "eu-central-1b", "eu-central-1c")
ZONE, ARCH = judge.ZONE_KEYS[0], judge.ARCH_KEYS[0]
GIB = 1024 * MIB
GPU = "nvidia.com/gpu"
# Name, vCPUs, GiB, architecture, interfaces, addresses of each, price.
CATALOG = (
    ("m5.large", 2, 8, "amd64", 3, 10, 0.115),
    ("m5.xlarge", 4, 16, "amd64", 4, 15, 0.23),
    ("m5.2xlarge", 8, 32, "amd64", 4, 15, 0.46),
    ("c5.large", 2, 4, "amd64", 3, 10, 0.097),
    ("c5.2xlarge", 8, 16, "amd64", 4, 15, 0.388),
    ("c6i.4xlarge", 16, 32, "amd64", 8, 30, 0.776),
    ("r5.large", 2, 16, "amd64", 3, 10, 0.152),
    ("r6i.2xlarge", 8, 64, "amd64", 4, 15, 0.608),
    ("m7g.large", 2, 8, "arm64", 3, 10, 0.0978),
    ("c7g.xlarge", 4, 8, "arm64", 4, 15, 0.1655),
    ("r7g.2xlarge", 8, 64, "arm64", 4, 15, 0.5192),
    ("t3.medium", 2, 4, "amd64", 3, 6, 0.048),
    ("t3.xlarge", 4, 16, "amd64", 4, 15, 0.192),
    ("g5.xlarge", 4, 16, "amd64", 4, 15, 1.258),
    ("g5.12xlarge", 48, 192, "amd64", 15, 50, 7.09),
    ("g4dn.xlarge", 4, 16, "amd64", 3, 10, 0.658),
)
GPUS = {"g5.xlarge": 1, "g5.12xlarge": 4, "g4dn.xlarge": 1}
PASSING = (
    Taint(key="node.kubernetes.io/not-ready", effect="NoSchedule"),
    Taint(key="ToBeDeletedByClusterAutoscaler", value="1", effect="NoSchedule"),
)


@dataclass(frozen=True)
class Group:
    """A node group: what its nodes share."""

    name: str
    kinds: tuple[InstanceType, ...]
    zones: tuple[str, ...]
    market: Market
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    capacity_label: str


def world(seed: int) -> tuple[Snapshot, Prices]:
    """A cluster and prices."""
    return _World(Random(seed), seed).made()  # noqa: S311 - no secret depends on it


def as_it_is(snapshot: Snapshot, prices: Prices) -> Packing:
    """The nodes and pods that there are now."""
    judge = Judge(snapshot, prices, ())
    at = {name: number for number, name in enumerate(judge.nodes)}
    bare = Packing((), (), 0.0, 0)
    placed = tuple((index, at[snapshot.pods[index].node]) for index in sorted(judge.moving))
    nodes = []
    for node in judge.nodes.values():
        price = price_of(judge.types[node.instance_type], node)
        assert price is not None
        nodes.append(
            PlannedNode(
                name=node.name,
                instance_type=node.instance_type,
                market=node.market,
                zone=node.zone,
                group=node.group,
                price=price,
                labels=node.labels,
                taints=lasting(node.taints),
                allocatable=node.allocatable,
                overhead={},
            )
        )
    bare = replace(bare, nodes=tuple(nodes))
    overheads = [dict(host.overhead()) for host in judge.hosts(bare)]
    nodes = [replace(n, overhead=each) for n, each in zip(nodes, overheads, strict=True)]
    return replace(bare, nodes=tuple(nodes), placed=placed)


class _World:
    def __init__(self, random: Random, seed: int) -> None:
        self.random = random
        self.seed = seed
        self.rarely = Random(-seed - 1)  # noqa: S311 - its own numbers: others keep their worlds
        self.zones = ZONES[: random.choice((1, 2, 2, 3, 3))]
        self.kinds = self._kinds()
        self.prefixes = self.chance(0.1)
        self.groups = [self._group(at) for at in range(random.choice((1, 1, 2, 2, 3, 4)))]
        self.daemon_sets = [self._daemon_set(at) for at in range(random.choice((0, 1, 1, 2, 3)))]
        count = random.randint(3, 12)
        self.nodes = [self._node(f"ip-{at}", random.choice(self.groups)) for at in range(count)]
        self.hosts = {node.name: self._host(node) for node in self.nodes}
        self.free = {node.name: self._free(node) for node in self.nodes}
        self.others: list[Host] = []
        """Nodes that the estimate leaves out."""
        self.pods: list[Pod] = []
        self.workloads: list[Workload] = []
        self.budgets: list[Budget] = []

    def chance(self, share: float) -> bool:
        return self.random.random() < share

    def made(self) -> tuple[Snapshot, Prices]:
        self._leave_out()
        wanted = self.random.randint(5, 40)
        number = 0
        while len(self.pods) < wanted and number < 20:
            self._workload(f"app{number}", wanted - len(self.pods))
            number += 1
        self._set_aside()
        snapshot = Snapshot(
            cluster=f"world-{self.seed}",
            region=REGION,
            taken="2026-01-31T12:00:00Z",
            nodes=tuple(self.nodes),
            pods=(*self.pods, *self._daemon_pods()),
            daemon_sets=tuple(self.daemon_sets),
            workloads=tuple(self.workloads),
            budgets=tuple(self.budgets),
        )
        prices = Prices(
            region=REGION, taken="2026-01-31T12:00:00Z", history_days=90, types=tuple(self.kinds)
        )
        return snapshot, prices

    # Prices and nodes -----------------------------------------------------------------------------

    def _kinds(self) -> list[InstanceType]:
        rows = self.random.sample(CATALOG, self.random.randint(6, 12))
        return [self._kind(row) for row in rows]

    def _kind(self, row: tuple[str, int, int, str, int, int, float]) -> InstanceType:
        name, vcpus, gib, arch, interfaces, addresses, price = row
        offered = tuple(zone for zone in ZONES if self.chance(0.9)) or ZONES[:1]
        spot = {}
        for zone in offered:
            now = round(price * self.random.uniform(0.2, 0.9), 4)
            low, high = (
                round(now * self.random.uniform(*span), 4) for span in ((0.5, 1), (1, 1.5))
            )
            if self.chance(0.9):
                spot[zone] = SpotPrice(now=now, low=min(low, now), high=max(high, now))
        return InstanceType(
            name=name,
            vcpus=vcpus,
            memory=gib * GIB,
            arch=arch,
            interfaces=interfaces,
            addresses=addresses,
            accelerators={GPU: GPUS[name]} if name in GPUS else {},
            zones=offered,
            burstable=name.startswith("t"),
            on_demand=price if self.chance(0.95) else None,
            spot=spot,
        )

    def _group(self, at: int) -> Group:
        arch = self.random.choice(self.kinds).arch
        alike = [kind for kind in self.kinds if kind.arch == arch]
        kinds = tuple(self.random.sample(alike, min(len(alike), self.random.choice((1, 2, 3)))))
        labels = {"team": self.random.choice("abc")} if self.chance(0.4) else {}
        if self.chance(0.2):
            labels["generation"] = str(self.random.randint(1, 4))
        taints = ()
        if at and self.chance(0.5):
            value = self.random.choice(("x", "y"))
            effect = self.random.choice(("NoSchedule", "NoExecute", "PreferNoSchedule"))
            taints = (Taint(key="dedicated", value=value, effect=effect),)
        return Group(
            name=f"group{at}",
            kinds=kinds,
            zones=tuple(self.random.sample(self.zones, self.random.randint(1, len(self.zones)))),
            market="spot" if self.chance(0.3) else "on-demand",
            labels=labels,
            taints=taints,
            capacity_label=self.random.choice(
                ("eks.amazonaws.com/capacityType", "karpenter.sh/capacity-type")
            ),
        )

    def _node(self, name: str, group: Group) -> Node:
        kind, zone = self.random.choice(group.kinds), self.random.choice(group.zones)
        known = judge.given(kind, prefixes=self.prefixes)
        allocatable = {
            **known,
            "memory": known["memory"] + self.random.randint(0, kind.memory // 50),
            "ephemeral-storage": 17 * GIB,
        }
        node = Node(
            name=name,
            instance_type=kind.name,
            zone=zone,
            market=group.market,
            group=group.name,
            arch=kind.arch,
            allocatable=allocatable,
            taints=group.taints,
        )
        fresh = judge.well_known(kind, node, REGION)
        keys = (ZONE, ARCH, "kubernetes.io/os", "node.kubernetes.io/instance-type",
                "topology.kubernetes.io/region", group.capacity_label)  # fmt: skip
        labels = {**{key: fresh[key] for key in keys}, **group.labels, HOSTNAME: name}
        return msgspec.structs.replace(node, labels=labels)

    def _daemon_set(self, at: int) -> DaemonSet:
        selector = {"team": self.random.choice("abc")} if self.chance(0.3) else {}
        every = self.chance(0.6)
        tolerations = (Toleration(operator="Exists"),) if every else self._tolerations()
        demand = Demand(
            requests={"cpu": 10 * self.random.randint(0, 12), "memory": 32 * MIB},
            node_selector=selector,
            tolerations=tolerations,
            host_ports=(f"TCP/{9100 + at}",) if self.chance(0.3) else (),
        )
        return DaemonSet(
            namespace="kube-system",
            name=f"daemon{at}",
            demand=demand,
            labels={"app": f"daemon{at}"},
        )

    def _tolerations(self) -> tuple[Toleration, ...]:
        key, value = "dedicated", self.random.choice(("x", "y"))
        exact = Toleration(key=key, value=value, effect=self.random.choice(("", "NoSchedule")))
        return (exact if self.chance(0.6) else Toleration(key=key, operator="Exists"),)

    def _host(self, node: Node) -> Host:
        host = Host(node.name, dict(node.labels), judge.lasting(node.taints))
        host.daemons = [
            each
            for each in self.daemon_sets
            if judge.selects(each, node.name, node.labels, host.taints)
        ]
        return host

    def _free(self, node: Node) -> Counter[str]:
        free = Counter(node.allocatable)
        for each in self.hosts[node.name].daemons:
            free.subtract(judge.used(each.demand))
        return free

    def _daemon_pods(self) -> Iterator[Pod]:
        for name, host in self.hosts.items():
            for each in host.daemons:
                yield Pod(
                    namespace=each.namespace,
                    name=f"{each.name}-{name}",
                    demand=each.demand,
                    node=name,
                    owner=f"DaemonSet/{each.name}",
                    labels=each.labels,
                )

    # Workloads ------------------------------------------------------------------------------------

    def _workload(self, name: str, most: int) -> None:
        """One workload with all its pods, each on a node that takes it, or pending."""
        kind = self.random.choice(
            ("Deployment", "Deployment", "Deployment", "StatefulSet", "Job", "CronJob", "")
        )
        count = 1 if not kind else min(most, self.random.choice((1, 2, 2, 3, 4, 6, 10)))
        template = self._template(name, kind)
        placed = 0
        for at in range(count):
            pod = msgspec.structs.replace(template, name=f"{name}-{at}" if kind else name)
            if kind == "StatefulSet" and not pod.spread and self.chance(0.3):
                zone = self.random.choice(self.zones)
                pod = self._bound_to(pod, ZONE, zone)
            host = self._place(pod)
            if host is None and not self.chance(0.2):
                continue
            placed += 1
            self.pods.append(msgspec.structs.replace(pod, node=host.name if host else ""))
        if kind and placed:
            workload = Workload(namespace=template.namespace, owner=template.owner, replicas=placed)
            self.workloads.append(workload)
            if self.chance(0.2):
                self.budgets.append(self._budget(template))

    def _template(self, name: str, kind: str) -> Pod:
        pod = Pod(
            namespace=self.random.choice(("shop", "shop", "ops")),
            name=name,
            owner=f"{kind}/{name}" if kind else "",
            labels={"app": name, "tier": self.random.choice(("web", "db", "none"))},
            demand=self._demand(),
            grace=self.random.choice((0, 30, 30, 30, 115, 116, 600)),
            local_volumes=("hostPath",) if self.chance(0.05) else (),
            opt_outs=("karpenter.sh/do-not-disrupt: true",) if self.chance(0.05) else (),
            without_requests=False,
        )
        if not pod.demand.requests:
            pod = msgspec.structs.replace(pod, without_requests=True)
        if self.chance(0.05):
            pod = self._bound_to(pod, HOSTNAME, self.random.choice(self.nodes).name)
            pod = msgspec.structs.replace(pod, local_volumes=("PersistentVolumeClaim data",))
        elif self.chance(0.03):
            pod = self._bound_to(pod, "metadata.name", self.random.choice(self.nodes).name)
        return self._with_terms(pod)

    def _demand(self) -> Demand:
        requests = {
            "cpu": self.random.choice((50, 100, 250, 500, 900, 1500, 3000)),
            "memory": self.random.choice((64, 128, 512, 1024, 2000, 3500, 6000)) * MIB,
        }
        if self.chance(0.1):
            del requests[self.random.choice(("cpu", "memory"))]
        if self.chance(0.05):
            requests = {}
        if self.chance(0.1):
            requests["ephemeral-storage"] = self.random.randint(1, 8) * GIB
        if self.chance(0.15) and any(kind.accelerators for kind in self.kinds):
            requests[GPU] = self.random.choice((1, 1, 2))
        selector, terms = self._selector()
        return Demand(
            requests=requests,
            node_selector=selector,
            node_terms=terms,
            tolerations=self._tolerations() if self.chance(0.4) else (),
            host_ports=(f"TCP/{self.random.choice((80, 8080, 9100))}",)
            if self.chance(0.08)
            else (),
        )

    def _selector(self) -> tuple[dict[str, str], tuple[tuple[Term, ...], ...]]:
        """Of a node that exists, so that some pods find one."""
        labels = self.random.choice(self.nodes).labels
        selector, terms = {}, []
        for key in sorted(labels):
            if key == HOSTNAME or not self.chance(0.05):
                continue
            if self.chance(0.5):
                selector[key] = labels[key]
            else:
                terms.append((self._term(key, labels[key]),))
        if self.chance(0.05):
            terms.append((self._term("team", "a"), self._term("generation", "2")))
        if self.chance(0.04):
            both = Requirement(key=ARCH, operator="In", values=("amd64", "arm64"))
            terms.append(((both,),))
        if self.chance(0.04):
            cpus = Requirement(key="generation", operator="Gt", values=("1",))
            terms.append(((cpus,),))
        return selector, tuple(terms)

    def _term(self, key: str, value: str) -> Term:
        operator = self.random.choice(("In", "In", "NotIn", "Exists", "DoesNotExist"))
        return (
            Requirement(
                key=key, operator=operator, values=(value,) if operator.endswith("In") else ()
            ),
        )

    def _bound_to(self, pod: Pod, key: str, value: str) -> Pod:
        """As with a volume that only some nodes reach."""
        term = (Requirement(key=key, operator="In", values=(value,)),)
        demand = msgspec.structs.replace(pod.demand, node_terms=(*pod.demand.node_terms, (term,)))
        return msgspec.structs.replace(pod, demand=demand)

    def _with_terms(self, pod: Pod) -> Pod:
        own = self._about("app", pod.labels["app"])
        keys = (HOSTNAME, HOSTNAME, HOSTNAME, ZONE)
        against: list[PodTerm] = []
        if self.chance(0.15):
            against.append(PodTerm(topology_key=self.random.choice(keys), selector=own))
        if self.chance(0.08):
            against.append(self._pod_term(self._about("tier", self.random.choice(("web", "db")))))
        if self.pods and self.chance(0.05):
            other = self.random.choice(self.pods).labels["app"]
            against.append(self._pod_term(self._about("app", other)))
        if self.daemon_sets and self.rarely.random() < 0.02:
            daemon = self.rarely.choice(self.daemon_sets).labels["app"]
            term = PodTerm(
                topology_key=HOSTNAME, selector=self._about("app", daemon), namespaces=None
            )
            against.append(term)
        affinity: tuple[PodTerm, ...] = ()
        if self.pods and self.chance(0.1):
            other = self.random.choice(self.pods)
            affinity = (self._pod_term(self._about("app", other.labels["app"]), other.namespace),)
        elif self.chance(0.04):
            affinity = (PodTerm(topology_key=self.random.choice(keys), selector=own),)
        spread: list[Spread] = []
        for key, share in ((HOSTNAME, 0.12), (ZONE, 0.12)):
            if self.chance(share):
                skew = self.random.choice((1, 1, 2))
                spread.append(Spread(topology_key=key, max_skew=skew, selector=own))
        return msgspec.structs.replace(
            pod, anti_affinity=tuple(against), affinity=affinity, spread=tuple(spread)
        )

    def _about(self, key: str, value: str) -> Term:
        return (Requirement(key=key, operator="In", values=(value,)),)

    def _pod_term(self, selector: Term, namespace: str = "") -> PodTerm:
        key = self.random.choice((HOSTNAME, HOSTNAME, ZONE))
        spaces = (namespace,) if namespace else self.random.choice(((), None, ("shop", "ops")))
        return PodTerm(topology_key=key, selector=selector, namespaces=spaces)

    def _budget(self, pod: Pod) -> Budget:
        name, value = "budget", self.random.choice((0, 1, "50%", "100%"))
        some = {"max_unavailable": value} if self.chance(0.5) else {"min_available": value}
        selector = None if self.chance(0.1) else self._about("app", pod.labels["app"])
        return Budget(namespace=pod.namespace, name=name, selector=selector, **some)  # type: ignore[arg-type]

    # Placing --------------------------------------------------------------------------------------

    def _place(self, pod: Pod) -> Host | None:
        """Put the pod on a node that takes it, as kube-scheduler would."""
        names = sorted(self.hosts)
        self.random.shuffle(names)
        for name in names:
            host = self.hosts[name]
            if not judge.wants(pod.demand, name, host.labels):
                continue
            if judge.repelled(pod.demand, host.taints):
                continue
            asked = judge.used(pod.demand)
            if any(self._left(name, what) < number for what, number in asked.items()):
                continue
            if self._agrees(pod, host):
                self.free[name].subtract(asked)
                host.pods.append(pod)
                return host
        return None

    def _left(self, name: str, what: str) -> int:
        return self.free[name][what] + what.startswith("port:")

    def _agrees(self, pod: Pod, host: Host) -> bool:
        """Whether all required terms about other pods hold there."""
        hosts = [*self.hosts.values(), *self.others]

        def beside(key: str) -> Iterator[Pod | DaemonSet]:
            for other in hosts:
                if key in host.labels and other.labels.get(key) == host.labels[key]:
                    yield from other.everything()

        def excluded(one: Pod, other: Pod | DaemonSet) -> Iterator[str]:
            return (t.topology_key for t in one.anti_affinity if judge.meant(one, t, other))

        for other in (other for each in hosts for other in each.everything()):
            keys = [
                *excluded(pod, other),
                *(excluded(other, pod) if isinstance(other, Pod) else ()),
            ]
            if any(other in beside(key) for key in keys):
                return False
        return self._joins(pod, hosts, beside) and self._spreads(pod, host, hosts)

    def _joins(
        self, pod: Pod, hosts: list[Host], beside: Callable[[str], Iterator[Pod | DaemonSet]]
    ) -> bool:
        everything = [other for each in hosts for other in each.everything()]
        return all(
            any(judge.meant(pod, term, other) for other in beside(term.topology_key))
            or (
                judge.meant(pod, term, pod)
                and not any(judge.meant(pod, term, other) for other in everything)
            )
            for term in pod.affinity
        )

    def _spreads(self, pod: Pod, host: Host, hosts: list[Host]) -> bool:
        for spread in pod.spread:
            counts = judge.spread_counts(pod, spread, hosts)
            value = host.labels.get(spread.topology_key, "")
            if value not in counts or counts[value] + 1 - min(counts.values()) > spread.max_skew:
                return False
        return True

    def _set_aside(self) -> None:
        """What a running cluster has besides: static pods, cordons, nodes that are left out."""
        for node in (node for node in self.nodes if node.name in self.hosts):
            if self.chance(0.05) and self._left(node.name, "cpu") >= 50:
                pod = Pod(
                    namespace="kube-system",
                    name=f"mirror-{node.name}",
                    demand=Demand(requests={"cpu": 50}),
                    node=node.name,
                    static=True,
                    labels={"app": "mirror"},
                )
                if self._left(node.name, "pods") >= 1:
                    self.pods.append(pod)
                    self.free[node.name].subtract(judge.used(pod.demand))
        for at, node in enumerate(self.nodes):
            passing = (self.random.choice(PASSING),) if self.chance(0.06) else ()
            self.nodes[at] = msgspec.structs.replace(
                node, taints=(*node.taints, *passing), unschedulable=self.chance(0.06)
            )

    def _leave_out(self) -> None:
        """Nodes that the estimate leaves out, with a pod each."""
        for name, changes in (
            ("fargate", {"fargate": True, "instance_type": "", "group": ""}),
            ("windows", {"os": "windows"}),
            ("unpriced", {"instance_type": "m9x.large"}),
        ):
            if self.chance(0.1):
                self._add_left_out(name, changes)

    def _add_left_out(self, name: str, changes: dict[str, object]) -> None:
        like = self.random.choice([node for node in self.nodes if node.name in self.hosts])
        labels = {**like.labels, HOSTNAME: name, "kubernetes.io/os": changes.get("os", "linux")}
        taints = (Taint(key="left-out", effect="NoSchedule"),)
        node = msgspec.structs.replace(like, name=name, labels=labels, taints=taints, **changes)
        pod = Pod(
            namespace="ops",
            name=f"{name}-0",
            owner=f"Deployment/{name}",
            demand=Demand(requests={"cpu": 100}),
            labels={"app": name, "tier": self.random.choice(("web", "db", "none"))},
            node=name,
        )
        self.nodes.append(node)
        self.pods.append(pod)
        self.others.append(Host(name, labels, taints, fixed=[pod]))
