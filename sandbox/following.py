"""Keeps a story up to date from the cluster's watches, in threads of its own."""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TypeVar

import httpx2
from lightkube import ApiError, Client
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget

from sandbox.story import Story

Answer = TypeVar("Answer")

PAUSE = 0.2  # s before a broken watch is opened again


class Following:
    """A context manager: on entry the story knows the node's state, then its changes."""

    def __init__(self, connect: Callable[[], Client], node: str) -> None:
        self.story = Story(node)
        self.lock = threading.Lock()
        self._connect = connect
        self._clients: list[Client] = []
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []

    def sees(self, question: Callable[[Story], Answer]) -> Answer:
        """The story's answer while it stands still."""
        with self.lock:
            return question(self.story)

    def __enter__(self) -> "Following":
        with self._connect() as client:
            pods = client.list(Pod, namespace="*")
            budgets = client.list(PodDisruptionBudget, namespace="*")
            nodes = client.list(Node)
            now = time.time()
            for pod in pods:
                self.story.pod_changed(pod, now)
            for budget in budgets:
                self.story.budget_changed(budget, now)
            for node in nodes:
                self.story.node_changed(node, now)
        self.story.begin()
        self._follow(self._pods, pods.resourceVersion)
        self._follow(self._budgets, budgets.resourceVersion)
        self._follow(self._nodes, nodes.resourceVersion)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.set()
        for client in self._clients:
            client.close()  # ends the watch that its thread is in

    def _follow(self, watch: Callable[[Client, str], None], version: str) -> None:
        client = self._connect()
        self._clients.append(client)

        def run() -> None:
            while not self._closed.is_set():
                try:
                    watch(client, version)
                except (httpx2.HTTPError, ApiError, RuntimeError):
                    # Closed by us, or broken: look again until closed.
                    self._closed.wait(PAUSE)

        thread = threading.Thread(target=run, daemon=True, name=watch.__name__)
        self._threads.append(thread)
        thread.start()

    def _pods(self, client: Client, version: str) -> None:
        for kind, pod in client.watch(Pod, namespace="*", resource_version=version):
            with self.lock:
                self.story.pod_changed(pod, time.time(), deleted=kind == "DELETED")

    def _budgets(self, client: Client, version: str) -> None:
        for _kind, budget in client.watch(
            PodDisruptionBudget, namespace="*", resource_version=version
        ):
            with self.lock:
                self.story.budget_changed(budget, time.time())

    def _nodes(self, client: Client, version: str) -> None:
        for _kind, node in client.watch(Node, resource_version=version):
            with self.lock:
                self.story.node_changed(node, time.time())
