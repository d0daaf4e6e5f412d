"""`python -m benchmarks`: measure, print the goals and write docs/benchmarks.md.

--quick: one small round of each benchmark, as a smoke test. --kubeconfig FILE --node NAME: full
node, cluster size and storm on an existing cluster, in a separate namespace that is removed at the
end. Only the named nodes run its pods. One observer, in this process, lists and watches the nodes
and these pods for the whole run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks import (
    big_cluster,
    cold_start,
    full_node,
    load,
    machine,
    report,
    savings,
    soak,
    storm,
)
from benchmarks.report import Figures
from benchmarks.rig import ROOT, BenchmarkError, Rig, Simulation
from benchmarks.target import RealCluster, RealTarget, SimulatedTarget
from stacks.settings import SPOT_MEMORY_MB

DOCUMENT = ROOT / "docs" / "benchmarks.md"


@dataclass(frozen=True)
class Scale:
    """The size of each benchmark."""

    pods: int
    rounds: int
    kubectl: bool
    storm: tuple[int, int, int]
    """Nodes, pods on each, containers."""
    big: tuple[tuple[int, int], ...]
    """Nodes, pods."""
    big_on_node: int
    samples: int
    crowd: int
    """Pods on the node when memory is measured."""
    estimates: tuple[tuple[str, int, int], ...]
    """Case, size and seed."""
    load: load.Scale


FULL = Scale(
    pods=110,
    rounds=3,
    kubectl=True,
    storm=(100, 10, 100),
    big=((3, 60), (5000, 20_000)),
    big_on_node=30,
    samples=15,
    crowd=250,
    estimates=(
        ("generated", 20_000, 1),
        ("generated", 1000, 2),
        ("generated", 100, 3),
        ("karpenter", 1000, 1),
        ("uniform", 500, 1),
        ("triplets", 249, 1),
    ),
    load=load.FULL,
)
QUICK = Scale(
    pods=5,
    rounds=1,
    kubectl=False,
    storm=(4, 2, 2),
    big=((3, 12), (20, 60)),
    big_on_node=4,
    samples=1,
    crowd=6,
    estimates=(("generated", 20, 1),),
    load=load.QUICK,
)


def main() -> None:
    """Run the benchmarks, print the goals and write the document."""
    options = _options()
    scale = QUICK if options.quick else FULL
    with tempfile.TemporaryDirectory(prefix="castai-benchmarks-") as folder:
        rig = Rig(Path(folder))
        try:
            figures = (
                _real(rig, scale, options)
                if options.kubeconfig
                else _simulated(rig, scale, options.soak * load.MINUTE)
            )
        except BenchmarkError as error:
            sys.exit(str(error))
    for goal, value, verdict in report.goals(figures):
        print(f"{verdict.strip('*') or '—':8} {value:>12}  {goal}")
    document = report.markdown(figures)
    if options.output:
        options.output.write_text(document)
        print(f"Written: {options.output}")
    else:
        print(document)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round: a smoke test")
    parser.add_argument(
        "--output", type=Path, help="default: docs/benchmarks.md or standard output"
    )
    parser.add_argument("--kubeconfig", type=Path, help="kubeconfig of an existing cluster")
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        help="node of that cluster to drain; repeat it for a storm",
    )
    parser.add_argument(
        "--soak", type=float, default=0.0, help="minutes of real time of the soak (default: none)"
    )
    parser.add_argument("--yes", action="store_true", help="do not ask before draining these nodes")
    options = parser.parse_args()
    if bool(options.kubeconfig) != bool(options.node):
        parser.error("--kubeconfig and --node go together: name the nodes that may be drained")
    if options.output is None:
        for_the_document = not (options.quick or options.kubeconfig)
        options.output = DOCUMENT if for_the_document else None
    return options


def _progress(what: str) -> None:
    print(f"… {what}", file=sys.stderr, flush=True)


def _figures(where: str) -> Figures:
    return Figures("python -m benchmarks", where, machine.facts(), SPOT_MEMORY_MB)


def _simulated(rig: Rig, scale: Scale, soak_seconds: float) -> Figures:
    figures = _figures("the simulated cluster `kubesim`")
    _progress("savings estimate")
    figures.savings = savings.measure(scale.estimates)
    _progress("building the zip")
    rig.bundle()
    with rig.aws() as aws:
        _progress("cold start")
        figures.cold = cold_start.measure(rig, aws, samples=scale.samples)
        with Simulation(rig.folder) as simulation:
            target = SimulatedTarget(simulation)
            aws.describe(simulation.endpoint, target.access.ca_pem, {target.instance: target.node})
            _progress("one full node")
            figures.full_node = full_node.measure(
                rig, aws, target, pods=scale.pods, rounds=scale.rounds, kubectl=scale.kubectl
            )
            _progress("memory")
            figures.crowded = full_node.measure(
                rig, aws, target, pods=scale.crowd, rounds=1, kubectl=False
            )
        _progress("clusters of different sizes")
        figures.big = [
            big_cluster.measure(
                rig, aws, nodes=nodes, pods=pods, on_node=scale.big_on_node, rounds=scale.rounds
            )
            for nodes, pods in scale.big
        ]
        _progress("storm")
        nodes, pods, containers = scale.storm
        with Simulation(rig.folder) as simulation:
            figures.storm = storm.measure(
                rig, aws, simulation, nodes=nodes, pods=pods, containers=containers
            )
        _progress("load")
        figures.load = list(load.measure(rig, aws, scale.load, kubectl=scale.kubectl))
        _progress("soak")
        figures.soaks = [soak.virtual(scale.load.soak)]
        if soak_seconds:
            figures.soaks.append(soak.real(rig, aws, soak_seconds))
    return figures


def _real(rig: Rig, scale: Scale, options: argparse.Namespace) -> Figures:
    cluster = RealCluster(options.kubeconfig)
    targets = [RealTarget(cluster, node) for node in options.node]
    pods = min(scale.pods, *(target.free_pods for target in targets), scale.pods)
    if not options.yes:
        print(
            f"This cordons and drains {', '.join(options.node)} several times, and runs up to "
            f"{pods} pause pods on each."
        )
        if input("Continue? [y/N] ").strip().lower() != "y":
            raise BenchmarkError("Nothing was changed.")
    figures = _figures(f"the cluster at {cluster.access.server}")
    figures.notes.append("cold start, memory and cost do not depend on the cluster")
    env = {"BENCHMARK_KUBECONFIG": str(options.kubeconfig.resolve())}
    with ExitStack() as stack:
        stack.enter_context(cluster.opened())
        for target in targets:
            stack.enter_context(target.restored())
        aws = stack.enter_context(rig.aws())
        access = cluster.access
        instances = {target.instance: target.node for target in targets}
        aws.describe(access.server, access.ca_pem, instances)
        _progress("one full node")
        figures.full_node = full_node.measure(
            rig, aws, targets[0], pods=pods, rounds=scale.rounds, kubectl=scale.kubectl, **env
        )
        _progress("the cluster's own size")
        nodes, everywhere = cluster.size()
        figures.big = [
            big_cluster.drained(
                rig,
                aws,
                targets[0],
                nodes=nodes,
                pods=everywhere,
                on_node=min(pods, scale.big_on_node),
                rounds=scale.rounds,
                **env,
            )
        ]
        if len(targets) > 1:
            _progress("storm")
            each = min(pods, scale.storm[1])
            figures.storm = storm.measure_real(rig, aws, cluster, targets, pods=each, **env)
        else:
            figures.notes.append("storm: needs several nodes (repeat --node)")
        begun = cluster.observer.watches
        _progress(f"the observer began {begun} watches (more than 2: the cluster ended some)")
    return figures


if __name__ == "__main__":
    main()
