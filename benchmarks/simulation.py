"""The simulated cluster as a separate process, with commands to fill and observe it.

    python -m benchmarks.simulation KUBECONFIG

Commands and answers are JSON, one a line. The first line on standard output is the endpoint. Times
are by the machine's monotonic clock, which is the same in every process. They are taken when a
change is made: this costs the cluster almost nothing, and the same for each peer.
"""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

from benchmarks.objects import (
    GRACE,
    NAMESPACE,
    PADDING,
    SHUTDOWN,
    ZONE,
    instance_id,
    node_name,
)
from kubesim.authentication import User
from kubesim.certificates import Certificates
from kubesim.cluster import SimulatedCluster
from kubesim.resources import NODES, PODS
from kubesim.serve import https, kubeconfig
from kubesim.store import Change
from lambdas.common.names import SPOT_HANDLER_GROUP

MANIFEST = Path(__file__).parents[1] / "manifests" / "spot-handler-rbac.yaml"
SLICE = 500  # pods created before the event loop can run other tasks


class EksTokens:
    """Authenticates every EKS token as the function's role. The check itself is not measured."""

    async def authenticate(self, token: str) -> User | None:
        if not token.startswith("k8s-aws-v1."):
            return None
        return User("spot-handler", (SPOT_HANDLER_GROUP, "system:authenticated"))


class Simulation:
    """The commands, which are its public methods."""

    def __init__(self, cluster: SimulatedCluster) -> None:
        self._cluster = cluster
        self._times: dict[str, dict[str, float]] = {}
        cluster.store.subscribe(self._note)
        cluster.add_namespace(NAMESPACE)
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            cluster.create(document)
        self.forget()

    def _note(self, change: Change) -> None:
        name = change.new["metadata"]["name"]
        if change.resource is NODES:
            if change.kind == "MODIFIED" and change.new["spec"].get("unschedulable"):
                self._times["cordoned"].setdefault(name, time.monotonic())
        elif change.resource is PODS:
            if change.kind == "DELETED":
                self._times["gone"][name] = time.monotonic()
                self._lost += name not in self._times["accepted"]
            elif change.new["metadata"].get("deletionTimestamp"):
                self._times["accepted"].setdefault(name, time.monotonic())

    def forget(self) -> None:
        """Delete all observations."""
        self._times = {"cordoned": {}, "accepted": {}, "gone": {}}
        self._lost = 0
        self._cluster.log.clear()

    def observed(self) -> dict[str, Any]:
        """Return what happened since `forget`."""
        entries = list(self._cluster.log.entries)
        calls: dict[str, int] = {}
        for entry in entries:
            what = f"{entry.verb} {entry.resource}"
            calls[what] = calls.get(what, 0) + 1
        return {
            **self._times,
            "lost": self._lost,
            "calls": calls,
            "conflicts": sum(entry.status == 409 for entry in entries),
            "read_bytes": sum(
                entry.sent_bytes for entry in entries if entry.verb in ("get", "list", "watch")
            ),
        }

    async def build(self, first: int, nodes: int, pods: int) -> None:
        """Create nodes with `pods` bare pods each."""
        for number in range(first, first + nodes):
            name = node_name(number)
            self._cluster.add_node(name, f"aws:///{ZONE}/{instance_id(number)}")
            for index in range(pods):
                self._cluster.add_pod(
                    f"pod-{number}-{index}",
                    name,
                    namespace=NAMESPACE,
                    grace=GRACE,
                    shutdown=SHUTDOWN,
                    annotations=PADDING,
                )
                if index % SLICE == 0:
                    await asyncio.sleep(0)

    async def renew(self, number: int, pods: int) -> None:
        """Delete a node and its pods, and create it again."""
        name = node_name(number)
        for pod in self._cluster.pods_on(name):
            self._cluster.delete("pods", pod["metadata"]["name"], NAMESPACE, grace=0)
        self._cluster.delete("nodes", name)
        await self.build(number, 1, pods)

    async def deploy(self, deployments: int, replicas: int) -> None:
        """Create Deployments and wait until all their pods run."""
        for number in range(deployments):
            self._cluster.add_deployment(
                f"app-{number}",
                replicas,
                namespace=NAMESPACE,
                grace=GRACE,
                annotations={**PADDING, "sandbox/shutdown-seconds": str(SHUTDOWN)},
            )
        await self.settled(deployments * replicas)

    async def settled(self, pods: int) -> float:
        """Wait until `pods` pods run and none is terminating. Returns the time."""
        while True:
            running = [
                pod
                for pod in self._cluster.list("pods", NAMESPACE)
                if pod.get("status", {}).get("phase") == "Running"
            ]
            ending = any(pod["metadata"].get("deletionTimestamp") for pod in running)
            if len(running) >= pods and not ending:
                return time.monotonic()
            await asyncio.sleep(0.2)

    def counts(self) -> dict[str, int]:
        """Return the number of pods by node."""
        found: dict[str, int] = {}
        for pod in self._cluster.list("pods", NAMESPACE):
            node = pod["spec"].get("nodeName", "")
            found[node] = found.get(node, 0) + 1
        return found


async def main(kubeconfig_file: Path) -> None:
    """Serve until standard input ends."""
    loop = asyncio.get_running_loop()
    with tempfile.TemporaryDirectory(prefix="castai-benchmark-") as folder:
        certificates = Certificates.ensure(Path(folder))
        async with (
            SimulatedCluster(authenticators=(EksTokens(),)) as cluster,
            https(cluster, certificates) as endpoint,
        ):
            simulation = Simulation(cluster)
            _write(kubeconfig_file, kubeconfig(endpoint, certificates.ca.read_text()))
            print(endpoint, flush=True)
            while line := await loop.run_in_executor(None, sys.stdin.readline):
                command = json.loads(line)
                answer = getattr(simulation, command.pop("do"))(**command)
                if asyncio.iscoroutine(answer):
                    answer = await answer
                print(json.dumps(answer), flush=True)


def _write(path: Path, text: str) -> None:
    path.write_text(text)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
