"""The agent's objects, in the order in which they are applied. Pure.

The objects, their names and their rules are those that CAST AI's users know. In addition the pods
meet the Pod Security level `restricted`, which the namespace enforces. This keeps the agent
read-only: the autoscaler may patch the agent's Deployment, but cannot make its pods privileged.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lambdas.agent.properties import Agent
from lambdas.common.kubernetes_objects import FIELD_MANAGER
from lambdas.common.names import AGENT, AGENT_CLUSTER_ID, AGENT_METADATA, KEY_ANNOTATION

AUTOSCALER_CONFIG: Final = "castai-agent-autoscaler"
QUOTA: Final = "castai-agent-critical-pods"
CERTIFICATES: Final = "castai-agent-certificates"
PRIORITY: Final = "system-cluster-critical"
OWNED: Final[Mapping[str, str]] = {"app.kubernetes.io/managed-by": FIELD_MANAGER}
"""The label of every object that a removal deletes."""

MEMORY: Final[Mapping[str, str | int]] = {
    "base": "0",
    "max": "8Gi",
    "step": "256Mi",
    "nodesPerStep": 20,
}
"""The agent keeps the cluster's objects in memory, so its memory follows the number of nodes."""

_HEALTH_PORT: Final = 9876
_NONROOT: Final = 65532  # the user "nonroot" of distroless images
_READ: Final = ("get", "list", "watch")
_READS: Final[Mapping[str, tuple[str, ...]]] = {
    "": (
        "pods",
        "nodes",
        "replicationcontrollers",
        "persistentvolumeclaims",
        "persistentvolumes",
        "services",
        "namespaces",
    ),
    "apps": ("deployments", "replicasets", "daemonsets", "statefulsets"),
    "storage.k8s.io": ("storageclasses", "csinodes"),
    "batch": ("jobs",),
    "autoscaling": ("horizontalpodautoscalers",),
}

Object = dict[str, Any]


@dataclass(frozen=True)
class ClusterRef:
    """The cluster, as CAST AI identifies it."""

    account: str
    region: str
    name: str


def render(agent: Agent, ref: ClusterRef, api_key: str) -> list[Object]:
    """Every object of the agent. Its Secret holds the API key."""
    objects = [
        _namespace(),
        _object("v1", "ResourceQuota", QUOTA, spec=_quota()),
        _object("v1", "ServiceAccount", AGENT),
        _secret(api_key),
        *_config_maps(agent),
        *_permissions(agent),
    ]
    if agent.replicas > 1:
        objects.append(
            _object(
                "policy/v1",
                "PodDisruptionBudget",
                AGENT,
                spec={"minAvailable": 1, "selector": {"matchLabels": _labels()}},
            )
        )
    return [*objects, _deployment(agent, ref, api_key)]


def metadata(cluster_id: str, api_url: str) -> Object:
    """ConfigMap with CAST AI's cluster id. Newer agents write it, the spot handler reads it."""
    return _object(
        "v1", "ConfigMap", AGENT_METADATA, data={"API_URL": api_url, AGENT_CLUSTER_ID: cluster_id}
    )


def fingerprint(api_key: str) -> str:
    """A fingerprint that changes with the key and does not reveal it."""
    return hashlib.sha256(api_key.encode()).hexdigest()[:12]


def _labels() -> dict[str, str]:
    return {"app.kubernetes.io/name": AGENT}


def _object(
    api_version: str,
    kind: str,
    name: str,
    *,
    namespaced: bool = True,
    **body: Any,  # noqa: ANN401 - any fields of the object
) -> Object:
    metadata: dict[str, Any] = {"name": name, "labels": {**_labels(), **OWNED}}
    if namespaced:
        metadata["namespace"] = AGENT
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}


def _namespace() -> Object:
    namespace = _object("v1", "Namespace", AGENT, namespaced=False)
    namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] = "restricted"
    return namespace


def _quota() -> Object:
    """Allow pods of the class PRIORITY here: a cluster may restrict them to kube-system."""
    scope = {"scopeName": "PriorityClass", "operator": "In", "values": [PRIORITY]}
    return {"scopeSelector": {"matchExpressions": [scope]}}


def _secret(api_key: str) -> Object:
    data = {"API_KEY": base64.b64encode(api_key.encode()).decode()}
    return _object("v1", "Secret", AGENT, type="Opaque", data=data)


def _config_maps(agent: Agent) -> Iterator[Object]:
    if agent.autoscaler:
        sizes = {"agent": {each: {"memory": dict(MEMORY)} for each in ("requests", "limits")}}
        data = {AUTOSCALER_CONFIG: msgspec.json.encode(sizes).decode()}
        yield _object("v1", "ConfigMap", AUTOSCALER_CONFIG, data=data)
    if agent.ca_certificates:
        data = {"extra.pem": agent.ca_certificates}
        yield _object("v1", "ConfigMap", CERTIFICATES, data=data)


def _permissions(agent: Agent) -> Iterator[Object]:
    group = "rbac.authorization.k8s.io"
    version = f"{group}/v1"
    rules = [
        {"apiGroups": [api], "resources": list(resources), "verbs": list(_READ)}
        for api, resources in _READS.items()
    ]
    subjects = [{"kind": "ServiceAccount", "name": AGENT, "namespace": AGENT}]
    reference = {"apiGroup": group, "kind": "ClusterRole", "name": AGENT}
    yield _object(version, "ClusterRole", AGENT, namespaced=False, rules=rules)
    yield _object(
        version, "ClusterRoleBinding", AGENT, namespaced=False, roleRef=reference, subjects=subjects
    )
    own = _own_rules(agent)
    yield _object(version, "Role", AGENT, rules=own)
    yield _object(
        version, "RoleBinding", AGENT, roleRef={**reference, "kind": "Role"}, subjects=subjects
    )


