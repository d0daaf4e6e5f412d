"""Build Kubernetes objects as the watches return them."""

from typing import Any

from lightkube.codecs import from_dict
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget

NODE = "ip-10-0-1-2.ec2.internal"
OTHER = "ip-10-0-3-4.ec2.internal"


def pod(
    name: str,
    *,
    uid: str = "",
    node: str = NODE,
    owner: str = "",
    owner_kind: str = "ReplicaSet",
    ready: bool = True,
    terminating: bool = False,
    evicted: bool = False,
    phase: str = "Running",
    annotations: dict[str, str] | None = None,
) -> Pod:
    """A pod of namespace ``shop``; terminating without ``evicted`` is a plain deletion."""
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    if evicted:
        conditions.append(
            {"type": "DisruptionTarget", "status": "True", "reason": "EvictionByEvictionAPI"}
        )
    metadata: dict[str, Any] = {
        "name": name,
        "namespace": "shop",
        "uid": uid or f"uid-{name}",
        "annotations": annotations or {},
    }
    if owner:
        metadata["ownerReferences"] = [
            {
                "apiVersion": "apps/v1",
                "kind": owner_kind,
                "name": owner,
                "uid": f"uid-{owner}",
                "controller": True,
            }
        ]
    if terminating or evicted:
        metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    found = from_dict(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {"nodeName": node, "containers": [{"name": "main", "image": "main"}]},
            "status": {"phase": phase, "conditions": conditions},
        }
    )
    assert isinstance(found, Pod)
    return found


def node(name: str = NODE, *, cordoned: bool = False) -> Node:
    """A node."""
    found = from_dict(
        {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "spec": {"unschedulable": cordoned},
        }
    )
    assert isinstance(found, Node)
    return found


def budget(name: str, *, healthy: int, desired: int, allowed: int) -> PodDisruptionBudget:
    """A budget of namespace ``shop`` with its status."""
    found = from_dict(
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name, "namespace": "shop"},
            "spec": {},
            "status": {
                "currentHealthy": healthy,
                "desiredHealthy": desired,
                "disruptionsAllowed": allowed,
                "expectedPods": healthy,
            },
        }
    )
    assert isinstance(found, PodDisruptionBudget)
    return found
