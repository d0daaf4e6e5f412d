"""The names of the resources that the onboarding creates, as CAST AI expects them.

CAST AI's backend finds users, roles and instance profiles by these names. So a name is cut only
where CAST AI itself cuts it ([:30], [:40]). A name that is still longer than AWS allows is refused
before anything is created.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from lambdas.common.errors import PermanentError
from lambdas.common.names import CLUSTER_ID_TAG, CLUSTER_NAME_PATTERN, CLUSTER_TAG
from lambdas.common.text import shown

INLINE_POLICY: Final = "CastEKSRestrictedAccess"
IPV6_POLICY: Final = "CastEC2AssignIPv6Policy"
"""On the node role of an IPv6 cluster, as CAST AI's script names it."""
ACCOUNT_WIDE_POLICY: Final = "CastEKSPolicy"
SPOT_FUNCTION: Final = "cast-ai-ec2-events-handler"
"""The function that CAST AI's backend itself deployed until 2022, one per account and region."""

MAX_FORMER_IDS: Final = 6  # this many fit into the 256 characters of a tag's value


@dataclass(frozen=True)
class Limit:
    """The longest name that AWS allows for one kind of resource."""

    what: str
    characters: int
    source: str


USER_LIMIT: Final = Limit("IAM user", 64, "IAM quotas")
ROLE_LIMIT: Final = Limit("IAM role", 64, "IAM quotas")
POLICY_LIMIT: Final = Limit("IAM policy", 128, "IAM quotas")
SECURITY_GROUP_LIMIT: Final = Limit("EC2 security group", 255, "EC2 CreateSecurityGroup")
SECRET_LIMIT: Final = Limit("Secrets Manager secret", 512, "Secrets Manager CreateSecret")

_CLUSTER_ID = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_PATH = re.compile(r"/(?:[\x21-\x2e\x30-\x7e]+/)*")  # IAM CreateRole, parameter Path
_PATH_CHARACTERS = 512

UNKNOWN_ID: Final = "?" * 8
"""Stands for the eight characters of a CAST AI cluster id that is not registered yet: in an IAM
resource each `?` matches exactly one character."""


class NameRefusedError(PermanentError):
    """AWS would refuse this name. Nothing was created."""


def checked_cluster(cluster: str) -> str:
    """The cluster's name, unchanged. Raises NameRefusedError if EKS would refuse it."""
    if not re.fullmatch(CLUSTER_NAME_PATTERN, cluster):
        raise NameRefusedError(
            f"Give the name of an EKS cluster, not {shown(cluster)}: 1 to 100 letters, digits, "
            "hyphens and underscores, the first a letter or a digit."
        )
    return cluster


def checked_path(path: str) -> str:
    """The IAM path, unchanged. Raises NameRefusedError if IAM would refuse it."""
    if len(path) > _PATH_CHARACTERS or not _PATH.fullmatch(path):
        raise NameRefusedError(
            "Give an IAM path that begins and ends with a slash, such as /castai/, not "
            f"{shown(path)}."
        )
    return path


def short_id(cluster_id: str) -> str:
    """The first eight characters of CAST AI's cluster id, which CAST AI's names contain.

    An empty id (a cluster that is not registered yet) gives `UNKNOWN_ID`, which is a pattern for
    IAM policies and never a name.

    Raises NameRefusedError if it is not a UUID.
    """
    if not cluster_id:
        return UNKNOWN_ID
    if not _CLUSTER_ID.fullmatch(cluster_id):
        raise NameRefusedError(
            f"Give CAST AI's id of the cluster as a UUID, not {shown(cluster_id)}: the console "
            "shows it in the address of the cluster's page."
        )
    return cluster_id[:8]


def user_name(cluster: str) -> str:
    """The IAM user of user mode. CAST AI does not cut it: 55 characters of cluster name fit.

    Raises NameRefusedError if the cluster's name is too long for user mode, or not valid.
    """
    return _within(USER_LIMIT, f"cast-eks-{checked_cluster(cluster)}", _USER_ADVICE)


def role_name(cluster: str, cluster_id: str) -> str:
    """The IAM role of cross-account mode."""
    cluster = checked_cluster(cluster)
    return _within(ROLE_LIMIT, f"cast-eks-{cluster[:30]}-cluster-role-{short_id(cluster_id)}")


def node_role_name(cluster: str, cluster_id: str) -> str:
    """The role of the nodes that CAST AI adds. Their instance profile has the same name."""
    cluster = checked_cluster(cluster)
    return _within(ROLE_LIMIT, f"cast-{cluster[:40]}-eks-{short_id(cluster_id)}")


def castai_function_role_name(cluster: str, cluster_id: str) -> str:
    """The role of the spot function that CAST AI may create. No function of this app uses it."""
    cluster = checked_cluster(cluster)
    return _within(ROLE_LIMIT, f"cast-{cluster[:40]}-lambda-{short_id(cluster_id)}")


ANY_CASTAI_FUNCTION_ROLE: Final = f"cast-*-lambda-{UNKNOWN_ID}"
"""IAM pattern that matches the `castai_function_role_name` of every cluster."""


def policy_name(cluster: str, *, account_wide: bool) -> str:
    """The managed policy: one per cluster, or the one name that all clusters share."""
    cluster = checked_cluster(cluster)
    if account_wide:
        return ACCOUNT_WIDE_POLICY
    return _within(POLICY_LIMIT, f"{ACCOUNT_WIDE_POLICY}-{cluster}")


def security_group_name(cluster: str) -> str:
    """The security group of the nodes that CAST AI adds."""
    name = f"cast-{checked_cluster(cluster)}-cluster/CastNodeSecurityGroup"
    return _within(SECURITY_GROUP_LIMIT, name)


def credentials_secret_name(cluster: str) -> str:
    """The secret that holds the user's access key. CAST AI never reads it."""
    return _within(SECRET_LIMIT, f"castai-eks/{checked_cluster(cluster)}/credentials")


def physical_id(account: str, region: str, cluster: str) -> str:
    """CloudFormation's id of the onboarding: the same cluster always has the same id."""
    return f"castai-eks/{account}/{region}/{checked_cluster(cluster)}"


def cluster_tags(cluster_arn: str) -> dict[str, str]:
    """The tag of a resource that this project created for this cluster."""
    return {CLUSTER_TAG: cluster_arn}


def security_group_tags(cluster: str, cluster_id: str) -> dict[str, str]:
    """The tags by which CAST AI finds its security group."""
    return {"Name": security_group_name(cluster), CLUSTER_ID_TAG: cluster_id}


_USER_ADVICE = ", or Mode cross-account-role, whose name CAST AI shortens"


def _within(limit: Limit, name: str, advice: str = "") -> str:
    if len(name) > limit.characters:
        raise NameRefusedError(
            f"Use a shorter cluster name{advice}: {limit.what} name {name} has {len(name)} "
            f"characters; AWS allows {limit.characters} ({limit.source})."
        )
    return name
