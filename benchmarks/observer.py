"""What happens to the nodes and to the benchmark's pods of an existing cluster.

One observer serves a whole run: one watch of the nodes and one of the pods, whatever the number of
nodes that are drained.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Set
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2

from benchmarks.kubeconfig import Access
from benchmarks.objects import NAMESPACE
from benchmarks.rig import BenchmarkError

NODES = "/api/v1/nodes"
PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
PAUSE = 0.1  # s before a list or a watch that failed or ended is repeated
SILENCE = 90.0  # s without a line, after which a watch counts as broken: bookmarks come each minute
STARTED = 60.0  # s until the first lists are answered

Json = dict[str, Any]


@dataclass
class SeenPod:
    """A pod: when it began to terminate and when it was gone, by the monotonic clock."""

    name: str
    node: str
    accepted: float | None = None
    gone: float | None = None
    lost: bool = False
    """It was gone without a grace period before."""


class Observer:
    """Lists and watches. Where a watch ends, it watches on from the last version that it saw.

    Where that version is too old, it lists again: a pod that the list no longer shows is gone.
    """

    def __init__(self, http: httpx2.AsyncClient, now: Callable[[], float] = time.monotonic) -> None:
        self.pods: dict[str, SeenPod] = {}
        """By UID."""
        self.cordons: dict[str, float] = {}
        """When each node was cordoned last."""
        self.watches = 0
        """Watches begun: more than two where some ended."""
        self.ready = threading.Event()
        """Set when nodes and pods are listed, or cannot be."""
        self.failure: BaseException | None = None
        self._http = http
        self._now = now
        self._cordoned: set[str] = set()
        self._listed: set[str] = set()

    async def run(self) -> None:
        """Follow the nodes and the pods until it is cancelled. Raises BenchmarkError."""
        try:
            async with asyncio.TaskGroup() as tasks:
                for path in (NODES, PODS):
                    tasks.create_task(self._follow(path))
        except* BenchmarkError as group:
            self.failure = group.exceptions[0]
            self.ready.set()
            raise self.failure from None

    def known(self) -> Set[str]:
        """The UIDs of all pods that were seen."""
        return set(self.pods)

    async def _follow(self, path: str) -> None:
        version = ""
        while True:
            try:
                if not version:
                    version = await self._list(path)
                async with aclosing(self._events(path, version)) as events:
                    async for event in events:
                        if event["type"] == "ERROR":
                            version = ""
                            break
                        version = event["object"]["metadata"]["resourceVersion"]
                        self._note(event)
            except httpx2.HTTPStatusError as error:
                code = error.response.status_code
                if code in (httpx2.codes.UNAUTHORIZED, httpx2.codes.FORBIDDEN):
                    raise BenchmarkError(f"Give this user the right to watch {path}") from error
                version = ""
            except (httpx2.HTTPError, json.JSONDecodeError):
                pass  # the connection broke: watch on
            await asyncio.sleep(PAUSE)

    async def _list(self, path: str) -> str:
        """List, and note what changed since the last event. Returns the list's version."""
        answer = await self._http.get(path)
        answer.raise_for_status()
        found = answer.json()
        kind = found["kind"].removesuffix("List")
        for item in found["items"]:
            self._note({"type": "LISTED", "object": {"kind": kind, **item}})
        if path == PODS:
            present = {item["metadata"]["uid"] for item in found["items"]}
            for uid in self.pods.keys() - present:
                self._end(self.pods[uid])
        self._listed.add(path)
        if len(self._listed) > 1:
            self.ready.set()
        version: str = found["metadata"]["resourceVersion"]
        return version

    async def _events(self, path: str, version: str) -> AsyncGenerator[Json, None]:
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "true"}
        self.watches += 1
        async with self._http.stream("GET", path, params=query) as lines:
            lines.raise_for_status()
            async for line in lines.aiter_lines():
                yield json.loads(line)

    def _note(self, event: Json) -> None:
        kind, found = event["type"], event["object"]
        if kind == "BOOKMARK":
            return
        if found["kind"] == "Node":
            self._note_node(found["metadata"]["name"], found["spec"].get("unschedulable", False))
            return
        metadata = found["metadata"]
        pod = self.pods.get(metadata["uid"])
        if pod is None:
            pod = self.pods[metadata["uid"]] = SeenPod(metadata["name"], "")
        pod.node = found["spec"].get("nodeName", "")
        if metadata.get("deletionGracePeriodSeconds") and pod.accepted is None:
            pod.accepted = self._now()
        if kind == "DELETED":
            pod.lost = pod.accepted is None and bool(pod.node)
            self._end(pod)

    def _end(self, pod: SeenPod) -> None:
        if pod.gone is None:
            pod.gone = self._now()
            pod.accepted = pod.gone if pod.accepted is None else pod.accepted

    def _note_node(self, name: str, cordoned: bool) -> None:
        if cordoned and name not in self._cordoned:
            self.cordons[name] = self._now()
        (self._cordoned.add if cordoned else self._cordoned.discard)(name)


@contextmanager
def observing(access: Access) -> Iterator[Observer]:
    """Run an observer in a thread of its own. Raises BenchmarkError (it cannot list)."""
    http = httpx2.AsyncClient(
        base_url=access.server,
        verify=access.ssl_context(),
        headers=access.headers,
        timeout=httpx2.Timeout(30, read=SILENCE),
        trust_env=False,
    )
    observer = Observer(http)
    loop = asyncio.new_event_loop()
    task = loop.create_task(observer.run())

    def work() -> None:
        with suppress(asyncio.CancelledError, BenchmarkError):
            loop.run_until_complete(task)
        loop.run_until_complete(http.aclose())

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        if not observer.ready.wait(STARTED):
            raise BenchmarkError("Check the access to the cluster: nodes and pods are not listed")
        if observer.failure is not None:
            raise observer.failure
        yield observer
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join(STARTED)
        loop.close()