def _own_rules(agent: Agent) -> list[Object]:
    """Writes in the agent's own namespace: its size, and the leader election."""
    rules: list[Object] = []
    if agent.autoscaler:
        rules.append(
            {
                "apiGroups": ["apps"],
                "resources": ["deployments"],
                "resourceNames": [AGENT],
                "verbs": ["patch"],
            }
        )
    if agent.replicas > 1:
        rules.append(
            {
                "apiGroups": ["coordination.k8s.io"],
                "resources": ["leases"],
                "verbs": [*_READ, "create", "update"],
            }
        )
    return rules


def _deployment(agent: Agent, ref: ClusterRef, api_key: str) -> Object:
    containers = [_agent_container(agent, ref)]
    volumes = []
    if agent.autoscaler:
        containers.append(_autoscaler_container(agent))
        volumes.append({"name": "autoscaler", "configMap": {"name": AUTOSCALER_CONFIG}})
    if agent.ca_certificates:
        volumes.append({"name": "certificates", "configMap": {"name": CERTIFICATES}})
    pod: Object = {
        "serviceAccountName": AGENT,
        "automountServiceAccountToken": True,
        "priorityClassName": PRIORITY,
        "affinity": {"nodeAffinity": _linux()},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _NONROOT,
            "runAsGroup": _NONROOT,
            "fsGroup": _NONROOT,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": containers,
    }
    if volumes:
        pod["volumes"] = volumes
    if agent.replicas > 1:
        pod["topologySpreadConstraints"] = [_spread()]
    if agent.image_pull_secrets:
        pod["imagePullSecrets"] = [{"name": name} for name in agent.image_pull_secrets]
    if agent.node_selector:
        pod["nodeSelector"] = dict(agent.node_selector)
    if agent.tolerations:
        pod["tolerations"] = msgspec.to_builtins(list(agent.tolerations))
    spec = {
        "replicas": agent.replicas,
        "selector": {"matchLabels": _labels()},
        "template": {
            "metadata": {
                "labels": _labels(),
                "annotations": {KEY_ANNOTATION: fingerprint(api_key)},
            },
            "spec": pod,
        },
    }
    return _object("apps/v1", "Deployment", AGENT, spec=spec)


def _linux() -> Object:
    """Linux nodes only: there is no agent for Windows."""
    term = {"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]}
    required = {"nodeSelectorTerms": [{"matchExpressions": [term]}]}
    return {"requiredDuringSchedulingIgnoredDuringExecution": required}


def _spread() -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": "kubernetes.io/hostname",
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": _labels()},
    }


def _agent_container(agent: Agent, ref: ClusterRef) -> Object:
    container = _container("agent", agent.image, agent)
    container |= {
        "env": [{"name": name, "value": value} for name, value in _environment(agent, ref)],
        "envFrom": [{"secretRef": {"name": AGENT}}],
        "resources": {"requests": dict(agent.requests), "limits": dict(agent.limits)},
        "ports": [{"name": "health", "containerPort": _HEALTH_PORT, "protocol": "TCP"}],
        "livenessProbe": {
            "httpGet": {"path": "/healthz", "port": "health"},
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "failureThreshold": 6,
        },
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "health"}, "periodSeconds": 10},
        # The pod's status then has the last lines of the log, so it shows a 401 of CAST AI.
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    if agent.ca_certificates:
        container["volumeMounts"] = [
            {"name": "certificates", "mountPath": "/etc/castai-certificates", "readOnly": True}
        ]
    return container


def _environment(agent: Agent, ref: ClusterRef) -> Iterator[tuple[str, str]]:
    yield "API_URL", agent.api_url
    yield "PROVIDER", "eks"
    # With all three the agent does not call the instance metadata service.
    yield "EKS_ACCOUNT_ID", ref.account
    yield "EKS_REGION", ref.region
    yield "EKS_CLUSTER_NAME", ref.name
    yield "LEADER_ELECTION_ENABLED", "true" if agent.replicas > 1 else "false"
    if agent.ca_certificates:
        # Go reads this directory in addition to the system's bundle.
        yield "SSL_CERT_DIR", "/etc/castai-certificates"
    if agent.http_proxy:
        yield "HTTP_PROXY", agent.http_proxy
    if agent.https_proxy:
        yield "HTTPS_PROXY", agent.https_proxy
    if agent.http_proxy or agent.https_proxy:
        # The kubelet fills in the address of the Kubernetes API, which needs no proxy.
        own = "$(KUBERNETES_SERVICE_HOST),.svc,.cluster.local,localhost,127.0.0.1"
        yield "NO_PROXY", f"{own},{agent.no_proxy}" if agent.no_proxy else own


def _autoscaler_container(agent: Agent) -> Object:
    container = _container("autoscaler", agent.autoscaler_image, agent)
    container |= {
        "command": [
            "/cpvpa",
            f"--target=deployment/{AGENT}",
            f"--namespace={AGENT}",
            "--logtostderr=true",
            "--poll-period-seconds=300",
            f"--config-file=/etc/config/{AUTOSCALER_CONFIG}",
        ],
        "volumeMounts": [{"name": "autoscaler", "mountPath": "/etc/config", "readOnly": True}],
    }
    return container


def _container(name: str, image: str, agent: Agent) -> Object:
    if agent.registry:
        image = f"{agent.registry}/{image.partition('/')[2]}"
    return {
        "name": name,
        "image": image,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
