"""Bad days on real processes: what they cost the pods, by the handler and by its peers.

    python -m benchmarks.load [--quick] [--soak MINUTES]

Prints the tables. --soak: repeat notices in one container for so many minutes of real time; without
it, only the soak in virtual time runs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import full_node, report, soak, storm
from benchmarks.full_node import KUBECTL
from benchmarks.kubeconfig import Access
from benchmarks.objects import instance_id, node_name
from benchmarks.outcome import HANDLER, Case, Outcome
from benchmarks.rig import ROOT, AwsEndpoint, BenchmarkError, Container, Rig, Simulation
from benchmarks.target import Observed

NOTICE = 120.0  # s from the notice to the interruption
KUBECTL_TIMEOUT = "--timeout=110s"
OTHERS = 2000  # the nodes that are not drained are numbered from here
SINGLE = "single-"  # begins the names of Deployments of one replica
ROLL_EVERY = 2.0  # s
MINUTE = 60.0  # s

Act = Callable[[], int]
"""Drains, and returns how many drains failed."""


@dataclass(frozen=True)
class Scale:
    """The size of each case."""

    storm: tuple[int, int, int]
    """Nodes, pods on each, Deployments with a budget."""
    notices: tuple[int, int, float]
    """Notices, containers, seconds from the first to the last."""
    budgets: int
    """Deployments of 5 with a budget; on the node are 4 pods of each, and a quarter more."""
    big: tuple[int, int, int]
    """Nodes, pods, replicas of each Deployment that is rolled."""
    soak: float
    """Seconds of virtual time."""


FULL = Scale((100, 10, 10), (1000, 80, MINUTE), 50, (5000, 20_000, 30), 3600.0)
QUICK = Scale((3, 4, 1), (4, 2, 2.0), 2, (20, 40, 5), 60.0)


def measure(rig: Rig, aws: AwsEndpoint, scale: Scale, *, kubectl: bool) -> Iterator[Case]:
    """Measure each case. The zip must be built."""
    for faults in (False, True):
        yield _storm(rig, aws, scale, faults=faults, kubectl=kubectl)
    yield _minute(rig, aws, scale)
    yield _budgets(rig, aws, scale, kubectl=kubectl)
    yield _rolled(rig, aws, scale, kubectl=kubectl)


def _storm(rig: Rig, aws: AwsEndpoint, scale: Scale, *, faults: bool, kubectl: bool) -> Case:
    nodes, pods, budgets = scale.storm
    rows = []
    for peer in _peers(kubectl=kubectl):
        with Simulation(rig.folder) as simulation:
            numbers = storm.built(aws, simulation, nodes=nodes, pods=pods, budgets=budgets)
            with _act(rig, aws, simulation, peer, numbers) as act:
                rows.append(_measured(simulation, peer, numbers, act, disturbed=faults))
    what = f"{nodes} notices at once, {rows[0].pods} pods"
    text = f"{budgets} of {nodes // 2} Deployments have a budget of a quarter of their pods."
    if faults:
        text += (
            " The API server refuses every fifth request with 429 and Retry-After: 1, ends all "
            "watches of pods twice, and stands still for a second, from 1 s after the notices."
        )
    return Case(f"{what}, {'with' if faults else 'without'} faults", text, rows)


def _minute(rig: Rig, aws: AwsEndpoint, scale: Scale) -> Case:
    notices, containers, seconds = scale.notices
    longest: list[float] = []

    def act() -> int:
        answers = storm.handle(warm, [instance_id(n) for n in numbers], seconds / notices)
        longest.append(max(answer["waited"] for answer in answers))
        return _undrained(answers)

    with Simulation(rig.folder) as simulation:
        numbers = storm.built(
            aws, simulation, nodes=notices, pods=1, replicas=4, spare=max(2, notices // 5)
        )
        with storm.warmed(rig, aws, containers) as warm:
            row = _measured(simulation, HANDLER, numbers, act)
    text = (
        f"A notice every {1000 * seconds / notices:.0f} ms, to {containers} warm containers, each "
        "with one notice at a time. A replacement may start on a node whose notice is still to "
        f"come. The longest wait for a free container was {longest[0]:.1f} s: on Lambda another "
        "container would start. The peers are not measured: a process for each notice is more than "
        "this machine's processors can run."
    )
    return Case(f"{notices:,} notices in {seconds:.0f} s, one pod on each node", text, [row])


def _budgets(rig: Rig, aws: AwsEndpoint, scale: Scale, *, kubectl: bool) -> Case:
    rows, count = [], scale.budgets
    on_node = 0
    for peer in _peers(kubectl=kubectl):
        with Simulation(rig.folder) as simulation:
            simulation.do("build", first=1, nodes=1, pods=0)
            simulation.do("build", first=OTHERS, nodes=10, pods=0)
            for number in range(count):
                nodes = [1] * 4 + [OTHERS + number % 10]
                simulation.do("place", name=f"app-{number}", nodes=nodes, unavailable=1)
            for number in range(count // 10):
                simulation.do("place", name=f"free-{number}", nodes=[1] * 9)
                simulation.do("place", name=f"{SINGLE}{number}", nodes=[1])
            _describe(aws, simulation, [1])
            with _act(rig, aws, simulation, peer, [1]) as act:
                rows.append(_measured(simulation, peer, [1], act))
                on_node = rows[-1].pods
    text = (
        f"{count} Deployments of 5 with a budget that allows one unavailable pod: 4 of the 5 are "
        f"on the node. {count // 10} Deployments of 9 and {count // 10} of one have no budget."
    )
    return Case(f"A node of {on_node} pods with {count} budgets", text, rows)


def _rolled(rig: Rig, aws: AwsEndpoint, scale: Scale, *, kubectl: bool) -> Case:
    """The peers drain different nodes of the same cluster."""
    nodes, pods, replicas = scale.big
    rows = []
    with Simulation(rig.folder) as simulation:
        peers = _peers(kubectl=kubectl)
        numbers = range(1, len(peers) + 1)
        simulation.do("build", first=1, nodes=len(peers), pods=0)
        simulation.do("build", first=OTHERS, nodes=nodes - len(peers), pods=pods // nodes)
        _describe(aws, simulation, numbers)
        for number, peer in zip(numbers, peers, strict=True):
            names = [f"here-{number}", f"elsewhere-{number}"]
            elsewhere = [OTHERS + each % (nodes - 5) for each in range(replicas)]
            for name, places in zip(names, ([number] * replicas, elsewhere), strict=True):
                simulation.do("place", name=name, nodes=places, unavailable=replicas // 4)
            with _act(rig, aws, simulation, peer, [number]) as act:
                rolling = _while_rolled(simulation, names, act)
                rows.append(_measured(simulation, peer, [number], rolling))
    text = (
        f"On the node are all {replicas} pods of a Deployment with a budget of a quarter. It and "
        f"one of {replicas} pods elsewhere are rolled every {ROLL_EVERY:.0f} s during the drain. "
        "kubesim starts all new pods of a roll at once and ends the old ones when all are ready."
    )
    title = f"A drain in a cluster of {nodes:,} nodes and {pods:,} pods under a rolling update"
    return Case(title, text, rows)


def _peers(*, kubectl: bool) -> list[str]:
    return [HANDLER, full_node.LOOP, *([KUBECTL] if kubectl else [])]


def _describe(aws: AwsEndpoint, simulation: Simulation, numbers: Sequence[int]) -> None:
    instances = {instance_id(number): node_name(number) for number in (*numbers, storm.WARM_UP)}
    simulation.do("build", first=storm.WARM_UP, nodes=1, pods=0)
    aws.describe(simulation.endpoint, Access.read(simulation.kubeconfig).ca_pem, instances)


@contextmanager
def _act(
    rig: Rig, aws: AwsEndpoint, simulation: Simulation, peer: str, numbers: Sequence[int]
) -> Iterator[Act]:
    """The drains of these nodes at once by a peer, with a process for each.

    Raises BenchmarkError (there is no such peer).
    """
    if peer == HANDLER:
        with storm.warmed(rig, aws, len(numbers)) as warm:
            yield lambda: _undrained(_handled(warm, numbers))
        return
    command = full_node.commands(rig.folder, simulation.kubeconfig).get(peer)
    if command is None:
        raise BenchmarkError(f"Install {peer}: it is not on PATH")
    options = [KUBECTL_TIMEOUT] if peer == KUBECTL else []
    yield lambda: _failures([[*command(node_name(n)), *options] for n in numbers])


def _handled(warm: list[Container], numbers: Sequence[int]) -> list[dict[str, Any]]:
    return storm.handle(warm, [instance_id(number) for number in numbers])


def _undrained(answers: Sequence[dict[str, Any]]) -> int:
    return sum(answer["result"]["outcome"] != "drained" for answer in answers)


def _failures(commands: Sequence[list[str]]) -> int:
    """Run the commands at once, each until the notice's end. Returns how many failed."""

    def run(command: list[str]) -> bool:
        try:
            done = subprocess.run(
                command, check=False, capture_output=True, cwd=ROOT, timeout=NOTICE
            )
        except subprocess.TimeoutExpired:
            return True
        return done.returncode != 0

    with ThreadPoolExecutor(len(commands)) as threads:
        return sum(threads.map(run, commands))


