"""The node that drains are measured on: of the simulated cluster or of an existing one."""

from __future__ import annotations

import json
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.kubeconfig import Access
from benchmarks.objects import NAMESPACE, instance_id, node_name, pause_pod
from benchmarks.rig import BenchmarkError, Simulation

TIMEOUT = 180.0  # s for what takes some seconds
POLL = 0.2  # s
DRAIN_KEYS = (
    "autoscaling.cast.ai/draining",
    "node.kubernetes.io/exclude-from-external-load-balancers",
)


@dataclass(frozen=True)
class Observed:
    """What happened to nodes and pods, by name. Times by the monotonic clock."""

    cordoned: dict[str, float] = field(default_factory=dict)
    accepted: dict[str, float] = field(default_factory=dict)
    gone: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)
    conflicts: int = 0
    read_bytes: int = 0


class Target(ABC):
    """A node that is filled, drained and restored, several times."""

    kubeconfig: Path
    node: str
    instance: str
    counts_calls = False

    @property
    def access(self) -> Access:
        return Access.read(self.kubeconfig)

    @abstractmethod
    def prepare(self, pods: int) -> None:
        """Make the node schedulable, with `pods` running pods, and delete all observations."""

    @abstractmethod
    def observed(self) -> Observed:
        """Return what happened since `prepare`."""

    def until_empty(self, pods: int) -> Observed:
        """Wait until `pods` pods are gone. Raises BenchmarkError after TIMEOUT."""
        end = time.monotonic() + TIMEOUT
        while time.monotonic() < end:
            found = self.observed()
            if len(found.gone) >= pods:
                return found
            time.sleep(POLL)
        raise BenchmarkError(f"The node {self.node} is not empty after {TIMEOUT:.0f} s")


class SimulatedTarget(Target):
    """A node of the simulated cluster."""

    counts_calls = True

    def __init__(self, simulation: Simulation, number: int = 1) -> None:
        self._simulation = simulation
        self._number = number
        self.kubeconfig = simulation.kubeconfig
        self.node, self.instance = node_name(number), instance_id(number)
        simulation.do("build", first=number, nodes=1, pods=0)

    def prepare(self, pods: int) -> None:
        self._simulation.do("renew", number=self._number, pods=pods)
        self._simulation.do("forget")

    def observed(self) -> Observed:
        return Observed(**self._simulation.do("observed"))


