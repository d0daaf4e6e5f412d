"""Clusters for the benchmark of the savings estimate. Each is the same for the same seed.

- `generated`: workloads of many shapes on half-empty nodes, some that spread over zones, some whose
  pods keep apart.
- `karpenter`: the requests of the scheduling benchmark of kubernetes-sigs/karpenter
  (`scheduling_benchmark_test.go`), a sixth of the pods spread over zones, a sixth of them apart.
- `uniform`, `triplets`: the two classes of E. Falkenauer, "A hybrid grouping genetic algorithm for
  bin packing", 1996: sizes 20 to 100 in bins of 150; and items of which three fill a bin.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from savings.prices import InstanceType, Prices, SpotPrice
from savings.snapshot import (
    CPU,
    MEMORY,
    PODS,
    Amounts,
    DaemonSet,
    Demand,
    Node,
    Pod,
    PodTerm,
    Requirement,
    Snapshot,
    Spread,
    Term,
    Toleration,
    Workload,
)

REGION = "eu-central-1"
ZONES = tuple(REGION + letter for letter in "abc")
TAKEN = "2026-11-01T00:00:00Z"
IN_USE = "m6i.2xlarge"
GIB = 2**30
MIB = 2**20
# GiB per vCPU, architecture, USD per vCPU: near AWS's list prices of 2026.
FAMILIES = {
    "c6a": (2, "amd64", 0.0437),
    "c6i": (2, "amd64", 0.0485),
    "m6a": (4, "amd64", 0.0518),
    "m6i": (4, "amd64", 0.0575),
    "m7g": (4, "arm64", 0.0490),
    "r6a": (8, "amd64", 0.0684),
    "r6i": (8, "amd64", 0.0760),
}
SIZES = {"large": (2, 3, 10), "xlarge": (4, 4, 15), "2xlarge": (8, 4, 15), "4xlarge": (16, 8, 30),
         "8xlarge": (32, 8, 30)}  # fmt: skip
EVERYWHERE = (Toleration(operator="Exists"),)


def prices(seed: int = 1) -> Prices:
    """All sizes of the families, with a spot price of 30 to 50 % in each zone."""
    chance = random.Random(seed)
    types = []
    for family, (ratio, arch, price) in FAMILIES.items():
        for size, (vcpus, interfaces, addresses) in SIZES.items():
            listed = round(price * vcpus, 4)
            spot = {zone: listed * chance.uniform(0.3, 0.5) for zone in ZONES}
            types.append(
                InstanceType(
                    name=f"{family}.{size}",
                    vcpus=vcpus,
                    memory=vcpus * ratio * GIB,
                    arch=arch,
                    interfaces=interfaces,
                    addresses=addresses,
                    zones=ZONES,
                    on_demand=listed,
                    spot={
                        zone: SpotPrice(now=now, low=0.9 * now, high=1.2 * now)
                        for zone, now in spot.items()
                    },
                )
            )
    return Prices(region=REGION, taken=TAKEN, history_days=90, types=tuple(types))


def generated(nodes: int, pods: int, seed: int = 1) -> Snapshot:
    """So many pods, or some more: workloads of about 25."""
    chance = random.Random(seed)
    cluster = _Cluster(nodes, seed)
    for number in itertools.count():
        if cluster.pods >= pods:
            break
        requests = {
            CPU: chance.choice((50, 100, 250, 500, 1000, 1500, 2000)),
            MEMORY: chance.choice((64, 128, 256, 512, 1024, 2048, 4096, 8192)) * MIB,
        }
        kind = chance.random()
        cluster.add(
            f"workload-{number}",
            requests,
            max(1, min(nodes // 3, int(chance.expovariate(1 / 25)))),
            apart=kind < 0.1,
            spread=0.1 <= kind < 0.2,
        )
    return cluster.snapshot()


def karpenter(pods: int, seed: int = 1) -> Snapshot:
    """So many pods, a workload for each pod but for those that keep apart."""
    chance = random.Random(seed)
    cluster = _Cluster(pods // 3, seed)
    for number in range(pods):
        requests = {
            CPU: chance.choice((100, 250, 500, 1000, 1500)),
            MEMORY: chance.choice((100, 256, 512, 1024, 2048, 4096)) * MIB,
        }
        cluster.add(
            "apart" if number % 6 == 0 else f"pod-{number}",
            requests,
            1,
            apart=number % 6 == 0,
            spread=number % 6 == 1,
        )
    return cluster.snapshot()


def uniform(items: int, seed: int = 1) -> Snapshot:
    """Sizes of 20 to 100 in bins of 150."""
    chance = random.Random(seed)
    return _bins(150, [chance.randint(20, 100) for _ in range(items)])


def triplets(items: int, seed: int = 1) -> Snapshot:
    """Three items fill a bin of 1,000: the optimum is a third of the items."""
    chance = random.Random(seed)
    sizes = []
    for _ in range(items // 3):
        first, second = chance.randint(380, 490), 0
        second = chance.randint(250, (1000 - first) // 2)
        sizes += [first, second, 1000 - first - second]
    return _bins(1000, sizes)


def _bins(size: int, items: list[int]) -> Snapshot:
    """Each item on a node of its own now; the processor of a node is the bin."""
    allocatable = {CPU: size, MEMORY: GIB, PODS: 110}
    names = [f"node-{number}" for number in range(len(items))]
    return Snapshot(
        cluster="bins",
        region=REGION,
        taken=TAKEN,
        nodes=tuple(_node(name, ZONES[0], allocatable) for name in names),
        pods=tuple(
            Pod(namespace="bins", name=name, node=name, demand=Demand(requests={CPU: item}))
            for name, item in zip(names, items, strict=True)
        ),
    )


def _node(name: str, zone: str, allocatable: Amounts, *, spot: bool = False) -> Node:
    labels = {
        "kubernetes.io/hostname": name,
        "topology.kubernetes.io/zone": zone,
        "eks.amazonaws.com/capacityType": "SPOT" if spot else "ON_DEMAND",
    }
    return Node(
        name=name,
        instance_type=IN_USE,
        zone=zone,
        market="spot" if spot else "on-demand",
        group="spot" if spot else "workers",
        allocatable=allocatable,
        labels=labels,
    )


class _Cluster:
    """Half-empty nodes of one type in three zones, a quarter of them on spot."""

    def __init__(self, nodes: int, seed: int) -> None:
        self._chance = random.Random(seed)
        allocatable = {CPU: 7910, MEMORY: 29 * GIB, PODS: 58}
        self._nodes = [
            _node(f"node-{number}", ZONES[number % 3], allocatable, spot=number % 4 == 3)
            for number in range(max(3, nodes))
        ]
        self._free = [[3600, 14 * GIB, 50] for _ in self._nodes]
        self._pods: list[Pod] = []
        self._workloads: dict[str, int] = {}
        self._homes: dict[str, set[int]] = {}

    def add(
        self, name: str, requests: Amounts, replicas: int, *, apart: bool, spread: bool
    ) -> None:
        """Place the replicas on nodes that have room; those that find none are left out."""
        selector: Term = (Requirement(key="app", operator="In", values=(name,)),)
        host = PodTerm(topology_key="kubernetes.io/hostname", selector=selector)
        zone = Spread(topology_key="topology.kubernetes.io/zone", max_skew=1, selector=selector)
        homes = self._homes.setdefault(name, set())
        for _ in range(replicas):
            number = self._workloads.get(name, 0)
            at = next(self._rooms(requests, homes if apart else set(), number, spread=spread), None)
            if at is None:
                continue
            homes.add(at)
            self._workloads[name] = number + 1
            self._pods.append(
                Pod(
                    namespace="bench",
                    name=f"{name}-{number}",
                    node=self._nodes[at].name,
                    owner=f"Deployment/{name}",
                    labels={"app": name},
                    demand=Demand(requests=requests),
                    anti_affinity=(host,) if apart else (),
                    spread=(zone,) if spread else (),
                )
            )

    @property
    def pods(self) -> int:
        return len(self._pods)

    def _rooms(
        self, requests: Amounts, taken: set[int], number: int, *, spread: bool
    ) -> Iterator[int]:
        """Random nodes with room, the room taken; the pods of a spread take zones in turn."""
        for _ in range(200):
            at = self._chance.randrange(len(self._nodes))
            if at in taken or (spread and at % 3 != number % 3):
                continue
            free, asked = self._free[at], (requests[CPU], requests[MEMORY], 1)
            if all(there >= amount for there, amount in zip(free, asked, strict=True)):
                self._free[at] = [there - n for there, n in zip(free, asked, strict=True)]
                yield at

    def snapshot(self) -> Snapshot:
        """The cluster with its DaemonSets."""
        daemons = (("aws-node", 50, 64), ("kube-proxy", 100, 50), ("logs", 100, 200))
        return Snapshot(
            cluster="bench",
            region=REGION,
            taken=TAKEN,
            nodes=tuple(self._nodes),
            pods=tuple(self._pods),
            daemon_sets=tuple(
                DaemonSet(
                    namespace="kube-system",
                    name=name,
                    demand=Demand(
                        requests={CPU: cpu, MEMORY: memory * MIB}, tolerations=EVERYWHERE
                    ),
                )
                for name, cpu, memory in daemons
            ),
            workloads=tuple(
                Workload(namespace="bench", owner=f"Deployment/{name}", replicas=replicas)
                for name, replicas in self._workloads.items()
            ),
        )
