"""The permissions of the function that applies the castai-agent to clusters."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from lambdas.common.names import CLUSTER_ADMIN, VIEW
from lambdas.onboarding.policies.document import (
    ROLE_INLINE_LIMIT,
    Document,
    allow,
    deny,
    deny_elsewhere,
    document_of,
    size,
)
from lambdas.onboarding.policies.functions import api_key_statements, own_log, vpc_statements
from lambdas.onboarding.policies.scope import FunctionScope

EKS_NAME_LIMIT: Final = 100  # characters of a cluster's name


def agent_function(
    where: FunctionScope,
    *,
    own_role: str,
    api_key_secret: str | None,
    api_key_kms_key: str | None = None,
    in_vpc: bool = False,
) -> Document:
    """The managed policy of the agent's function. It has the same size for any number of clusters.

    `own_role` is the name of the function's role. The function gives this role access to a cluster
    while it works there. `agent_cluster` allows the actions on one cluster. The limits that are the
    same for all clusters are Deny statements here, because the inline policies of a role share
    ROLE_INLINE_LIMIT.
    """
    role_arn = f"arn:{where.partition}:iam::{where.account}:role/{own_role}"
    access_policies = [
        f"arn:{where.partition}:eks::aws:cluster-access-policy/{policy}"
        for policy in (CLUSTER_ADMIN, VIEW)
    ]
    return document_of(
        [
            own_log(where),
            *api_key_statements(where, api_key_secret, api_key_kms_key),
            deny_elsewhere("ClustersOfThisRegion", _ON_CLUSTER, where.arns("eks", "cluster/*")),
            deny_elsewhere(
                "OwnEntryOnly",
                _ON_OWN_ENTRY,
                where.arns("eks", f"access-entry/*/role/{where.account}/{own_role}/*"),
            ),
            deny(
                "CreateOwnEntryOnly",
                ["eks:CreateAccessEntry"],
                {"ArnNotEquals": {"eks:principalArn": role_arn}},
            ),
            deny(
                "TwoAccessPoliciesOnly",
                ["eks:AssociateAccessPolicy"],
                {"ArnNotEquals": {"eks:policyArn": access_policies}},
            ),
            *(vpc_statements(where) if in_vpc else ()),
        ]
    )


def agent_cluster(partition: str, cluster: str) -> Document:
    """The inline policy that allows the agent's function to work on one cluster.

    It is short, because the role has one for each cluster. It names no account and no region,
    because `agent_function` denies all others.
    """
    eks = f"arn:{partition}:eks:*:*"
    return document_of(
        [
            allow(
                "Connect",
                [*_ON_CLUSTER, *_ON_OWN_ENTRY],
                [f"{eks}:cluster/{cluster}", f"{eks}:access-entry/{cluster}/*"],
            )
        ]
    )


_ON_CLUSTER: Final = ("eks:DescribeCluster", "eks:CreateAccessEntry")
_ON_OWN_ENTRY: Final = (
    "eks:DescribeAccessEntry",
    "eks:DeleteAccessEntry",
    "eks:TagResource",  # the Deny limits it to the entry; the Allow also covers the cluster
    "eks:AssociateAccessPolicy",
)


def agent_clusters_that_fit(clusters: Sequence[str]) -> int:
    """Count the clusters, from the first on, whose policies fit into the role together.

    The count is for the longest partition. It keeps room for one more policy: when one cluster
    replaces another, CloudFormation creates the new policy before it deletes the old one.
    """
    sizes = [size(agent_cluster("aws-us-gov", name)) for name in ("c" * EKS_NAME_LIMIT, *clusters)]
    return sum(used <= ROLE_INLINE_LIMIT for used in accumulate(sizes)) - 1
