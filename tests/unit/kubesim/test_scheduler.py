"""The scheduler respects what pods request, and words refusals as kube-scheduler 1.36."""

from __future__ import annotations

from typing import Any

from kubesim import SimulatedCluster
from tests.support.requests import container
from tests.unit.kubesim.support import virtual


def add_node(cluster: SimulatedCluster, name: str, **amounts: str) -> None:
    named = {key.replace("gpu", "nvidia.com/gpu"): each for key, each in amounts.items()}
    allocatable = {"cpu": "2", "memory": "4Gi", "pods": "10"} | named
    cluster.create(
        {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": name},
            "status": {"capacity": allocatable, "allocatable": allocatable},
        }
    )


def add_pod(cluster: SimulatedCluster, name: str, **requests: str) -> None:
    spec = {"containers": [container(**requests)]}
    metadata = {"name": name, "namespace": "default"}
    cluster.create({"kind": "Pod", "apiVersion": "v1", "metadata": metadata, "spec": spec})


def pod(cluster: SimulatedCluster, name: str) -> dict[str, Any]:
    found = cluster.get("pods", name, "default")
    assert found is not None
    return found


def node_of(cluster: SimulatedCluster, name: str) -> str:
    return str(pod(cluster, name)["spec"].get("nodeName", ""))


def refusal(cluster: SimulatedCluster, name: str) -> str:
    conditions = pod(cluster, name)["status"].get("conditions", ())
    return next((each["message"] for each in conditions if each.get("message")), "")


@virtual
async def test_a_node_keeps_the_status_that_it_is_created_with() -> None:
    async with SimulatedCluster() as cluster:
        add_node(cluster, "n", cpu="1930m")
        node = cluster.get("nodes", "n")
        assert node is not None
        assert node["status"]["allocatable"]["cpu"] == "1930m"


@virtual
async def test_what_is_insufficient_is_counted_by_reason() -> None:
    async with SimulatedCluster() as cluster:
        add_node(cluster, "a")
        add_node(cluster, "b", memory="16Gi")
        add_pod(cluster, "p", cpu="3", memory="8Gi", gpu="1")
        await cluster.until(lambda: refusal(cluster, "p"))
        assert refusal(cluster, "p") == (
            "0/2 nodes are available: "
            "1 Insufficient memory, 2 Insufficient cpu, 2 Insufficient nvidia.com/gpu."
        )


@virtual
async def test_pods_that_are_assumed_count() -> None:
    async with SimulatedCluster() as cluster:
        cluster.delay_bindings(1)
        add_node(cluster, "n")
        for name in ("p", "q", "r"):
            add_pod(cluster, name, cpu="900m")
        await cluster.until(lambda: refusal(cluster, "r"))
        assert [node_of(cluster, name) for name in ("p", "q")] == ["", ""]
        await cluster.until(lambda: node_of(cluster, "q"))
        assert refusal(cluster, "r") == "0/1 nodes are available: 1 Insufficient cpu."


async def full_node(cluster: SimulatedCluster) -> None:
    """A node that p fills, so that q waits."""
    add_node(cluster, "n")
    add_pod(cluster, "p", cpu="1500m")
    await cluster.until(lambda: node_of(cluster, "p"))
    add_pod(cluster, "q", cpu="1500m")
    await cluster.until(lambda: refusal(cluster, "q"))


@virtual
async def test_a_pod_that_is_deleted_makes_room() -> None:
    async with SimulatedCluster() as cluster:
        await full_node(cluster)
        cluster.delete("pods", "p", "default")
        await cluster.until(lambda: node_of(cluster, "q") == "n")


@virtual
async def test_a_pod_that_has_finished_makes_room() -> None:
    async with SimulatedCluster() as cluster:
        await full_node(cluster)
        finished = pod(cluster, "p")
        finished = finished | {"status": finished["status"] | {"phase": "Succeeded"}}
        cluster.set(finished)
        await cluster.until(lambda: node_of(cluster, "q") == "n")


@virtual
async def test_extended_resources_and_the_number_of_pods() -> None:
    async with SimulatedCluster() as cluster:
        add_node(cluster, "n", gpu="1", pods="1")
        add_pod(cluster, "p", gpu="1")
        await cluster.until(lambda: node_of(cluster, "p") == "n")
        add_pod(cluster, "q", gpu="1")
        await cluster.until(lambda: refusal(cluster, "q"))
        assert refusal(cluster, "q") == (
            "0/1 nodes are available: 1 Insufficient nvidia.com/gpu, 1 Too many pods."
        )
