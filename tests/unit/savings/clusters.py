"""Small clusters and prices for computing by hand."""

from __future__ import annotations

from typing import Any

from savings.prices import InstanceType, Prices, SpotPrice
from savings.snapshot import DaemonSet, Demand, Node, Pod, Requirement, Snapshot, Workload

REGION = "eu-central-1"
A, B = "eu-central-1a", "eu-central-1b"
GIB = 2**30
HOST = "kubernetes.io/hostname"
ZONE = "topology.kubernetes.io/zone"

# Every type's nodes show round figures, so that sums can be done in the head: a node of n vCPUs has
# n cores, and 4 x n GiB (m), 2 x n (c) or 8 x n (r).
RATIOS = {"c": 2, "m": 4, "r": 8}


def kind(name: str, vcpus: int, price: float | None, **changes: Any) -> InstanceType:
    """A type in zones a and b. `spot`: its price in both, or by zone."""
    spot = changes.pop("spot", None)
    by_zone = spot if isinstance(spot, dict) else dict.fromkeys((A, B), spot) if spot else {}
    given: dict[str, Any] = {
        "name": name,
        "vcpus": vcpus,
        "memory": vcpus * RATIOS.get(name[0], 4) * GIB,
        "arch": "amd64",
        "interfaces": 4,
        "addresses": 15,
        "zones": (A, B),
        "on_demand": price,
        "spot": {
            zone: each if isinstance(each, SpotPrice) else SpotPrice(now=each, low=each, high=each)
            for zone, each in by_zone.items()
        },
    }
    return InstanceType(**{**given, **changes})


def prices(*types: InstanceType, **changes: Any) -> Prices:
    """In US dollars."""
    given: dict[str, Any] = {"region": REGION, "taken": "2026-11-01T00:00:00Z", "history_days": 90}
    return Prices(types=types, **{**given, **changes})


def node(name: str, of: str, cpu: int = 4, memory: int = 16, **changes: Any) -> Node:
    """A node with so many whole cores and GiB for pods, in zone a and on demand."""
    zone, market = changes.pop("zone", A), changes.pop("market", "on-demand")
    labels = {
        HOST: name,
        ZONE: zone,
        "kubernetes.io/arch": changes.get("arch", "amd64"),
        "eks.amazonaws.com/capacityType": "SPOT" if market == "spot" else "ON_DEMAND",
        **changes.pop("labels", {}),
    }
    given: dict[str, Any] = {
        "group": "workers",
        "allocatable": {"cpu": cpu * 1000, "memory": memory * GIB, "pods": 58},
    }
    return Node(
        name=name, instance_type=of, zone=zone, market=market, labels=labels, **{**given, **changes}
    )


def pod(name: str, at: str, cpu: float = 1, memory: float = 1, **changes: Any) -> Pod:
    """A pod of `Deployment/<name up to the last dash>`, with so many cores and GiB."""
    requests = {"cpu": int(cpu * 1000), "memory": int(memory * GIB), **changes.pop("further", {})}
    of = {key: changes.pop(key) for key in ("node_selector", "node_terms", "tolerations",
                                            "host_ports") if key in changes}  # fmt: skip
    app = name.rpartition("-")[0] or name
    given: dict[str, Any] = {"owner": f"Deployment/{app}", "labels": {"app": app}}
    return Pod(
        namespace="shop",
        name=name,
        node=at,
        demand=Demand(requests=requests, **of),
        **{**given, **changes},
    )


def daemon(name: str, cpu: float, memory: float = 0, **of: Any) -> DaemonSet:
    """A DaemonSet on every node that it selects."""
    requests = {"cpu": int(cpu * 1000), "memory": int(memory * GIB)}
    return DaemonSet(namespace="ops", name=name, demand=Demand(requests=requests, **of))


def cluster(nodes: list[Node], pods: list[Pod], **more: Any) -> Snapshot:
    """With a workload for each owner, of as many replicas as it has pods."""
    owners = [each.owner for each in pods if each.owner]
    workloads = tuple(
        Workload(namespace="shop", owner=owner, replicas=owners.count(owner))
        for owner in dict.fromkeys(owners)
    )
    given: dict[str, Any] = {"workloads": workloads}
    return Snapshot(
        cluster="demo",
        region=REGION,
        taken="2026-11-01T00:00:00Z",
        nodes=tuple(nodes),
        pods=tuple(pods),
        **{**given, **more},
    )


def app(name: str) -> tuple[Requirement, ...]:
    """The selector of a Deployment's pods."""
    return (Requirement(key="app", operator="In", values=(name,)),)
