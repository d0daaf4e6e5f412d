"""Every IAM document of the onboarding: who may do what, as plain dicts.

The actions of `Permissions.FULL` are those that CAST AI's onboarding grants and its product
names; where its script says `*` and CAST AI works without, the resource is narrowed here.
docs/permissions.md lists each narrowing, and what stays account-wide by nature.

Pure: no network, no clock. No partition is assumed: ARNs begin with the scope's own.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from typing import Any, Final

from lambdas.common.errors import PermanentError
from lambdas.common.names import CLUSTER_ID_TAG, SPOT_ROLE
from lambdas.common.temporary_access import CLUSTER_ADMIN, VIEW
from lambdas.onboarding import names

Document = dict[str, Any]
Tags = dict[str, str | list[str]]
Condition = Mapping[str, Mapping[str, str | list[str]]]

VERSION: Final = "2012-10-17"
MANAGED_LIMIT: Final = 6144  # characters without white space, IAM quotas
USER_INLINE_LIMIT: Final = 2048  # all inline policies of a user together, IAM quotas
ROLE_INLINE_LIMIT: Final = 10240  # all inline policies of a role together, IAM quotas
EKS_NAME_LIMIT: Final = 100  # characters of a cluster's name
USER_CLUSTER_CHARACTERS: Final = names.USER_LIMIT.characters - len("cast-eks-")

NODE_ACCESS_GROUPS: Final = ("system:bootstrappers", "system:nodes")
ADMIN_ACCESS_POLICY: Final = CLUSTER_ADMIN

# What CAST AI documents for CastLambdaRoleForSpot.
SPOT_MANAGED_POLICIES: Final = (
    "CloudWatchLogsFullAccess",
    "service-role/AWSLambdaRole",
    "AmazonEC2ReadOnlyAccess",
)

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
INTERFACE_WRITES: Final = (
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
# What uses the nodes' role, profile and security group; none of the three takes a resource.
NODE_READS: Final = (
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
)
INTERFACE_READS: Final = ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets")


class Permissions(StrEnum):
    """How much CAST AI may do."""

    FULL = "full"
    """Every permission group that CAST AI's product names, the nodes' role included."""
    STANDARD = "standard"
    """What CAST AI asks for today: it no longer makes roles, profiles or security groups."""
    STRICT = "strict"
    """As standard, and every write bound to the tags of this one cluster."""


class Mode(StrEnum):
    """What CAST AI acts as."""

    USER = "user"
    ROLE = "cross-account-role"


class DocumentTooLargeError(PermanentError):
    """A policy document is larger than IAM takes, found before anything was made."""


@dataclass(frozen=True)
class Scope:
    """The one cluster that a document is about, and the ARNs that follow from it.

    `cluster_id` and `vpc_id` may be empty where nothing is known of them yet (the documents for
    the administrator and for the onboarding's own role): the ARNs then hold IAM wildcards.
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
    def lambda_role_arn(self) -> str:
        name = names.lambda_role_name(self.cluster, self.cluster_id)
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
        """The tag by which EKS and CAST AI know what belongs to the cluster."""
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
        """For what another account may share with this one (RAM): the ARN has its owner's account.

        The id of a VPC is unique in AWS, so a VPC that is named by its id stays this one VPC.
        """
        return replace(self, account="*").ec2(resource)

    def secret(self, name: str) -> str:
        """A secret's ARN; Secrets Manager adds a hyphen and six characters to the name."""
        return self.regional("secretsmanager", f"secret:{name}-??????")

    def regional(self, service: str, resource: str) -> str:
        return f"arn:{self.partition}:{service}:{self.region}:{self.account}:{resource}"


# What CAST AI may do ------------------------------------------------------------------------------


def cast_eks_policy(
    scope: Scope,
    permissions: Permissions,
    *,
    manage_spot_lambda: bool,
    boundary: str | None,
    account_wide: bool = False,
) -> Document:
    """The managed policy of CAST AI's identity.

    `manage_spot_lambda` lets CAST AI manage a spot function of one name, under the role that
    `lambda_role_policy` fills: never the one of our spot handler, which every cluster may let in.
    `boundary` (an ARN) has every role that CAST AI makes carry this permissions boundary.
    `account_wide`: all clusters of the account share the document, so it names none of them.

    Raises:
        DocumentTooLargeError: IAM would not take it as a managed policy.
        PermanentError: a shared policy cannot be bound to one cluster's tags.
    """
    _known(scope)
    if account_wide and permissions is Permissions.STRICT:
        raise PermanentError(
            "Use a policy per cluster with Permissions strict: the account-wide CastEKSPolicy is "
            "shared by all clusters and cannot be bound to the tags of one."
        )
    if account_wide:
        scope = replace(scope, region="*")  # one document for the clusters of all regions
    where = _everywhere(scope) if account_wide else _here(scope)
    full = permissions is Permissions.FULL
    statements = [
        _allow(
            "PassRoleEC2",
            ["iam:PassRole"],
            [where.node_role],
            {"StringEquals": {"iam:PassedToService": _ec2_services(scope.partition)}},
        ),
        *(_node_role_statements(scope, where, boundary) if full else ()),
        _service_linked_role(scope, permissions),
        *(_security_group_statements(scope, where) if full else ()),
        *_key_pair_statements(scope, permissions),
        _allow(
            "TagOnLaunching",
            ["ec2:CreateTags"],
            [scope.ec2("instance/*"), scope.ec2("volume/*"), scope.ec2("network-interface/*")],
            {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        ),
        *_run_instances_statements(scope, where),
        *(() if account_wide else _cluster_statements(scope)),
        *(_spot_lambda_statements(scope, where) if manage_spot_lambda else ()),
    ]
    return checked(_document(statements), MANAGED_LIMIT, "CastEKSPolicy")


def restricted_access(
    scope: Scope,
    permissions: Permissions,
    *,
    mode: Mode = Mode.USER,
    account_wide: bool = False,
) -> Document:
    """The inline policy of CAST AI's identity: instances and network of the one cluster.

    A user's inline policies may have 2,048 characters together. So what is about the cluster's
    node groups and Auto Scaling groups sits in the cluster's managed policy, which leaves room
    here for every name that user mode can have; with an account-wide managed policy it has to be
    here, and user mode then takes shorter cluster names only.

    Raises:
        DocumentTooLargeError: IAM would not take it as an inline policy.
    """
    _known(scope)
    launch: Tags = {f"aws:RequestTag/{scope.cluster_tag}": "owned"}
    instance: Tags = {f"ec2:ResourceTag/{scope.cluster_tag}": ["owned", "shared"]}
    network: dict[str, Tags] = {"ArnEquals": {"ec2:Vpc": scope.vpc_arn}}
    if permissions is Permissions.STRICT:
        launch |= _own_tag("aws:RequestTag", scope)
        instance |= _own_tag("ec2:ResourceTag", scope)
        network["StringEquals"] = _own_tag("ec2:ResourceTag", scope)
    statements = [
        _allow(
            "RunInstancesTagRestriction",
            ["ec2:RunInstances"],
            [scope.ec2("instance/*")],
            {"StringEquals": launch},
        ),
        _allow(
            "RunInstancesVpcRestriction",
            ["ec2:RunInstances"],
            [scope.ec2_of_any_account("subnet/*")],
            {"ArnEquals": {"ec2:Vpc": scope.vpc_arn}},
        ),
        _allow(
            "InstanceActionsTagRestriction",
            ["ec2:TerminateInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:CreateTags"],
            [scope.ec2("instance/*")],
            {"StringEquals": instance},
        ),
        _allow(
            "VpcRestrictedActions",
            [
                "ec2:*SecurityGroupIngress",  # Authorize and Revoke; there is no other
                "ec2:*SecurityGroupEgress",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteNetworkInterface",
            ],
            [scope.ec2("security-group/*"), scope.ec2("network-interface/*")],
            network,
        ),
        *(_cluster_statements(scope) if account_wide else ()),
    ]
    limit = USER_INLINE_LIMIT if mode is Mode.USER else ROLE_INLINE_LIMIT
    return checked(_document(statements), limit, names.INLINE_POLICY)


def _cluster_statements(scope: Scope) -> list[Document]:
    """The cluster's Auto Scaling groups and node groups, known by tag and by name."""
    return [
        _allow(
            "AutoscalingActionsTagRestriction",
            [
                "autoscaling:UpdateAutoScalingGroup",
                "autoscaling:SuspendProcesses",
                "autoscaling:ResumeProcesses",
                "autoscaling:TerminateInstanceInAutoScalingGroup",
            ],
            [scope.regional("autoscaling", "autoScalingGroup:*:autoScalingGroupName/*")],
            {
                "StringEquals": {
                    f"autoscaling:ResourceTag/{scope.cluster_tag}": ["owned", "shared"],
                }
            },
        ),
        _allow(
            "EKS",
            [
                "eks:Describe*",
                "eks:List*",
                "eks:UpdateNodegroupConfig",
                "eks:DeleteNodegroup",
                "eks:TagResource",
                "eks:UntagResource",
            ],
            [scope.cluster_arn, scope.regional("eks", f"nodegroup/{scope.cluster}/*/*")],
        ),
    ]


@dataclass(frozen=True)
class _Where:
    """The ARNs that tell a policy of one cluster from one that all clusters share."""

    node_role: str
    instance_profile: str
    lambda_role: str
    vpc: str


def _here(scope: Scope) -> _Where:
    return _Where(
        scope.node_role_arn, scope.instance_profile_arn, scope.lambda_role_arn, scope.vpc_arn
    )


def _everywhere(scope: Scope) -> _Where:
    any_node_role = f"cast-*-eks-{names.UNKNOWN_ID}"
    return _Where(
        scope.iam(f"role{scope.path}{any_node_role}"),
        scope.iam(f"instance-profile{scope.path}{any_node_role}"),
        scope.iam(f"role{scope.path}{names.ANY_LAMBDA_ROLE}"),
        replace(scope, vpc_id="").vpc_arn,
    )


def _node_role_statements(scope: Scope, where: _Where, boundary: str | None) -> list[Document]:
    bounded = {"ArnEquals": {"iam:PermissionsBoundary": boundary}} if boundary else None
    allowed = list(node_managed_policies(scope.partition, ssm=True, ebs_csi=True))
    return [
        _allow("CreateNodeRole", ["iam:CreateRole"], [where.node_role], bounded),
        _allow("DeleteNodeRole", ["iam:DeleteRole"], [where.node_role]),
        _allow(
            "NodeRolePolicies",
            ["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
            [where.node_role],
            {"ArnEquals": {"iam:PolicyARN": allowed}},
        ),
        _allow(
            "NodeInstanceProfile",
            [
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:AddRoleToInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
            ],
            [where.instance_profile],
        ),
    ]


def _service_linked_role(scope: Scope, permissions: Permissions) -> Document:
    # The one that EC2 needs for spot instances; its ARN names both service and role.
    actions = ["iam:CreateServiceLinkedRole"]
    if permissions is Permissions.FULL:
        actions.append("iam:DeleteServiceLinkedRole")
    role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    return _allow("SpotServiceLinkedRole", actions, [scope.iam(role)])


def _security_group_statements(scope: Scope, where: _Where) -> list[Document]:
    return [
        _allow(
            "CreateSecurityGroup",
            ["ec2:CreateSecurityGroup"],
            [scope.ec2("security-group/*"), where.vpc],
        ),
        _allow(
            "TagSecurityGroups",
            ["ec2:CreateTags"],
            [scope.ec2("security-group/*")],
            {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}},
        ),
    ]


def _key_pair_statements(scope: Scope, permissions: Permissions) -> list[Document]:
    create, delete = ["ec2:CreateKeyPair", "ec2:ImportKeyPair"], ["ec2:DeleteKeyPair"]
    keys = [scope.ec2("key-pair/*")]
    tag = _allow(
        "TagKeyPairs",
        ["ec2:CreateTags"],
        keys,
        {"StringEquals": {"ec2:CreateAction": ["CreateKeyPair", "ImportKeyPair"]}},
    )
    if permissions is not Permissions.STRICT:
        return [_allow("KeyPairs", [*create, *delete], keys), tag]
    return [
        _allow("CreateKeyPairs", create, keys, {"StringEquals": _own_tag("aws:RequestTag", scope)}),
        _allow(
            "DeleteKeyPairs", delete, keys, {"StringEquals": _own_tag("ec2:ResourceTag", scope)}
        ),
        tag,
    ]


def _run_instances_statements(scope: Scope, where: _Where) -> list[Document]:
    """What a launch uses besides the instance and the subnet, which the inline policy binds."""
    return [
        _allow(
            "RunInstancesPermissions",
            ["ec2:RunInstances"],
            [
                scope.ec2("volume/*"),
                scope.ec2("key-pair/*"),
                f"arn:{scope.partition}:ec2:{scope.region}::image/*",
            ],
        ),
        _allow(
            "RunInstancesNetwork",
            ["ec2:RunInstances"],
            [scope.ec2("network-interface/*"), scope.ec2_of_any_account("security-group/*")],
            # IfExists: what exists already always has a VPC; an interface that the launch itself
            # makes takes the VPC of its subnet, which the inline policy binds.
            {"ArnLikeIfExists": {"ec2:Vpc": where.vpc}},
        ),
    ]


def _spot_lambda_statements(scope: Scope, where: _Where) -> list[Document]:
    return [
        _allow(
            "PassRoleLambda",
            ["iam:PassRole"],
            [where.lambda_role],
            {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}},
        ),
        _allow(
            "SpotFunction",
            [
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:UpdateFunctionCode",
                "lambda:AddPermission",
            ],
            [scope.regional("lambda", f"function:{names.SPOT_FUNCTION}")],
        ),
        _allow(
            "SpotRule",
            ["events:PutRule", "events:DeleteRule", "events:PutTargets", "events:RemoveTargets"],
            [scope.regional("events", "rule/cast-*")],
        ),
    ]


def lambda_role_policy(scope: Scope) -> Document:
    """The inline policy of the role of CAST AI's own spot function: see an instance, write a log.

    CAST AI may give the function any code, so the role reaches nothing of others.
    """
    log = f"log-group:/aws/lambda/{names.SPOT_FUNCTION}"
    return _document(
        [
            _allow("FindInstance", ["ec2:DescribeInstances"], ["*"]),  # takes no resource
            _allow(
                "WriteOwnLog",
                ["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"],
                [scope.regional("logs", log), scope.regional("logs", f"{log}:*")],
            ),
        ]
    )


def node_ipv6_policy(partition: str, region: str, account: str) -> Document:
    """The inline policy of the node role in an IPv6 cluster: the VPC CNI gives pods addresses.

    AWS has no managed policy for it:
    https://docs.aws.amazon.com/eks/latest/userguide/cni-iam-role.html
    """
    interfaces = f"arn:{partition}:ec2:{region}:{account}:network-interface/*"
    return _document(
        [
            _allow("AssignAddresses", ["ec2:AssignIpv6Addresses"], [interfaces]),
            _allow(
                "FindInterfaces",
                [
                    "ec2:DescribeInstances",
                    "ec2:DescribeInstanceTypes",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeTags",
                ],
                ["*"],  # they take no resource
            ),
            _allow("TagInterfaces", ["ec2:CreateTags"], [interfaces]),
        ]
    )


# Who onboards -------------------------------------------------------------------------------------


FINDS: Final = ("iam:ListPolicies", "iam:ListRoles")
"""What a person looks for by its name; neither knows resources."""


def administrator(
    scope: Scope,
    *,
    modes: Collection[Mode] = tuple(Mode),
    account_wide: bool = False,
    boundary: str | None = None,
    api_key_secret: str | None = None,
    api_key_kms_key: str | None = None,
    credentials_kms_key: str | None = None,
) -> dict[str, Document]:
    """All that a person needs who onboards the cluster from a terminal or by hand, and undoes it.

    Three managed policies by name, because one would be larger than IAM takes: CAST AI's identity,
    the other roles, and the rest. Whoever deploys with CDK needs `cdk_deployer` instead: the
    onboarding's function does the work then.

    Raises:
        DocumentTooLargeError: IAM would not take one of them as a managed policy.
    """
    documents = {
        "castai-eks-admin-iam": [
            _allow("FindPoliciesAndRoles", [*FINDS], ["*"]),
            *_identity_statements(scope, modes, boundary, account_wide=account_wide),
        ],
        "castai-eks-admin-roles": _other_role_statements(scope, boundary),
        "castai-eks-admin-cluster": [
            # None of these knows resources.
            _allow("LookAround", ["sts:GetCallerIdentity", *NODE_READS], ["*"]),
            *_own_security_group_statements(scope),
            *_former_policy_statements(scope, account_wide=account_wide),
            *_cluster_access_statements(scope, modes, own_role_arn=None),
            *_credentials_statements(scope, credentials_kms_key),
            *_api_key_statements(
                FunctionScope(scope.partition, scope.account, (scope.region,)),
                api_key_secret,
                api_key_kms_key,
            ),
        ],
    }
    return _all_checked(documents)


def onboarding_lambda(
    scope: Scope,
    *,
    own_role_arn: str,
    function: str,
    account_wide: bool = False,
    boundary: str | None = None,
    api_key_secret: str | None = None,
    api_key_kms_key: str | None = None,
    credentials_kms_key: str | None = None,
    in_vpc: bool = False,
    measured: bool = True,
) -> dict[str, Document]:
    """All that the custom resource's function carries for one cluster.

    Managed policies by name, because one would be larger than IAM takes. They cover both
    modes, wherever the names allow: an update may switch from one to the other, and its rollback
    back again. `own_role_arn` is the function's role, which maps itself in the cluster while it
    works. `function` is the function's name. `api_key_secret` is a name or an ARN. Not
    `measured`: with CDK's tokens in the scope, which have another length than what they stand for.

    Raises:
        DocumentTooLargeError: IAM would not take one of them as a managed policy.
    """
    user_fits = len(scope.cluster) <= USER_CLUSTER_CHARACTERS
    modes = tuple(Mode) if user_fits else (Mode.ROLE,)
    here = FunctionScope(scope.partition, scope.account, (scope.region,), function)
    documents = {
        "castai-eks-onboarding-iam": _identity_statements(
            scope, modes, boundary, account_wide=account_wide
        ),
        "castai-eks-onboarding-roles": _other_role_statements(scope, boundary),
        "castai-eks-onboarding-cluster": [
            _allow("ReadNodes", [*NODE_READS], ["*"]),
            *_own_security_group_statements(scope),
            *_cluster_access_statements(scope, modes, own_role_arn=own_role_arn),
            *_credentials_statements(scope, credentials_kms_key),
        ],
        "castai-eks-onboarding-run": [
            _own_log(here),
            *_former_policy_statements(scope, account_wide=account_wide),
            *_api_key_statements(here, api_key_secret, api_key_kms_key),
            *(_vpc_statements(here) if in_vpc else ()),
        ],
    }
    if not measured:
        return {name: _document(statements) for name, statements in documents.items()}
    return _all_checked(documents)


def cdk_deployer(
    partition: str, account: str, region: str, *, qualifier: str = "hnb659fds"
) -> Document:
    """All that a person needs for `cdk deploy` in a bootstrapped account: to act as its roles."""
    roles = ("deploy", "file-publishing", "lookup")
    return _document(
        [
            _allow(
                "ActAsTheRolesOfTheBootstrapStack",
                ["sts:AssumeRole"],
                [
                    f"arn:{partition}:iam::{account}:role/"
                    f"cdk-{qualifier}-{role}-role-{account}-{region}"
                    for role in roles
                ],
            )
        ]
    )


def _identity_statements(
    scope: Scope, modes: Collection[Mode], boundary: str | None, *, account_wide: bool
) -> list[Document]:
    policy_arns = [scope.policy_arn(account_wide=False)]
    if account_wide:
        policy_arns.append(scope.policy_arn(account_wide=True))
    user = [scope.pathless.user_arn] if Mode.USER in modes else []
    identity = [
        *policy_arns,
        *identity_managed_policies(scope.partition, Permissions.FULL),
    ]
    return [
        _allow(
            "Policy",
            [
                "iam:CreatePolicy",
                "iam:CreatePolicyVersion",
                "iam:DeletePolicy",
                "iam:DeletePolicyVersion",
                "iam:GetPolicy",
                "iam:GetPolicyVersion",
                "iam:ListEntitiesForPolicy",
                "iam:ListPolicyVersions",
                "iam:SetDefaultPolicyVersion",
                "iam:TagPolicy",
                "iam:UntagPolicy",
            ],
            policy_arns,
        ),
        *(_user_statements(scope, identity, boundary) if Mode.USER in modes else ()),
        *(_identity_role_statements(scope, identity, boundary) if Mode.ROLE in modes else ()),
        *_found_by_name(
            scope,
            {
                "iam:GetUser": user,
                "iam:ListAccessKeys": user,
                "iam:GetPolicy": [scope.pathless.policy_arn(account_wide=False)],
                "iam:GetRole": [scope.pathless.role_arn] if Mode.ROLE in modes else [],
            },
        ),
    ]


def _former_policy_statements(scope: Scope, *, account_wide: bool) -> list[Document]:
    """The shared policy's removal where it is no longer wished.

    IAM refuses it while the policy is attached to anything. The statement stands where there is
    room: the document of the identity is full with a long path.
    """
    if account_wide:
        return []
    actions = [
        "iam:DeletePolicy",
        "iam:DeletePolicyVersion",
        "iam:GetPolicy",
        "iam:ListEntitiesForPolicy",
        "iam:ListPolicyVersions",
    ]
    return [_allow("FormerPolicy", actions, [scope.policy_arn(account_wide=True)])]


def _found_by_name(scope: Scope, found: Mapping[str, list[str]]) -> list[Document]:
    """The look at what may not be there yet, whose path IAM then cannot know."""
    if scope.path == "/":
        return []
    arns = list(dict.fromkeys(arn for each in found.values() for arn in each))
    return [_allow("FindByName", [action for action, of in found.items() if of], arns)]


def _user_statements(scope: Scope, attachable: list[str], boundary: str | None) -> list[Document]:
    user = [scope.user_arn]
    return [
        _allow(
            "User",
            [
                "iam:CreateAccessKey",
                "iam:DeleteAccessKey",
                "iam:DeleteUser",
                "iam:DeleteUserPolicy",
                "iam:DetachUserPolicy",
                "iam:GetUser",
                "iam:GetUserPolicy",
                "iam:ListAccessKeys",
                "iam:ListAttachedUserPolicies",
                "iam:ListUserPolicies",
                "iam:TagUser",
                "iam:UntagUser",
                "iam:UpdateAccessKey",
            ],
            user,
        ),
        _allow(
            "UserWithinBoundary",
            ["iam:CreateUser", "iam:PutUserPolicy", *_put_boundary("User", boundary)],
            user,
            _bounded(boundary),
        ),
        _allow("UserPolicies", ["iam:AttachUserPolicy"], user, _bounded(boundary, attachable)),
    ]


_ROLE_ACTIONS: Final = (
    "iam:DeleteRole",
    "iam:DeleteRolePolicy",
    "iam:DetachRolePolicy",
    "iam:GetRole",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListInstanceProfilesForRole",
    "iam:ListRolePolicies",
    "iam:TagRole",
    "iam:UntagRole",
    "iam:UpdateAssumeRolePolicy",
)


def _identity_role_statements(
    scope: Scope, attachable: list[str], boundary: str | None
) -> list[Document]:
    role = [scope.role_arn]
    return [
        _allow("Role", [*_ROLE_ACTIONS], role),
        _allow(
            "RoleWithinBoundary",
            ["iam:CreateRole", "iam:PutRolePolicy", *_put_boundary("Role", boundary)],
            role,
            _bounded(boundary),
        ),
        _allow("RolePolicies", ["iam:AttachRolePolicy"], role, _bounded(boundary, attachable)),
    ]


def _other_role_statements(scope: Scope, boundary: str | None) -> list[Document]:
    """The role of the nodes with its instance profile, and that of CAST AI's own function."""
    roles = [scope.node_role_arn, scope.lambda_role_arn]
    node_policies = list(node_managed_policies(scope.partition, ssm=True, ebs_csi=True))
    return [
        _allow("OtherRoles", [*_ROLE_ACTIONS], roles),
        _allow(
            "OtherRolesWithinBoundary",
            ["iam:CreateRole", *_put_boundary("Role", boundary)],
            roles,
            _bounded(boundary),
        ),
        _allow(
            "NodeRolePolicies",
            ["iam:AttachRolePolicy"],
            [scope.node_role_arn],
            _bounded(boundary, node_policies),
        ),
        # The IPv6 policy of the nodes, and all that the function's role carries.
        _allow("OtherRolesInline", ["iam:PutRolePolicy"], roles, _bounded(boundary)),
        _allow(
            "SpotFunction",
            ["lambda:GetFunctionConfiguration"],
            [scope.regional("lambda", f"function:{names.SPOT_FUNCTION}")],
        ),
        *_found_by_name(
            scope,
            {
                "iam:GetRole": [scope.pathless.node_role_arn, scope.pathless.lambda_role_arn],
                "iam:GetInstanceProfile": [scope.pathless.instance_profile_arn],
            },
        ),
        *_instance_profile_statements(scope),
    ]


def _instance_profile_statements(scope: Scope) -> list[Document]:
    return [
        _allow(
            "InstanceProfile",
            [
                "iam:AddRoleToInstanceProfile",
                "iam:CreateInstanceProfile",
                "iam:DeleteInstanceProfile",
                "iam:GetInstanceProfile",
                "iam:RemoveRoleFromInstanceProfile",
                "iam:TagInstanceProfile",
                "iam:UntagInstanceProfile",
            ],
            [scope.instance_profile_arn],
        ),
        _allow(
            "PassNodeRole",
            ["iam:PassRole"],
            [scope.node_role_arn],
            {"StringEquals": {"iam:PassedToService": _ec2_services(scope.partition)}},
        ),
    ]


def _own_security_group_statements(scope: Scope) -> list[Document]:
    groups = scope.ec2("security-group/*")
    return [
        _allow("CreateSecurityGroup", ["ec2:CreateSecurityGroup"], [groups, scope.vpc_arn]),
        _allow(
            "TagSecurityGroup",
            ["ec2:CreateTags"],
            [groups],
            {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}},
        ),
        _allow(
            "SecurityGroup",
            [
                "ec2:AuthorizeSecurityGroupEgress",
                "ec2:AuthorizeSecurityGroupIngress",
                "ec2:CreateTags",
                "ec2:DeleteSecurityGroup",
                "ec2:DeleteTags",
                "ec2:RevokeSecurityGroupEgress",
                "ec2:RevokeSecurityGroupIngress",
            ],
            [groups],
            {
                "ArnLike": {"ec2:Vpc": scope.vpc_arn},
                "StringLike": {f"ec2:ResourceTag/{CLUSTER_ID_TAG}": scope.cluster_id or "*"},
            },
        ),
    ]


