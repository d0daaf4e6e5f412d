"""Update a timeline from the cluster's watches, in a separate thread."""

import asyncio
import threading
import time
from collections.abc import Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import TypeVar

import httpx2
from lightkube import ApiError, AsyncClient, Client
from lightkube.config.kubeconfig import SingleConfig
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget

from sandbox.demo.timeline import Timeline

Answer = TypeVar("Answer")

PAUSE = 0.2  # s before a broken watch is opened again


class Watcher:
    """A context manager. At entry the timeline gets the node's state, then its changes.

    The event loop that reads the watches also ends them. If another thread closed a connection, the
    loop could read from the next file or socket with the same file descriptor.
    """

    def __init__(self, connect: Callable[[], Client], node: str) -> None:
        self.timeline = Timeline(node)
        self.lock = threading.Lock()
        self._connect = connect
        self._end: Callable[[], None] = lambda: None
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None

    def read(self, function: Callable[[Timeline], Answer]) -> Answer:
        """Call a function with the timeline while no event changes it."""
        with self.lock:
            return function(self.timeline)

    def __enter__(self) -> "Watcher":
        with self._connect() as client:
            config = client.config
            pods = client.list(Pod, namespace="*")
            budgets = client.list(PodDisruptionBudget, namespace="*")
            nodes = client.list(Node)
            now = time.time()
            for pod in pods:
                self.timeline.pod_changed(pod, now)
            for budget in budgets:
                self.timeline.budget_changed(budget, now)
            for node in nodes:
                self.timeline.node_changed(node, now)
        self.timeline.begin()
        versions = [each.resourceVersion for each in (pods, budgets, nodes)]
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._follow(config, versions)),
            daemon=True,
            name="watcher",
        )
        self._thread.start()
        self._begun.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()
        if self._thread is not None:
            self._thread.join()

    async def _follow(self, config: SingleConfig, versions: list[str]) -> None:
        """Run the three watches until `_end` is called."""
        loop, end = asyncio.get_running_loop(), asyncio.Event()

        def stop() -> None:
            with suppress(RuntimeError):  # the loop has ended with an error
                loop.call_soon_threadsafe(end.set)

        self._end = stop
        self._begun.set()
        follow = (self._follow_pods, self._follow_budgets, self._follow_nodes)
        async with (
            aclosing(AsyncClient(config, trust_env=False)) as client,
            asyncio.TaskGroup() as group,
        ):
            tasks = [
                group.create_task(each(client, version))
                for each, version in zip(follow, versions, strict=True)
            ]
            await end.wait()
            for task in tasks:
                task.cancel()

    async def _follow_pods(self, client: AsyncClient, version: str) -> None:
        """A busy API server ends watches, and forgets versions: each time the pods are listed."""
        while True:
            with suppress(httpx2.HTTPError, ApiError):
                async for kind, pod in client.watch(Pod, namespace="*", resource_version=version):
                    with self.lock:
                        self.timeline.pod_changed(pod, time.time(), deleted=kind == "DELETED")
            await asyncio.sleep(PAUSE)
            with suppress(httpx2.HTTPError, ApiError):
                listed = client.list(Pod, namespace="*")
                pods = [pod async for pod in listed]
                with self.lock:
                    self.timeline.pods_listed(pods, time.time())
                version = listed.resourceVersion

    async def _follow_budgets(self, client: AsyncClient, version: str) -> None:
        while True:
            with suppress(httpx2.HTTPError, ApiError):
                async for _kind, budget in client.watch(
                    PodDisruptionBudget, namespace="*", resource_version=version
                ):
                    with self.lock:
                        self.timeline.budget_changed(budget, time.time())
            await asyncio.sleep(PAUSE)
            version = ""  # the watch begins with the present state

    async def _follow_nodes(self, client: AsyncClient, version: str) -> None:
        while True:
            with suppress(httpx2.HTTPError, ApiError):
                async for _kind, node in client.watch(Node, resource_version=version):
                    with self.lock:
                        self.timeline.node_changed(node, time.time())
            await asyncio.sleep(PAUSE)
            version = ""
