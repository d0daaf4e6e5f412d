"""The estimate as a pure function: a snapshot and prices in, a plan out. No network, no clock."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

from savings import bound, instance_types, lines, packing
from savings.estimate import Estimate, Interruptions, Step, StepName, Unpriced, Verdict
from savings.offers import binding_taints
from savings.packing import Result
from savings.prices import Prices
from savings.problem import Cluster, Group, Problem, is_daemon
from savings.problem import Step as Allowed
from savings.snapshot import ON_DEMAND, SPOT, Amounts, Market, Node, Snapshot, Taint
from savings.tolerance import Name, workload_of

STEPS: Final[tuple[tuple[StepName, bool, bool], ...]] = (
    ("fewer", False, False),
    ("better", True, False),
    ("spot", True, True),
)
"""Name; whether types come in that the cluster does not use; whether spot does."""

_ATTEMPTS: Final = 4
_ROUNDING: Final = 1e-9  # per hour: less is no saving
_TOLERANCE: Final = 2e-6  # part of the cost: a bound so near is the cost itself
# Of the Spot Advisor's ranges: parts of the instances that are interrupted in a month.
_RANGES: Final[tuple[tuple[float, float | None], ...]] = (
    (0.0, 0.05),
    (0.05, 0.10),
    (0.10, 0.15),
    (0.15, 0.20),
    (0.20, None),
)


@dataclass(frozen=True)
class PlannedNode:
    """A node of a packing."""

    name: str
    """Of a node that exists and stays as it is. Empty: a new one."""
    instance_type: str
    market: Market
    zone: str
    group: str
    price: float
    """Per hour."""
    labels: dict[str, str]
    """Of a new node: those that pods ask for."""
    taints: tuple[Taint, ...]
    allocatable: Amounts
    """Before DaemonSets' and static pods; `pods` included."""
    overhead: Amounts
    """What DaemonSets' and static pods request there."""


@dataclass(frozen=True)
class Packing:
    """Where each pod goes in one step."""

    nodes: tuple[PlannedNode, ...]
    placed: tuple[tuple[int, int], ...]
    """(index in the snapshot's pods, index in `nodes`)."""
    lower_bound: float
    immovable: int
    """Pods that stay where they are, on nodes that are kept for them."""

    @property
    def cost(self) -> float:
        """Per hour."""
        return sum((node.price for node in self.nodes), 0.0)


@dataclass(frozen=True)
class Plan:
    """The estimate, and the packings behind its three steps."""

    estimate: Estimate
    packings: tuple[Packing, ...]


def make(snapshot: Snapshot, prices: Prices) -> Plan:
    """The estimate for a snapshot at these prices."""
    used = {node.instance_type for node in snapshot.nodes}
    considered = instance_types.candidates(prices.types, used)
    cluster = Cluster(snapshot, prices, [kind.name for kind in considered])
    before = _as_it_is(cluster)
    last = _without_empty(before)
    packings: list[Packing] = []
    for _, all_types, spot in STEPS:
        packed = _packed(Allowed(cluster, all_types=all_types, spot=spot))
        if packed.cost > last.cost - _ROUNDING:
            packed = replace(last, lower_bound=packed.lower_bound)
        packings.append(packed)
        last = packed
    lower = 0.0
    for at in reversed(range(len(packings))):
        # A later step may do all that this one may: its bound holds here as well.
        lower = max(lower, packings[at].lower_bound)
        packings[at] = replace(packings[at], lower_bound=_bound(packings[at].cost, lower))
    return Plan(_estimate(cluster, prices, before, packings), tuple(packings))


def _bound(cost: float, lower: float) -> float:
    """Never above the cost. Near it, but for rounding, the cost is the least."""
    return cost if lower >= cost * (1 - _TOLERANCE) else lower