def _cluster_access_statements(
    scope: Scope, modes: Collection[Mode], *, own_role_arn: str | None
) -> list[Document]:
    """Access entries for those whom the onboarding maps, for nobody else."""
    admins = [scope.user_arn] if Mode.USER in modes else []
    if own_role_arn:
        admins.append(own_role_arn)
    principals = [scope.node_role_arn, scope.spot_role_arn, *admins]
    statements = [
        _allow("Cluster", ["eks:DescribeCluster", "eks:ListAccessEntries"], [scope.cluster_arn]),
        _allow(
            "CreateAccessEntries",
            ["eks:CreateAccessEntry"],
            [scope.cluster_arn],
            {"ArnLike": {"eks:principalArn": principals}},
        ),
        _allow(
            "AccessEntries",
            [
                "eks:DeleteAccessEntry",
                "eks:DescribeAccessEntry",
                "eks:ListAssociatedAccessPolicies",
                "eks:TagResource",
                "eks:UntagResource",
                "eks:UpdateAccessEntry",
            ],
            [_access_entry(scope, principal) for principal in principals],
        ),
    ]
    # Whether an entry is older than the role.
    statements.append(_allow("SpotHandlerRole", ["iam:GetRole"], [scope.spot_role_arn]))
    if not own_role_arn:
        # offboard of castai-eks knows ours by their tags, whatever role the spot handler has.
        every = scope.regional("eks", f"access-entry/{scope.cluster}/*")
        statements.append(_allow("FindAccessEntries", ["eks:DescribeAccessEntry"], [every]))
    if admins:
        policy = f"arn:{scope.partition}:eks::aws:cluster-access-policy/{ADMIN_ACCESS_POLICY}"
        statements.append(
            _allow(
                "ClusterAdmins",
                ["eks:AssociateAccessPolicy", "eks:DisassociateAccessPolicy"],
                [_access_entry(scope, principal) for principal in admins],
                {"ArnEquals": {"eks:policyArn": policy}},
            )
        )
    return statements


