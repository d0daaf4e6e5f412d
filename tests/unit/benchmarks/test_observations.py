"""What the benchmarks see in a simulated cluster: each harm to a pod is counted, and no other."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from benchmarks.objects import GRACE, NAMESPACE, node_name
from benchmarks.observations import Observations
from benchmarks.simulation import Simulation
from kubesim import SimulatedCluster
from tests.unit.kubesim.support import virtual

APP, SINGLE = "app", "single"


async def built(cluster: SimulatedCluster) -> Observations:
    """A Deployment of four with a budget and one of one, on node 1, beside an empty node 2."""
    simulation = Simulation(cluster)
    observations = Observations(cluster, asyncio.get_running_loop().time)
    await simulation.build(1, 2, 0)
    await simulation.place(APP, [1] * 4, unavailable=1)
    await simulation.place(SINGLE, [1])
    await asyncio.sleep(1)
    observations.forget()
    return observations


def names(cluster: SimulatedCluster, app: str = APP) -> list[str]:
    pods = cluster.list("pods", NAMESPACE)
    return [p["metadata"]["name"] for p in pods if p["metadata"]["labels"]["app"] == app]


def harm(seen: dict[str, Any]) -> tuple[int, int, int]:
    return seen["lost"], seen["short"], seen["broken"]


async def evict(cluster: SimulatedCluster, name: str) -> int:
    metadata = {"name": name, "namespace": NAMESPACE}
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata}
    async with cluster.client() as client:
        path = f"/api/v1/namespaces/{NAMESPACE}/pods/{name}/eviction"
        return (await client.post(path, json=body)).status_code


@virtual
async def test_an_eviction_that_the_budget_allows_does_no_harm() -> None:
    async with SimulatedCluster() as cluster:
        observations = await built(cluster)
        pods = names(cluster)
        assert [await evict(cluster, name) for name in pods[:2]] == [201, 429]
        await asyncio.sleep(5)
        seen = observations.seen()
        assert harm(seen) == (0, 0, 0)
        assert set(seen["accepted"]) == set(seen["gone"]) == {pods[0]}
        assert seen["down"] == {}


@virtual
async def test_a_deletion_past_the_budget_breaks_it() -> None:
    async with SimulatedCluster() as cluster:
        observations = await built(cluster)
        for name in names(cluster)[:3]:  # the budget allows one
            cluster.delete("pods", name, NAMESPACE)
        await asyncio.sleep(5)
        assert harm(observations.seen()) == (0, 0, 2)


@pytest.mark.parametrize("terminating", [False, True])
@virtual
async def test_a_pod_that_is_gone_while_it_runs_is_lost(terminating: bool) -> None:
    async with SimulatedCluster() as cluster:
        observations = await built(cluster)
        name = names(cluster)[0]
        if terminating:
            cluster.delete("pods", name, NAMESPACE)
        cluster.delete("pods", name, NAMESPACE, grace=0)
        assert observations.seen()["lost"] == 1


@virtual
async def test_a_shortened_grace_is_counted() -> None:
    async with SimulatedCluster() as cluster:
        observations = await built(cluster)
        at_once, later, whole, _ = names(cluster)
        cluster.delete("pods", at_once, NAMESPACE, grace=GRACE - 1)
        cluster.delete("pods", later, NAMESPACE)
        cluster.delete("pods", later, NAMESPACE, grace=5)
        cluster.delete("pods", whole, NAMESPACE, grace=GRACE)
        await asyncio.sleep(5)
        assert harm(observations.seen())[:2] == (0, 2)


@virtual
async def test_the_time_without_a_ready_pod_is_from_the_eviction_to_the_ready_replacement() -> None:
    async with SimulatedCluster() as cluster:
        observations = await built(cluster)
        (name,) = names(cluster, SINGLE)
        cluster.delete("pods", name, NAMESPACE)
        await asyncio.sleep(0.4)
        assert observations.seen()["down"] == {SINGLE: pytest.approx(0.4)}
        await asyncio.sleep(5)
        # The kubelet starts a pod in 0.2 s; 0.5 s later the pod is ready.
        assert observations.seen()["down"] == {SINGLE: pytest.approx(0.75, abs=0.05)}
        observations.forget()
        assert observations.seen()["down"] == {}


@virtual
async def test_a_rolling_update_breaks_no_budget() -> None:
    async with SimulatedCluster() as cluster:
        simulation = Simulation(cluster)
        await simulation.build(1, 2, 0)
        await simulation.place(APP, [1] * 4, unavailable=1)
        await asyncio.sleep(1)
        before = set(names(cluster))
        simulation.forget()
        simulation.roll(APP)
        await asyncio.sleep(10)
        seen = simulation.observed()
        assert before.isdisjoint(names(cluster))
        assert len(names(cluster)) == 4
        assert harm(seen) == (0, 0, 0)


@virtual
async def test_a_disturbed_cluster_refuses_each_fifth_request_and_counts_it() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        simulation = Simulation(cluster)
        await simulation.build(1, 1, 0)
        simulation.forget()
        simulation.disturb(changes=5)
        codes = [(await client.get(f"/api/v1/nodes/{node_name(1)}")).status_code for _ in range(10)]
        simulation.calm()
        assert codes == [200, 200, 200, 200, 429] * 2
        assert simulation.observed()["refused"] == 2
