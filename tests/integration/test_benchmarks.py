"""The benchmarks run in their quick form and write their document; no figure is checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kubesim import ServedCluster

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LONGEST = 600  # s: time limit of a run
NODE = "ip-10-0-0-1.eu-central-1.compute.internal"
OTHER = "ip-10-0-0-2.eu-central-1.compute.internal"


def bench(*options: str | Path, succeeds: bool = True) -> str:
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", "benchmarks", "--quick", *map(str, options)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert (done.returncode == 0) is succeeds, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_a_quick_run_measures_every_goal_but_kubectls(tmp_path: Path) -> None:
    document = tmp_path / "benchmarks.md"
    bench("--output", document)
    text = document.read_text()
    goals = text.partition("## Goals")[2].partition("## ")[0]
    rows = [line for line in goals.splitlines() if line.startswith("| ")][1:]
    assert [row for row in rows if "not measured" in row and "kubectl" not in row] == []
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Goals",
        "## One full node: 5 pods",
        "## Storm: 4 nodes, 8 pods, all notices at once",
        "## Load",
        "## Size of the cluster",
        "## Cold start",
        "## Memory, processor and cost",
        "## Savings estimate",
    ]


def test_an_existing_cluster_is_left_as_it_was(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    with ServedCluster() as cluster:
        kubeconfig.write_text(cluster.kubeconfig())
        for number, name in enumerate((NODE, OTHER), start=1):
            cluster.add_node(name, f"aws:///eu-central-1a/i-{number:017x}")
        nodes = {node["metadata"]["name"]: node for node in cluster.list("nodes")}
        # A busy server ends all watches of pods at once; the benchmark's observer watches on.
        breaks = cluster.faults.break_watches("pods", every=7)
        text = bench("--kubeconfig", kubeconfig, "--node", NODE, "--node", OTHER, "--yes")
        assert breaks.changes > 100
        assert "## Storm: 2 nodes" in text
        assert "| pods lost | 0 |" in text
        assert "not measured |" not in text.partition("## Storm")[2].partition("## ")[0]
        after = {node["metadata"]["name"]: node for node in cluster.list("nodes")}
        for name, node in nodes.items():
            assert after[name]["metadata"]["labels"] == node["metadata"]["labels"]
            assert after[name]["spec"] == node["spec"]
        cluster.until(lambda state: not state.list("pods"))


def test_a_node_with_pods_of_others_is_refused(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    with ServedCluster() as cluster:
        kubeconfig.write_text(cluster.kubeconfig())
        cluster.add_node(NODE, "aws:///eu-central-1a/i-00000000000000001")
        cluster.add_pod("other", NODE)
        text = bench("--kubeconfig", kubeconfig, "--node", NODE, "--yes", succeeds=False)
        assert "default/other" in text
        assert cluster.get("pods", "other", "default")
        assert cluster.get("namespaces", "castai-benchmark") is None
