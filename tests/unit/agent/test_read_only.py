"""The read-only proof: what writes, acts or reads secrets is refused, with the name of its rule."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.agent.manifest import ClusterRef, Object, render
from lambdas.agent.properties import parse
from lambdas.agent.read_only import NotReadOnlyError, prove, violations_of
from lambdas.common.names import AGENT

RBAC = "rbac.authorization.k8s.io/v1"
READ = ["get", "list", "watch"]


@pytest.fixture
def manifest() -> list[Object]:
    agent = parse({"ClusterName": "prod", "ApiKeySecret": "castai/api-key", "Replicas": "2"})
    return render(agent, ClusterRef("123456789012", "eu-central-1", "prod"), "key")


def of_kind(manifest: list[Object], kind: str) -> Object:
    return next(each for each in manifest if each["kind"] == kind)


def refused(manifest: list[Object]) -> str:
    with pytest.raises(NotReadOnlyError) as caught:
        prove(manifest, namespace=AGENT)
    return str(caught.value)


def with_rule(manifest: list[Object], rule: Object, kind: str = "ClusterRole") -> list[Object]:
    of_kind(manifest, kind)["rules"].append(rule)
    return manifest


def test_our_manifest_is_accepted(manifest: list[Object]) -> None:
    prove(manifest, namespace=AGENT)


class TestRules:
    @pytest.mark.parametrize(
        "verb",
        [
            "create",
            "update",
            "patch",
            "delete",
            "deletecollection",
            "use",
            "approve",
            "sign",
            "GET",
            "",
        ],
    )
    def test_a_verb_that_writes_is_refused(self, manifest: list[Object], verb: str) -> None:
        rule = {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", verb]}
        message = refused(with_rule(manifest, rule))
        assert "ClusterRole castai-agent: rule 6" in message
        assert "writes outside the agent's namespace" in message

    @pytest.mark.parametrize("verb", ["escalate", "bind", "impersonate"])
    @pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
    def test_a_verb_over_other_permissions_is_refused(
        self, manifest: list[Object], kind: str, verb: str
    ) -> None:
        rule = {"apiGroups": [""], "resources": ["users"], "verbs": [verb]}
        assert f"gives further permissions: {verb}" in refused(with_rule(manifest, rule, kind))

    @pytest.mark.parametrize("field", ["apiGroups", "resources", "verbs"])
    @pytest.mark.parametrize("value", ["*", "*/status"])
    @pytest.mark.parametrize("kind", ["ClusterRole", "Role"])
    def test_a_wildcard_is_refused(
        self, manifest: list[Object], kind: str, field: str, value: str
    ) -> None:
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], field: [value]}
        assert f"has a wildcard in {field}" in refused(with_rule(manifest, rule, kind))

    @pytest.mark.parametrize("resource", ["pods/exec", "pods/attach", "nodes/proxy", "pods/proxy"])
    def test_a_subresource_whose_get_acts_is_refused(
        self, manifest: list[Object], resource: str
    ) -> None:
        rule = {"apiGroups": [""], "resources": [resource], "verbs": ["get"]}
        assert "reading these changes something" in refused(with_rule(manifest, rule))

    def test_a_read_of_secrets_is_refused(self, manifest: list[Object]) -> None:
        rule = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}
        assert "reads Secrets" in refused(with_rule(manifest, rule))

    @pytest.mark.parametrize("url", ["/metrics", "/logs/", "*", "/version/*"])
    def test_a_non_resource_url_is_refused(self, manifest: list[Object], url: str) -> None:
        rule = {"nonResourceURLs": [url], "verbs": ["get"]}
        assert "URLs that are not allowed" in refused(with_rule(manifest, rule))

    def test_the_url_of_the_version_is_accepted(self, manifest: list[Object]) -> None:
        prove(
            with_rule(manifest, {"nonResourceURLs": ["/version"], "verbs": ["get"]}),
            namespace=AGENT,
        )

    def test_a_change_of_roles_in_the_agents_namespace_is_refused(
        self, manifest: list[Object]
    ) -> None:
        rule = {
            "apiGroups": ["rbac.authorization.k8s.io"],
            "resources": ["roles"],
            "verbs": ["create"],
        }
        assert "changes permissions: create" in refused(with_rule(manifest, rule, "Role"))

    @pytest.mark.parametrize("rule", [None, "get pods", {"verbs": "get"}, {"verbs": None}, []])
    def test_a_malformed_rule_is_refused(self, manifest: list[Object], rule: Any) -> None:
        assert "is not a rule" in refused(with_rule(manifest, rule))

    def test_every_violation_is_named(self, manifest: list[Object]) -> None:
        with_rule(manifest, {"apiGroups": [""], "resources": ["pods"], "verbs": ["delete"]})
        with_rule(
            manifest, {"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["patch"]}
        )
        message = refused(manifest)
        assert "rule 6" in message
        assert "rule 7" in message

    @given(
        verbs=st.lists(st.sampled_from([*READ, "create", "delete", "patch", "*", "bind"])),
        resources=st.lists(st.sampled_from(["pods", "nodes", "secrets", "pods/exec", "*"])),
    )
    def test_only_reads_of_harmless_resources_are_accepted(
        self, verbs: list[str], resources: list[str]
    ) -> None:
        role = {
            "apiVersion": RBAC,
            "kind": "ClusterRole",
            "metadata": {"name": "x"},
            "rules": [{"apiGroups": [""], "resources": resources, "verbs": verbs}],
        }
        harmless = set(verbs) <= set(READ) and set(resources) <= {"pods", "nodes"}
        assert (list(violations_of([role], namespace=AGENT)) == []) is harmless


class TestRolesAndBindings:
    def test_an_aggregated_cluster_role_is_refused(self, manifest: list[Object]) -> None:
        of_kind(manifest, "ClusterRole")["aggregationRule"] = {"clusterRoleSelectors": [{}]}
        assert "aggregationRule" in refused(manifest)

    @pytest.mark.parametrize("to", ["admin", "edit", "view"])
    def test_a_label_that_aggregates_to_another_role_is_refused(
        self, manifest: list[Object], to: str
    ) -> None:
        label = f"rbac.authorization.k8s.io/aggregate-to-{to}"
        of_kind(manifest, "ClusterRole")["metadata"]["labels"][label] = "true"
        assert label in refused(manifest)

    @pytest.mark.parametrize("kind", ["ClusterRoleBinding", "RoleBinding"])
    @pytest.mark.parametrize("role", ["cluster-admin", "view", "system:node"])
    def test_a_binding_to_a_role_outside_the_manifest_is_refused(
        self, manifest: list[Object], kind: str, role: str
    ) -> None:
        of_kind(manifest, kind)["roleRef"].update(kind="ClusterRole", name=role)
        assert f"binds ClusterRole {role}, whose rules are not in this manifest" in refused(
            manifest
        )

    @pytest.mark.parametrize(
        "subject",
        [
            {"kind": "Group", "name": "system:authenticated"},
            {"kind": "User", "name": "castai-agent"},
            {"kind": "ServiceAccount", "name": "default", "namespace": "kube-system"},
            {"kind": "ServiceAccount", "name": "castai-agent"},
            "castai-agent",
        ],
    )
    def test_a_binding_of_a_subject_outside_the_manifest_is_refused(
        self, manifest: list[Object], subject: Any
    ) -> None:
        of_kind(manifest, "ClusterRoleBinding")["subjects"].append(subject)
        assert "not to a ServiceAccount of the manifest" in refused(manifest)

    def test_a_binding_without_a_role_is_refused(self, manifest: list[Object]) -> None:
        del of_kind(manifest, "RoleBinding")["roleRef"]
        assert "names no role" in refused(manifest)

    def with_role_in_kube_system(self, manifest: list[Object], verbs: list[str]) -> list[Object]:
        """The manifest with a Role in kube-system, as in CAST AI's later manifests."""
        role = {
            "apiVersion": RBAC,
            "kind": "Role",
            "metadata": {"name": AGENT, "namespace": "kube-system"},
            "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}],
        }
        binding = copy.deepcopy(of_kind(manifest, "RoleBinding"))
        binding["metadata"]["namespace"] = "kube-system"
        return [*manifest, role, binding]

    def test_a_read_in_another_namespace_is_accepted(self, manifest: list[Object]) -> None:
        prove(self.with_role_in_kube_system(manifest, READ), namespace=AGENT)

    def test_a_write_in_another_namespace_is_refused(self, manifest: list[Object]) -> None:
        message = refused(self.with_role_in_kube_system(manifest, [*READ, "update"]))
        assert "Role kube-system/castai-agent: rule 1" in message
        assert "update" in message