def _access_entry(scope: Scope, principal_arn: str) -> str:
    """The ARN of a principal's access entry; it ends in an id that EKS makes up."""
    kind, _, name = principal_arn.rpartition(":")[2].partition("/")
    entry = f"access-entry/{scope.cluster}/{kind}/{scope.account}/{name.rpartition('/')[2]}/*"
    return scope.regional("eks", entry)


def _credentials_statements(scope: Scope, kms_key: str | None) -> list[Document]:
    """The secret of the user's access key, and the key that encrypts it where it is not AWS's."""
    statements = [
        _allow(
            "CredentialsSecret",
            [
                "secretsmanager:CreateSecret",
                "secretsmanager:DeleteSecret",
                "secretsmanager:DescribeSecret",
                "secretsmanager:GetSecretValue",
                "secretsmanager:PutSecretValue",
                "secretsmanager:RestoreSecret",
                "secretsmanager:TagResource",
                "secretsmanager:UntagResource",
                "secretsmanager:UpdateSecret",
            ],
            [scope.secret(names.credentials_secret_name(scope.cluster))],
        )
    ]
    if kms_key:
        statements.append(
            _allow(
                "EncryptCredentials",
                ["kms:Decrypt", "kms:GenerateDataKey"],
                [kms_key],
                _by_secrets_manager(scope.partition, [scope.region]),
            )
        )
    return statements


