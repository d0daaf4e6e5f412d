"""The nodes that drains are measured on: of the simulated cluster or of an existing one."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from benchmarks.kubeconfig import Access
from benchmarks.objects import NAMESPACE, instance_id, node_name, pause_deployment, pause_pod
from benchmarks.observer import PODS, Observer, observing
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
    lost: int = 0
    """Pods that were gone without a grace period before."""
    short: int = 0
    """Pods that were given less than their own grace."""
    broken: int = 0
    """Ready pods that began to terminate and left fewer than their budget asks for."""
    down: dict[str, float] = field(default_factory=dict)
    """Seconds without a ready pod, by Deployment."""
    calls: dict[str, int] = field(default_factory=dict)
    conflicts: int | None = None
    """Answers 409 to any client; None: not known."""
    refused: int = 0
    """Answers 429."""
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
            if len(found.gone) >= max(pods, len(found.accepted)):
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


class RealCluster:
    """An existing cluster with the benchmark's namespace."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        self.access = Access.read(kubeconfig)
        self._observer: Observer | None = None
        self._http = httpx2.Client(
            base_url=self.access.server,
            verify=self.access.ssl_context(),
            headers=self.access.headers,
            timeout=30,
            trust_env=False,
        )

    @property
    def observer(self) -> Observer:
        assert self._observer is not None  # noqa: S101 - the caller has opened the cluster
        return self._observer

    @contextmanager
    def opened(self) -> Iterator[RealCluster]:
        """Create the namespace and observe nodes and pods. At the end remove the namespace."""
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        created = self._http.post("/api/v1/namespaces", json=namespace)
        if created.status_code != httpx2.codes.CONFLICT:
            created.raise_for_status()
        with ExitStack() as stack:
            stack.callback(self._http.delete, f"/api/v1/namespaces/{NAMESPACE}")
            stack.callback(self.empty)
            self._observer = stack.enter_context(observing(self.access))
            yield self

    def get(self, path: str) -> dict[str, Any]:
        answer = self._http.get(path)
        answer.raise_for_status()
        found: dict[str, Any] = answer.json()
        return found

    def post(self, path: str, body: dict[str, Any]) -> None:
        self._http.post(path, json=body).raise_for_status()

    def patch(self, path: str, body: dict[str, Any]) -> None:
        """Send a JSON merge patch."""
        headers = {"content-type": "application/merge-patch+json"}
        self._http.patch(path, content=json.dumps(body), headers=headers).raise_for_status()

    def size(self) -> tuple[int, int]:
        """Return the number of nodes and pods of the cluster."""
        nodes, pods = (self.get(path)["items"] for path in ("/api/v1/nodes", "/api/v1/pods"))
        return len(nodes), len(pods)

    def own_pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.get(PODS)["items"]
        return found

    def empty(self) -> None:
        """Delete the Deployment and the pods, and wait until they are gone."""
        self._http.delete(_DEPLOYMENTS)
        self._http.delete(PODS)
        self.wait(lambda: not self.own_pods(), "the pods of the benchmark still exist")

    def deploy(self, hostnames: Sequence[str], replicas: int) -> None:
        """Create a Deployment that only these nodes can run, and wait until its pods are ready."""
        self.post(_DEPLOYMENTS, pause_deployment(hostnames, replicas))
        if self.settled(replicas)[1] < replicas:
            raise BenchmarkError(f"Check the nodes: {replicas} pods do not run on them")

    def settled(self, replicas: int) -> tuple[float, int]:
        """Wait up to TIMEOUT until so many pods are ready. Returns the time and their number."""
        end = time.monotonic() + TIMEOUT
        while True:
            ready = sum(_is_ready(pod) for pod in self.own_pods())
            if ready >= replicas or time.monotonic() > end:
                return time.monotonic(), ready
            time.sleep(POLL)

    def wait(self, condition: Callable[[], bool], otherwise: str) -> None:
        """Wait until a condition holds. Raises BenchmarkError after TIMEOUT."""
        end = time.monotonic() + TIMEOUT
        while not condition():
            if time.monotonic() > end:
                raise BenchmarkError(f"Check the cluster: {otherwise}")
            time.sleep(POLL)


_DEPLOYMENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments"


class RealTarget(Target):
    """A node of an existing cluster, with pause pods in the benchmark's namespace."""

    def __init__(self, cluster: RealCluster, node: str) -> None:
        self.cluster, self.node = cluster, node
        self.kubeconfig = cluster.kubeconfig
        self._begun = 0.0
        self._earlier: Set[str] = frozenset()
        found = cluster.get(self._path)
        provider = found["spec"].get("providerID", "")
        self.instance = provider.rpartition("/")[2]
        self.hostname = found["metadata"]["labels"].get("kubernetes.io/hostname", node)
        if not self.instance.startswith("i-"):
            raise BenchmarkError(
                f"Choose a node that is an EC2 instance: the provider id of {node} is {provider!r}"
            )

    @property
    def _path(self) -> str:
        return f"/api/v1/nodes/{self.node}"

    @property
    def free_pods(self) -> int:
        """Return how many pods fit on the node. Raises BenchmarkError if it has pods of others."""
        others, staying = [], 0
        for pod in self.cluster.get(f"/api/v1/pods?fieldSelector=spec.nodeName={self.node}")[
            "items"
        ]:
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
        return int(self.cluster.get(self._path)["status"]["allocatable"]["pods"]) - staying

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Restore the node at the end."""
        try:
            yield
        finally:
            self.restore()

    def prepare(self, pods: int) -> None:
        self.cluster.wait(lambda: not self._own(), "the pods of the previous run still exist")
        self.restore()
        for index in range(pods):
            self.cluster.post(PODS, pause_pod(f"{self.node.partition('.')[0]}-{index}", self.node))
        self.cluster.wait(
            lambda: sum(pod["status"].get("phase") == "Running" for pod in self._own()) == pods,
            f"{pods} pods do not run on {self.node}",
        )
        self.begin()

    def begin(self) -> int:
        """Observe from now on. Returns the number of pods on the node."""
        present = {pod["metadata"]["uid"] for pod in self._own()}
        # The observer may still get events of earlier pods.
        self._earlier = self.cluster.observer.known() - present
        self._begun = time.monotonic()
        return len(present)

    def observed(self) -> Observed:
        observer = self.cluster.observer
        cordoned = observer.cordons.get(self.node, 0.0)
        pods = [
            pod
            for uid, pod in list(observer.pods.items())
            if pod.node == self.node and uid not in self._earlier
        ]
        return Observed(
            cordoned={self.node: cordoned} if cordoned > self._begun else {},
            accepted={pod.name: pod.accepted for pod in pods if pod.accepted is not None},
            gone={pod.name: pod.gone for pod in pods if pod.gone is not None},
            lost=sum(pod.lost for pod in pods),
        )

    def restore(self) -> None:
        """Undo what a drain does to a node. Change nothing else."""
        node = self.cluster.get(self._path)
        keys = (*DRAIN_KEYS, "node.kubernetes.io/unschedulable")
        taints = [taint for taint in node["spec"].get("taints") or () if taint["key"] not in keys]
        patch = {
            "metadata": {"labels": dict.fromkeys(DRAIN_KEYS)},
            "spec": {"unschedulable": None, "taints": taints or None},
        }
        self.cluster.patch(self._path, patch)

    def _own(self) -> list[dict[str, Any]]:
        pods = self.cluster.own_pods()
        return [pod for pod in pods if pod["spec"].get("nodeName") == self.node]


def _is_ready(pod: dict[str, Any]) -> bool:
    conditions = pod["status"].get("conditions") or ()
    ready = any(c["type"] == "Ready" and c["status"] == "True" for c in conditions)
    return ready and "deletionTimestamp" not in pod["metadata"]