def _packed(step: Allowed) -> Packing:
    """The step's packing. Pods for which none is found stay where they are, with their nodes."""
    stuck: set[int] = set()
    lower = 0.0
    for attempt in range(_ATTEMPTS):
        problem = step.problem(stuck)
        guide = bound.solve(problem)
        if attempt == 0:
            lower = guide.bound + problem.kept_cost
        result = packing.pack(problem, guide)
        if result is None:
            break
        if not result.unplaced:
            return _packing(problem, result, lower)
        stuck |= set(_neighbours(problem, result.unplaced))
    return replace(_without_empty(_as_it_is(step.cluster)), lower_bound=lower)


def _neighbours(problem: Problem, unplaced: Mapping[int, int]) -> Iterator[int]:
    """So many pods of these groups, and those beside them: what holds there holds on."""
    pods = problem.cluster.snapshot.pods
    nodes = {
        pods[index].node
        for group, count in unplaced.items()
        for index in problem.groups[group].pods[-count:]
    }
    return (index for index in problem.cluster.pods if pods[index].node in nodes)


def _as_it_is(cluster: Cluster) -> Packing:
    number = {node.name: at for at, node in enumerate(cluster.nodes)}
    nodes = tuple(_existing(cluster, node) for node in cluster.nodes)
    placed = tuple((index, number[cluster.snapshot.pods[index].node]) for index in cluster.pods)
    packed = Packing(nodes, placed, lower_bound=0.0, immovable=0)
    return replace(packed, lower_bound=packed.cost)


def _without_empty(packed: Packing) -> Packing:
    """The same pods on the same nodes; nodes without any are gone."""
    used = sorted({node for _, node in packed.placed})
    number = {node: at for at, node in enumerate(used)}
    return replace(
        packed,
        nodes=tuple(packed.nodes[node] for node in used),
        placed=tuple((pod, number[node]) for pod, node in packed.placed),
    )


def _existing(cluster: Cluster, node: Node) -> PlannedNode:
    return PlannedNode(
        name=node.name,
        instance_type=node.instance_type,
        market=node.market,
        zone=node.zone,
        group=node.group,
        price=cluster.price(node),
        labels=node.labels,
        taints=binding_taints(node),
        allocatable=node.allocatable,
        overhead=cluster.overhead(node),
    )


def _packing(problem: Problem, result: Result, lower: float) -> Packing:
    cluster = problem.cluster
    nodes = []
    for column in result.columns:
        if column >= problem.offers:
            nodes.append(_existing(cluster, problem.kept[column - problem.offers]))
            continue
        offer = problem.step.offers[column]
        nodes.append(
            PlannedNode(
                name="",
                instance_type=offer.kind.name,
                market=offer.market,
                zone=offer.zone,
                group=offer.profile.groups[offer.market],
                price=offer.price,
                labels=dict(offer.labels),
                taints=offer.profile.taints,
                allocatable=offer.allocatable,
                overhead=offer.overhead,
            )
        )
    pinned = [(index, column - problem.offers) for index, column, _ in problem.pinned]
    return Packing(tuple(nodes), (*pinned, *_placed(problem, result)), lower, immovable=len(pinned))


def _placed(problem: Problem, result: Result) -> list[tuple[int, int]]:
    """Pods by node. Those that follow others come last; those that spread take turns."""
    waiting = [iter(group.pods) for group in problem.groups]
    found = [
        (_turn(problem.groups[group], turn), next(waiting[group]), node)
        for node, content in enumerate(result.content)
        for group, count in sorted(content.items())
        for turn in range(count)
    ]
    return [(pod, node) for _, pod, node in sorted(found)]


def _turn(group: Group, turn: int) -> tuple[int, int]:
    if group.needs.affinity:
        return (1, 0)
    return (0, turn if group.needs.spread else 0)


# The estimate -------------------------------------------------------------------------------------


