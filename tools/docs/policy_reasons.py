"""Why a permission is as it is: what reaches beyond the one cluster, and what was narrowed.

docs/permissions.md shows both lists; the isolation tests hold the policies to the first one.
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
    """How far a write goes beyond what belongs to the cluster."""

    VPC = "the cluster's VPC"
    ACCOUNT = "the account"


@dataclass(frozen=True)
class Wide:
    """Writes that are not bound to the one cluster, and why they cannot be."""

    actions: tuple[str, ...]
    on: str
    reach: Reach
    permissions: Collection[Permissions]
    why: str
    spot_lambda: bool = False
    """Only where CAST AI manages its own spot function."""


WIDE = (
    Wide(
        ("iam:CreateServiceLinkedRole",),
        "AWSServiceRoleForEC2Spot",
        Reach.ACCOUNT,
        EVERY,
        "An account has one such role, and without it EC2 launches no spot instance. "
        "AWS alone decides what it may do.",
    ),
    Wide(
        ("iam:DeleteServiceLinkedRole",),
        "AWSServiceRoleForEC2Spot",
        Reach.ACCOUNT,
        FULL,
        "The same role; AWS refuses while any spot instance of the account uses it.",
    ),
    Wide(
        ("ec2:CreateKeyPair", "ec2:ImportKeyPair", "ec2:DeleteKeyPair"),
        "key pairs",
        Reach.ACCOUNT,
        UNBOUND,
        "A key pair belongs to an account and a region, and CAST AI publishes neither a name nor "
        "a tag for its own. `strict` asks for the tag cast:cluster-id.",
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
        "The permission is about the cluster's VPC: what CAST AI has to clean up there does not "
        "always carry the cluster's tags. Two clusters in one VPC share it; `strict` asks for the "
        "tag cast:cluster-id.",
    ),
    Wide(
        ("ec2:CreateSecurityGroup",),
        "new security groups",
        Reach.VPC,
        FULL,
        "A new group belongs to a VPC; there is nothing of a cluster yet that it could be bound "
        "to.",
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
        "function for all. Its role is this cluster's own, or of the same kind for another one: it "
        "sees instances and writes its log. An onboarding refuses a function of any other role.",
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
    """What CAST AI's identity can become, and what that reaches beyond the cluster."""

    becomes: str
    how: str
    policy: str
    """The name of AWS's policy by which it reaches further."""
    reaches: str
    permissions: Collection[Permissions]
    """Those that always lead there; the others only with the property that `how` names."""
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
        "AWS's policy names all interfaces, for every node of every EKS cluster that has it. A "
        "permissions boundary takes it away where the CNI has a role of its own.",
    ),
    Chain(
        _NODE,
        f"{_LAUNCH}; an IPv6 cluster only",
        names.IPV6_POLICY,
        "give IPv6 addresses and tags to every network interface of the account and region",
        EVERY,
        "As AmazonEKS_CNI_Policy, which has no part for IPv6.",
    ),
    Chain(
        _NODE,
        _LAUNCH,
        "AmazonEC2ContainerRegistryReadOnly",
        "read every image of the account",
        EVERY,
        "Nodes pull images; the policy of a repository can refuse.",
    ),
    Chain(
        _NODE,
        _LAUNCH,
        "AmazonEKSWorkerNodePolicy",
        "eks-auth:AssumeRoleForPodIdentity",
        EVERY,
        "EKS also asks for the token of a pod, which only a node of the pod's cluster has.",
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
        "`full` lets CAST AI attach it to the node role. A disk of another cluster can be copied "
        "and read.",
    ),
)


@dataclass(frozen=True)
class Narrowed:
    """What CAST AI's script grants more widely than its work needs."""

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
        "administrator's role and act as it. Nodes with an instance profile of your own need a "
        "statement of your own.",
    ),
    Narrowed(
        "PassRoleLambda: iam:PassRole",
        "every role of the account",
        "the one role of CAST AI's own function, which may find instances and write its log; only "
        "with ManageSpotLambda",
        "With the spot handler's role CAST AI could let any code into every cluster, and invoke "
        "every function of the account.",
    ),
    Narrowed(
        "iam CreateRole, DeleteRole, instance profiles",
        "every role and profile of the account",
        "the one name of the cluster's node role",
        "CAST AI makes roles and profiles under this name only; with a permissions boundary only "
        "within it.",
    ),
    Narrowed(
        "iam AttachRolePolicy, DetachRolePolicy",
        "every policy on every role",
        "AWS's policies for nodes on the node role",
        "Otherwise a role could be made an administrator's and then be passed to an instance.",
    ),
    Narrowed(
        "iam CreateServiceLinkedRole, DeleteServiceLinkedRole",
        "every service",
        "EC2 Spot",
        "No other service that CAST AI uses in this account needs one from CAST AI.",
    ),
    Narrowed(
        "ec2:CreateTags",
        "everything in the account, at any time",
        "what is being made in the same call, and the cluster's own instances",
        "All instance permissions go by tags: whoever may tag any instance may terminate any.",
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
        "The subnet, which the script binds too, is in this VPC, and EC2 takes no group or "
        "interface of another.",
    ),
    Narrowed(
        "VpcRestrictedActions",
        "every resource of every kind in the VPC",
        "security groups and network interfaces there",
        "The six actions know no others.",
    ),
    Narrowed(
        "Lambda functions and EventBridge rules",
        "all of the account",
        "cast-ai-ec2-events-handler, and rules named cast-*",
        "The function has had this one name. The prefix of the rule is deduced from CAST AI's "
        "other names; it was never published.",
    ),
)