def _while_rolled(simulation: Simulation, names: Sequence[str], act: Act) -> Act:
    """Roll the Deployments again and again until `act` has ended."""

    def rolling() -> int:
        with ThreadPoolExecutor(1) as threads:
            acting = threads.submit(act)
            while not acting.done():
                for name in names:
                    simulation.do("roll", name=name)
                wait([acting], timeout=ROLL_EVERY)
            return acting.result()

    return rolling


def _measured(
    simulation: Simulation,
    peer: str,
    numbers: Sequence[int],
    act: Act,
    *,
    disturbed: bool = False,
) -> Outcome:
    """Measure `act` on these nodes, until as many pods run as before."""
    nodes = {node_name(number) for number in numbers}
    before = _on(nodes, simulation)
    everywhere = sum(simulation.do("counts").values())
    simulation.do("forget")
    if disturbed:  # a pod that moves has about nine changes
        simulation.do("disturb", changes=max(1, before * 3))
        simulation.do("stand_still", after=1.0, seconds=1.0)
    begun = time.monotonic()
    failed = act()
    simulation.do("calm")
    simulation.do("settled", pods=everywhere)
    seen = Observed(**simulation.do("observed"))
    down = {True: 0.0, False: 0.0}
    for name, seconds in seen.down.items():
        single = name.startswith(SINGLE)
        down[single] = max(down[single], seconds)
    return Outcome(
        peer=peer,
        pods=before,
        ended=len(seen.accepted),
        left=_on(nodes, simulation),
        lost=seen.lost,
        short=seen.short,
        broken=seen.broken,
        failed=failed,
        down=down[False],
        single_down=down[True] if any(n.startswith(SINGLE) for n in seen.accepted) else None,
        requests=sum(seen.calls.values()),
        refused=seen.refused,
        seconds=max(seen.gone.values()) - begun if seen.gone else None,
    )


def _on(nodes: set[str], simulation: Simulation) -> int:
    counts: dict[str, int] = simulation.do("counts")
    return sum(count for node, count in counts.items() if node in nodes)


def main() -> None:
    """Run the cases and print their tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes: a smoke test")
    parser.add_argument("--soak", type=float, default=0.0, help="minutes of real time")
    options = parser.parse_args()
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="castai-load-") as folder:
        rig = Rig(Path(folder))
        soaks = [soak.virtual(scale.soak)]
        print("\n".join(report.soaks(soaks)), flush=True)
        rig.bundle()
        with rig.aws() as aws:
            for case in measure(rig, aws, scale, kubectl=not options.quick):
                print("\n".join(report.load([case])), flush=True)
            if options.soak:
                print("\n".join(report.soaks([soak.real(rig, aws, options.soak * MINUTE)])))


if __name__ == "__main__":
    try:
        main()
    except BenchmarkError as error:
        sys.exit(str(error))