class TestPods:
    @pytest.mark.parametrize(
        ("change", "named"),
        [
            (lambda pod: pod.update(hostNetwork=True), "hostNetwork"),
            (lambda pod: pod.update(hostPID=True), "hostPID"),
            (
                lambda pod: pod["volumes"].append({"name": "x", "hostPath": {"path": "/"}}),
                "hostPath",
            ),
            (lambda pod: pod["volumes"].append({"name": "x", "csi": {"driver": "x"}}), "csi"),
            (lambda pod: pod.update(serviceAccountName="admin"), "ServiceAccount admin"),
            (lambda pod: pod.pop("serviceAccountName"), "ServiceAccount default"),
            (
                lambda pod: pod["containers"][0].update(securityContext={"privileged": True}),
                "container agent: is privileged",
            ),
            (
                lambda pod: pod["containers"][1]["securityContext"].update(
                    capabilities={"add": ["SYS_ADMIN"]}
                ),
                "SYS_ADMIN",
            ),
            (lambda pod: pod["containers"][0]["ports"][0].update(hostPort=80), "port 80"),
            (
                lambda pod: pod.update(
                    initContainers=[{"name": "init", "securityContext": {"privileged": True}}]
                ),
                "container init: is privileged",
            ),
            (lambda pod: pod.pop("containers"), "no readable pod template"),
        ],
    )
    def test_a_pod_with_access_to_its_node_is_refused(
        self, manifest: list[Object], change: Callable[[Any], object], named: str
    ) -> None:
        change(of_kind(manifest, "Deployment")["spec"]["template"]["spec"])
        assert named in refused(manifest)


