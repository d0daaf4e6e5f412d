"""Access to the sandbox's cluster: clients, permissions, manifests, nodes."""

import base64
import ssl
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import httpx2
import yaml
from lightkube import Client, KubeConfig, codecs
from lightkube.config.kubeconfig import SingleConfig
from lightkube.core.exceptions import ApiError, ConfigError
from lightkube.models.core_v1 import Container, NodeSpec, NodeStatus, PodSpec, ResourceRequirements
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.apps_v1 import Deployment, StatefulSet
from lightkube.resources.core_v1 import Node as NodeResource
from lightkube.resources.core_v1 import Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget

from sandbox.errors import SandboxError
from sandbox.state import Node, State

FIELD_MANAGER = "sandbox"
TIMEOUT = httpx2.Timeout(10.0)
# What an m6i.xlarge shows on EKS.
CAPACITY = {
    "cpu": "4",
    "ephemeral-storage": "20893676Ki",
    "memory": "15896968Ki",
    "pods": "58",
}
ALLOCATABLE = {
    "cpu": "3920m",
    "ephemeral-storage": "18181869946",
    "memory": "14880136Ki",
    "pods": "58",
}


def connect(kubeconfig: Path) -> Client:
    """Return a client with the kubeconfig's credentials."""
    return Client(
        _context(kubeconfig), field_manager=FIELD_MANAGER, timeout=TIMEOUT, trust_env=False
    )


def administrator(state: State) -> Client:
    """Return a client with the administrator's credentials in the sandbox's cluster."""
    if state.kubernetes is None:
        raise SandboxError("Start the sandbox first: python -m sandbox up")
    return connect(Path(state.kubernetes.kubeconfig))


def endpoint(state: State) -> str:
    """Return the URL of the sandbox's API server."""
    if state.kubernetes is None:
        raise SandboxError("Start the sandbox first: python -m sandbox up")
    return server(Path(state.kubernetes.kubeconfig))[0]


def nodes(kubeconfig: Path) -> list[dict[str, Any]]:
    """Return the cluster's nodes. Raises SandboxError if they cannot be listed."""
    try:
        with connect(kubeconfig) as client:
            return [node.to_dict() for node in client.list(NodeResource)]
    except (ApiError, httpx2.HTTPError) as error:
        raise SandboxError(f"Give a kubeconfig that can list nodes: {error}") from error


def count(client: Client) -> tuple[int, int]:
    """Return the number of nodes and the number of pods."""
    return (
        sum(1 for _ in client.list(NodeResource)),
        sum(1 for _ in client.list(Pod, namespace="*")),
    )


def settled(client: Client) -> bool:
    """Return whether no replica is missing, all pods are ready and all budgets are counted."""
    deployments = all(
        thing.spec is not None
        and thing.status is not None
        and (thing.status.readyReplicas or 0) == thing.spec.replicas
        for thing in client.list(Deployment, namespace="*")
    )
    sets = all(
        thing.spec is not None
        and thing.status is not None
        and (thing.status.readyReplicas or 0) == thing.spec.replicas
        for thing in client.list(StatefulSet, namespace="*")
    )
    pods = all(ready(pod) for pod in client.list(Pod, namespace="*"))
    budgets = all(
        budget.status is not None
        and budget.metadata is not None
        and budget.status.observedGeneration == budget.metadata.generation
        for budget in client.list(PodDisruptionBudget, namespace="*")
    )
    return deployments and sets and pods and budgets


def ready(pod: Pod) -> bool:
    """Return whether the pod's Ready condition is true."""
    conditions = (pod.status and pod.status.conditions) or ()
    return any(c.type == "Ready" and c.status == "True" for c in conditions)


class Permission(NamedTuple):
    """A verb on a resource."""

    verb: str
    resource: str
    """With its subresource: pods/eviction."""
    group: str = ""
    namespace: str = ""
    """Empty: all namespaces."""


class Subject(NamedTuple):
    """A user and a group. The API server evaluates their permissions."""

    title: str
    user: str
    """Empty: the user of the token, without impersonation."""
    group: str = ""