class RealTarget(Target):
    """A node of an existing cluster, with pause pods in a separate namespace."""

    def __init__(self, kubeconfig: Path, node: str) -> None:
        self.kubeconfig, self.node = kubeconfig, node
        access = self.access
        self._http = httpx2.Client(
            base_url=access.server,
            verify=access.ssl_context(),
            headers=access.headers,
            timeout=httpx2.Timeout(30, read=None),
            trust_env=False,
        )
        self._seen = Observed()
        provider = self._get(f"/api/v1/nodes/{node}")["spec"].get("providerID", "")
        self.instance = provider.rpartition("/")[2]
        if not self.instance.startswith("i-"):
            raise BenchmarkError(
                f"Choose a node that is an EC2 instance: the provider id of {node} is {provider!r}"
            )

    def size(self) -> tuple[int, int]:
        """Return the number of nodes and pods of the cluster."""
        nodes, pods = (self._get(path)["items"] for path in ("/api/v1/nodes", "/api/v1/pods"))
        return len(nodes), len(pods)

    @property
    def free_pods(self) -> int:
        """Return how many pods fit on the node. Raises BenchmarkError if it has pods of others."""
        others, staying = [], 0
        for pod in self._pods():
            owners = pod["metadata"].get("ownerReferences") or ()
            if any(owner["kind"] in ("DaemonSet", "Node") for owner in owners):
                staying += 1
            elif pod["metadata"]["namespace"] != NAMESPACE:
                others.append(f"{pod['metadata']['namespace']}/{pod['metadata']['name']}")
        if others:
            raise BenchmarkError(
                f"Choose a node without pods of others: on {self.node} these would be evicted: "
                + ", ".join(others[:10])
            )
        node = self._get(f"/api/v1/nodes/{self.node}")
        return int(node["status"]["allocatable"]["pods"]) - staying

    @contextmanager
    def opened(self) -> Iterator[RealTarget]:
        """Create the namespace and watch the node. At the end remove both and restore the node."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        created = self._http.post("/api/v1/namespaces", json=namespace)
        if created.status_code != httpx2.codes.CONFLICT:
            created.raise_for_status()
        for path in ("/api/v1/nodes", f"/api/v1/namespaces/{NAMESPACE}/pods"):
            threading.Thread(target=self._follow, args=(path,), daemon=True).start()
        try:
            yield self
        finally:
            self._restore()
            for pod in self._own():
                path = f"/api/v1/namespaces/{NAMESPACE}/pods/{pod['metadata']['name']}"
                self._http.delete(path)
            # Every target deletes the namespace. Only the first of them still finds it.
            self._http.delete(f"/api/v1/namespaces/{NAMESPACE}")

    def prepare(self, pods: int) -> None:
        self._wait(lambda: not self._own(), "the pods of the previous run still exist")
        self._restore()
        for index in range(pods):
            pod = pause_pod(f"{self.node.partition('.')[0]}-{index}", self.node)
            path = f"/api/v1/namespaces/{NAMESPACE}/pods"
            self._http.post(path, json=pod).raise_for_status()
        self._wait(
            lambda: sum(pod["status"].get("phase") == "Running" for pod in self._own()) == pods,
            f"{pods} pods do not run",
        )
        self._seen = Observed()

    def observed(self) -> Observed:
        return self._seen

    def _restore(self) -> None:
        """Undo what a drain does to a node. Change nothing else."""
        node = self._get(f"/api/v1/nodes/{self.node}")
        keys = (*DRAIN_KEYS, "node.kubernetes.io/unschedulable")
        taints = [taint for taint in node["spec"].get("taints") or () if taint["key"] not in keys]
        patch = {
            "metadata": {"labels": dict.fromkeys(DRAIN_KEYS)},
            "spec": {"unschedulable": None, "taints": taints or None},
        }
        self._http.patch(
            f"/api/v1/nodes/{self.node}",
            content=json.dumps(patch),
            headers={"content-type": "application/merge-patch+json"},
        ).raise_for_status()

    def _follow(self, path: str) -> None:
        version = self._get(path)["metadata"]["resourceVersion"]
        query = {"watch": "1", "resourceVersion": version, "allowWatchBookmarks": "false"}
        with self._http.stream("GET", path, params=query) as lines:
            for line in lines.iter_lines():
                self._note(json.loads(line))

    def _note(self, event: dict[str, Any]) -> None:
        now, pod = time.monotonic(), event["object"]
        name = pod["metadata"].get("name", "")
        if pod["kind"] == "Pod" and pod["spec"].get("nodeName") != self.node:
            return
        if event["type"] == "DELETED":
            self._seen.gone[name] = now
        elif pod["metadata"].get("deletionTimestamp"):
            self._seen.accepted.setdefault(name, now)
        elif pod["spec"].get("unschedulable") and name == self.node:
            self._seen.cordoned.setdefault(name, now)

    def _own(self) -> list[dict[str, Any]]:
        return [pod for pod in self._pods() if pod["metadata"]["namespace"] == NAMESPACE]

    def _pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._get(
            f"/api/v1/pods?fieldSelector=spec.nodeName={self.node}"
        )["items"]
        return found

    def _get(self, path: str) -> dict[str, Any]:
        answer = self._http.get(path)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def _wait(self, condition: Any, otherwise: str) -> None:  # noqa: ANN401
        end = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > end:
                raise BenchmarkError(f"Check the node {self.node}: {otherwise}")
            time.sleep(POLL)
