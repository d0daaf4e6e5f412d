"""Commands of the real kubectl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.contract.api import DEADLINE, NODES, ROLES, Space, unique

KUBECTL = shutil.which("kubectl")
MANIFEST = Path(__file__).parents[2] / "manifests" / "spot-handler-rbac.yaml"

pytestmark = pytest.mark.skipif(KUBECTL is None, reason="put kubectl on PATH")


def kubectl(space: Space, *arguments: str, stdin: str | None = None) -> str:
    assert KUBECTL is not None
    command = [KUBECTL, "--kubeconfig", str(space.target.kubeconfig), *arguments]
    done = subprocess.run(  # noqa: S603 - the binary on PATH
        command, input=stdin, capture_output=True, text=True, timeout=2 * DEADLINE, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def rows(text: str) -> list[list[str]]:
    return [line.split() for line in text.splitlines()]


def test_get_shows_nodes_pods_and_budgets(space: Space) -> None:
    space.pod("a")
    space.budget("b", "a", healthy=1, desired=1, allowed=0)

    shown = rows(kubectl(space, "get", "nodes,pods,pdb", "-A"))

    assert any(row[0] == f"node/{space.node}" for row in shown if row)
    assert any(row[:3] == [space.name, "pod/a", "1/1"] or row[:2] == [space.name, "pod/a"]
               for row in shown)  # fmt: skip
    budget = next(row for row in shown if row[:1] == [space.name] and "budget" in row[1])
    assert budget[2:5] == ["1", "N/A", "0"]


def test_describe_node_shows_its_pods(space: Space) -> None:
    space.pod("a")

    shown = kubectl(space, "describe", "node", space.node)

    assert ["ProviderID:", f"aws:///eu-central-1a/i-{space.node}"] in rows(shown)
    assert [space.name, "a"] in [row[:2] for row in rows(shown)]


def test_cordon_and_uncordon(space: Space) -> None:
    kubectl(space, "cordon", space.node)
    assert space.api.get(f"{NODES}/{space.node}").ok()["spec"]["unschedulable"] is True

    kubectl(space, "uncordon", space.node)
    assert "unschedulable" not in space.api.get(f"{NODES}/{space.node}").ok()["spec"]


def test_drain_evicts_the_pods_of_the_node(space: Space) -> None:
    space.pod("a", state="succeeded")
    space.pod("b", state="ready", grace=0)

    kubectl(
        space,
        "drain",
        space.node,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
        f"--timeout={DEADLINE:.0f}s",
    )

    assert space.api.get(space.pods).ok()["items"] == []


def test_apply_on_the_server_side(space: Space) -> None:
    name = unique("role")
    manifest = MANIFEST.read_text().replace("castai-spot-handler", name)

    shown = kubectl(space, "apply", "--server-side", "-f", "-", stdin=manifest)
    again = kubectl(space, "apply", "--server-side", "-f", "-", stdin=manifest)

    assert shown == again
    assert f"clusterrole.rbac.authorization.k8s.io/{name} serverside-applied" in shown
    managers = space.api.get(f"{ROLES}/{name}").ok()["metadata"]["managedFields"]
    assert [m["manager"] for m in managers] == ["kubectl"]
    kubectl(space, "delete", "-f", "-", stdin=manifest)
