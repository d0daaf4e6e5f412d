"""`castai-eks savings` on a served cluster, with a kubeconfig: it lists, and does nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cli.main import app
from kubesim import ServedCluster
from savings import files
from tests.unit.savings.test_files import PRICES, REGION

LABELS = {
    "node.kubernetes.io/instance-type": "m5.large",
    "topology.kubernetes.io/region": REGION,
    "topology.kubernetes.io/zone": f"{REGION}a",
}


@pytest.fixture
def cluster() -> Iterator[ServedCluster]:
    with ServedCluster() as served:
        node = {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n", "labels": LABELS}}
        amounts = {"cpu": "1930m", "memory": "7Gi", "pods": "29"}
        served.create(node | {"status": {"capacity": amounts, "allocatable": amounts}})
        yield served


@pytest.mark.parametrize("plugin", [False, True])
def test_a_cluster_is_read_by_lists_only(
    cluster: ServedCluster, tmp_path: Path, *, plugin: bool
) -> None:
    config = yaml.safe_load(cluster.kubeconfig())
    if plugin:
        token = config["users"][0]["user"].pop("token")
        version = "client.authentication.k8s.io/v1beta1"
        answer = json.dumps({"apiVersion": version, "status": {"token": token}})
        config["users"][0]["user"]["exec"] = {
            "apiVersion": version,
            "command": "echo",
            "args": [answer],
        }
    kubeconfig, prices, snapshot = (tmp_path / name for name in ("config", "prices", "snapshot"))
    kubeconfig.write_text(yaml.safe_dump(config))
    files.write_prices(prices, PRICES)
    cluster.log.clear()
    arguments = ["savings", "demo", "--kubeconfig", kubeconfig, "--prices", prices]

    words = [*map(str, arguments), "--snapshot", str(snapshot), "--json"]
    done = CliRunner().invoke(app, words, catch_exceptions=False)

    assert done.exit_code == 0
    entries = list(cluster.log.entries)
    assert {(each.method, each.verb) for each in entries} == {("GET", "list")}
    assert not {each.resource for each in entries} & {"secrets", "configmaps"}
    (node,) = files.read_snapshot(snapshot).nodes
    assert (node.name, node.instance_type, node.allocatable["cpu"]) == ("n", "m5.large", 1930)
    assert json.loads(done.stdout)["cluster"] == "demo"
