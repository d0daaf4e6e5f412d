"""The objects that the benchmarks create in a cluster."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

REGION = "eu-central-1"
ZONE = "eu-central-1a"
CLUSTER = "benchmark"
NAMESPACE = "castai-benchmark"
PAUSE_IMAGE = "registry.k8s.io/pause:3.10"
HOSTNAME = "kubernetes.io/hostname"
SHUTDOWN = 1.0  # s that a pod takes to end after SIGTERM
GRACE = 30  # s, Kubernetes' default
# In place of what only a real pod has: managed fields, environment, volumes, probes.
PADDING = {"benchmark/padding": "x" * 4096}


def instance_id(number: int) -> str:
    """Return the id of the EC2 instance of the node with that number."""
    return f"i-{number:017x}"


def node_name(number: int) -> str:
    """Return a node name as EC2 gives it: from a private address."""
    return (
        f"ip-10-{number >> 16 & 255}-{number >> 8 & 255}-{number & 255}.{REGION}.compute.internal"
    )


def node_object(name: str, instance: str) -> dict[str, Any]:
    """Return a node with as few fields as the API allows."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "uid": name, "resourceVersion": "1"},
        "spec": {"providerID": f"aws:///{ZONE}/{instance}"},
    }


def pause_pod(name: str, node: str) -> dict[str, Any]:
    """Return a pod that does nothing, bound to that node."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": GRACE,
            "tolerations": [{"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}],
            "containers": [{"name": "pause", "image": PAUSE_IMAGE}],
        },
    }


def pause_deployment(hostnames: Sequence[str], replicas: int) -> dict[str, Any]:
    """Return a Deployment of such pods that only the nodes with these hostnames can run."""
    labels = {"app": "pause"}
    on_them = {"key": HOSTNAME, "operator": "In", "values": list(hostnames)}
    required = {"nodeSelectorTerms": [{"matchExpressions": [on_them]}]}
    spread = {
        "maxSkew": 1,
        "topologyKey": HOSTNAME,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": labels},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "pause", "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "terminationGracePeriodSeconds": GRACE,
                    "affinity": {
                        "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}
                    },
                    "topologySpreadConstraints": [spread],
                    "containers": [{"name": "pause", "image": PAUSE_IMAGE}],
                },
            },
        },
    }


def spot_notice(instance: str, time: str) -> dict[str, Any]:
    """Return a spot notice as EventBridge delivers it."""
    return {
        "version": "0",
        "id": f"benchmark-{instance}",
        "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": time,
        "region": REGION,
        "detail": {"instance-id": instance, "instance-action": "terminate"},
    }
