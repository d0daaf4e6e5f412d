"""Notices again and again in one container: memory and file descriptors must stay flat.

    python -m benchmarks.soak SECONDS

runs SECONDS of virtual time in this process and prints the result as JSON. Every second drain has
an API server that refuses every fifth request and ends all watches of pods twice.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast

import psutil  # type: ignore[import-untyped] # its stubs are a separate package

from benchmarks.kubeconfig import Access, OneCluster
from benchmarks.objects import CLUSTER, instance_id, node_name, spot_notice
from benchmarks.outcome import Soak
from benchmarks.rig import ROOT, AwsEndpoint, BenchmarkError, Rig
from benchmarks.rig import Simulation as SimulationProcess
from benchmarks.simulation import EksTokens, Simulation
from benchmarks.target import Observed, SimulatedTarget
from kubesim import SimulatedCluster
from kubesim.cluster import URL
from kubesim.virtual import EPOCH, VirtualLoop
from lambdas.common.clock import Clock
from lambdas.spot_handler import interruption, notices, report
from lambdas.spot_handler.interruption import Dependencies
from lambdas.spot_handler.settings import Environment

PODS = 20  # on the node
EVERY = 10.0  # s from a notice to the next, in virtual time
LEFT = 147.0  # s that the function has for a notice
HISTORY = 500  # changes that the cluster keeps: full soon, and then of one size
DISTURBED = 60  # changes of pods until their watches end

Harm = Counter[str]


def virtual(seconds: float) -> Soak:
    """Run virtual time in a process of its own. Raises BenchmarkError if that fails."""
    command = [sys.executable, "-m", "benchmarks.soak", str(seconds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BenchmarkError(f"The soak failed: {done.stderr[-2000:]}")
    found = json.loads(done.stdout)
    triples = {name: tuple(found[name]) for name in ("memory", "descriptors", "objects")}
    return Soak(**{**found, **triples})


def real(rig: Rig, aws: AwsEndpoint, seconds: float) -> Soak:
    """Run real time, with the container and the cluster as processes."""
    counts: Harm = Counter()
    usage: list[tuple[float, int]] = []
    with SimulationProcess(rig.folder) as simulation:
        target = SimulatedTarget(simulation)
        aws.describe(simulation.endpoint, target.access.ca_pem, {target.instance: target.node})
        begun = time.monotonic()
        with rig.container(aws) as container:
            while time.monotonic() < begun + seconds:
                target.prepare(PODS)
                if len(usage) % 2:
                    simulation.do("disturb", changes=DISTURBED)
                container.notice(target.instance)
                answer = container.result()
                simulation.do("calm")
                left = simulation.do("counts").get(target.node, 0)
                count(counts, target.observed(), left, answer["result"]["outcome"])
                usage.append(container.usage())
    memory, descriptors = zip(*usage, strict=True)
    return _soak("processes, real time", seconds, counts, memory, descriptors)


def main() -> None:
    """Run and print the result."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # the handler's log and metrics
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(EPOCH)) as runner:
        found = runner.run(run(float(sys.argv[1])))
    print(json.dumps(asdict(found)), file=answers)


async def run(seconds: float) -> Soak:
    """Run in the running loop, which must be a virtual one."""
    loop, process = asyncio.get_running_loop(), psutil.Process()
    counts: Harm = Counter()
    usage: list[tuple[float, int, int]] = []
    async with SimulatedCluster(authenticators=(EksTokens(),), history=HISTORY) as cluster:
        simulation = Simulation(cluster, loop.time)
        await simulation.build(1, 1, 0)
        deps = dependencies(cluster)
        while loop.time() < seconds:
            next_at = loop.time() + EVERY
            await simulation.renew(1, PODS)
            for event in cluster.list("events", "default"):  # a real cluster drops them in an hour
                cluster.delete("events", event["metadata"]["name"], "default")
            simulation.forget()
            if len(usage) % 2:
                simulation.disturb(DISTURBED)
            outcome = await _notice(cluster, deps)
            simulation.calm()
            left = simulation.counts().get(node_name(1), 0)
            count(counts, Observed(**simulation.observed()), left, outcome)
            gc.collect()
            memory = process.memory_info().rss / 2**20
            usage.append((memory, process.num_fds(), len(gc.get_objects())))
            await asyncio.sleep(max(0.0, next_at - loop.time()))
    memories, descriptors, objects = zip(*usage, strict=True)
    return _soak(
        "one process, virtual time", seconds, counts, memories, descriptors, objects=objects
    )


async def _notice(cluster: SimulatedCluster, deps: Dependencies) -> str:
    """Handle a notice as the function does. Returns the outcome."""
    at = datetime.fromtimestamp(cluster.now(), UTC).isoformat().replace("+00:00", "Z")
    notice = notices.parse(spot_notice(instance_id(1), at), now=cluster.now())
    assert notice is not None  # noqa: S101 - of a kind that is known
    result = await interruption.handle(notice, deps, time_limit=cluster.now() + LEFT)
    report.log(result)
    report.measure(result)
    return result.outcome.value


def dependencies(cluster: SimulatedCluster) -> Dependencies:
    """Return the handler's dependencies, with a cluster and an instance in this process."""
    return Dependencies(
        settings=Environment(),
        ec2=cast("Any", _OneInstance()),
        clusters=cast("Any", OneCluster(Access(URL, "", token="k8s-aws-v1.soak"))),  # noqa: S106
        transport=lambda _ca, _connections: cluster.transport(),
        clock=Clock(now=cluster.now, sleep=_no_sleep),
    )


def _no_sleep(_seconds: float) -> None:
    raise BenchmarkError("Nothing of AWS fails here, so nothing sleeps")


class _OneInstance:
    """Replaces EC2: it describes the instance of node 1."""

    def describe_instances(self, **_: object) -> dict[str, Any]:
        instance = {
            "State": {"Name": "running"},
            "PrivateDnsName": node_name(1),
            "Tags": [{"Key": "aws:eks:cluster-name", "Value": CLUSTER}],
        }
        return {"Reservations": [{"Instances": [instance]}]}


def count(counts: Harm, seen: Observed, left: int, outcome: str) -> None:
    """Add one drain to the counts."""
    counts["notices"] += 1
    counts["pods"] += len(seen.accepted)
    counts["harm"] += left + seen.lost + seen.short + seen.broken
    counts["undrained"] += outcome != "drained"
    counts["requests"] += sum(seen.calls.values())


def _soak(
    where: str,
    seconds: float,
    counts: Harm,
    memory: Sequence[float],
    descriptors: Sequence[int],
    *,
    objects: Sequence[int] | None = None,
) -> Soak:
    last = counts["notices"] - 1
    moments = (last // 10, last // 2, last)

    def at(values: Sequence[Any]) -> Any:  # noqa: ANN401 - of one type each
        return tuple(values[moment] for moment in moments)

    return Soak(
        where=where,
        seconds=seconds,
        notices=counts["notices"],
        pods=counts["pods"],
        harm=counts["harm"],
        undrained=counts["undrained"],
        requests=counts["requests"],
        memory=at(memory),
        descriptors=at(descriptors),
        objects=at(objects) if objects else None,
    )


if __name__ == "__main__":
    main()
