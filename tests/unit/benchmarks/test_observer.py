"""What the benchmarks see of an existing cluster: pods lost, conflicts, and nothing missed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx2
import pytest

from benchmarks.kubeconfig import CountingTransport
from benchmarks.objects import NAMESPACE
from benchmarks.observer import PAUSE, Observer
from benchmarks.rig import BenchmarkError
from kubesim import SimulatedCluster, answers
from kubesim.cluster import ADMIN_TOKEN
from kubesim.faults import How
from kubesim.virtual import run_virtual

PODS = 30


def started(cluster: SimulatedCluster) -> None:
    """Two nodes with pods that take up to four seconds to end."""
    cluster.add_namespace(NAMESPACE)
    for node in ("n", "m"):
        cluster.add_node(node)
    for number in range(PODS):
        node = "nm"[number % 2]
        cluster.add_pod(f"pod-{number}", node, namespace=NAMESPACE, shutdown=number % 5)


def cordon(cluster: SimulatedCluster, name: str, *, cordoned: bool) -> None:
    node = cluster.get("nodes", name)
    assert node is not None
    cluster.set({**node, "spec": {**node["spec"], "unschedulable": cordoned}})


def delete_all(cluster: SimulatedCluster, grace: int | None = None) -> None:
    for pod in cluster.list("pods", NAMESPACE):
        cluster.delete("pods", pod["metadata"]["name"], NAMESPACE, grace=grace)


@asynccontextmanager
async def observed(cluster: SimulatedCluster) -> AsyncIterator[Observer]:
    async with cluster.client(timeout=90) as client:
        observer = Observer(client, asyncio.get_running_loop().time)
        task = asyncio.create_task(observer.run())
        await asyncio.sleep(1)
        yield observer
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


@pytest.mark.parametrize("how", ["end", "reset", "gone"])
@pytest.mark.parametrize("every", [1, 10, 10_000])
def test_no_change_is_lost_where_all_watches_end_at_once(every: int, how: How) -> None:
    async def drain() -> None:
        async with SimulatedCluster() as cluster:
            started(cluster)
            async with observed(cluster) as observer:
                for plural in ("pods", "nodes"):
                    cluster.faults.break_watches(plural, every=every, how=how)
                begun = asyncio.get_running_loop().time()
                cordon(cluster, "n", cordoned=True)
                delete_all(cluster)
                await asyncio.sleep(30)

                assert {pod.node for pod in observer.pods.values()} == {"n", "m"}
                assert len(observer.pods) == PODS
                for pod in observer.pods.values():
                    shutdown = int(pod.name.partition("-")[2]) % 5
                    assert pod.accepted == pytest.approx(begun, abs=2 * PAUSE)
                    assert pod.gone == pytest.approx(begun + shutdown, abs=2 * PAUSE)
                    assert not pod.lost
                assert observer.cordons == {"n": pytest.approx(begun, abs=2 * PAUSE)}
                assert (observer.watches > 2) is (every < PODS)

    run_virtual(drain())


def test_a_pod_that_vanished_between_two_watches_is_seen_by_the_list() -> None:
    async def vanish() -> None:
        async with SimulatedCluster() as cluster:
            started(cluster)
            async with observed(cluster) as observer:
                # No watch and no list is answered for five seconds, then the history is too short.
                cluster.faults.add("GET", "/pods$", answers.server_busy(), seconds=5)
                cluster.break_watches("end", "pods")
                await asyncio.sleep(1)
                delete_all(cluster, grace=1)
                await asyncio.sleep(3)
                cluster.compact()
                await asyncio.sleep(3)

                assert {pod.gone is None for pod in observer.pods.values()} == {False}
                assert not any(pod.lost for pod in observer.pods.values())

    run_virtual(vanish())


def test_a_pod_that_is_gone_without_a_grace_period_is_lost() -> None:
    async def lose() -> None:
        async with SimulatedCluster() as cluster:
            started(cluster)
            async with observed(cluster) as observer:
                cluster.delete("pods", "pod-0", NAMESPACE, grace=0)
                cluster.delete("pods", "pod-1", NAMESPACE)
                await asyncio.sleep(5)

                ended = {pod.name: pod.lost for pod in observer.pods.values() if pod.gone}
                assert ended == {"pod-0": True, "pod-1": False}

    run_virtual(lose())


def test_the_last_cordon_counts() -> None:
    async def cordon_twice() -> None:
        async with SimulatedCluster() as cluster:
            started(cluster)
            async with observed(cluster) as observer:
                for cordoned in (True, False, True):
                    cordon(cluster, "n", cordoned=cordoned)
                    await asyncio.sleep(1)

                assert observer.cordons == {"n": pytest.approx(3, abs=0.1)}

    run_virtual(cordon_twice())


def test_a_missing_right_is_named() -> None:
    async def refused() -> None:
        async with (
            SimulatedCluster(tokens={"other": ("other", ())}) as cluster,
            cluster.client("other") as client,
        ):
            with pytest.raises(BenchmarkError, match="the right to watch"):
                await Observer(client).run()

    run_virtual(refused())


def test_conflicts_are_counted() -> None:
    async def conflict() -> None:
        async with SimulatedCluster() as cluster:
            cluster.add_node("n")
            transport = CountingTransport(cluster.transport())
            token = {"authorization": f"Bearer {ADMIN_TOKEN}"}
            async with httpx2.AsyncClient(transport=transport, headers=token) as client:
                for version in ("1", None):
                    patch = {"metadata": {"resourceVersion": version}}
                    await client.patch(
                        "https://cluster.invalid/api/v1/nodes/n",
                        json=patch,
                        headers={"content-type": "application/merge-patch+json"},
                    )

    earlier = CountingTransport.conflicts
    run_virtual(conflict())
    assert CountingTransport.conflicts == earlier + 1