def _bounded(boundary: str | None, attachable: list[str] | None = None) -> Condition | None:
    arns: Tags = {}
    if attachable:
        arns["iam:PolicyARN"] = attachable
    if boundary:
        arns["iam:PermissionsBoundary"] = boundary
    return {"ArnEquals": arns} if arns else None


def _put_boundary(kind: str, boundary: str | None) -> list[str]:
    return [f"iam:Put{kind}PermissionsBoundary"] if boundary else []


# What the app's functions carry -------------------------------------------------------------------


@dataclass(frozen=True)
class FunctionScope:
    """A function of the app by name, and the regions in which it runs under one role."""

    partition: str
    account: str
    regions: tuple[str, ...]
    function: str = ""

    def arns(self, service: str, resource: str) -> list[str]:
        """The ARN of a thing that has the same name in each region."""
        return [
            f"arn:{self.partition}:{service}:{region}:{self.account}:{resource}"
            for region in self.regions
        ]


def spot_handler(
    where: FunctionScope,
    *,
    failure_queue: str,
    clusters: Sequence[str] = (),
    least: bool = False,
    api_key_secret: str | None = None,
    api_key_kms_key: str | None = None,
    tracing: bool = False,
    in_vpc: bool = False,
) -> Document:
    """The inline policy of the spot handler's role.

    `least`: the role has no managed policies, so their part of the work is in here. `clusters` are
    names of EKS clusters, none: any. `api_key_secret` is a name or an ARN.
    """
    own_work = [
        _own_log(where),
        _allow("FindInstance", ["ec2:DescribeInstances"], ["*"]),  # takes no resource
    ]
    return _document(
        [
            *(own_work if least else ()),
            _allow(
                "FindCluster",
                ["eks:DescribeCluster"],
                [
                    arn
                    for cluster in clusters or ("*",)
                    for arn in where.arns("eks", f"cluster/{cluster}")
                ],
            ),
            _allow("KeepFailedNotices", ["sqs:SendMessage"], where.arns("sqs", failure_queue)),
            *_api_key_statements(where, api_key_secret, api_key_kms_key),
            *(_tracing_statements() if tracing else ()),
            *(_vpc_statements(where) if in_vpc else ()),
        ]
    )


