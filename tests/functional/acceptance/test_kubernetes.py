"""What a run reads and undoes in a cluster, on the simulated API server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client

from acceptance import kubernetes
from acceptance.errors import AcceptanceError
from kubesim import Answer, ServedCluster
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import SPOT_HANDLER
from lambdas.onboarding import spot_rbac
from lambdas.spot_handler.taint import DRAIN_LABEL
from sandbox import kubernetes as sandboxed

NODE, OTHER = "node-1", "node-2"
INSTANCE = "i-0123456789abcdef0"
THEIR_TAINT = {"key": "team", "value": "a", "effect": "NoSchedule"}


@pytest.fixture
def cluster() -> Iterator[ServedCluster]:
    with ServedCluster() as cluster:
        cluster.add_node(NODE, provider_id=f"aws:///eu-central-1a/{INSTANCE}")
        cluster.add_node(OTHER)
        yield cluster


@pytest.fixture
def client(cluster: ServedCluster, tmp_path: Path) -> Iterator[Client]:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig())
    with sandboxed.connect(kubeconfig) as client:
        yield client


def change(cluster: ServedCluster, **spec: Any) -> None:
    node = cluster.get("nodes", NODE)
    assert node is not None
    cluster.set({**node, "spec": {**node["spec"], **spec}})


def label(cluster: ServedCluster, name: str) -> None:
    node = cluster.get("nodes", NODE)
    assert node is not None
    labels = {**node["metadata"].get("labels", {}), name: "spot-interruption"}
    cluster.set({**node, "metadata": {**node["metadata"], "labels": labels}})


def test_the_node_of_an_instance_and_its_pods(cluster: ServedCluster, client: Client) -> None:
    cluster.add_pod("web", NODE)
    cluster.add_pod("elsewhere", OTHER)
    found = kubernetes.find(client, INSTANCE)
    assert found.name == NODE
    assert [pod.name for pod in found.pods.leaving] == ["default/web"]
    assert found.problems == ()


def test_an_instance_that_is_no_node(client: Client) -> None:
    with pytest.raises(AcceptanceError, match="none of its 2 nodes is i-0"):
        kubernetes.find(client, "i-0fedcba9876543210")


def test_a_node_that_is_cordoned_is_refused(cluster: ServedCluster, client: Client) -> None:
    change(cluster, unschedulable=True)
    (problem,) = kubernetes.find(client, INSTANCE).problems
    assert "uncordon node-1 first" in problem


def test_a_node_with_a_label_of_a_drain_is_refused(cluster: ServedCluster, client: Client) -> None:
    label(cluster, DRAIN_LABEL)
    (problem,) = kubernetes.find(client, INSTANCE).problems
    assert "has labels of a drain" in problem


def test_the_only_node_is_refused(cluster: ServedCluster, client: Client) -> None:
    cluster.delete("nodes", OTHER)
    (problem,) = kubernetes.find(client, INSTANCE).problems
    assert "no other node can take the pods" in problem


def test_only_the_marks_of_a_drain_are_removed(cluster: ServedCluster, client: Client) -> None:
    ours = {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"}
    change(cluster, unschedulable=True, taints=[THEIR_TAINT, ours])
    label(cluster, DRAIN_LABEL)
    label(cluster, "theirs")
    assert kubernetes.remove_marks(client, NODE)
    node = cluster.get("nodes", NODE)
    assert node is not None
    assert not node["spec"].get("unschedulable")
    assert THEIR_TAINT in node["spec"]["taints"]
    assert ours not in node["spec"]["taints"]
    state = kubernetes.state_of(client, NODE)
    assert state == (False, (("team", "a", "NoSchedule"),), ())
    assert DRAIN_LABEL not in node["metadata"]["labels"]
    assert "theirs" in node["metadata"]["labels"]
    assert not kubernetes.remove_marks(client, NODE)


def test_a_node_that_is_gone_has_no_marks(client: Client) -> None:
    assert not kubernetes.remove_marks(client, "gone")
    assert kubernetes.state_of(client, "gone") is None


def test_a_write_that_meets_another_is_repeated(cluster: ServedCluster, client: Client) -> None:
    change(cluster, unschedulable=True)
    fault = cluster.faults.add("PATCH", f"/nodes/{NODE}$", Answer(409), times=2)
    assert kubernetes.remove_marks(client, NODE)
    assert fault.hits == 2
    node = cluster.get("nodes", NODE)
    assert node is not None
    assert not node["spec"].get("unschedulable")


def test_a_node_that_others_write_all_the_time_is_named(
    cluster: ServedCluster, client: Client
) -> None:
    change(cluster, unschedulable=True)
    cluster.faults.add("PATCH", f"/nodes/{NODE}$", Answer(409), times=float("inf"))
    with pytest.raises(AcceptanceError, match="Uncordon node-1 by hand"):
        kubernetes.remove_marks(client, NODE)


def test_only_rbac_objects_of_the_run_are_removed(client: Client) -> None:
    kube = Kube(client)
    kube.create(spot_rbac.role())
    missing = kubernetes.missing_rbac(kube)
    assert missing == ("ClusterRoleBinding",)
    kubernetes.apply_rbac(kube, missing)
    assert kubernetes.missing_rbac(kube) == ()
    assert kubernetes.remove_rbac(kube) == ["ClusterRoleBinding"]
    assert kube.get(spot_rbac.VERSION, "ClusterRole", SPOT_HANDLER) is not None
    assert kubernetes.remove_rbac(kube) == []