class TestKinds:
    @pytest.mark.parametrize(
        ("api_version", "kind"),
        [
            ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
            ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
            ("apiextensions.k8s.io/v1", "CustomResourceDefinition"),
            ("apiregistration.k8s.io/v1", "APIService"),
            ("apps/v1", "DaemonSet"),
            ("batch/v1", "Job"),
            ("v1", "Pod"),
            ("apps/v1beta1", "Deployment"),
            ("example.org/v1", "ClusterRole"),
        ],
    )
    def test_a_kind_that_a_reader_does_not_need_is_refused(
        self, manifest: list[Object], api_version: str, kind: str
    ) -> None:
        extra = {
            "apiVersion": api_version,
            "kind": kind,
            "metadata": {"name": "x", "namespace": AGENT},
        }
        assert f"{kind} castai-agent/x: is of a kind" in refused([*manifest, extra])

    @pytest.mark.parametrize("kind", ["Secret", "ConfigMap", "ServiceAccount", "ResourceQuota"])
    def test_an_object_of_another_namespace_is_refused(
        self, manifest: list[Object], kind: str
    ) -> None:
        of_kind(manifest, kind)["metadata"]["namespace"] = "kube-system"
        assert "outside the agent's namespace" in refused(manifest)

    def test_an_object_without_a_namespace_is_refused(self, manifest: list[Object]) -> None:
        del of_kind(manifest, "Secret")["metadata"]["namespace"]
        assert "Secret castai-agent: is outside" in refused(manifest)

    def test_another_namespace_object_is_refused(self, manifest: list[Object]) -> None:
        of_kind(manifest, "Namespace")["metadata"]["name"] = "kube-system"
        assert "Namespace kube-system: is not the agent's" in refused(manifest)

    def test_a_secret_of_type_service_account_token_is_refused(
        self, manifest: list[Object]
    ) -> None:
        of_kind(manifest, "Secret")["type"] = "kubernetes.io/service-account-token"
        assert "service-account-token" in refused(manifest)

    @pytest.mark.parametrize(
        "odd", [{}, {"kind": "Secret"}, {"apiVersion": "v1", "kind": "Pod"}, 7]
    )
    def test_a_malformed_object_is_refused(self, manifest: list[Object], odd: Any) -> None:
        assert "is not a Kubernetes object" in refused([*manifest, odd])
