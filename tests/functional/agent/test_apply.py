"""Apply and remove of the agent's objects on a served cluster, and objects of other owners."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from kubesim import Answer, ServedCluster, SimulatedCluster
from lambdas.agent import lifecycle
from lambdas.agent.apply import (
    ContestedFieldsError,
    ForeignObjectsError,
    NamespaceTerminatingError,
    apply,
    left,
    remove,
)
from lambdas.agent.read_only import NotReadOnlyError
from lambdas.common import agent_status
from lambdas.common.errors import ClusterRefusedError, ClusterUnauthorizedError
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import AGENT
from tests.functional.agent.conftest import (
    AGENT_KINDS,
    OWNER,
    is_available,
    kube_of,
    objects,
    of_the_agent,
)


def foreign(kind: str, name: str, **body: Any) -> dict[str, Any]:
    versions = {"Deployment": "apps/v1", "ClusterRole": "rbac.authorization.k8s.io/v1"}
    metadata = {"name": name} if kind in ("Namespace", "ClusterRole") else {
        "name": name, "namespace": AGENT,
    }  # fmt: skip
    return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata, **body}


class TestApply:
    def test_the_agents_objects_are_created_and_its_pods_run(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        changes = apply(kube, objects(Replicas="2"), owner=OWNER)
        assert len(changes.created) == len(AGENT_KINDS)
        cluster.until(is_available)
        assert agent_status.check(kube).installed
        secret = cluster.get("Secret", AGENT, AGENT)
        assert secret is not None
        assert base64.b64decode(secret["data"]["API_KEY"]) == b"castai-key-for-tests"

    def test_a_second_apply_changes_nothing(self, kube: Kube) -> None:
        apply(kube, objects(), owner=OWNER)
        changes = apply(kube, objects(), owner=OWNER)
        assert changes.created == changes.deleted == changes.updated == []
        assert len(changes.unchanged) == len(objects())

    def test_a_new_key_changes_secret_and_deployment(self, kube: Kube) -> None:
        apply(kube, objects(), owner=OWNER)
        changes = apply(kube, objects(key="another"), owner=OWNER)
        assert changes.updated == [
            "Secret castai-agent/castai-agent",
            "Deployment castai-agent/castai-agent",
        ]

    def test_an_object_that_new_properties_leave_out_is_removed(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        apply(kube, objects(Replicas="2"), owner=OWNER)
        changes = apply(kube, objects(), owner=OWNER)
        assert changes.deleted == ["PodDisruptionBudget castai-agent/castai-agent"]
        assert cluster.list("PodDisruptionBudget", AGENT) == []

    def test_memory_that_the_autoscaler_set_is_kept(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        apply(kube, objects(), owner=OWNER)

        def scale(running: SimulatedCluster) -> None:  # in the loop: no controller writes between
            deployment = running.get("Deployment", AGENT, AGENT)
            assert deployment is not None
            container = deployment["spec"]["template"]["spec"]["containers"][0]
            container["resources"]["requests"]["memory"] = "512Mi"
            running.set(deployment)

        cluster.run(scale)
        apply(kube, objects(key="another"), owner=OWNER)
        after = cluster.get("Deployment", AGENT, AGENT)
        assert after is not None
        resources = after["spec"]["template"]["spec"]["containers"][0]["resources"]
        assert resources["requests"] == {"cpu": "100m", "memory": "512Mi"}

    def test_a_dry_run_writes_nothing(self, cluster: ServedCluster, kube: Kube) -> None:
        changes = apply(kube, objects(), owner=OWNER, dry_run=True)
        assert len(changes.created) == len(objects())
        assert of_the_agent(cluster) == set()

    def test_a_role_that_can_write_is_refused_before_any_apply(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        manifest = objects()
        role = next(each for each in manifest if each["kind"] == "ClusterRole")
        role["rules"][0]["verbs"].append("delete")
        with pytest.raises(NotReadOnlyError, match="rule 1"):
            apply(kube, manifest, owner=OWNER)
        assert of_the_agent(cluster) == set()

    def test_a_first_apply_that_fails_removes_what_it_created(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        refusal = {"kind": "Status", "apiVersion": "v1", "message": "no", "code": 422}
        cluster.faults.add("PATCH", "/deployments/", Answer(422, refusal))
        with pytest.raises(ClusterRefusedError, match="no"):
            apply(kube, objects(), owner=OWNER)
        cluster.until(lambda state: state.get("Namespace", AGENT) is None)
        assert of_the_agent(cluster) == set()

    def test_a_wrong_token_is_refused_with_what_to_do(self, cluster: ServedCluster) -> None:
        with (
            kube_of(cluster, "wrong") as unauthorized,
            pytest.raises(ClusterUnauthorizedError, match="Give this identity access"),
        ):
            apply(unauthorized, objects(), owner=OWNER)


class TestObjectsOfOthers:
    def test_objects_that_exist_already_are_listed_and_not_changed(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        cluster.create(foreign("Namespace", AGENT))
        cluster.create(foreign("ClusterRole", AGENT, rules=[]))
        cluster.create(foreign("ServiceAccount", AGENT))
        before = of_the_agent(cluster)
        with pytest.raises(ForeignObjectsError) as caught:
            apply(kube, objects(), owner=OWNER)
        assert "- ClusterRole castai-agent" in str(caught.value)
        assert "- ServiceAccount castai-agent/castai-agent" in str(caught.value)
        assert of_the_agent(cluster) == before

    def test_an_agent_of_another_owner_is_refused_and_not_removed(self, kube: Kube) -> None:
        apply(kube, objects(), owner="the command line")
        with pytest.raises(ForeignObjectsError, match="made by the command line"):
            apply(kube, objects(), owner=OWNER)
        assert remove(kube, owner=OWNER).deleted == []

    def test_a_namespace_that_existed_before_is_used_and_kept(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        cluster.create(foreign("Namespace", AGENT))
        apply(kube, objects(), owner=OWNER)
        namespace = cluster.get("Namespace", AGENT)
        assert namespace is not None
        assert "app.kubernetes.io/managed-by" not in namespace["metadata"].get("labels", {})
        remove(kube, owner=OWNER)
        assert of_the_agent(cluster) == {"Namespace castai-agent"}

    def test_a_field_of_another_field_manager_is_named_and_not_overwritten(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        apply(kube, objects(), owner=OWNER)
        patch = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": AGENT, "namespace": AGENT},
            "spec": {"replicas": 3},
        }
        answer = kube._client._client._client.patch(
            f"/apis/apps/v1/namespaces/{AGENT}/deployments/{AGENT}",
            params={"fieldManager": "kubectl", "force": "true"},
            headers={"Content-Type": "application/apply-patch+yaml"},
            json=patch,
        )
        assert answer.status_code == 200
        with pytest.raises(ContestedFieldsError) as caught:
            apply(kube, objects(key="another"), owner=OWNER)
        assert "Deployment castai-agent/castai-agent: .spec.replicas is set by kubectl" in str(
            caught.value
        )
        deployment = cluster.get("Deployment", AGENT, AGENT)
        assert deployment is not None
        assert deployment["spec"]["replicas"] == 3


class TestRemove:
    def test_remove_leaves_no_object_and_no_pod(self, cluster: ServedCluster, kube: Kube) -> None:
        before = {kind: len(cluster.list(kind)) for kind in AGENT_KINDS}
        apply(kube, objects(Replicas="2"), owner=OWNER)
        cluster.until(is_available)
        remove(kube, owner=OWNER)
        cluster.until(lambda state: state.get("Namespace", AGENT) is None)
        assert left(kube, owner=OWNER) == ""
        assert {kind: len(cluster.list(kind)) for kind in AGENT_KINDS} == before
        assert cluster.list("Pod") == []

    def test_a_second_remove_deletes_nothing(self, kube: Kube) -> None:
        apply(kube, objects(), owner=OWNER)
        first = remove(kube, owner=OWNER)
        assert first.deleted[0] == "Deployment castai-agent/castai-agent"
        assert first.deleted[-1] == "Namespace castai-agent"
        assert remove(kube, owner=OWNER).deleted == []

    def test_a_dry_run_deletes_nothing(self, cluster: ServedCluster, kube: Kube) -> None:
        apply(kube, objects(), owner=OWNER)
        before = of_the_agent(cluster)
        assert len(remove(kube, owner=OWNER, dry_run=True).deleted) == len(before)
        assert of_the_agent(cluster) == before

    @pytest.mark.parametrize(
        "foreign_object",
        [
            foreign("ConfigMap", "other", data={"a": "b"}),
            foreign("Secret", "other"),
            foreign("PersistentVolumeClaim", "other"),
            foreign("ServiceAccount", "other"),
        ],
        ids=lambda each: each["kind"],
    )
    def test_a_namespace_with_objects_of_others_is_kept(
        self, cluster: ServedCluster, kube: Kube, foreign_object: dict[str, Any]
    ) -> None:
        apply(kube, objects(), owner=OWNER)
        cluster.create(foreign_object)
        changes = remove(kube, owner=OWNER)
        assert changes.kept == [
            f"Namespace castai-agent: holds {foreign_object['kind']} castai-agent/other"
        ]
        assert of_the_agent(cluster) - {f"{foreign_object['kind']} other"} == {
            "Namespace castai-agent"
        }
        assert left(kube, owner=OWNER) == ""

    def test_an_object_of_another_name_with_our_labels_is_not_removed(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        role = foreign("ClusterRole", "other", rules=[])
        role["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "castai-eks"}
        role["metadata"]["annotations"] = {"castai-eks/owner": OWNER}
        cluster.create(role)
        assert remove(kube, owner=OWNER).deleted == []

    def test_apply_is_refused_while_the_namespace_is_terminating(
        self, cluster: ServedCluster, kube: Kube
    ) -> None:
        apply(kube, objects(), owner=OWNER)
        held = cluster.get("Namespace", AGENT)
        assert held is not None
        held["metadata"]["finalizers"] = ["example.org/held"]
        cluster.set(held)
        cluster.delete("Namespace", AGENT)
        with pytest.raises(NamespaceTerminatingError, match="Wait until namespace castai-agent"):
            apply(kube, objects(), owner=OWNER)


def test_disconnect_waits_until_every_object_is_gone(cluster: ServedCluster, kube: Kube) -> None:
    apply(kube, objects(), owner=OWNER)
    cluster.until(is_available)
    lifecycle.disconnect(kube, owner=OWNER, until=float("inf"))
    assert of_the_agent(cluster) == set()
