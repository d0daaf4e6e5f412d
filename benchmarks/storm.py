"""A storm: a hundred notices at once, each for a different node."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from benchmarks.kubeconfig import Access
from benchmarks.objects import instance_id, node_name
from benchmarks.rig import AwsEndpoint, Container, Rig, Simulation
from benchmarks.target import RealCluster, RealTarget

FIRST = 1000  # the storm's nodes are numbered from here
SPARE = 5000  # the nodes for the replacement pods are numbered from here
WARM_UP = 9000  # an empty node that every container drains once, at the same time


@dataclass(frozen=True)
class Storm:
    """The result of a storm. Times in seconds since the notices."""

    nodes: int
    pods: int
    containers: int
    cordoned_half: float
    cordoned_all: float
    drained_all: float
    running_again: float
    left: int
    lost: int
    """Pods whose replacement never became ready, or that were gone without a grace period."""
    conflicts: int
    outcomes: dict[str, int]
    restored: bool = False
    """The replacements ran on the same nodes, which were uncordoned after the drains."""


def measure(
    rig: Rig, aws: AwsEndpoint, simulation: Simulation, *, nodes: int, pods: int, containers: int
) -> Storm:
    """Measure notices for `nodes` nodes at once. Each node has about `pods` pods of Deployments.

    A container handles one notice at a time, as on Lambda. With fewer containers than nodes, the
    other notices wait.
    """
    numbers = built(aws, simulation, nodes=nodes, pods=pods)
    total = sum(simulation.do("counts").values())
    with warmed(rig, aws, containers) as warm:
        simulation.do("forget")
        begun = time.monotonic()
        answers = handle(warm, [instance_id(number) for number in numbers])
        settled = simulation.do("settled", pods=total)
        seen = simulation.do("observed")
    names = {node_name(number) for number in numbers}
    cordoned = sorted(at - begun for name, at in seen["cordoned"].items() if name in names)
    return Storm(
        nodes=nodes,
        pods=total,
        containers=containers,
        cordoned_half=cordoned[len(cordoned) // 2],
        cordoned_all=cordoned[-1],
        drained_all=max(seen["gone"].values()) - begun,
        running_again=settled - begun,
        left=_left(answers),
        lost=total - sum(simulation.do("counts").values()) + seen["lost"],
        conflicts=seen["conflicts"],
        outcomes=_outcomes(answers),
    )


def built(
    aws: AwsEndpoint,
    simulation: Simulation,
    *,
    nodes: int,
    pods: int,
    replicas: int = 0,
    spare: int = 0,
    budgets: int = 0,
) -> range:
    """Fill `nodes` nodes with about `pods` pods each. Returns the numbers of these nodes.

    `replicas` of each Deployment (default: the pods of two nodes), the first `budgets` of them with
    a budget. `spare` nodes (default: as many again) stay empty for the replacements.
    """
    replicas = replicas or 2 * pods
    numbers = range(FIRST, FIRST + nodes)
    simulation.do("build", first=FIRST, nodes=nodes, pods=0)
    simulation.do(
        "deploy", deployments=nodes * pods // replicas, replicas=replicas, budgets=budgets
    )
    simulation.do("build", first=SPARE, nodes=spare or nodes, pods=0)
    simulation.do("build", first=WARM_UP, nodes=1, pods=0)
    aws.describe(
        simulation.endpoint,
        Access.read(simulation.kubeconfig).ca_pem,
        {instance_id(number): node_name(number) for number in (*numbers, WARM_UP)},
    )
    return numbers


@contextmanager
def warmed(rig: Rig, aws: AwsEndpoint, containers: int) -> Iterator[list[Container]]:
    """Start containers that have drained the empty node WARM_UP, all at the same time."""
    with ExitStack() as stack:
        warm = [stack.enter_context(rig.container(aws)) for _ in range(containers)]
        for container in warm:
            container.notice(instance_id(WARM_UP))
        for container in warm:
            container.result()
        yield warm


def measure_real(
    rig: Rig,
    aws: AwsEndpoint,
    cluster: RealCluster,
    targets: Sequence[RealTarget],
    *,
    pods: int,
    **env: str,
) -> Storm:
    """Measure the same on nodes of an existing cluster, with a container for each.

    Only these nodes can run the pods, so no other node gets any. The replacements of evicted pods
    wait until the nodes are uncordoned after the drains.
    """
    total = pods * len(targets)
    for target in targets:
        target.prepare(0)
    cluster.deploy([target.hostname for target in targets], total)
    on_node = [target.begin() for target in targets]
    with ExitStack() as stack:
        containers = [stack.enter_context(rig.container(aws, **env)) for _ in targets]
        for container in containers:
            container.send(None)  # warms what needs no cluster
            container.read_line()
        begun = time.monotonic()
        answers = handle(containers, [target.instance for target in targets])
        seen = [target.until_empty(count) for target, count in zip(targets, on_node, strict=True)]
    for target in targets:
        target.restore()
    settled, ready = cluster.settled(total)
    cluster.empty()
    cordoned = sorted(at - begun for found in seen for at in found.cordoned.values())
    drained = max(max(found.gone.values(), default=begun) for found in seen) - begun
    return Storm(
        nodes=len(targets),
        pods=total,
        containers=len(targets),
        cordoned_half=cordoned[len(cordoned) // 2],
        cordoned_all=cordoned[-1],
        drained_all=drained,
        running_again=settled - begun,
        left=_left(answers),
        lost=max(0, total - ready) + sum(found.lost for found in seen),
        conflicts=sum(answer["conflicts"] for answer in answers),
        outcomes=_outcomes(answers),
        restored=True,
    )


def _left(answers: Sequence[dict[str, Any]]) -> int:
    return sum(answer["result"]["pods"]["left"] for answer in answers)


def _outcomes(answers: Sequence[dict[str, Any]]) -> dict[str, int]:
    return Counter(answer["result"]["outcome"] for answer in answers)


def handle(
    containers: list[Container], instances: Sequence[str], interval: float = 0.0
) -> list[dict[str, Any]]:
    """Send each notice to the first free container. Returns the answers.

    `interval`: seconds between two notices. Each answer has as `waited` the seconds for which no
    container was free for the notice. The notice's own time is before that wait.
    """
    begun = time.monotonic()
    waiting = iter(enumerate(instances))  # next() on it is atomic: threads may share it

    def work(container: Container) -> list[dict[str, Any]]:
        answers = []
        for number, instance in waiting:
            ahead = begun + number * interval - time.monotonic()
            time.sleep(max(0.0, ahead))
            waited = max(0.0, -ahead)
            container.notice(instance, age=waited)
            answers.append({**container.result(), "waited": waited})
        return answers

    with ThreadPoolExecutor(len(containers)) as threads:
        return [answer for answers in threads.map(work, containers) for answer in answers]