def _estimate(
    cluster: Cluster, prices: Prices, before: Packing, packings: list[Packing]
) -> Estimate:
    snapshot = cluster.snapshot
    known = {node.name for node in snapshot.nodes}  # a node can go while the lists are read
    on_nodes = [pod for pod in snapshot.pods if pod.node in cluster.node_at]
    costs = [before.cost, *(packed.cost for packed in packings)]
    return Estimate(
        cluster=snapshot.cluster,
        region=snapshot.region,
        currency=prices.currency,
        taken=snapshot.taken,
        prices_taken=prices.taken,
        history_days=prices.history_days,
        nodes=len(cluster.nodes),
        pods=len(cluster.pods),
        daemon_pods=sum(is_daemon(pod) or pod.static for pod in on_nodes),
        now=lines.now(cluster),
        steps=tuple(
            Step(
                name=name,
                cost=packed.cost,
                saved=costs[at] - packed.cost,
                lower_bound=packed.lower_bound,
                low=sum(lines.spot_price(cluster, node).low for node in packed.nodes),
                high=sum(lines.spot_price(cluster, node).high for node in packed.nodes),
                nodes=len(packed.nodes),
                lines=lines.of_packing(snapshot, packed),
                kept=sum(bool(node.name) for node in packed.nodes),
            )
            for at, ((name, _, _), packed) in enumerate(zip(STEPS, packings, strict=True))
        ),
        verdicts=tuple(_verdicts(cluster, packings[-1])),
        unpriced=tuple(_left_out(cluster)),
        pods_without_requests=sum(snapshot.pods[at].without_requests for at in cluster.pods),
        pending=sum(pod.node not in known and not is_daemon(pod) for pod in snapshot.pods),
        immovable=packings[-1].immovable,
        types_considered=len({offer.kind.name for offer in cluster.offers}),
        types_without_price=tuple(
            sorted(kind.name for kind in prices.types if kind.on_demand is None and not kind.spot)
        ),
        interruptions=_interruptions(cluster, packings[-1]),
    )


def _left_out(cluster: Cluster) -> Iterator[Unpriced]:
    nodes = Counter(each.reason for each in cluster.left_out)
    reason_of = {each.node.name: each.reason for each in cluster.left_out}
    pods = Counter(reason_of[p.node] for p in cluster.snapshot.pods if p.node in reason_of)
    for reason, count in sorted(nodes.items()):
        yield Unpriced(nodes=count, pods=pods[reason], reason=reason)


def _verdicts(cluster: Cluster, last: Packing) -> list[Verdict]:
    pods: dict[Name, list[int]] = defaultdict(list)
    for index in cluster.pods:
        pods[workload_of(cluster.snapshot.pods[index])].append(index)
    cost: dict[int, float] = {}
    gain: dict[int, float] = {}
    for index, node, share in lines.shares(cluster.snapshot, last):
        cost[index] = share
        gain[index] = share * _spot_saves(cluster, last.nodes[node])
    verdicts = []
    for (namespace, owner), of in pods.items():
        refusals = cluster.refusals[namespace, owner]
        on_spot = sum(cluster.node_at[cluster.snapshot.pods[at].node].market == SPOT for at in of)
        verdicts.append(
            Verdict(
                namespace=namespace,
                owner=owner,
                pods=len(of),
                tolerates_spot=not refusals,
                reasons=refusals,
                on_spot=on_spot,
                cost=sum(cost[at] for at in of),
                gain=sum(gain[at] for at in of) if refusals else 0.0,
            )
        )
    return sorted(verdicts, key=lambda each: (-round(each.cost, 9), each.namespace, each.owner))


def _spot_saves(cluster: Cluster, node: PlannedNode) -> float:
    """Part of the node's price that spot would save; 0 on spot, or where no price is known."""
    spot = cluster.types[node.instance_type].spot.get(node.zone)
    if node.market != ON_DEMAND or spot is None:
        return 0.0
    return max(0.0, 1 - spot.now / node.price)


def _interruptions(cluster: Cluster, last: Packing) -> Interruptions | None:
    if all(kind.interrupted is None for kind in cluster.types.values()):
        return None
    low, high, unknown = 0.0, 0.0, 0
    endless = False
    for node in last.nodes:
        if node.market != SPOT:
            continue
        rating = cluster.types[node.instance_type].interrupted
        if rating is None:
            unknown += 1
            continue
        least, most = _RANGES[rating]
        low += least
        endless |= most is None
        high += most or 0.0
    return Interruptions(low=low, high=None if endless else high, unknown=unknown)
