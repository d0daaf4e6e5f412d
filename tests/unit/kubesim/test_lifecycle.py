"""Pods from their creation to their end, in virtual time."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from kubesim import SimulatedCluster
from kubesim.controllers import DisruptionController
from kubesim.controllers.disruption import DELETION_TIMEOUT
from kubesim.controllers.nodes import ORPHAN_QUARANTINE
from kubesim.eviction import is_ready
from kubesim.registry import seconds_of
from kubesim.store import WINDOW, WINDOW_SECONDS
from tests.unit.kubesim.support import evict, virtual, watch


def clock() -> float:
    return asyncio.get_running_loop().time()


def running(cluster: SimulatedCluster, **labels: str) -> list[dict[str, Any]]:
    return [
        pod
        for pod in cluster.list("pods", "default")
        if labels.items() <= pod["metadata"].get("labels", {}).items()
        and "deletionTimestamp" not in pod["metadata"]
        and is_ready(pod)
    ]


@virtual
async def test_a_pod_that_does_not_stop_is_killed_after_its_grace_period() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("hung", "n", grace=600, shutdown="never")

        assert (await evict(client, "hung")).status_code == 201
        await cluster.until(lambda: cluster.get("pods", "hung", "default") is None)

        assert clock() == pytest.approx(600, abs=1)


@virtual
async def test_a_pod_is_killed_after_a_shortened_grace_period() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("hung", "n", grace=600, shutdown="never")
        await evict(client, "hung")
        await asyncio.sleep(10)

        cluster.delete("pods", "hung", "default", grace=5)
        await cluster.until(lambda: cluster.get("pods", "hung", "default") is None)

        assert clock() == pytest.approx(15, abs=1)


@virtual
async def test_a_shortened_grace_period_does_not_end_in_the_past() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.add_pod("a", "n", grace=600, shutdown="never")
        begun = cluster.now()
        cluster.delete("pods", "a", "default")
        await asyncio.sleep(10)

        ends = []
        for grace in (60, 5):
            cluster.delete("pods", "a", "default", grace=grace)
            metadata = (cluster.get("pods", "a", "default") or {})["metadata"]
            ends.append(seconds_of(metadata["deletionTimestamp"]) - begun)

        assert ends == [60, 10]


@virtual
async def test_an_evicted_pod_of_a_deployment_is_re_created_on_another_node() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n1")
        cluster.add_node("n2")
        cluster.add_deployment("web", 2)
        await cluster.until(lambda: len(running(cluster, app="web")) == 2)
        evicted = cluster.pods_on("n1")[0]["metadata"]["name"]
        cluster.set({**(cluster.get("nodes", "n1") or {}), "spec": {"unschedulable": True}})

        await evict(client, evicted)
        await cluster.until(lambda: not cluster.pods_on("n1"))
        await cluster.until(lambda: len(running(cluster, app="web")) == 2)

        assert {pod["spec"]["nodeName"] for pod in running(cluster, app="web")} == {"n2"}
        taints = (cluster.get("nodes", "n1") or {})["spec"]["taints"]
        assert [taint["key"] for taint in taints] == ["node.kubernetes.io/unschedulable"]


@virtual
async def test_a_pod_of_a_stateful_set_is_re_created_with_its_name() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_statefulset("db", 2)
        await cluster.until(lambda: len(running(cluster, app="db")) == 2)
        before = cluster.get("pods", "db-0", "default") or {}

        await evict(client, "db-0")
        await cluster.until(lambda: len(running(cluster, app="db")) == 1)
        await cluster.until(lambda: len(running(cluster, app="db")) == 2)

        after = cluster.get("pods", "db-0", "default") or {}
        assert after["metadata"]["uid"] != before["metadata"]["uid"]


@virtual
async def test_a_daemon_set_has_one_pod_on_each_node_cordoned_or_not() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n1")
        cluster.add_node("n2", unschedulable=True)
        cluster.add_daemonset("agent")
        await cluster.until(
            lambda: (
                (cluster.get("ds", "agent", "kube-system") or {})["status"].get("numberReady") == 2
            )
        )

        assert [len(cluster.pods_on(node)) for node in ("n1", "n2")] == [1, 1]


@virtual
async def test_a_pod_that_fits_no_node_is_unschedulable_until_one_fits() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n", taints=[{"key": "k", "value": "v", "effect": "NoSchedule"}])
        cluster.add_pod("unscheduled")
        await asyncio.sleep(1)
        condition = (cluster.get("pods", "unscheduled", "default") or {})["status"]["conditions"][0]
        assert (condition["status"], condition["reason"]) == ("False", "Unschedulable")
        assert "1 node(s) had untolerated taint {k: v}" in condition["message"]

        cluster.add_node("free")
        await cluster.until(lambda: cluster.pods_on("free"))


@virtual
async def test_a_pod_whose_image_is_missing_never_runs() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.add_pod(
            "stuck", "n", phase="Pending", annotations={"sandbox/waiting": "ImagePullBackOff"}
        )
        await asyncio.sleep(60)

        status = (cluster.get("pods", "stuck", "default") or {})["status"]
        assert status["phase"] == "Pending"
        waiting = status["containerStatuses"][0]["state"]["waiting"]
        assert waiting["reason"] == "ImagePullBackOff"


@virtual
async def test_the_pods_of_a_deleted_node_are_removed_after_a_while() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.add_pod("a", "n")

        cluster.delete("nodes", "n")
        await cluster.until(lambda: not cluster.list("pods"))

        assert clock() == pytest.approx(ORPHAN_QUARANTINE)


@virtual
async def test_the_pods_of_a_stopped_machine_do_not_end() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("a", "n")
        cluster.stop_node("n")

        await evict(client, "a")
        await asyncio.sleep(300)

        assert cluster.get("pods", "a", "default") is not None


@virtual
async def test_the_pods_of_a_deleted_deployment_are_deleted() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.add_deployment("web", 3)
        await cluster.until(lambda: len(running(cluster)) == 3)

        cluster.delete("deployments", "web", "default")
        await cluster.until(lambda: not cluster.list("pods"))

        assert cluster.list("replicasets") == []


@virtual
async def test_a_namespace_is_emptied_before_it_is_removed() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.add_namespace("mine")
        cluster.add_pod("a", "n", namespace="mine", grace=20, shutdown="never")

        cluster.delete("namespaces", "mine")
        await cluster.until(lambda: cluster.get("namespaces", "mine") is None)

        assert cluster.list("pods") == []
        assert clock() >= 20


@virtual
async def test_the_status_of_a_budget_changes_with_its_pods() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        for name in ("a", "b", "c"):
            cluster.add_pod(name, "n", labels={"app": "x"})
        cluster.add_budget("x", {"app": "x"}, minAvailable=2)

        def allowed() -> int:
            budget = cluster.get("pdb", "x", "default") or {}
            number: int = budget["status"]["disruptionsAllowed"]
            return number

        await cluster.until(lambda: allowed() == 1)
        cluster.controller(DisruptionController).pause()
        answers = await asyncio.gather(*(evict(client, name) for name in ("a", "b", "c")))
        assert sorted(answer.status_code for answer in answers) == [201, 429, 429]
        cluster.controller(DisruptionController).resume()
        await cluster.until(lambda: (cluster.get("pdb", "x", "default") or {})["status"].get(
            "disruptedPods") is None)  # fmt: skip
        assert allowed() == 0


@virtual
async def test_a_disruption_without_a_deletion_expires() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        for name in ("a", "b"):
            cluster.add_pod(name, "n", labels={"app": "x"})
        cluster.add_budget("x", {"app": "x"}, minAvailable=1)
        await asyncio.sleep(1)

        refused = await evict(client, "a", preconditions={"uid": "another"})
        await asyncio.sleep(1)
        meanwhile = await evict(client, "b")
        await asyncio.sleep(DELETION_TIMEOUT)
        later = await evict(client, "b")

        assert [refused.status_code, meanwhile.status_code, later.status_code] == [409, 429, 201]


@pytest.mark.parametrize(
    ("spec", "desired"),
    [({"minAvailable": "50%"}, 3), ({"maxUnavailable": 1}, 4), ({"maxUnavailable": "30%"}, 3)],
)
@virtual
async def test_percentages_count_the_replicas_of_the_controllers(
    spec: dict[str, Any], desired: int
) -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.add_deployment("web", 5)
        cluster.add_budget("web", {"app": "web"}, **spec)
        await cluster.until(lambda: len(running(cluster)) == 5)
        await asyncio.sleep(1)

        status = (cluster.get("pdb", "web", "default") or {})["status"]
        assert status["expectedPods"] == 5
        assert status["desiredHealthy"] == desired
        assert status["disruptionsAllowed"] == 5 - desired


@virtual
async def test_a_new_template_replaces_the_pods() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        deployment = cluster.add_deployment("web", 2)
        await cluster.until(lambda: len(running(cluster)) == 2)
        old = {pod["metadata"]["name"] for pod in running(cluster)}
        template = deployment["spec"]["template"]
        spec = {**template["spec"], "containers": [{"name": "app", "image": "x:2"}]}
        changed = {**deployment["spec"], "template": {**template, "spec": spec}}
        deployment = cluster.get("deployments", "web", "default") or {}

        cluster.set({**deployment, "spec": changed})
        await cluster.until(lambda: not old & {p["metadata"]["name"] for p in cluster.list("pods")})

        assert {p["spec"]["containers"][0]["image"] for p in running(cluster)} == {"x:2"}


@virtual
async def test_a_watch_without_events_gets_bookmarks() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        query = {"timeoutSeconds": "150", "allowWatchBookmarks": "true"}

        events = [event async for event in watch(client, "/api/v1/pods", **query)]

        assert [event["type"] for event in events] == ["BOOKMARK"] * 3
        version = events[0]["object"]["metadata"]["resourceVersion"]
        assert version == str(cluster.store.version)
        assert clock() == pytest.approx(150)


@virtual
async def test_a_watch_starts_within_the_window_only() -> None:
    """kube-apiserver keeps the last 100 changes and those of the last 75 seconds at least."""
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        version = str(cluster.store.version)
        for number in range(WINDOW + 1):
            patch = {"metadata": {"labels": {"x": str(number)}}}
            await client.patch(
                "/api/v1/nodes/n",
                json=patch,
                headers={"Content-Type": "application/merge-patch+json"},
            )

        async def first() -> str:
            events = watch(client, "/api/v1/nodes", resourceVersion=version)
            event = await anext(events)
            await events.aclose()
            return str(event["type"])

        assert await first() == "MODIFIED"
        await asyncio.sleep(WINDOW_SECONDS + 1)
        assert await first() == "ERROR"
