"""Costs of nodes, now and packed: lines of nodes that are alike, and the pods' shares. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from savings.estimate import Line, Now
from savings.prices import SpotPrice
from savings.problem import Cluster, overhead_of
from savings.snapshot import CPU, MEMORY, SPOT, Amounts, Market, Snapshot, total

if TYPE_CHECKING:
    from savings.plan import Packing, PlannedNode


class Entry(NamedTuple):
    """One node."""

    group: str
    market: Market
    kind: str
    zone: str
    price: float
    requested: Amounts
    allocatable: Amounts


def now(cluster: Cluster) -> Now:
    """What the nodes with a price cost, and what pods request of them."""
    asked: dict[str, list[Amounts]] = defaultdict(list)
    for pod in cluster.snapshot.pods:
        if pod.node in cluster.node_at:
            asked[pod.node].append(overhead_of(pod.demand))
    entries = [
        Entry(n.group, n.market, n.instance_type, n.zone, cluster.price(n), total(asked[n.name]),
              n.allocatable)
        for n in cluster.nodes
    ]  # fmt: skip
    return Now(
        cost=sum((entry.price for entry in entries), 0.0),
        lines=_lines(entries),
        requested=_two(total(entry.requested for entry in entries)),
        allocatable=_two(total(entry.allocatable for entry in entries)),
        idle_cost=sum(
            (entry.price * _idle(entry.requested, entry.allocatable) for entry in entries), 0.0
        ),
    )


def of_packing(snapshot: Snapshot, packed: Packing) -> tuple[Line, ...]:
    """The lines of a packing's nodes."""
    asked = _requested(snapshot, packed)
    return _lines(
        Entry(n.group, n.market, n.instance_type, n.zone, n.price,
              total([asked.get(at, {}), n.overhead]), n.allocatable)
        for at, n in enumerate(packed.nodes)
    )  # fmt: skip


def shares(snapshot: Snapshot, packed: Packing) -> Iterator[tuple[int, int, float]]:
    """(pod, node, part of the node's price that is the pod's). A node's parts add up to its price,
    unless its pods request nothing.
    """
    sums = _requested(snapshot, packed)
    for index, node in packed.placed:
        requests = snapshot.pods[index].demand.requests
        parts = [
            requests.get(name, 0) / sums[node][name]
            for name in (CPU, MEMORY)
            if sums[node].get(name)
        ]
        share = sum(parts) / len(parts) if parts else 0.0
        yield index, node, share * packed.nodes[node].price


def spot_price(cluster: Cluster, node: PlannedNode) -> SpotPrice:
    """The node's price now, lowest and highest; on demand it is the same always."""
    spot = cluster.types[node.instance_type].spot.get(node.zone)
    if node.market == SPOT and spot:
        return spot
    return SpotPrice(now=node.price, low=node.price, high=node.price)


def _requested(snapshot: Snapshot, packed: Packing) -> dict[int, Amounts]:
    """By node: what the pods that are placed there request."""
    asked: dict[int, list[Amounts]] = defaultdict(list)
    for index, node in packed.placed:
        asked[node].append(snapshot.pods[index].demand.requests)
    return {node: total(amounts) for node, amounts in asked.items()}


def _lines(entries: Iterable[Entry]) -> tuple[Line, ...]:
    alike: dict[tuple[str, Market, str, str, float], list[Entry]] = defaultdict(list)
    for entry in entries:
        alike[entry[:5]].append(entry)
    return tuple(
        Line(
            instance_type=kind,
            market=market,
            zone=zone,
            group=group,
            count=len(of),
            price=price,
            cost=price * len(of),
            requested_cpu=_part(CPU, of),
            requested_memory=_part(MEMORY, of),
        )
        for (group, market, kind, zone, price), of in sorted(
            alike.items(), key=lambda each: each[0]
        )
    )


def _part(resource: str, entries: list[Entry]) -> float:
    there = sum(entry.allocatable.get(resource, 0) for entry in entries)
    return sum(entry.requested.get(resource, 0) for entry in entries) / there if there else 0.0


def _idle(requested: Amounts, allocatable: Amounts) -> float:
    """The part of a node that no pod requests: the mean of processor and memory."""
    parts = [
        max(0.0, 1 - requested.get(name, 0) / allocatable[name])
        for name in (CPU, MEMORY)
        if allocatable.get(name)
    ]
    return sum(parts) / len(parts) if parts else 0.0


def _two(amounts: Amounts) -> Amounts:
    return {name: amounts.get(name, 0) for name in (CPU, MEMORY)}