def agent_function(
    where: FunctionScope,
    *,
    own_role: str,
    api_key_secret: str | None,
    api_key_kms_key: str | None = None,
    in_vpc: bool = False,
) -> Document:
    """What the function that puts the castai-agent into clusters may do, whatever their number.

    `own_role` is the name of the function's role: it gives itself access while it works. On each
    cluster `agent_cluster` has the Allow. What is the same on all of them is a Deny here, because
    the inline policies of a role share ROLE_INLINE_LIMIT.
    """
    role_arn = f"arn:{where.partition}:iam::{where.account}:role/{own_role}"
    access_policies = [
        f"arn:{where.partition}:eks::aws:cluster-access-policy/{policy}"
        for policy in (CLUSTER_ADMIN, VIEW)
    ]
    return _document(
        [
            _own_log(where),
            *_api_key_statements(where, api_key_secret, api_key_kms_key),
            _deny_elsewhere("ClustersOfThisRegion", _ON_CLUSTER, where.arns("eks", "cluster/*")),
            _deny_elsewhere(
                "OwnEntryOnly",
                _ON_OWN_ENTRY,
                where.arns("eks", f"access-entry/*/role/{where.account}/{own_role}/*"),
            ),
            _deny(
                "LetItselfInOnly",
                ["eks:CreateAccessEntry"],
                {"ArnNotEquals": {"eks:principalArn": role_arn}},
            ),
            _deny(
                "TwoAccessPoliciesOnly",
                ["eks:AssociateAccessPolicy"],
                {"ArnNotEquals": {"eks:policyArn": access_policies}},
            ),
            *(_vpc_statements(where) if in_vpc else ()),
        ]
    )


