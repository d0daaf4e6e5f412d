"""The subject of a policy document: one cluster or one function, with its ARNs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from lambdas.common.names import SPOT_ROLE
from lambdas.onboarding import names

USER_CLUSTER_CHARACTERS: Final = names.USER_LIMIT.characters - len("cast-eks-")


class Permissions(StrEnum):
    """How much CAST AI may do."""

    FULL = "full"
    """Every permission group that CAST AI's product names, also that of the node role."""
    STANDARD = "standard"
    """What CAST AI requires today: it no longer creates roles, profiles or security groups."""
    STRICT = "strict"
    """As standard, with every write limited to the tags of this one cluster."""


class Mode(StrEnum):
    """The kind of CAST AI's identity."""

    USER = "user"
    ROLE = "cross-account-role"


@dataclass(frozen=True)
class Scope:
    """One cluster, and the ARNs of its resources.

    `cluster_id` and `vpc_id` may be empty if they are not known yet (in the documents for the
    administrator and for the onboarding's own role). The ARNs then hold IAM wildcards.
    """

    partition: str
    region: str
    account: str
    cluster: str
    cluster_id: str
    vpc_id: str
    path: str = "/"
    spot_role: str = SPOT_ROLE

    def __post_init__(self) -> None:
        names.checked_cluster(self.cluster)
        names.checked_path(self.path)
        names.short_id(self.cluster_id)

    @property
    def cluster_arn(self) -> str:
        return self.regional("eks", f"cluster/{self.cluster}")

    @property
    def user_arn(self) -> str:
        return self.iam(f"user{self.path}{names.user_name(self.cluster)}")

    @property
    def role_arn(self) -> str:
        return self.iam(f"role{self.path}{names.role_name(self.cluster, self.cluster_id)}")

    @property
    def node_role_arn(self) -> str:
        return self.iam(f"role{self.path}{self._node_role}")

    @property
    def instance_profile_arn(self) -> str:
        return self.iam(f"instance-profile{self.path}{self._node_role}")

    @property
    def castai_function_role_arn(self) -> str:
        name = names.castai_function_role_name(self.cluster, self.cluster_id)
        return self.iam(f"role{self.path}{name}")

    @property
    def spot_role_arn(self) -> str:
        return self.iam(f"role/{self.spot_role}")

    @property
    def pathless(self) -> Scope:
        """The same names without the IAM path."""
        return replace(self, path="/")

    @property
    def vpc_arn(self) -> str:
        return self.ec2_of_any_account(f"vpc/{self.vpc_id or '*'}")

    @property
    def cluster_tag(self) -> str:
        """The tag with which EKS and CAST AI mark the resources of the cluster."""
        return f"kubernetes.io/cluster/{self.cluster}"

    @property
    def _node_role(self) -> str:
        return names.node_role_name(self.cluster, self.cluster_id)

    def policy_arn(self, *, account_wide: bool) -> str:
        name = names.policy_name(self.cluster, account_wide=account_wide)
        return self.iam(f"policy{self.path}{name}")

    def iam(self, resource: str) -> str:
        return f"arn:{self.partition}:iam::{self.account}:{resource}"

    def ec2(self, resource: str) -> str:
        return self.regional("ec2", resource)

    def ec2_of_any_account(self, resource: str) -> str:
        """The ARN of a resource that another account may own and share with this one (RAM).

        It names any account. The id of a VPC is unique in AWS, so an ARN with this id still names
        one VPC.
        """
        return replace(self, account="*").ec2(resource)

    def secret(self, name: str) -> str:
        """A secret's ARN; Secrets Manager adds a hyphen and six characters to the name."""
        return self.regional("secretsmanager", f"secret:{name}-??????")

    def regional(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


@dataclass(frozen=True)
class FunctionScope:
    """A function of the app by name, and the regions in which it runs under one role."""

    partition: str
    account: str
    regions: tuple[str, ...]
    function: str = ""

    def arns(self, service: str, resource: str) -> list[str]:
        """The ARNs of a resource that has the same name in each region."""
        return [
            f"arn:{self.partition}:{service}:{region}:{self.account}:{resource}"
            for region in self.regions
        ]
