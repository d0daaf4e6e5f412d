"""The judge refuses what Kubernetes would, each with its own reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from savings.plan import Packing, PlannedNode
from savings.prices import InstanceType, Prices, SpotPrice
from savings.snapshot import (
    DaemonSet,
    Demand,
    Node,
    Pod,
    PodTerm,
    Requirement,
    Snapshot,
    Spread,
    Taint,
    Toleration,
)
from tests.unit.savings.judge import HOSTNAME, MIB, ZONE_KEYS, Host, Judge, given, lonely, skewed
from tests.unit.savings.worlds import as_it_is

ZONE = ZONE_KEYS[0]
A, B = "eu-central-1a", "eu-central-1b"
TAINT = Taint(key="dedicated", value="x", effect="NoSchedule")
OTHER_TAINT = Taint(key="dedicated", value="y", effect="NoSchedule")
TOLERATES = (Toleration(key="dedicated", value="x", effect="NoSchedule"),)


def kind(name: str, arch: str = "amd64", vcpus: int = 2) -> InstanceType:
    """An instance type that both zones offer."""
    return InstanceType(
        name=name, vcpus=vcpus, memory=8 * 2**30, arch=arch, interfaces=3, addresses=10,
        zones=(A, B), on_demand=0.1, spot={A: SpotPrice(now=0.03, low=0.02, high=0.04)},
    )  # fmt: skip


M5, ARM, LARGE = kind("m5.large"), kind("m7g.large", "arm64"), kind("m5.xlarge", vcpus=4)
OLD = msgspec.structs.replace(kind("m1.large"), current=False)


def node(name: str, of: InstanceType, zone: str, **more: Any) -> Node:
    """A node on demand."""
    return Node(
        name=name, instance_type=of.name, zone=zone, arch=of.arch,
        allocatable=given(of, prefixes=False),
        labels={ZONE: zone, "kubernetes.io/arch": of.arch, HOSTNAME: name}, **more,
    )  # fmt: skip


def pod(name: str, on: str, cpu: int = 100, **more: Any) -> Pod:
    """A pod of a Deployment of the same name."""
    demand = {key: more.pop(key) for key in ("tolerations", "host_ports", "node_selector")
              if key in more}  # fmt: skip
    return Pod(
        namespace="shop", name=name, node=on, owner=f"Deployment/{name}", labels={"app": name},
        demand=Demand(requests={"cpu": cpu, "memory": 64 * MIB}, **demand), **more,
    )  # fmt: skip


def about(*names: str) -> tuple[Requirement, ...]:
    """Of the pods with one of these names."""
    return (Requirement(key="app", operator="In", values=names),)


PAIR = about("spread-0", "spread-1")
PODS = (
    pod("web", "n0", anti_affinity=(PodTerm(topology_key=HOSTNAME, selector=about("rival")),)),
    pod("rival", "n1", tolerations=TOLERATES),
    pod("plain", "n0"),
    pod("arm", "n2"),
    pod("port", "n0", host_ports=("TCP/80",)),
    pod("same-port", "n1", host_ports=("TCP/80",), tolerations=TOLERATES),
    pod("master", "n0"),
    pod("beside", "n0", affinity=(PodTerm(topology_key=HOSTNAME, selector=about("master")),)),
    pod("spread-0", "n0", tolerations=TOLERATES,
        spread=(Spread(topology_key=HOSTNAME, max_skew=1, selector=PAIR),)),
    pod("spread-1", "n1", tolerations=TOLERATES),
    pod("zonal", "n0", tolerations=TOLERATES, node_selector={ZONE: A}),
    pod("large", "n1", cpu=1000, tolerations=TOLERATES),
    pod("also-large", "n0", cpu=800, tolerations=TOLERATES),
    pod("stays", "n0", tolerations=TOLERATES,
        affinity=(PodTerm(topology_key=ZONE, selector=about("stays")),)),
    pod("waits", ""),
)  # fmt: skip
INDEX = {each.name: at for at, each in enumerate(PODS)}
SNAPSHOT = Snapshot(
    cluster="small",
    region="eu-central-1",
    taken="2026-01-31T12:00:00Z",
    nodes=(node("n0", M5, A), node("n1", M5, B, taints=(TAINT,)), node("n2", ARM, A)),
    pods=PODS,
    daemon_sets=(
        DaemonSet(
            namespace="kube-system",
            name="agent",
            demand=Demand(requests={"cpu": 50}, tolerations=(Toleration(operator="Exists"),)),
        ),
    ),
)
PRICES = Prices(
    region="eu-central-1",
    taken="2026-01-31T12:00:00Z",
    history_days=90,
    types=(M5, ARM, LARGE, OLD),
)
AS_IT_IS = as_it_is(SNAPSHOT, PRICES)
FRESH = replace(
    AS_IT_IS,
    nodes=tuple(replace(each, name="", labels={ZONE: each.zone}) for each in AS_IT_IS.nodes),
)
"""Each node is replaced by a new one of its kind."""

Change = Callable[[Packing], Packing]


def moved(name: str, to: int) -> Change:
    """A pod is elsewhere."""
    return lambda packing: replace(
        packing,
        placed=tuple((at, to if at == INDEX[name] else on) for at, on in packing.placed),
    )


def changed(number: int, **how: Any) -> Change:
    """A node is different."""

    def change(packing: Packing) -> Packing:
        nodes = list(packing.nodes)
        nodes[number] = replace(nodes[number], **how)
        return replace(packing, nodes=tuple(nodes))

    return change


def without(name: str) -> Change:
    """A pod is missing."""
    return lambda packing: replace(
        packing, placed=tuple(each for each in packing.placed if each[0] != INDEX[name])
    )


def with_pod(name: str, on: int) -> Change:
    """A pod is there once more."""
    return lambda packing: replace(packing, placed=(*packing.placed, (INDEX[name], on)))


def with_node(like: int, **how: Any) -> Change:
    """A further node."""
    return lambda packing: replace(
        packing, nodes=(*packing.nodes, replace(packing.nodes[like], **how))
    )


def allocatable(of: PlannedNode, what: str, more: int) -> dict[str, int]:
    """More of a resource than there is."""
    return {**of.allocatable, what: of.allocatable[what] + more}


@pytest.mark.parametrize("step", [1, 2, 3])
@pytest.mark.parametrize("packing", [AS_IT_IS, FRESH])
def test_a_legal_packing_is_accepted(packing: Packing, step: int) -> None:
    assert Judge(SNAPSHOT, PRICES, ()).faults(packing, step=step) == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (without("plain"), "plain is placed 0 times"),
        (with_pod("plain", 1), "plain is placed 2 times"),
        (with_pod("waits", 0), "waits has no place to be given"),
        (moved("zonal", 1), "zonal on m5.large: its selector wants another node"),
        (moved("plain", 1), "plain on m5.large: it does not tolerate dedicated"),
        (moved("plain", 2), "plain on m7g.large: it runs on amd64"),
        (moved("also-large", 1), "node number 1 (m5.large): 2150 cpu of 1930"),
        (moved("web", 1), "web and rival exclude each other by kubernetes.io/hostname"),
        (moved("rival", 0), "web and rival exclude each other by kubernetes.io/hostname"),
        (moved("same-port", 0), "node number 0 (m5.large): 2 port:TCP/80 of 1"),
        (moved("master", 2), "beside misses a pod of its affinity by kubernetes.io/hostname"),
        (moved("spread-1", 0), "spread-0 is spread by kubernetes.io/hostname with a skew of 2: "),
        (moved("stays", 1), f"stays on m5.large: it stays in the {ZONE} {A}"),
        (changed(0, price=0.05), "node number 0 (m5.large): its price is 0.1, not 0.05"),
        (
            changed(0, market="spot", price=0.03),
            "plain on m5.large: it runs in the market on-demand",
        ),
        (changed(0, zone="eu-central-1c"), "eu-central-1c does not offer its type"),
        (changed(0, instance_type="m5.xlarge"), "its type is not in use"),
        (changed(0, instance_type="m1.large"), "its type is not considered"),
        (changed(0, instance_type="m9.large"), "m9.large has no price"),
        (changed(0, labels={ZONE: B}), f"its label {ZONE} is {B}, not {A}"),
        (changed(0, labels={}), "no node has its labels and taints: "),
        (changed(0, taints=(OTHER_TAINT,)), "no node has its labels and taints: "),
        (
            changed(0, allocatable=allocatable(FRESH.nodes[0], "pods", 1)),
            "it has 30 pods, EKS gives 29",
        ),
        (changed(0, overhead={}), "DaemonSets take 50 cpu, not 0"),
        (with_node(0, name="n7"), "node n7 does not exist"),
        (lambda packing: replace(packing, lower_bound=0.31), "is below the bound of 0.31"),
    ],
)
def test_an_illegal_packing_is_refused(change: Change, reason: str) -> None:
    faults = Judge(SNAPSHOT, PRICES, ()).faults(change(FRESH), step=1)
    assert [fault for fault in faults if reason in fault] != []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (changed(0, price=0.0), "n0: its price is 0.1, not 0.0"),
        (changed(0, zone=B), "n0: it is kept, and differs from the node that exists"),
        (with_node(0), "node n0 is kept 2 times"),
    ],
)
def test_a_changed_kept_node_is_refused(change: Change, reason: str) -> None:
    faults = Judge(SNAPSHOT, PRICES, ()).faults(change(AS_IT_IS), step=1)
    assert [fault for fault in faults if reason in fault] != []


def test_only_what_tolerates_spot_may_go_there_and_only_in_the_third_step() -> None:
    spot = with_node(0, market="spot", price=0.03)
    packing = moved("plain", 3)(spot(FRESH))
    tolerant = {("shop", "Deployment/plain")}
    # The spread's domain grows with the new node: one pod each elsewhere is still within 1.
    assert Judge(SNAPSHOT, PRICES, tolerant).faults(packing, step=3) == []
    for judge, step in ((Judge(SNAPSHOT, PRICES, tolerant), 2), (Judge(SNAPSHOT, PRICES, ()), 3)):
        assert judge.faults(packing, step=step) == [
            "plain on m5.large: it runs in the market on-demand"
        ]


def test_an_overfull_node_is_accepted_only_where_everything_is_as_it_is() -> None:
    nodes = [
        msgspec.structs.replace(each, allocatable={**each.allocatable, "cpu": 500})
        for each in SNAPSHOT.nodes
    ]
    snapshot = msgspec.structs.replace(SNAPSHOT, nodes=tuple(nodes))
    packing = as_it_is(snapshot, PRICES)
    judge = Judge(snapshot, PRICES, ())
    assert judge.faults(packing, step=1) == []
    assert judge.faults(moved("spread-1", 2)(packing), step=1) != []


@pytest.mark.parametrize(("beside", "refused"), [(["both"], False), (["web", "cache"], True)])
def test_one_pod_has_to_match_all_terms_of_an_affinity(beside: list[str], refused: bool) -> None:
    # kube-scheduler's rule: a pod that only one term is about counts for none.
    terms = tuple(
        PodTerm(topology_key=HOSTNAME, selector=about(name, "both")) for name in ("web", "cache")
    )
    host = Host("n0", {HOSTNAME: "n0"}, ())
    host.pods = [pod("follows", "n0", affinity=terms), *(pod(name, "n0") for name in beside)]
    assert bool(list(lonely([host]))) == refused


@pytest.mark.parametrize(("was_on", "refused"), [("n0", False), ("n9", True)])
def test_a_spread_holds_for_pods_that_are_placed_anew(was_on: str, *, refused: bool) -> None:
    # Kubernetes evicts no pod that runs because a node without its like was added.
    spread = (Spread(topology_key=HOSTNAME, max_skew=1, selector=PAIR),)
    full, empty = Host("n0", {HOSTNAME: "n0"}, ()), Host("", {HOSTNAME: "new-1"}, ())
    full.pods = [pod(f"spread-{at}", was_on, spread=spread) for at in range(2)]
    assert bool(list(skewed([full, empty]))) == refused
