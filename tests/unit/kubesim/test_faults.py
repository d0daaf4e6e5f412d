"""Faults: the effect of each on a client, and that later requests succeed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kubesim import (
    Answer,
    BreakWatch,
    Delay,
    Down,
    DropAnswer,
    Hook,
    LateAnswer,
    OldList,
    Reset,
    SimulatedCluster,
    answers,
)
from kubesim.faults import How, Request
from tests.unit.kubesim.support import evict, virtual, watch

NODE = "/api/v1/nodes/n"
RECORDED = Path(__file__).parents[2] / "recorded" / "kubernetes-1.36"


def recorded(name: str) -> dict[str, Any]:
    """The recorded answer of kube-apiserver."""
    response: dict[str, Any] = json.loads((RECORDED / f"{name}.json").read_text())["response"]
    return response


@virtual
async def test_an_answer_is_given_so_many_times() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.add("GET", r"/nodes/", Answer(503, headers={"retry-after": "1"}), times=2)

        answers = [await client.get(NODE) for _ in range(3)]

        assert [answer.status_code for answer in answers] == [503, 503, 200]
        assert answers[0].headers["retry-after"] == "1"
        assert answers[0].json()["code"] == 503


@virtual
async def test_an_answer_to_each_nth_request_that_matches() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.add("GET", r"/nodes/", answers.server_busy(), skip=1, every=3)

        codes = []
        for _ in range(8):
            codes.append((await client.get(NODE)).status_code)
            await client.get("/api/v1/pods")  # another path does not count

        assert codes == [200, 200, 200, 429, 200, 200, 429, 200]


@virtual
async def test_a_delay_and_the_time_out_of_a_client() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.add("GET", "/nodes/", Delay(3))
        assert (await client.get(NODE)).status_code == 200
        assert asyncio.get_running_loop().time() == pytest.approx(3)

        cluster.faults.add("GET", "/nodes/", Delay())
        with pytest.raises(httpx2.ReadTimeout):
            await client.get(NODE, timeout=5)


@virtual
async def test_a_late_answer_is_out_of_date() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.add("GET", "/pods$", LateAnswer(3))
        asyncio.get_running_loop().call_later(1, cluster.add_pod, "a", "n")

        answer = await client.get("/api/v1/pods")

        assert answer.json()["items"] == []
        assert asyncio.get_running_loop().time() == pytest.approx(3)
        assert len((await client.get("/api/v1/pods")).json()["items"]) == 1


@virtual
async def test_a_reset_comes_before_the_request_is_handled() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("a", "n")
        cluster.faults.add("POST", "/eviction$", Reset())

        with pytest.raises(httpx2.ReadError):
            await evict(client, "a")

        assert "deletionTimestamp" not in (cluster.get("pods", "a", "default") or {})["metadata"]


@virtual
async def test_a_dropped_answer_comes_after_the_request_is_handled() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("a", "n")
        cluster.faults.add("POST", "/eviction$", DropAnswer())

        with pytest.raises(httpx2.ReadError):
            await evict(client, "a")

        assert "deletionTimestamp" in (cluster.get("pods", "a", "default") or {})["metadata"]
        assert cluster.log.find("POST", "/eviction$")[0].status == 0


@virtual
async def test_a_server_that_is_down_cuts_and_refuses_connections() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")

        async def watching() -> None:
            async for _ in watch(client, "/api/v1/nodes"):
                pass

        watcher = asyncio.create_task(watching())
        await asyncio.sleep(1)
        cluster.faults.add("GET", "/nodes/n", Down(5))
        with pytest.raises(httpx2.ReadError):
            await client.get(NODE)
        with pytest.raises(httpx2.ConnectError):
            await client.get(NODE)
        with pytest.raises(httpx2.ReadError):
            await watcher

        await asyncio.sleep(5)
        assert (await client.get(NODE)).status_code == 200


@pytest.mark.parametrize("how", ["reset", "end", "gone"])
@virtual
async def test_a_watch_breaks_after_so_many_events(how: How) -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        for name in ("a", "b", "c"):
            cluster.add_node(name)
        cluster.faults.add("GET", "/nodes$", BreakWatch(after_events=2, how=how))
        seen: list[str] = []

        async def watching() -> None:
            async for event in watch(client, "/api/v1/nodes"):
                seen.append(event["type"])
                if event["type"] == "ERROR":
                    assert event["object"]["code"] == 410

        if how == "reset":
            with pytest.raises(httpx2.ReadError):
                await watching()
        else:
            await watching()

        assert seen == ["ADDED", "ADDED", *(["ERROR"] if how == "gone" else [])]
        assert not cluster.app.watches


@virtual
async def test_open_watches_break_on_demand() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:

        async def watching() -> list[str]:
            return [event["type"] async for event in watch(client, "/api/v1/nodes")]

        watcher = asyncio.create_task(watching())
        await asyncio.sleep(1)
        cluster.break_watches("gone")

        assert await watcher == ["ERROR"]


@virtual
async def test_a_hook_changes_the_state_before_the_request_is_handled() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")

        def remove(request: Request) -> None:
            assert request.method == "PATCH"
            cluster.delete("nodes", "n")

        cluster.faults.add("PATCH", "/nodes/n", Hook(remove))
        headers = {"Content-Type": "application/merge-patch+json"}

        answer = await client.patch(NODE, content=b"{}", headers=headers)

        assert answer.status_code == 404


@virtual
async def test_the_first_requests_can_be_skipped() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.add("*", "", Answer(500), skip=1)

        answers = [(await client.get(NODE)).status_code for _ in range(3)]

        assert answers == [200, 500, 200]


@virtual
async def test_a_watch_ends_when_its_client_disconnects() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        events = watch(client, "/api/v1/nodes")
        await anext(events)
        assert len(cluster.app.watches) == 1

        await events.aclose()  # type: ignore[attr-defined]
        await asyncio.sleep(0)

        assert not cluster.app.watches


@virtual
async def test_a_version_that_is_too_old() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        for name in ("a", "b", "c"):
            cluster.add_node(name)
        page = (await client.get("/api/v1/nodes?limit=1")).json()["metadata"]
        cluster.add_node("d")
        cluster.compact()

        answer = await client.get(f"/api/v1/nodes?limit=1&continue={page['continue']}")
        events = [
            event
            async for event in watch(
                client, "/api/v1/nodes", resourceVersion=page["resourceVersion"]
            )
        ]

        assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
        assert [event["object"]["code"] for event in events] == [410]


@pytest.mark.parametrize(
    ("answer", "name"),
    [
        (answers.server_busy(), "evict-priority-and-fairness"),
        (answers.server_busy(), "pod-list-priority-and-fairness"),
        (answers.unauthorized(), "evict-bad-token"),
        (answers.budget_full("full"), "evict-disrupted-pods-full"),
        (
            answers.denied_by_policy("pods", "kept", "kept is not evicted on weekdays"),
            "evict-denied-by-policy",
        ),
        (
            answers.webhook_failed(
                "broken.example.invalid",
                'Post "https://127.0.0.1:9/x?timeout=2s": dial tcp 127.0.0.1:9: connect:'
                " connection refused",
            ),
            "evict-webhook-fails",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@virtual
async def test_an_answer_is_the_recorded_one(answer: Answer, name: str) -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.faults.add("POST", "/eviction$", answer)
        got = await evict(client, "kept")

        expected = recorded(name)
        shown = {key: got.headers.get(key) for key in ("content-type", "retry-after")}
        body = got.text if isinstance(expected["body"], str) else got.json()
        assert got.status_code == expected["status"]
        assert {key: value for key, value in shown.items() if value} == expected["headers"]
        assert body == expected["body"]


@virtual
async def test_an_answer_about_a_budget_is_the_one_for_a_request_for_the_budget() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        budgets = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
        made = cluster.add_budget("web", {"app": "web"}, minAvailable=1)
        cluster.faults.add("POST", "/eviction$", answers.budget_modified("web"))
        cluster.faults.add("POST", "/eviction$", answers.budget_gone("web"), skip=1)

        modified, gone = await evict(client, "web"), await evict(client, "web")

        stale = {**made, "metadata": {**made["metadata"], "resourceVersion": "1"}}
        assert modified.json() == (await client.put(f"{budgets}/web", json=stale)).json()
        cluster.delete("poddisruptionbudgets", "web", "default")
        assert gone.json() == (await client.get(f"{budgets}/web")).json()


@virtual
async def test_a_budget_that_allows_less_than_none_is_forbidden() -> None:
    async with SimulatedCluster(without=["disruption"]) as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("web", "n", labels={"app": "web"})
        made = cluster.add_budget("web", {"app": "web"}, minAvailable=1)
        status = {**made["status"], "observedGeneration": 1, "disruptionsAllowed": -1}
        cluster.set({**made, "status": status})

        got = await evict(client, "web")

        assert got.json() == answers.budget_negative("web").body


@virtual
async def test_an_answer_is_given_for_some_seconds_from_the_first_request_on() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.add("GET", "/nodes/", answers.unauthorized(), skip=1, seconds=5)
        codes = []
        for _ in range(8):
            codes.append((await client.get(NODE)).status_code)
            await asyncio.sleep(1)

        assert codes == [200, 401, 401, 401, 401, 401, 200, 200]


async def watched(client: httpx2.AsyncClient, kind: str, since: str = "") -> list[str]:
    """The names in the events of a watch, until it ends."""
    events = watch(client, f"/api/v1/{kind}", resourceVersion=since)
    return [event["object"]["metadata"]["name"] async for event in events]


@virtual
async def test_all_watches_of_one_kind_end_at_once() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("a", "n")
        ending = [asyncio.create_task(watched(client, "pods")) for _ in range(3)]
        going_on = asyncio.create_task(watched(client, "nodes"))
        await asyncio.sleep(1)

        cluster.break_watches("end", "pods")
        await asyncio.sleep(1)

        assert [task.result() for task in ending] == [["a"]] * 3
        assert not going_on.done()
        going_on.cancel()


@virtual
async def test_watches_end_at_every_so_many_changes_and_miss_what_they_did_not_send() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.faults.break_watches("pods", every=3, times=2)
        since = str(cluster.store.version)
        first = [asyncio.create_task(watched(client, "pods", since)) for _ in range(2)]
        await asyncio.sleep(1)
        for name in ("a", "b", "c"):  # one step: the watches end before they send these
            cluster.add_pod(name, phase="Pending")
        cluster.add_node("m")

        assert [await task for task in first] == [[], []]
        again = asyncio.create_task(watched(client, "pods", since))
        await asyncio.sleep(1)
        for name in ("a", "b", "c"):
            cluster.delete("pods", name, "default", grace=0)
        assert (await again)[:3] == ["a", "b", "c"]
        assert len(cluster.app.watches) == 0


@virtual
async def test_a_list_is_older_than_what_a_watch_has_shown() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("a", "n")
        before = cluster.store.version
        cluster.add_pod("b", "n")
        cluster.add_node("m")
        # Two changes: the pod is created, then its status is set.
        cluster.faults.add("GET", "/pods$", OldList(changes=2), times=2)
        path = "/api/v1/pods?fieldSelector=spec.nodeName%3Dn"

        old, page, new = [
            (await client.get(query)).json() for query in (path, f"{path}&limit=1", path)
        ]

        assert [pod["metadata"]["name"] for pod in old["items"]] == ["a"]
        assert old["metadata"] == {"resourceVersion": str(before)}
        assert page == old
        assert [pod["metadata"]["name"] for pod in new["items"]] == ["a", "b"]


@virtual
async def test_a_binding_comes_after_the_cordon() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.delay_bindings(3)
        cluster.add_pod("late", phase="Pending")
        await asyncio.sleep(1)

        node = cluster.get("nodes", "n")
        assert node is not None
        cluster.set({**node, "spec": {**node["spec"], "unschedulable": True}})
        cluster.add_pod("too-late", phase="Pending")
        await cluster.until(lambda: cluster.pods_on("n"))
        await asyncio.sleep(10)

        assert [pod["metadata"]["name"] for pod in cluster.pods_on("n")] == ["late"]


@virtual
async def test_pods_that_wait_for_their_binding_take_a_place_on_the_node() -> None:
    async with SimulatedCluster() as cluster:
        for name in ("n", "m"):
            cluster.add_node(name)
        cluster.delay_bindings(3)
        cluster.add_deployment("web", 4)
        await cluster.until(lambda: len(cluster.pods_on("n")) + len(cluster.pods_on("m")) == 4)

        assert len(cluster.pods_on("n")) == 2


@virtual
async def test_a_binding_of_a_re_created_pod_is_chosen_again() -> None:
    async with SimulatedCluster() as cluster:
        cluster.add_node("n")
        cluster.delay_bindings(3)
        cluster.add_pod("web", phase="Pending", nodeSelector={"kubernetes.io/hostname": "n"})
        await asyncio.sleep(1)
        cluster.delete("pods", "web", "default", grace=0)
        cluster.add_node("m")
        cluster.add_pod("web", phase="Pending", nodeSelector={"kubernetes.io/hostname": "m"})

        await cluster.until(lambda: cluster.pods_on("m"))

        assert cluster.pods_on("n") == []


@virtual
async def test_a_pod_is_bound_once_and_not_while_it_is_deleted() -> None:
    async with SimulatedCluster(without=["scheduler"]) as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_pod("web")
        cluster.add_pod("ending")
        ending = cluster.get("pods", "ending", "default")
        assert ending is not None
        finalizers = {**ending["metadata"], "finalizers": ["example.com/wait"]}
        cluster.set({**ending, "metadata": finalizers})
        cluster.delete("pods", "ending", "default")

        async def bind(name: str, node: str = "n") -> httpx2.Response:
            target = {"apiVersion": "v1", "kind": "Node", "name": node}
            body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}}
            path = f"/api/v1/namespaces/default/pods/{name}/binding"
            return await client.post(path, json={**body, "target": target})

        first, again, deleted = await bind("web"), await bind("web"), await bind("ending")

        nowhere = await bind("web", "")

        assert (first.status_code, again.status_code, deleted.status_code) == (201, 409, 409)
        assert (nowhere.status_code, nowhere.json()["message"]) == (
            500,
            "target.name: Required value",
        )
        refusal = 'Operation cannot be fulfilled on pods/binding "web": pod web is already assigned'
        assert again.json()["message"] == f'{refusal} to node "n"'
        assert "is being deleted, cannot be assigned to a host" in deleted.json()["message"]
        (pod,) = cluster.pods_on("n")
        assert pod["metadata"]["generation"] == 1
