"""Costs of nodes, now and packed: lines of nodes that are alike, and the pods' shares. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from savings.estimate import Line, Now
from savings.offers import total
from savings.problem import Cluster, overhead_of
from savings.snapshot import CPU, MEMORY, SPOT, Amounts, Market, Snapshot

if TYPE_CHECKING:
    from savings.plan import Packing, PlannedNode

Entry = tuple[str, Market, str, str, float, Amounts, Amounts]
"""Of one node: group, market, type, zone, price, what is requested there, allocatable."""


def now(cluster: Cluster) -> Now:
    """What the nodes with a price cost, and what pods request of them."""
    asked: dict[str, list[Amounts]] = defaultdict(list)
    for pod in cluster.snapshot.pods:
        if pod.node in cluster.node_at:
            asked[pod.node].append(overhead_of(pod.demand))
    entries: list[Entry] = [
        (n.group, n.market, n.instance_type, n.zone, cluster.price(n), total(asked[n.name]),
         n.allocatable)
        for n in cluster.nodes
    ]  # fmt: skip
    return Now(
        cost=sum((entry[4] for entry in entries), 0.0),
        lines=_lines(entries),
        requested=_two(total(entry[5] for entry in entries)),
        allocatable=_two(total(entry[6] for entry in entries)),
        idle_cost=sum((entry[4] * _idle(entry[5], entry[6]) for entry in entries), 0.0),
    )


def of_packing(snapshot: Snapshot, packed: Packing) -> tuple[Line, ...]:
    """The lines of a packing's nodes."""
    asked: dict[int, list[Amounts]] = defaultdict(list)
    for index, node in packed.placed:
        asked[node].append(snapshot.pods[index].demand.requests)
    return _lines(
        (n.group, n.market, n.instance_type, n.zone, n.price, total([*asked[at], n.overhead]),
         n.allocatable)
        for at, n in enumerate(packed.nodes)
    )  # fmt: skip


def shares(snapshot: Snapshot, packed: Packing) -> Iterator[tuple[int, int, float]]:
    """(pod, node, part of the node's price that is the pod's). A node's parts add up to its price,
    unless its pods request nothing.
    """
    asked: dict[int, list[Amounts]] = defaultdict(list)
    for index, node in packed.placed:
        asked[node].append(snapshot.pods[index].demand.requests)
    sums = {node: total(amounts) for node, amounts in asked.items()}
    for index, node in packed.placed:
        requests = snapshot.pods[index].demand.requests
        parts = [
            requests.get(name, 0) / sums[node][name]
            for name in (CPU, MEMORY)
            if sums[node].get(name)
        ]
        share = sum(parts) / len(parts) if parts else 0.0
        yield index, node, share * packed.nodes[node].price


def low_price(cluster: Cluster, node: PlannedNode) -> float:
    """The node's price at the lowest spot price of the history."""
    spot = cluster.types[node.instance_type].spot.get(node.zone)
    return spot.low if node.market == SPOT and spot else node.price


def high_price(cluster: Cluster, node: PlannedNode) -> float:
    """The node's price at the highest spot price of the history."""
    spot = cluster.types[node.instance_type].spot.get(node.zone)
    return spot.high if node.market == SPOT and spot else node.price


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


def _part(resource: str, entries: Iterable[Entry]) -> float:
    entries = list(entries)
    there = sum(entry[6].get(resource, 0) for entry in entries)
    return sum(entry[5].get(resource, 0) for entry in entries) / there if there else 0.0


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
