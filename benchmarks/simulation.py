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
from collections import Counter
from collections.abc import Callable
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
from benchmarks.observations import Observations
from kubesim import answers
from kubesim.authentication import User
from kubesim.certificates import Certificates
from kubesim.cluster import SimulatedCluster
from kubesim.resources import Obj
from kubesim.serve import https, kubeconfig
from lambdas.common.names import SPOT_HANDLER_GROUP

MANIFEST = Path(__file__).parents[1] / "manifests" / "spot-handler-rbac.yaml"
RESTARTED = "kubectl.kubernetes.io/restartedAt"
TEMPLATE: dict[str, Any] = {
    "grace": GRACE,
    "annotations": {**PADDING, "sandbox/shutdown-seconds": str(SHUTDOWN)},
}
REFUSED_EVERY = 5
SETTLED = 180.0  # s
SLICE = 500  # pods created before the event loop can run other tasks


class EksTokens:
    """Authenticates every EKS token as the function's role. The check itself is not measured."""

    async def authenticate(self, token: str) -> User | None:
        if not token.startswith("k8s-aws-v1."):
            return None
        return User("spot-handler", (SPOT_HANDLER_GROUP, "system:authenticated"))


class Simulation:
    """The commands, which are its public methods."""

    def __init__(
        self, cluster: SimulatedCluster, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`now`: the clock of the observations."""
        self._cluster = cluster
        self._observations = Observations(cluster, now)
        cluster.add_namespace(NAMESPACE)
        for document in yaml.safe_load_all(MANIFEST.read_text()):
            cluster.create(document)

    def forget(self) -> None:
        """Delete all observations."""
        self._observations.forget()
        self._cluster.log.clear()

    def observed(self) -> dict[str, Any]:
        """Return what happened since `forget`; see `Observations.seen`."""
        entries = list(self._cluster.log.entries)
        return {
            **self._observations.seen(),
            "calls": Counter(f"{entry.verb} {entry.resource}" for entry in entries),
            "conflicts": sum(entry.status == 409 for entry in entries),
            "refused": sum(entry.status == 429 for entry in entries),
            "read_bytes": sum(
                entry.sent_bytes for entry in entries if entry.verb in ("get", "list", "watch")
            ),
        }

    def disturb(self, changes: int) -> None:
        """Act like an API server that is too busy, until `calm`.

        It refuses every fifth request with 429 and Retry-After. It ends all watches of pods at
        every `changes`-th change of a pod, twice.
        """
        faults = self._cluster.faults
        faults.add("*", "", answers.server_busy(), every=REFUSED_EVERY)
        faults.break_watches("pods", every=changes, times=2)

    def stand_still(self, after: float, seconds: float) -> None:
        """Stop the whole process once: no answer, no event, no controller."""
        asyncio.get_running_loop().call_later(after, time.sleep, seconds)

    def calm(self) -> None:
        """End the faults of `disturb`."""
        self._cluster.faults.clear()

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

    async def deploy(self, deployments: int, replicas: int, budgets: int = 0) -> None:
        """Create Deployments and wait until all their pods run.

        The first `budgets` of them have a budget: a quarter of the pods may be unavailable.
        """
        for number in range(deployments):
            name = f"app-{number}"
            if number < budgets:
                self._budget(name, replicas // 4)
            self._cluster.add_deployment(name, replicas, namespace=NAMESPACE, **TEMPLATE)
        await self.settled(deployments * replicas)

    async def place(self, name: str, nodes: list[int], unavailable: int | None = None) -> None:
        """Create a Deployment with a ready pod on each of these nodes.

        `unavailable`: its budget allows so many unavailable pods. None: it has no budget.
        """
        cluster = self._cluster
        cluster.add_deployment(name, 0, namespace=NAMESPACE, **TEMPLATE)
        await cluster.until(lambda: self._replica_sets(name))
        owner = self._replica_sets(name)[0]
        template = owner["spec"]["template"]
        for index, number in enumerate(nodes):
            cluster.add_pod(
                f"{owner['metadata']['name']}-{index}",
                node_name(number),
                namespace=NAMESPACE,
                labels=template["metadata"]["labels"],
                owner=owner,
                grace=GRACE,
                annotations=template["metadata"]["annotations"],
            )
        # Before a controller takes its next step: no pod is added or removed.
        cluster.set({**owner, "spec": {**owner["spec"], "replicas": len(nodes)}})
        self._change(name, replicas=len(nodes))
        if unavailable is not None:
            self._budget(name, unavailable)

    def roll(self, name: str) -> None:
        """Change a Deployment's template, as `kubectl rollout restart` does."""
        template = self._deployment(name)["spec"]["template"]
        notes = {**template["metadata"]["annotations"], RESTARTED: str(time.monotonic())}
        metadata = {**template["metadata"], "annotations": notes}
        self._change(name, template={**template, "metadata": metadata})

    def _change(self, name: str, **changes: object) -> None:
        deployment = self._deployment(name)
        self._cluster.set({**deployment, "spec": {**deployment["spec"], **changes}})

    def _deployment(self, name: str) -> Obj:
        found = self._cluster.get("deployments", name, NAMESPACE)
        assert found is not None  # noqa: S101 - the caller has created it
        return found

    def _replica_sets(self, name: str) -> list[Obj]:
        """Return the ReplicaSets of a Deployment."""
        return [
            found
            for found in self._cluster.list("replicasets", NAMESPACE)
            if found["metadata"]["labels"]["app"] == name
        ]

    def _budget(self, name: str, unavailable: int) -> None:
        self._cluster.add_budget(
            name, {"app": name}, namespace=NAMESPACE, maxUnavailable=unavailable
        )

    async def settled(self, pods: int) -> float:
        """Wait until `pods` pods run and none is terminating. Returns the time.

        Raises TimeoutError (they do not after SETTLED seconds).
        """
        async with asyncio.timeout(SETTLED):
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