def rights(
    state: State, subject: Subject, permissions: Mapping[str, Permission], *, token: str = ""
) -> dict[str, bool]:
    """Return which permissions the subject has (SelfSubjectAccessReview with impersonation).

    token: of the user who asks, instead of the kubeconfig's.
    Raises httpx2.HTTPError.
    """
    if state.kubernetes is None:
        raise SandboxError("Start the sandbox first: python -m sandbox up")
    context = _context(Path(state.kubernetes.kubeconfig))
    url, authority = server(Path(state.kubernetes.kubeconfig))
    token = token or (context.user and context.user.token) or ""
    headers = [("Authorization", f"Bearer {token}")]
    if subject.user:
        headers.append(("Impersonate-User", subject.user))
    if subject.group:
        headers.append(("Impersonate-Group", subject.group))
    tls = ssl.create_default_context(cadata=authority)
    with httpx2.Client(
        base_url=url, headers=headers, verify=tls, timeout=TIMEOUT, trust_env=False
    ) as client:
        return {name: _allowed(client, permission) for name, permission in permissions.items()}


def _allowed(client: httpx2.Client, permission: Permission) -> bool:
    resource, _, subresource = permission.resource.partition("/")
    attributes = {
        "verb": permission.verb,
        "group": permission.group,
        "namespace": permission.namespace,
        "resource": resource,
    }
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**attributes, "subresource": subresource}},
    }
    answer = client.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", json=review)
    answer.raise_for_status()
    return bool(answer.json()["status"]["allowed"])


def server(kubeconfig: Path) -> tuple[str, str]:
    """Return endpoint and certificate authority (PEM) of a kubeconfig's current context.

    Raises SandboxError if one is missing.
    """
    cluster = _context(kubeconfig).cluster
    if cluster.certificate_auth_data:
        return cluster.server, base64.b64decode(cluster.certificate_auth_data).decode()
    if cluster.certificate_auth:
        authority = kubeconfig.parent / cluster.certificate_auth
        return cluster.server, authority.read_text()
    raise SandboxError(
        f"Put the cluster's certificate-authority into {kubeconfig}: DescribeCluster must return it"
    )


def _context(kubeconfig: Path) -> SingleConfig:
    try:
        found = KubeConfig.from_file(kubeconfig).get()
    except (ConfigError, OSError, yaml.YAMLError) as error:
        raise SandboxError(f"Check the kubeconfig {kubeconfig}: {error}") from error
    if found is None:
        raise SandboxError(f"Set a current context in the kubeconfig {kubeconfig}")
    return found


def apply(client: Client, manifests: str) -> None:
    """Apply a YAML file as `kubectl apply --server-side -f` does."""
    for thing in codecs.load_all_yaml(manifests):
        client.apply(thing)


def join(client: Client, nodes: Iterable[Node]) -> None:
    """Register instances as nodes, with the labels that kubelet and cloud provider set."""
    for node in nodes:
        capacity = "SPOT" if node.spot else "ON_DEMAND"
        labels = {
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": node.name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": "m6i.xlarge",
            "topology.kubernetes.io/region": node.zone[:-1],
            "topology.kubernetes.io/zone": node.zone,
            "eks.amazonaws.com/capacityType": capacity,
            "eks.amazonaws.com/nodegroup": "spot-workers" if node.spot else "workers",
            "karpenter.sh/capacity-type": capacity.lower().replace("_", "-"),
        }
        if node.spot:
            labels["scheduling.cast.ai/spot"] = "true"
        client.create(
            NodeResource(
                metadata=ObjectMeta(name=node.name, labels=labels),
                spec=NodeSpec(providerID=node.provider_id),
                status=NodeStatus(capacity=CAPACITY, allocatable=ALLOCATABLE),
            )
        )
        client.create(_mirror_pod(node))


def _mirror_pod(node: Node) -> Pod:
    """Return the mirror pod of a static pod, which the kubelet runs from a file on the node."""
    return Pod(
        metadata=ObjectMeta(
            name=f"node-problem-detector-{node.name}",
            namespace="kube-system",
            annotations={
                "kubernetes.io/config.mirror": node.instance,
                "kubernetes.io/config.source": "file",
            },
        ),
        spec=PodSpec(
            nodeName=node.name,
            priorityClassName="system-node-critical",
            containers=[
                Container(
                    name="detector",
                    image="node-problem-detector:v0.8.20",
                    resources=ResourceRequirements(requests={"cpu": "20m", "memory": "80Mi"}),
                )
            ],
        ),
    )