def agent_cluster(partition: str, cluster: str) -> Document:
    """What lets `agent_function` work on one cluster. It is short: a role has one for each.

    No account and region: the function's own policy denies the others.
    """
    eks = f"arn:{partition}:eks:*:*"
    return _document(
        [
            _allow(
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
    "eks:TagResource",  # of clusters as well, if the Deny did not limit it to the entry
    "eks:AssociateAccessPolicy",
)


def agent_clusters_that_fit(clusters: Sequence[str]) -> int:
    """How many of these clusters, from the first, have room in the role of `agent_function`.

    Counted for the longest partition. A further policy has room beside them: while a cluster
    takes the place of another, CloudFormation makes the new policy before it removes the old one.
    """
    sizes = [size(agent_cluster("aws-us-gov", name)) for name in ("c" * EKS_NAME_LIMIT, *clusters)]
    return sum(used <= ROLE_INLINE_LIMIT for used in accumulate(sizes)) - 1


def _own_log(where: FunctionScope) -> Document:
    return _allow(
        "WriteOwnLog",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        where.arns("logs", f"log-group:/aws/lambda/{where.function}:*"),
    )


def _tracing_statements() -> list[Document]:
    return [_allow("Trace", ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], ["*"])]


def _vpc_statements(where: FunctionScope) -> list[Document]:
    """Lambda's own rights to attach the function to a VPC, which the function's code never uses.

    Lambda checks the role for them on every resource before it takes the function, so it is the
    code that is denied the writes, as AWS advises:
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
    """
    own = where.arns("lambda", f"function:{where.function}")
    return [
        _allow("AttachToVpc", [*INTERFACE_WRITES, *INTERFACE_READS], ["*"]),
        _deny(
            "NoInterfacesForCode",
            INTERFACE_WRITES,
            # With and without the version that runs.
            {"ArnLike": {"lambda:SourceFunctionArn": [*own, *(f"{arn}:*" for arn in own)]}},
        ),
    ]


def _api_key_statements(
    where: FunctionScope, secret: str | None, kms_key: str | None
) -> list[Document]:
    """Read CAST AI's API key, and decrypt it where the secret has a key of its own."""
    if secret is None:
        return []
    known = secret.startswith("arn:")
    # Secrets Manager appends a hyphen and six characters to every name.
    arns = [secret] if known else where.arns("secretsmanager", f"secret:{secret}-??????")
    statements = [_allow("ReadApiKey", ["secretsmanager:GetSecretValue"], arns)]
    if kms_key:
        statements.append(
            _allow(
                "DecryptApiKey",
                ["kms:Decrypt"],
                [kms_key],
                _by_secrets_manager(where.partition, where.regions),
            )
        )
    return statements


def _by_secrets_manager(partition: str, regions: Sequence[str]) -> Condition:
    """The key serves Secrets Manager only, in these regions."""
    services = [
        f"secretsmanager.{region}{suffix}"
        for region in regions
        for suffix in _dns_suffixes(partition)
    ]
    return {"StringEquals": {"kms:ViaService": services}}


# Trust and managed policies -----------------------------------------------------------------------


def cross_account_trust(principal_arn: str, external_id: str) -> Document:
    """Who may act as the cross-account role: CAST AI's principal for this one cluster.

    The external id, CAST AI's id of the cluster, keeps CAST AI from being led into this account
    by another of its customers.
    """
    return _document(
        [
            {
                "Effect": "Allow",
                "Principal": {"AWS": principal_arn},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            }
        ]
    )


def node_trust(partition: str) -> Document:
    """EC2 may give the node role to an instance."""
    china = partition == "aws-cn"
    return _service_trust("ec2.amazonaws.com.cn" if china else "ec2.amazonaws.com")


def lambda_trust(partition: str) -> Document:  # noqa: ARG001 - one name in every partition
    """Lambda may run a function as the role; it needs no other service."""
    return _service_trust("lambda.amazonaws.com")


def identity_managed_policies(partition: str, permissions: Permissions) -> tuple[str, ...]:
    """AWS's policies for CAST AI's identity. The strict variant reads no IAM."""
    read_iam = () if permissions is Permissions.STRICT else ("IAMReadOnlyAccess",)
    return _aws_managed(partition, ("AmazonEC2ReadOnlyAccess", *read_iam))


def node_managed_policies(partition: str, *, ssm: bool, ebs_csi: bool) -> tuple[str, ...]:
    """AWS's policies for the node role; Session Manager and the EBS driver on request."""
    return _aws_managed(
        partition,
        (
            "AmazonEKSWorkerNodePolicy",
            "AmazonEC2ContainerRegistryReadOnly",
            "AmazonEKS_CNI_Policy",
            *(("AmazonSSMManagedInstanceCore",) if ssm else ()),
            *(("service-role/AmazonEBSCSIDriverPolicy",) if ebs_csi else ()),
        ),
    )


def spot_managed_policies(partition: str) -> tuple[str, ...]:
    """AWS's policies for the spot handler's role."""
    return _aws_managed(partition, SPOT_MANAGED_POLICIES)


def _service_trust(service: str) -> Document:
    return _document(
        [{"Effect": "Allow", "Principal": {"Service": service}, "Action": "sts:AssumeRole"}]
    )


def _aws_managed(partition: str, policies: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"arn:{partition}:iam::aws:policy/{policy}" for policy in policies)


def _dns_suffixes(partition: str) -> list[str]:
    """Of AWS's endpoints; both where the partition is not known before the deployment."""
    if partition in {"aws", "aws-us-gov"}:
        return [".amazonaws.com"]
    return (
        [".amazonaws.com.cn"] if partition == "aws-cn" else [".amazonaws.com", ".amazonaws.com.cn"]
    )


def _ec2_services(partition: str) -> str | list[str]:
    if partition in {"aws", "aws-us-gov"}:
        return "ec2.amazonaws.com"
    return ["ec2.amazonaws.com", "ec2.amazonaws.com.cn"]


# Size and shape -----------------------------------------------------------------------------------


def size(document: Document) -> int:
    """Characters as IAM counts them: without white space."""
    return len(json.dumps(document, separators=(",", ":")))


def _all_checked(documents: Mapping[str, Iterable[Document]]) -> dict[str, Document]:
    return {
        name: checked(_document(statements), MANAGED_LIMIT, name)
        for name, statements in documents.items()
    }


def checked(document: Document, limit: int, name: str) -> Document:
    """The document as it came.

    Raises:
        DocumentTooLargeError: more than `limit` characters.
    """
    characters = size(document)
    if characters > limit:
        raise DocumentTooLargeError(
            f"Use a shorter cluster name or path: policy {name} has {characters} characters; "
            f"IAM allows {limit}."
        )
    return document


def _known(scope: Scope) -> None:
    """CAST AI's own documents never hold a wildcard where an id belongs."""
    if not (scope.cluster_id and scope.vpc_id):
        raise ValueError("CAST AI's id of the cluster and the VPC must be known for this document")


def _document(statements: Iterable[Document]) -> Document:
    return {"Version": VERSION, "Statement": list(statements)}


def _allow(
    sid: str, actions: list[str], resources: list[str], condition: Condition | None = None
) -> Document:
    statement: Document = {
        "Sid": sid,
        "Effect": "Allow",
        "Action": actions,
        "Resource": resources,
    }
    if condition:
        statement["Condition"] = {operator: dict(values) for operator, values in condition.items()}
    return statement


def _deny(sid: str, actions: Sequence[str], condition: Condition) -> Document:
    """Against an Allow of another policy."""
    return _allow(sid, [*actions], ["*"], condition) | {"Effect": "Deny"}


def _deny_elsewhere(sid: str, actions: Sequence[str], resources: list[str]) -> Document:
    return {"Sid": sid, "Effect": "Deny", "Action": [*actions], "NotResource": resources}


def _own_tag(prefix: str, scope: Scope) -> Tags:
    """The tag that is on CAST AI's own things only, with this cluster's id."""
    return {f"{prefix}/{CLUSTER_ID_TAG}": scope.cluster_id}
