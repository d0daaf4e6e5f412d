"""The agent's objects: kinds, permissions, hardening, and the changes by properties."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from lightkube.codecs import from_dict

from lambdas.agent import read_only
from lambdas.agent.manifest import OWNED, ClusterRef, Object, render
from lambdas.agent.properties import AGENT_IMAGE, AUTOSCALER_IMAGE, parse
from lambdas.common.names import AGENT

KEY = "castai-key-for-tests"
CLUSTER = ClusterRef(account="123456789012", region="eu-central-1", name="prod")
MINIMAL = {"ClusterName": "prod", "ApiKeySecret": "castai/api-key"}
PEM = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"


def rendered(**properties: Any) -> dict[tuple[str, str], Object]:
    objects = render(parse({**MINIMAL, **properties}), CLUSTER, KEY)
    found = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    assert len(found) == len(objects)
    return found


def pod(**properties: Any) -> Object:
    deployment = rendered(**properties)["Deployment", AGENT]
    spec: Object = deployment["spec"]["template"]["spec"]
    return spec


def container(name: str = "agent", **properties: Any) -> Object:
    return next(each for each in pod(**properties)["containers"] if each["name"] == name)


def environment(**properties: Any) -> dict[str, str]:
    return {each["name"]: each["value"] for each in container(**properties)["env"]}


def test_the_manifest_has_these_objects_and_no_other() -> None:
    assert set(rendered()) == {
        ("Namespace", "castai-agent"),
        ("ResourceQuota", "castai-agent-critical-pods"),
        ("ServiceAccount", "castai-agent"),
        ("Secret", "castai-agent"),
        ("ConfigMap", "castai-agent-autoscaler"),
        ("ClusterRole", "castai-agent"),
        ("ClusterRoleBinding", "castai-agent"),
        ("Role", "castai-agent"),
        ("RoleBinding", "castai-agent"),
        ("Deployment", "castai-agent"),
    }


@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"Replicas": "3", "Registry": "registry.example:5000/mirror"},
        {"CaCertificates": PEM, "HttpsProxy": "http://proxy:3128", "NoProxy": "10.0.0.0/8"},
        {"Autoscaler": "false", "Requests": {"memory": "512Mi"}},
        {"Tolerations": [{"operator": "Exists"}], "NodeSelector": {"pool": "system"}},
    ],
)
def test_every_object_is_valid_and_proved_read_only(properties: dict[str, Any]) -> None:
    objects = list(rendered(**properties).values())
    read_only.prove(objects, namespace=AGENT)
    for each in objects:
        from_dict(each)  # raises for a field of a wrong type
        assert OWNED.items() <= each["metadata"]["labels"].items()


def test_the_cluster_role_reads_these_resources_and_writes_none() -> None:
    rules = rendered()["ClusterRole", AGENT]["rules"]
    assert {(g, r) for rule in rules for g in rule["apiGroups"] for r in rule["resources"]} == {
        *(("", each) for each in ("pods", "nodes", "replicationcontrollers", "services")),
        *(("", each) for each in ("persistentvolumeclaims", "persistentvolumes", "namespaces")),
        *(("apps", each) for each in ("deployments", "replicasets", "daemonsets", "statefulsets")),
        *(("storage.k8s.io", each) for each in ("storageclasses", "csinodes")),
        ("batch", "jobs"),
        ("autoscaling", "horizontalpodautoscalers"),
    }
    assert all(rule["verbs"] == ["get", "list", "watch"] for rule in rules)


def test_the_role_patches_the_agents_deployment_only() -> None:
    (rule,) = rendered()["Role", AGENT]["rules"]
    assert rule == {
        "apiGroups": ["apps"],
        "resources": ["deployments"],
        "resourceNames": ["castai-agent"],
        "verbs": ["patch"],
    }


def test_the_quota_is_for_critical_pods_without_a_limit() -> None:
    (scope,) = rendered()["ResourceQuota", "castai-agent-critical-pods"]["spec"]["scopeSelector"][
        "matchExpressions"
    ]
    assert scope == {
        "scopeName": "PriorityClass",
        "operator": "In",
        "values": ["system-cluster-critical"],
    }


def test_the_key_is_in_the_secret_only() -> None:
    objects = rendered()
    secret = objects.pop(("Secret", AGENT))
    assert base64.b64decode(secret["data"]["API_KEY"]).decode() == KEY
    rest = json.dumps(list(objects.values()))
    assert KEY not in rest
    assert secret["data"]["API_KEY"] not in rest


def test_another_key_changes_the_pod_template() -> None:
    agent = parse(MINIMAL)
    one, again, other = (
        render(agent, CLUSTER, key)[-1]["spec"]["template"]["metadata"] for key in (KEY, KEY, "new")
    )
    assert one == again != other


def test_the_environment_names_the_cluster_so_that_no_metadata_service_is_needed() -> None:
    found = environment()
    assert found["PROVIDER"] == "eks"
    assert found["API_URL"] == "https://api.cast.ai"
    assert found["EKS_ACCOUNT_ID"] == "123456789012"
    assert found["EKS_REGION"] == "eu-central-1"
    assert found["EKS_CLUSTER_NAME"] == "prod"


def test_pods_fit_the_restricted_level_that_the_namespace_enforces() -> None:
    labels = rendered()["Namespace", AGENT]["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    spec = pod(CaCertificates=PEM)
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for each in spec["containers"]:
        assert each["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
    assert {next(iter(set(volume) - {"name"})) for volume in spec["volumes"]} == {"configMap"}


def test_the_probes_use_the_agents_health_port() -> None:
    found = container()
    assert found["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "health"}
    assert found["readinessProbe"]["httpGet"] == {"path": "/readyz", "port": "health"}
    assert found["ports"][0]["containerPort"] == 9876


def test_the_termination_message_falls_back_to_the_log() -> None:
    assert container()["terminationMessagePolicy"] == "FallbackToLogsOnError"


def test_the_autoscaler_sizes_the_agent_by_the_number_of_nodes() -> None:
    config = rendered()["ConfigMap", "castai-agent-autoscaler"]["data"]
    sizes = json.loads(config["castai-agent-autoscaler"])
    memory = {"base": "0", "max": "8Gi", "step": "256Mi", "nodesPerStep": 20}
    assert sizes == {"agent": {"requests": {"memory": memory}, "limits": {"memory": memory}}}
    command = container("autoscaler")["command"]
    assert "--target=deployment/castai-agent" in command
    assert "--config-file=/etc/config/castai-agent-autoscaler" in command


def test_memory_is_set_by_the_autoscaler_or_by_the_properties() -> None:
    assert container()["resources"] == {"requests": {"cpu": "100m"}, "limits": {"cpu": "1000m"}}
    objects = rendered(Autoscaler="false", Requests={"memory": "1Gi"})
    assert ("ConfigMap", "castai-agent-autoscaler") not in objects
    assert objects["Role", AGENT]["rules"] == []
    (only,) = objects["Deployment", AGENT]["spec"]["template"]["spec"]["containers"]
    assert only["resources"]["requests"] == {"memory": "1Gi"}


def test_several_replicas_elect_a_leader_and_have_a_budget() -> None:
    assert environment()["LEADER_ELECTION_ENABLED"] == "false"
    objects = rendered(Replicas="2")
    assert objects["PodDisruptionBudget", AGENT]["spec"]["minAvailable"] == 1
    assert environment(Replicas="2")["LEADER_ELECTION_ENABLED"] == "true"
    leases = objects["Role", AGENT]["rules"][-1]
    assert leases["resources"] == ["leases"]


def test_a_private_registry_replaces_the_hosts_of_both_images() -> None:
    registry = "123456789012.dkr.ecr.eu-central-1.amazonaws.com/mirror"
    agent = AGENT_IMAGE.removeprefix("us-docker.pkg.dev")
    autoscaler = AUTOSCALER_IMAGE.removeprefix("registry.k8s.io")
    assert container(Registry=registry)["image"] == registry + agent
    assert container("autoscaler", Registry=registry)["image"] == registry + autoscaler


def test_no_proxy_includes_the_api_server() -> None:
    found = environment(HttpsProxy="http://proxy:3128", NoProxy=".corp,10.0.0.0/8")
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert found["NO_PROXY"].startswith("$(KUBERNETES_SERVICE_HOST),.svc,")
    assert found["NO_PROXY"].endswith(",.corp,10.0.0.0/8")
    assert "NO_PROXY" not in environment()


def test_a_custom_ca_is_mounted_beside_the_systems_certificates() -> None:
    found = rendered(CaCertificates=PEM)["ConfigMap", "castai-agent-certificates"]["data"]
    assert found == {"extra.pem": PEM}
    assert environment(CaCertificates=PEM)["SSL_CERT_DIR"] == "/etc/castai-certificates"
    assert container(CaCertificates=PEM)["volumeMounts"][0]["name"] == "certificates"


def test_scheduling_properties_are_in_the_pod_template() -> None:
    spec = pod(
        NodeSelector={"pool": "system"},
        Tolerations=[{"key": "dedicated", "operator": "Exists", "tolerationSeconds": "60"}],
        ImagePullSecrets=["registry"],
    )
    assert spec["nodeSelector"] == {"pool": "system"}
    assert spec["tolerations"] == [
        {"key": "dedicated", "operator": "Exists", "tolerationSeconds": 60}
    ]
    assert spec["imagePullSecrets"] == [{"name": "registry"}]
    assert spec["priorityClassName"] == "system-cluster-critical"
