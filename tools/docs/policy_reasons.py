"""The reasons for permissions: what reaches beyond the one cluster, and what was narrowed.

docs/permissions.md shows these lists. The isolation tests check the policies against them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from lambdas.onboarding import names
from lambdas.onboarding.policies.scope import Permissions

EVERY = frozenset(Permissions)
UNBOUND = frozenset({Permissions.FULL, Permissions.STANDARD})
FULL = frozenset({Permissions.FULL})


class Reach(StrEnum):
    """How far a write reaches beyond the cluster's own resources."""

    VPC = "the cluster's VPC"
    ACCOUNT = "the account"


@dataclass(frozen=True)
class Wide:
    """Writes that are not limited to the one cluster, with the reason."""

    actions: tuple[str, ...]
    on: str
    reach: Reach
    permissions: Collection[Permissions]
    why: str
    spot_lambda: bool = False
    """Only with ManageSpotLambda."""


WIDE = (
    Wide(
        ("iam:CreateServiceLinkedRole",),
        "AWSServiceRoleForEC2Spot",
        Reach.ACCOUNT,
        EVERY,
        "An account has one such role, and EC2 needs it to launch a spot instance. "
        "AWS alone sets its permissions.",
    ),
    Wide(
        ("iam:DeleteServiceLinkedRole",),
        "AWSServiceRoleForEC2Spot",
        Reach.ACCOUNT,
        FULL,
        "The same role. AWS refuses the deletion while any spot instance of the account uses it.",
    ),
    Wide(
        ("ec2:CreateKeyPair", "ec2:ImportKeyPair", "ec2:DeleteKeyPair"),
        "key pairs",
        Reach.ACCOUNT,
        UNBOUND,
        "A key pair belongs to an account and a region. CAST AI publishes neither a name nor a tag "
        "of its key pairs. `strict` requires the tag cast:cluster-id.",
    ),
    Wide(
        (
            "ec2:AuthorizeSecurityGroupIngress",
            "ec2:AuthorizeSecurityGroupEgress",
            "ec2:RevokeSecurityGroupIngress",
            "ec2:RevokeSecurityGroupEgress",
            "ec2:DeleteSecurityGroup",
            "ec2:DeleteNetworkInterface",
        ),
        "security groups and network interfaces",
        Reach.VPC,
        UNBOUND,
        "The resources that CAST AI has to clean up in the cluster's VPC do not always have the "
        "cluster's tags. So the permission also reaches another cluster in this VPC. `strict` "
        "requires the tag cast:cluster-id.",
    ),
    Wide(
        ("ec2:CreateSecurityGroup",),
        "new security groups",
        Reach.VPC,
        FULL,
        "A new group belongs to a VPC, and nothing links it to a cluster yet.",
    ),
    Wide(
        (
            "lambda:CreateFunction",
            "lambda:DeleteFunction",
            "lambda:UpdateFunctionCode",
            "lambda:AddPermission",
        ),
        "the function cast-ai-ec2-events-handler",
        Reach.ACCOUNT,
        EVERY,
        "AWS sends the spot notices of all clusters of a region to one event bus, so there is one "
        "function for all. Its role is of this or another cluster's onboarding, and may only find "
        "instances and write its log. An onboarding refuses a function with any other role.",
        spot_lambda=True,
    ),
    Wide(
        ("events:PutRule", "events:DeleteRule", "events:PutTargets", "events:RemoveTargets"),
        "rules named cast-*",
        Reach.ACCOUNT,
        EVERY,
        "The rule that calls that function, for the same reason.",
        spot_lambda=True,
    ),
)


@dataclass(frozen=True)
class Chain:
    """A role that CAST AI's identity can act as, and what it reaches beyond the cluster."""

    becomes: str
    how: str
    policy: str
    """The name of AWS's policy that reaches further."""
    reaches: str
    permissions: Collection[Permissions]
    """The variants that always allow it. The others need the property that `how` names."""
    why: str


_LAUNCH = "iam:PassRole and ec2:RunInstances: an instance of the cluster runs CAST AI's script"
_NODE = "node role"

