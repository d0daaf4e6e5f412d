"""Clusters whose estimate can be done in the head: the arithmetic stands beside each figure."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from savings import plan
from savings.estimate import Estimate, Step
from savings.prices import SpotPrice
from savings.snapshot import Budget, PodTerm, Requirement, Spread, Taint, Toleration
from tests.unit.savings.clusters import (
    HOST,
    ZONE,
    A,
    B,
    app,
    cluster,
    daemon,
    kind,
    node,
    pod,
    prices,
)

# m5.xlarge: 4 cores, 16 GiB, 0.20 an hour on demand and 0.08 on spot; half as much as m5.2xlarge.
XLARGE = kind("m5.xlarge", 4, 0.20, spot=0.08)
DOUBLE = kind("m5.2xlarge", 8, 0.40, spot=0.16)


def estimate(snapshot: Any, *types: Any) -> Estimate:
    return plan.make(snapshot, prices(*types or (XLARGE,))).estimate


def costs(found: Estimate) -> list[float]:
    return [pytest.approx(step.cost) for step in found.steps]


def used(step: Step) -> dict[tuple[str, str, str], int]:
    """Number of nodes by type, market and zone."""
    return {(line.instance_type, line.market, line.zone): line.count for line in step.lines}


def test_two_half_empty_nodes_become_one() -> None:
    # 2 x 0.20 now. 1.5 + 2 cores fit one node of 4: 0.20. Spot: one replica each stays on demand.
    found = estimate(
        cluster(
            [node("n1", "m5.xlarge"), node("n2", "m5.xlarge")],
            [pod("one-1", "n1", 1.5), pod("two-1", "n2", 2)],
        )
    )
    assert found.now.cost == pytest.approx(0.40)
    assert costs(found) == [0.20, 0.20, 0.20]
    assert [step.saved for step in found.steps] == pytest.approx([0.20, 0, 0])
    assert found.steps[0].lower_bound == pytest.approx(0.20)
    assert used(found.steps[0]) == {("m5.xlarge", "on-demand", A): 1}


def test_what_no_pod_requests() -> None:
    # 1 of 4 cores and 4 of 16 GiB: (3/4 + 3/4) / 2 of 0.20 is idle.
    found = estimate(cluster([node("n1", "m5.xlarge")], [pod("one-1", "n1", 1, 4)]))
    assert found.now.idle_cost == pytest.approx(0.15)
    assert found.now.requested == {"cpu": 1000, "memory": 4 * 2**30}


def test_a_better_type_comes_in_the_second_step() -> None:
    # 4 cores and 2 GiB: a c5.xlarge at 0.17 does; the first step may only use m5.xlarge.
    found = estimate(
        cluster([node("n1", "m5.xlarge")], [pod("one-1", "n1", 3, 2)]),
        XLARGE,
        kind("c5.xlarge", 4, 0.17),
    )
    assert costs(found) == [0.20, 0.17, 0.17]


def test_replicas_go_to_spot_and_a_single_one_does_not() -> None:
    # web has 3 replicas of 1 core, db one of 3.5, and nodes have 4 cores: an on-demand node for db
    # and a spot node for web. 0.20 + 0.08 against 2 x 0.20.
    pods = [pod(f"web-{n}", "n1", 1) for n in range(3)] + [pod("db-0", "n2", 3.5)]
    found = estimate(cluster([node("n1", "m5.xlarge"), node("n2", "m5.xlarge")], pods))
    assert costs(found) == [0.40, 0.40, 0.28]
    by_owner = {verdict.owner: verdict for verdict in found.verdicts}
    assert by_owner["Deployment/web"].tolerates_spot
    assert by_owner["Deployment/db"].reasons == (
        "it has one replica, which would be away until the next is ready",
    )
    # db has its node for itself: 0.20. On spot the node would cost 0.08 of 0.20: 60 % less.
    assert by_owner["Deployment/db"].cost == pytest.approx(0.20)
    assert by_owner["Deployment/db"].gain == pytest.approx(0.12)
    assert by_owner["Deployment/web"].cost == pytest.approx(0.08)
    assert by_owner["Deployment/web"].gain == 0


def test_the_steps_add_up() -> None:
    pods = [pod(f"web-{n}", f"n{n}", 1, 2) for n in range(4)]
    nodes = [node(f"n{n}", "m5.xlarge") for n in range(4)]
    found = estimate(cluster(nodes, pods), XLARGE, kind("c5.xlarge", 4, 0.17, spot=0.05))
    # 4 x 0.20, then 4 cores on one m5.xlarge, then c5.xlarge (8 GiB for 8), then its spot price.
    assert found.now.cost == pytest.approx(0.80)
    assert costs(found)[0] == 0.20
    assert found.now.cost - found.saved == pytest.approx(found.steps[-1].cost)


def test_daemon_sets_take_their_share_of_every_node() -> None:
    # 1 core of each node is the DaemonSet's: 3 + 3 cores need two nodes, 2 + 1 fit one.
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge")]
    for sizes, nodes_needed in (((3, 3), 2), ((2, 1), 1)):
        pods = [pod("a-1", "n1", sizes[0]), pod("b-1", "n2", sizes[1])]
        found = estimate(cluster(nodes, pods, daemon_sets=(daemon("log", 1),)))
        assert found.steps[0].nodes == nodes_needed


def test_a_daemon_set_counts_only_where_it_runs() -> None:
    # The DaemonSet is for GPU nodes: 4 cores are there for pods.
    only = daemon("gpu", 3, node_selector={"gpu": "true"})
    pods = [pod("a-1", "n1", 2), pod("b-1", "n2", 2)]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge")]
    assert estimate(cluster(nodes, pods, daemon_sets=(only,))).steps[0].nodes == 1


def test_a_volume_keeps_its_pod_in_its_zone() -> None:
    # Two pods of 1 core would fit one node; their volumes are in two zones.
    def in_zone(zone: str) -> Any:
        return ((plan_term(zone),),)

    def plan_term(zone: str) -> Any:
        return (Requirement(key=ZONE, operator="In", values=(zone,)),)

    pods = [
        pod("a-1", "n1", 1, node_terms=in_zone(A)),
        pod("b-1", "n2", 1, node_terms=in_zone(B)),
    ]
    found = estimate(cluster([node("n1", "m5.xlarge"), node("n2", "m5.xlarge", zone=B)], pods))
    assert used(found.steps[0]) == {
        ("m5.xlarge", "on-demand", A): 1,
        ("m5.xlarge", "on-demand", B): 1,
    }


@pytest.mark.parametrize(
    "rule",
    [
        {"anti_affinity": (PodTerm(topology_key=HOST, selector=app("web")),)},
        {"host_ports": ("TCP/8080",)},
    ],
)
def test_pods_that_keep_apart_need_a_node_each(rule: dict[str, Any]) -> None:
    # Three pods of 0.5 cores fit one node by size.
    pods = [pod(f"web-{n}", f"n{n}", 0.5, **rule) for n in range(3)]
    nodes = [node(f"n{n}", "m5.xlarge") for n in range(3)]
    found = estimate(cluster(nodes, pods))
    assert found.steps[0].nodes == 3
    assert found.steps[0].lower_bound == pytest.approx(0.60)


def test_pods_that_belong_together_stay_together() -> None:
    # The cache wants the node of a web pod: both on one node, and web's second pod too.
    near = (PodTerm(topology_key=HOST, selector=app("web")),)
    pods = [pod("web-1", "n1"), pod("web-2", "n2"), pod("cache-1", "n1", affinity=near)]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge")]
    made = plan.make(cluster(nodes, pods), prices(XLARGE))
    where = dict(made.packings[0].placed)
    assert where[2] in (where[0], where[1])
    assert made.estimate.steps[0].nodes == 1


def test_pods_that_spread_over_zones_stay_in_theirs() -> None:
    spread = (Spread(topology_key=ZONE, max_skew=1, selector=app("web")),)
    pods = [pod("web-1", "n1", spread=spread), pod("web-2", "n2", spread=spread)]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge", zone=B)]
    found = estimate(cluster(nodes, pods))
    assert {zone for _, _, zone in used(found.steps[0])} == {A, B}


def test_pods_that_spread_over_nodes() -> None:
    # Four pods with a skew of at most 1 between nodes. Nothing else needs a second node.
    spread = (Spread(topology_key=HOST, max_skew=1, selector=app("web")),)
    pods = [pod(f"web-{n}", f"n{n % 2}", spread=spread) for n in range(4)]
    found = estimate(cluster([node("n0", "m5.xlarge"), node("n1", "m5.xlarge")], pods))
    assert found.steps[0].nodes in (1, 2)
    assert found.steps[0].cost <= 0.40


def test_taints_and_selectors_keep_their_node_group() -> None:
    # data's node is tainted and labelled; web does not tolerate the taint.
    taint = Taint(key="team", value="data", effect="NoSchedule")
    labels = {"team": "data"}
    pods = [
        pod("web-1", "n1"),
        pod(
            "data-1",
            "n2",
            node_selector=labels,
            tolerations=(Toleration(key="team", operator="Exists"),),
        ),
    ]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge", labels=labels, taints=(taint,))]
    made = plan.make(cluster(nodes, pods), prices(XLARGE))
    assert made.estimate.steps[0].nodes == 2
    assert [bool(each.taints) for each in made.packings[0].nodes].count(True) == 1


def test_a_pod_goes_to_no_node_of_a_daemon_set_that_it_avoids() -> None:
    # The DaemonSet runs on n1 alone, which stays for its volume; web would fit there.
    scan = daemon("scan", 0.5, node_selector={HOST: "n1"})
    scan = msgspec.structs.replace(scan, namespace="shop", labels={"app": "scan"})
    own = (((Requirement(key=HOST, operator="In", values=("n1",)),),),)
    away = (PodTerm(topology_key=HOST, selector=app("scan")),)
    pods = [pod("db-0", "n1", 1, node_terms=own), pod("web-1", "n2", 1, anti_affinity=away)]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge")]
    found = estimate(cluster(nodes, pods, daemon_sets=(scan,)))
    assert costs(found) == [0.40, 0.40, 0.40]


def test_a_local_volume_keeps_its_node() -> None:
    # db's volume is on n1's disk: n1 stays an m5.2xlarge at 0.40, and web moves in beside it.
    own = (((Requirement(key=HOST, operator="In", values=("n1",)),),),)
    pods = [
        pod("db-0", "n1", 1, node_terms=own, local_volumes=("PersistentVolumeClaim data",)),
        pod("web-1", "n2", 2),
    ]
    nodes = [node("n1", "m5.2xlarge", 8, 32), node("n2", "m5.xlarge")]
    found = estimate(cluster(nodes, pods), XLARGE, DOUBLE)
    assert costs(found) == [0.40, 0.40, 0.40]
    assert (found.steps[0].kept, found.immovable) == (1, 1)


def test_a_pod_stays_on_its_architecture() -> None:
    arm = kind("m7g.xlarge", 4, 0.15, arch="arm64")
    nodes = [node("n1", "m5.xlarge"), node("n2", "m7g.xlarge", arch="arm64")]
    found = estimate(cluster(nodes, [pod("web-1", "n1")]), XLARGE, arm)
    assert costs(found) == [0.20, 0.20, 0.20]


def test_a_selector_for_both_architectures_allows_both() -> None:
    both = (((Requirement(key="kubernetes.io/arch", operator="In",
                          values=("amd64", "arm64")),),),)  # fmt: skip
    # The ARM node is empty: only the architectures of the cluster's nodes are considered.
    pods = [pod("web-1", "n1", node_terms=both)]
    arm = kind("m7g.xlarge", 4, 0.15, arch="arm64")
    nodes = [node("n1", "m5.xlarge"), node("n2", "m7g.xlarge", arch="arm64")]
    assert costs(estimate(cluster(nodes, pods), XLARGE, arm))[0] == 0.15


def test_a_cluster_of_arm_nodes() -> None:
    arm = kind("m7g.xlarge", 4, 0.15, arch="arm64")
    nodes = [node(name, "m7g.xlarge", arch="arm64") for name in ("n1", "n2")]
    found = estimate(cluster(nodes, [pod("a-1", "n1"), pod("b-1", "n2")]), arm, XLARGE)
    assert costs(found)[0] == 0.15


def test_a_pod_with_a_gpu_stays_in_its_family() -> None:
    gpu = {"nvidia.com/gpu": 1}
    small = kind("g4dn.xlarge", 4, 0.60, accelerators=gpu)
    large = kind("g4dn.2xlarge", 8, 0.90, accelerators=gpu)
    other = kind("g5.xlarge", 4, 0.50, accelerators=gpu)
    allocatable = {"cpu": 8000, "memory": 32 * 2**30, "pods": 58, **gpu}
    nodes = [node("n1", "g4dn.2xlarge", allocatable=allocatable)]
    found = estimate(cluster(nodes, [pod("ml-1", "n1", 1, further=gpu)]), small, large, other)
    assert costs(found) == [0.90, 0.60, 0.60]


def test_pods_without_requests_count_as_nothing_and_are_counted() -> None:
    empty = pod("web-1", "n1", 0, 0, without_requests=True)
    found = estimate(cluster([node("n1", "m5.xlarge")], [empty]), XLARGE, DOUBLE)
    assert (found.pods_without_requests, costs(found)[0]) == (1, 0.20)


def test_no_pods_need_no_nodes() -> None:
    found = estimate(cluster([node("n1", "m5.xlarge")], []))
    assert (found.now.cost, found.steps[0].cost, found.now.idle_cost) == (0.20, 0, 0.20)


def test_no_nodes_cost_nothing() -> None:
    found = estimate(cluster([], [pod("web-1", "")]))
    assert (found.now.cost, found.steps[-1].cost, found.pending) == (0, 0, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"fargate": True}, "Fargate"),
        ({"os": "windows"}, "Windows"),
        ({"instance_type": "x9.large"}, "no price for x9.large"),
        ({"market": "spot", "zone": "eu-central-1c"},
         "no price for m5.xlarge on spot in eu-central-1c"),
    ],
)  # fmt: skip
def test_nodes_without_a_price_are_left_out_with_their_pods(
    changes: dict[str, Any], reason: str
) -> None:
    zone = changes.pop("zone", A)
    out = msgspec.structs.replace(node("n2", "m5.xlarge", zone=zone), **changes)
    found = estimate(cluster([node("n1", "m5.xlarge"), out], [pod("a-1", "n1"), pod("b-1", "n2")]))
    (left,) = found.unpriced
    assert (left.nodes, left.pods, left.reason) == (1, 1, reason)
    assert (found.now.cost, found.nodes, found.pods) == (0.20, 1, 1)


def test_low_and_high_are_the_same_nodes_at_other_spot_prices() -> None:
    spot = {A: SpotPrice(now=0.08, low=0.05, high=0.11)}
    pods = [pod("web-1", "n1"), pod("web-2", "n1")]
    found = estimate(cluster([node("n1", "m5.xlarge")], pods), kind("m5.xlarge", 4, 0.2, spot=spot))
    last = found.steps[-1]
    assert (last.cost, last.low, last.high) == pytest.approx((0.08, 0.05, 0.11))
    assert (found.steps[0].low, found.steps[0].high) == pytest.approx((0.20, 0.20))


def test_the_cheaper_of_two_zones() -> None:
    spot = {A: 0.09, B: 0.07}
    pods = [pod("web-1", "n1"), pod("web-2", "n2")]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge", zone=B)]
    found = estimate(cluster(nodes, pods), kind("m5.xlarge", 4, 0.2, spot=spot))
    assert used(found.steps[-1]) == {("m5.xlarge", "spot", B): 1}


def test_a_zone_without_nodes_gets_none() -> None:
    # Spot is cheaper in b, where the cluster has no node, and so perhaps no subnet.
    pods = [pod("web-1", "n1"), pod("web-2", "n1")]
    types = kind("m5.xlarge", 4, 0.2, spot={A: 0.09, B: 0.07})
    assert costs(estimate(cluster([node("n1", "m5.xlarge")], pods), types))[-1] == 0.09


def test_money_is_in_the_currency_of_the_prices() -> None:
    snapshot = cluster([node("n1", "m5.xlarge")], [pod("web-1", "n1")])
    assert plan.make(snapshot, prices(XLARGE, currency="CNY")).estimate.currency == "CNY"


def test_interruptions_are_the_sum_of_the_ranges() -> None:
    # Two spot nodes, of the range 5-10 %: 0.10 to 0.20 interruptions in 30 days.
    rated = kind("m5.xlarge", 4, 0.2, spot=0.08, interrupted=1)
    pods = [pod(f"web-{n}", f"n{n}", 3) for n in range(2)]
    found = estimate(cluster([node(f"n{n}", "m5.xlarge") for n in range(2)], pods), rated)
    assert found.interruptions is not None
    assert (found.interruptions.low, found.interruptions.high) == pytest.approx((0.10, 0.20))


def test_a_pod_on_spot_now_stays_there_in_every_step() -> None:
    found = estimate(cluster([node("n1", "m5.xlarge", market="spot")], [pod("db-0", "n1")]), XLARGE)
    assert costs(found) == [0.08, 0.08, 0.08]
    (verdict,) = found.verdicts
    assert (verdict.tolerates_spot, verdict.on_spot, verdict.gain) == (False, 1, 0)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"owner": ""}, "no controller would create it again"),
        ({"owner": "Job/backup"}, "a Job would begin again"),
        ({"local_volumes": ("hostPath",)}, "it uses the node's own disk (hostPath)"),
        ({"grace": 116}, "its grace of 116 s does not fit the 120 s of a spot notice"),
        (
            {"opt_outs": ("karpenter.sh/do-not-disrupt: true",)},
            "it opts out (karpenter.sh/do-not-disrupt: true)",
        ),
        (
            {"node_selector": {"eks.amazonaws.com/capacityType": "ON_DEMAND"}},
            "its node selector or affinity demands on-demand nodes",
        ),
    ],
)
def test_why_a_workload_does_not_tolerate_spot(changes: dict[str, Any], reason: str) -> None:
    pods = [pod(f"web-{n}", "n1", **changes) for n in range(2)]
    found = estimate(cluster([node("n1", "m5.xlarge")], pods))
    assert {verdict.reasons for verdict in found.verdicts} == {(reason,)}
    assert costs(found)[-1] == 0.20


@pytest.mark.parametrize("grace", [0, 115])
def test_a_grace_that_fits_is_no_reason(grace: int) -> None:
    pods = [pod(f"web-{n}", "n1", grace=grace) for n in range(2)]
    assert estimate(cluster([node("n1", "m5.xlarge")], pods)).verdicts[0].tolerates_spot


@pytest.mark.parametrize(
    ("budget", "strict"),
    [
        ({"max_unavailable": 0}, True),
        ({"max_unavailable": "0%"}, True),
        ({"max_unavailable": "1%"}, False),  # rounded up: 1 of 2
        ({"min_available": 2}, True),
        ({"min_available": "100%"}, True),
        ({"min_available": "51%"}, True),  # rounded up: 2 of 2
        ({"min_available": "50%"}, False),
        ({"min_available": 1}, False),
        ({}, False),
    ],
)
def test_a_budget_that_never_allows_an_eviction(budget: dict[str, Any], strict: bool) -> None:
    pods = [pod(f"web-{n}", "n1") for n in range(2)]
    own = Budget(namespace="shop", name="web", selector=app("web"), **budget)
    found = estimate(cluster([node("n1", "m5.xlarge")], pods, budgets=(own,)))
    expected = ("its budget web allows no eviction",) if strict else ()
    assert found.verdicts[0].reasons == expected


def test_pods_of_one_moment_that_wait_are_not_in_the_estimate() -> None:
    pods = [pod("a-1", "n1"), pod("b-1", ""), pod("c-1", "gone")]
    found = estimate(cluster([node("n1", "m5.xlarge")], pods))
    assert (found.pods, found.pending) == (1, 2)


def test_what_cannot_be_placed_elsewhere_stays() -> None:
    # The pod asks for a resource that only its node's device plugin offers.
    own = {"example.com/device": 1}
    allocatable = {"cpu": 4000, "memory": 16 * 2**30, "pods": 58, **own}
    nodes = [node("n1", "m5.xlarge", allocatable=allocatable), node("n2", "m5.2xlarge", 8, 32)]
    pods = [pod("dev-1", "n1", 1, further=own), pod("web-1", "n2", 1)]
    found = estimate(cluster(nodes, pods), XLARGE, DOUBLE)
    assert costs(found)[0] == 0.20


def test_an_affinity_with_two_terms_follows_a_pod_that_both_are_about() -> None:
    # kube-scheduler counts only pods that all terms are about: `both`, neither web nor cache.
    # An m6i.large has 2.9 cores: both (2.5) and its follower (0.5) need the m5.xlarge at 0.20,
    # web and cache an m6i.large at 0.05. The follower beside web and cache would save 0.15.
    def about(name: str) -> PodTerm:
        return PodTerm(
            topology_key=HOST,
            selector=(Requirement(key="app", operator="In", values=(name, "both")),),
        )

    pods = [
        pod("both-1", "n1", 2.5),
        pod("follower-1", "n1", 0.5, affinity=(about("web"), about("cache"))),
        pod("web-1", "n2", 1),
        pod("cache-1", "n2", 1),
    ]
    nodes = [node("n1", "m5.xlarge"), node("n2", "m5.xlarge")]
    made = plan.make(cluster(nodes, pods), prices(XLARGE, kind("m6i.large", 3, 0.05)))
    where = dict(made.packings[1].placed)
    assert where[1] == where[0]
    assert costs(made.estimate)[1] == 0.25


def test_a_pod_keeps_away_from_a_static_pod() -> None:
    # n1 stays for db's volume. Its static pod is one that web avoids: web needs another node.
    own = (((Requirement(key=HOST, operator="In", values=("n1",)),),),)
    avoids = (PodTerm(topology_key=HOST, selector=app("mirror")),)
    pods = [
        pod("mirror-n1", "n1", 0.5, static=True, owner="", labels={"app": "mirror"}),
        pod("db-0", "n1", 1, node_terms=own, local_volumes=("PersistentVolumeClaim data",)),
        pod("web-1", "n2", 1, anti_affinity=avoids),
    ]
    found = estimate(cluster([node("n1", "m5.xlarge"), node("n2", "m5.xlarge")], pods))
    assert costs(found)[0] == 0.40


def test_a_new_node_does_not_move_pods_that_spread_and_stay() -> None:
    # Only n1's device plugin offers what dev asks for, so that dev stays. A node of web alone makes
    # dev's skew 4, with 1 allowed. kube-scheduler looks at a spread when it places a pod: it evicts
    # none for it. 2 x 0.20: n1 takes dev, small and light, a new node takes web.
    own = {"example.com/device": 1}
    allocatable = {"cpu": 4000, "memory": 16 * 2**30, "pods": 58, "example.com/device": 2}
    spread = (Spread(topology_key=HOST, max_skew=1, selector=app("dev")),)
    pods = [
        *(pod(f"dev-{n}", "n1", 1, further=own, spread=spread) for n in range(2)),
        pod("small-1", "n2", 1, labels={"app": "dev"}),
        pod("light-1", "n3", 1, labels={"app": "dev"}),
        pod("web-1", "n3", 4),
    ]
    nodes = [
        node("n1", "m5.xlarge", allocatable=allocatable),
        node("n2", "m5.xlarge"),
        node("n3", "m5.2xlarge", 8, 32),
    ]
    made = plan.make(cluster(nodes, pods), prices(XLARGE, DOUBLE))
    assert costs(made.estimate)[0] == 0.40
    assert [made.packings[0].nodes[dict(made.packings[0].placed)[at]].name for at in (0, 1)] == [
        "n1",
        "n1",
    ]
