"""EKS access policies: the rules that the EKS authorizer adds to RBAC.

The answer to a TokenReview has a group `eks:access-policy:<policy>:<scope>` for each policy. The
scope is `*` or a comma-separated list of namespaces. Only policies that the project uses are here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from kubesim.resources import Obj

PREFIX = "eks:access-policy:"
_READ = ["get", "list", "watch"]

# https://docs.aws.amazon.com/eks/latest/userguide/access-policy-permissions.html
_RULES: dict[str, list[Obj]] = {
    "AmazonEKSClusterAdminPolicy": [
        {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]},
        {"nonResourceURLs": ["*"], "verbs": ["*"]},
    ],
    "AmazonEKSViewPolicy": [
        {
            "apiGroups": [""],
            "resources": [
                "configmaps", "endpoints", "events", "limitranges", "namespaces",
                "persistentvolumeclaims", "pods", "pods/log", "pods/status",
                "replicationcontrollers", "resourcequotas", "serviceaccounts", "services",
            ],
            "verbs": _READ,
        },
        {
            "apiGroups": ["apps"],
            "resources": ["daemonsets", "deployments", "replicasets", "statefulsets"],
            "verbs": _READ,
        },
        {"apiGroups": ["autoscaling"], "resources": ["horizontalpodautoscalers"], "verbs": _READ},
        {"apiGroups": ["batch"], "resources": ["cronjobs", "jobs"], "verbs": _READ},
        {"apiGroups": ["policy"], "resources": ["poddisruptionbudgets"], "verbs": _READ},
    ],
}  # fmt: skip


def rules(groups: Iterable[str], namespace: str) -> Iterator[Obj]:
    """Yield the rules of these groups for a namespace ("": for cluster-scoped objects)."""
    for group in groups:
        if not group.startswith(PREFIX):
            continue
        policy, _, scope = group.removeprefix(PREFIX).partition(":")
        if scope == "*" or (namespace and namespace in scope.split(",")):
            yield from _RULES.get(policy, [])
