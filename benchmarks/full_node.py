"""The time to drain one full node: by the handler, by kubectl and by a bare loop."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.kubeconfig import Access
from benchmarks.rig import ROOT, AwsEndpoint, Container, Rig
from benchmarks.target import Observed, Target

HANDLER_COLD = "handler, cold"
HANDLER_WARM = "handler, warm"
KUBECTL, LOOP = "kubectl drain", "bare loop of 50"


@dataclass
class Run:
    """A drain: seconds from the notice, or from the start of the process."""

    cordoned: float | None
    accepted: float
    empty: float
    calls: dict[str, int] = field(default_factory=dict)
    peak_mb: float = 0.0
    seconds: float = 0.0
    processor_seconds: float = 0.0
    lost: int = 0
    """Pods that were gone without a grace period before."""
    conflicts: int | None = None
    """Answers 409; None: not known."""

    @classmethod
    def of(cls, begun: float, seen: Observed) -> Run:
        return cls(
            cordoned=max(seen.cordoned.values()) - begun if seen.cordoned else None,
            accepted=max(seen.accepted.values()) - begun,
            empty=max(seen.gone.values()) - begun,
            calls=dict(sorted(seen.calls.items())),
            lost=seen.lost,
            conflicts=seen.conflicts,
        )


@dataclass(frozen=True)
class FullNode:
    """The runs of each peer on one node with `pods` pods."""

    pods: int
    runs: dict[str, list[Run]]
    missing: dict[str, str]
    """Peers that could not run, and the reason."""

    def median(self, peer: str, what: str) -> float | None:
        found = [getattr(run, what) for run in self.runs.get(peer, ())]
        return median(found) if found and None not in found else None

    def total(self, peer: str, what: str) -> int | None:
        """Return the sum over a peer's runs; None: not known."""
        found = [getattr(run, what) for run in self.runs.get(peer, ())]
        return sum(found) if found and None not in found else None

    def ratio(self, ours: str, peer: str) -> float | None:
        """Return the handler's time to the last accepted eviction divided by the peer's."""
        mine, theirs = self.median(ours, "accepted"), self.median(peer, "accepted")
        return mine / theirs if mine and theirs else None


def measure(
    rig: Rig, aws: AwsEndpoint, target: Target, *, pods: int, rounds: int, kubectl: bool, **env: str
) -> FullNode:
    """Measure the peers in turns on the same node in the same state, `rounds` times."""
    peers = commands(rig.folder, target.kubeconfig)
    missing = {}
    if not kubectl:
        missing[KUBECTL] = "not measured with --quick"
        peers.pop(KUBECTL, None)
    elif KUBECTL not in peers:
        missing[KUBECTL] = "no kubectl on PATH"

    runs: dict[str, list[Run]] = {peer: [] for peer in (HANDLER_COLD, HANDLER_WARM, *peers)}
    for _ in range(rounds):
        target.prepare(pods)
        with rig.container(aws, **env) as container:
            runs[HANDLER_COLD].append(_drain(container, target, pods, cold=True))
            runs[HANDLER_WARM].append(_drain(container, target, pods, cold=False))
        for peer, command in peers.items():
            target.prepare(pods)
            begun = _process(command(target.node))
            runs[peer].append(Run.of(begun, target.until_empty(pods)))
    return FullNode(pods, runs, missing)


def _drain(container: Container, target: Target, pods: int, *, cold: bool) -> Run:
    """Measure one notice. cold: since the start of the container, which must be new."""
    if not cold:
        target.prepare(pods)
    noticed = container.notice(target.instance)
    answer = container.result()
    run = Run.of(container.started if cold else noticed, target.until_empty(pods))
    run.peak_mb, run.seconds = answer["peak_mb"], answer["seconds"]
    run.processor_seconds = answer["processor_seconds"]
    if run.conflicts is None:
        run.conflicts = answer["conflicts"]
    return run


def commands(folder: Path, kubeconfig: Path) -> dict[str, Callable[[str], list[str]]]:
    """Return the peers' commands for a node by its name, without kubectl where there is none."""
    path = _access_file(folder, Access.read(kubeconfig))
    found: dict[str, Callable[[str], list[str]]] = {
        LOOP: lambda node: [sys.executable, "-m", "benchmarks.bare_loop", str(path), node],
    }
    if tool := shutil.which("kubectl"):
        options = ["--ignore-daemonsets", "--delete-emptydir-data", "--force"]
        options += ["--kubeconfig", str(kubeconfig)]
        found[KUBECTL] = lambda node: [tool, "drain", node, *options]
    return found


def _access_file(folder: Path, access: Access) -> Path:
    """Write the bare loop's access to the cluster. Returns the file's path."""
    pair = folder / "client.pem"
    if access.certificate:
        pair.touch(mode=0o600)
        pair.write_text(f"{access.certificate}\n{access.key}")
    path = folder / "access.json"
    path.touch(mode=0o600)
    path.write_text(
        json.dumps(
            {
                "server": access.server,
                "ca_pem": access.ca_pem,
                "token": access.token,
                "certificate": str(pair) if access.certificate else "",
            }
        )
    )
    return path


def _process(command: Sequence[str]) -> float:
    """Run the command to its end. Returns the time of its start."""
    begun = time.monotonic()
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    return begun
