"""Faults: the effect of each on a client, and that later requests succeed."""

from __future__ import annotations

import asyncio

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
    Reset,
    SimulatedCluster,
)
from kubesim.faults import How, Request
from tests.unit.kubesim.support import evict, virtual, watch

NODE = "/api/v1/nodes/n"


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