CHAINS = (
    Chain(
        _NODE,
        _LAUNCH,
        "AmazonEKS_CNI_Policy",
        "attach, detach, change and delete every network interface of the account",
        EVERY,
        "AWS's policy names all interfaces, for every node that has it. If the CNI has its own "
        "role, a permissions boundary can remove this permission.",
    ),
    Chain(
        _NODE,
        f"{_LAUNCH}; an IPv6 cluster only",
        names.IPV6_POLICY,
        "give IPv6 addresses and tags to every network interface of the account and region",
        EVERY,
        "The same reason. AmazonEKS_CNI_Policy has no permissions for IPv6.",
    ),
    Chain(
        _NODE,
        _LAUNCH,
        "AmazonEC2ContainerRegistryReadOnly",
        "read every image of the account",
        EVERY,
        "Nodes pull images. A repository's policy can deny it.",
    ),
    Chain(
        _NODE,
        _LAUNCH,
        "AmazonEKSWorkerNodePolicy",
        "eks-auth:AssumeRoleForPodIdentity",
        EVERY,
        "EKS also requires the token of a pod, which only a node of the pod's cluster has.",
    ),
    Chain(
        _NODE,
        f"{_LAUNCH}; iam:AttachRolePolicy, or SsmOnNodes",
        "AmazonSSMManagedInstanceCore",
        "read every parameter of Systems Manager",
        FULL,
        "`full` lets CAST AI attach it to the node role. Keep secrets in Secrets Manager.",
    ),
    Chain(
        _NODE,
        f"{_LAUNCH}; iam:AttachRolePolicy, or EbsCsiOnNodes",
        "AmazonEBSCSIDriverPolicy",
        "copy, attach and change every volume and snapshot of the account",
        FULL,
        "`full` lets CAST AI attach it to the node role. CAST AI can then copy and read a disk of "
        "another cluster.",
    ),
)


@dataclass(frozen=True)
class Narrowed:
    """A permission that CAST AI's script grants more widely than CAST AI needs."""

    permission: str
    script: str
    here: str
    why: str


NARROWED = (
    Narrowed(
        "PassRoleEC2: iam:PassRole",
        "every role of the account",
        "the cluster's node role",
        "CAST AI launches nodes with this role. With role/* it could launch an instance with an "
        "administrator's role and act as that role. For nodes with your own instance profile, add "
        "your own statement.",
    ),
    Narrowed(
        "PassRoleLambda: iam:PassRole",
        "every role of the account",
        "the one role of CAST AI's own function, which may find instances and write its log; only "
        "with ManageSpotLambda",
        "With the spot handler's role CAST AI could run any code with access to every cluster, and "
        "invoke every function of the account.",
    ),
    Narrowed(
        "iam CreateRole, DeleteRole, instance profiles",
        "every role and profile of the account",
        "the one name of the cluster's node role",
        "CAST AI creates roles and profiles with this name only. With a permissions boundary it "
        "creates roles within it only.",
    ),
    Narrowed(
        "iam AttachRolePolicy, DetachRolePolicy",
        "every policy on every role",
        "AWS's policies for nodes on the node role",
        "Otherwise CAST AI could make a role an administrator and pass it to an instance.",
    ),
    Narrowed(
        "iam CreateServiceLinkedRole, DeleteServiceLinkedRole",
        "every service",
        "EC2 Spot",
        "CAST AI creates no service-linked role for another service in this account.",
    ),
    Narrowed(
        "ec2:CreateTags",
        "everything in the account, at any time",
        "resources that the same call creates, and the cluster's own instances",
        "Tags decide all instance permissions. With tags on any instance CAST AI could terminate "
        "any instance.",
    ),
    Narrowed(
        "ec2:CreateSecurityGroup",
        "every VPC",
        "the cluster's VPC",
        "CAST AI's nodes are in this VPC only.",
    ),
    Narrowed(
        "RunInstancesPermissions: security groups, network interfaces",
        "all of the account",
        "those of the cluster's VPC",
        "The subnet, which the script also limits, is in this VPC. EC2 refuses a group or "
        "interface of another VPC.",
    ),
    Narrowed(
        "VpcRestrictedActions",
        "every resource of every kind in the VPC",
        "security groups and network interfaces there",
        "The six actions are for these kinds only.",
    ),
    Narrowed(
        "Lambda functions and EventBridge rules",
        "all of the account",
        "cast-ai-ec2-events-handler, and rules named cast-*",
        "The function always had this name. The rule's name was never published; the prefix is "
        "deduced from CAST AI's other names.",
    ),
)
