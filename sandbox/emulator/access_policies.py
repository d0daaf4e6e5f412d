"""EKS access policies in a token review: as groups that the simulated cluster evaluates.

On AWS a separate authoriser evaluates them, beside RBAC. The emulator would create RBAC objects in
a cluster that it runs itself. The simulated cluster receives the policy and its scope as a group,
`eks:access-policy:<policy>:<namespaces with commas, or * for the cluster>`.
"""

from typing import Any

import guard

PREFIX = "eks:access-policy"


def install() -> None:
    """Patch the emulator: the group is the policy with its scope, instead of one for RBAC."""
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
    """Return `*`, or the namespaces."""
    return "*" if scope.get("type") == "cluster" else ",".join(scope.get("namespaces", []))
