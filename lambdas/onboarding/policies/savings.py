"""The permissions of a person who runs `castai-eks savings`: reads, on AWS and in the cluster."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lambdas.onboarding.policies.document import Document, allow, document_of
from lambdas.onboarding.policies.functions import api_key_statements
from lambdas.onboarding.policies.scope import FunctionScope

NAME: Final = "castai-eks-savings"
PRICE_READS: Final = (
    "ec2:DescribeInstanceTypeOfferings",
    "ec2:DescribeInstanceTypes",
    "ec2:DescribeSpotPriceHistory",
    "pricing:GetProducts",
)
"""AWS's catalogue. None takes a resource."""
LISTED: Final[Mapping[str, tuple[str, ...]]] = {
    "": ("namespaces", "nodes", "persistentvolumeclaims", "persistentvolumes", "pods"),
    "apps": ("daemonsets", "deployments", "replicasets", "statefulsets"),
    "batch": ("jobs",),
    "policy": ("poddisruptionbudgets",),
}
"""By API group, what is listed in the cluster. Nothing is read by name, and no Secret or ConfigMap
at all.
"""


def reader(
    where: FunctionScope,
    cluster: str,
    *,
    api_key_secret: str | None = None,
    api_key_kms_key: str | None = None,
) -> Document:
    """The policy on AWS, in the regions of `where`. `api_key_secret` is a name or an ARN; without
    it, CAST AI's own estimate is not read.
    """
    return document_of(
        [
            allow("FindCluster", ["eks:DescribeCluster"], where.arns("eks", f"cluster/{cluster}")),
            # None of these takes a resource.
            allow("ReadNodesAndPrices", ["ec2:DescribeInstances", *PRICE_READS], ["*"]),
            *api_key_statements(where, api_key_secret, api_key_kms_key),
        ]
    )


def cluster_role() -> Mapping[str, Any]:
    """The ClusterRole in the cluster."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": NAME},
        "rules": [
            {"apiGroups": [group], "resources": list(resources), "verbs": ["list"]}
            for group, resources in LISTED.items()
        ],
    }
