"""EKS access policies in a token review: as groups that the simulated cluster reads.

AWS has an authoriser of its own for them, beside RBAC. The emulator would make RBAC objects in a
cluster that it runs itself; ours is told the policy and its scope by a group,
`eks:access-policy:<policy>:<namespaces with commas, or * for the cluster>`.
"""

from typing import Any

import guard

PREFIX = "eks:access-policy"


def install() -> None:
    """Name the policy and its scope where the emulator would name a binding of its own."""
    eks = guard.module("ministack.services.eks")
    guard.function(eks, "_access_policy_group", "cluster_name", "principal_arn", "policy_arn")
    guard.function(eks, "_authenticate_token_review", "cluster_name", "account_id", "region")
    associations = guard.value(eks, "_access_policies", object)

    def group(cluster_name: str, principal_arn: str, policy_arn: str) -> str:
        wanted = f"{cluster_name}\x00{principal_arn}\x00{policy_arn}"
        scopes = [
            association.get("accessScope", {})
            for (_account, _region, key), association in associations.all_items()
            if key == wanted
        ]
        return f"{PREFIX}:{policy_arn.rpartition('/')[2]}:{_scope(*scopes)}"

    eks._access_policy_group = group  # type: ignore[attr-defined]


def _scope(scope: dict[str, Any], *_others: dict[str, Any]) -> str:
    """`*`, or the namespaces."""
    return "*" if scope.get("type") == "cluster" else ",".join(scope.get("namespaces", []))
