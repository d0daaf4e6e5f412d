"""The savings estimate: seconds, memory, and cost to the lower bound, each case in a process."""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks import savings_cases as cases
from benchmarks.rig import ROOT, BenchmarkError
from savings import plan
from savings.prices import Prices
from savings.snapshot import CPU, MEMORY, PODS, Amounts, Snapshot

STEPS = ("fewer", "better", "spot")

CASES: dict[str, Callable[[int, int], Snapshot]] = {
    "generated": lambda pods, seed: cases.generated(pods // 4, pods, seed),
    "karpenter": cases.karpenter,
    "uniform": cases.uniform,
    "triplets": cases.triplets,
}


@dataclass(frozen=True)
class Estimated:
    """One case."""

    case: str
    nodes: int
    pods: int
    seconds: float
    """Of processor time, from the snapshot to the estimate."""
    memory: float
    """Peak of the whole process, bytes."""
    above: tuple[float, ...]
    """Of each step: cost / lower bound - 1."""
    peer: float
    """First-fit-decreasing on the cheapest type / lower bound of the second step - 1; of the first
    step for a case with one type."""


def measure(sizes: Sequence[tuple[str, int, int]]) -> list[Estimated]:
    """Run each (case, size, seed). Raises BenchmarkError if one fails."""
    found = []
    for case, size, seed in sizes:
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.savings", case, str(size), str(seed)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise BenchmarkError(f"The estimate of {case} failed: {done.stderr[-2000:]}")
        content = json.loads(done.stdout)
        found.append(Estimated(**{**content, "above": tuple(content["above"])}))
    return found


def main() -> None:
    """Measure one case and print it as JSON."""
    case, size, seed = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    snapshot, prices = CASES[case](size, seed), cases.prices(seed)
    begun = time.process_time()
    made = plan.make(snapshot, prices)
    seconds = time.process_time() - begun
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    one_type = case in ("uniform", "triplets")
    steps = made.estimate.steps
    found = Estimated(
        case=case,
        nodes=len(snapshot.nodes),
        pods=len(snapshot.pods),
        seconds=seconds,
        memory=memory,
        above=tuple(step.cost / step.lower_bound - 1 for step in steps[: 1 if one_type else 3]),
        peer=_first_fit(snapshot, prices, one_type=one_type)
        / steps[0 if one_type else 1].lower_bound
        - 1,
    )
    print(json.dumps(asdict(found)))


def _first_fit(snapshot: Snapshot, prices: Prices, *, one_type: bool) -> float:
    """Cost of first-fit-decreasing by processor on the type that is cheapest for the sums, with
    the markets as they are and no rules but the requests.
    """
    daemons = {name: sum(d.demand.requests[name] for d in snapshot.daemon_sets)
               for name in (CPU, MEMORY)}  # fmt: skip
    market = {node.name: node.market for node in snapshot.nodes}
    cost = 0.0
    for spot in (False, True):
        pods = [p.demand.requests for p in snapshot.pods if (market[p.node] == "spot") is spot]
        if not pods:
            continue
        costs = []
        for kind in prices.types:
            if one_type and kind.name != cases.IN_USE:
                continue
            price = kind.on_demand or 0.0
            if spot:
                price = min(each.now for each in kind.spot.values())
            room = snapshot.nodes[0].allocatable
            if not one_type:
                room = {CPU: int(kind.vcpus * 980), MEMORY: int(kind.memory * 0.88), PODS: 110}
            free = {name: n - daemons.get(name, 0) for name, n in room.items()}
            if kind.arch == "amd64" and all(_fits(pod, free) for pod in pods):
                costs.append((price * max(_sum(pods, name) / free[name] for name in (CPU, MEMORY)),
                              price, free))  # fmt: skip
        _, price, free = min(costs, key=lambda each: each[0])
        cost += price * _bins(pods, free)
    return cost


def _bins(pods: Sequence[Amounts], room: Amounts) -> int:
    bins: list[Amounts] = []
    for pod in sorted(pods, key=lambda each: -each.get(CPU, 0)):
        there = next((each for each in bins if _fits(pod, each)), None)
        if there is None:
            there = dict(room)
            bins.append(there)
        for name in (CPU, MEMORY):
            there[name] -= pod.get(name, 0)
        there[PODS] -= 1
    return len(bins)


def _fits(pod: Amounts, free: Amounts) -> bool:
    return free[PODS] >= 1 and all(pod.get(name, 0) <= free[name] for name in (CPU, MEMORY))


def _sum(pods: Sequence[Amounts], name: str) -> int:
    return sum(pod.get(name, 0) for pod in pods)


if __name__ == "__main__":
    main()
