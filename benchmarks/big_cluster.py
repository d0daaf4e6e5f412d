"""The same drain in a cluster of 3 nodes and in one of 5,000."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median

from benchmarks.full_node import Run
from benchmarks.rig import AwsEndpoint, Rig, Simulation
from benchmarks.target import SimulatedTarget, Target

POD_NODES = 2000  # the other nodes are numbered from here
READS = ("get nodes", "list nodes", "list pods", "get pods", "get configmaps")


@dataclass(frozen=True)
class Drain:
    """The medians of several equal drains."""

    nodes: int
    pods: int
    reads: int
    watches: int
    read_bytes: int
    cordoned: float
    empty: float


def measure(
    rig: Rig, aws: AwsEndpoint, *, nodes: int, pods: int, on_node: int, rounds: int
) -> Drain:
    """Measure drains of a node with `on_node` pods in a cluster of `nodes` and `pods` in all."""
    with Simulation(rig.folder) as simulation:
        target = SimulatedTarget(simulation)
        others = nodes - 1
        simulation.do("build", first=POD_NODES, nodes=others, pods=max(0, pods - on_node) // others)
        aws.describe(simulation.endpoint, target.access.ca_pem, {target.instance: target.node})
        return drained(rig, aws, target, nodes=nodes, pods=pods, on_node=on_node, rounds=rounds)


def drained(
    rig: Rig,
    aws: AwsEndpoint,
    target: Target,
    *,
    nodes: int,
    pods: int,
    on_node: int,
    rounds: int,
    **env: str,
) -> Drain:
    """Measure drains in a warm container, in the cluster as it is."""
    runs, seen = [], []
    with rig.container(aws, **env) as container:
        for number in range(rounds + 1):
            target.prepare(on_node)
            begun = container.notice(target.instance)
            container.result()
            found = target.until_empty(on_node)
            if number:  # the first drain warms the container
                runs.append(Run.of(begun, found))
                seen.append(found)
    calls = seen[-1].calls
    return Drain(
        nodes=nodes,
        pods=pods,
        reads=sum(number for what, number in calls.items() if what in READS),
        watches=calls.get("watch pods", 0),
        read_bytes=int(median(found.read_bytes for found in seen)),
        cordoned=median(run.cordoned or 0.0 for run in runs),
        empty=median(run.empty for run in runs),
    )
