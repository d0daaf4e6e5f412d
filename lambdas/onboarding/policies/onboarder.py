"""The permissions to onboard a cluster: of the custom resource's function, and of a person."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from typing import Final

from lambdas.common.names import CLUSTER_ADMIN, CLUSTER_ID_TAG
from lambdas.onboarding import names
from lambdas.onboarding.policies.aws import ec2_services
from lambdas.onboarding.policies.castai_identity import identity_managed_policies
from lambdas.onboarding.policies.document import (
    Condition,
    Document,
    Tags,
    all_checked,
    allow,
    document_of,
)
from lambdas.onboarding.policies.functions import (
    api_key_statements,
    by_secrets_manager,
    own_log,
    vpc_statements,
)
from lambdas.onboarding.policies.node_role import node_managed_policies
from lambdas.onboarding.policies.scope import (
    USER_CLUSTER_CHARACTERS,
    FunctionScope,
    Mode,
    Permissions,
    Scope,
)

ADMIN_ACCESS_POLICY: Final = CLUSTER_ADMIN
# They find the users of node role, instance profile and security group. None takes a resource.
NODE_READS: Final = (
    "ec2:DescribeInstances",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeSecurityGroups",
)
FINDS: Final = ("iam:ListPolicies", "iam:ListRoles")
"""They find policies and roles by name. Neither takes a resource."""


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
    """The permissions of a person who onboards the cluster from a terminal or by hand.

    They also cover the removal. Returns three managed policies by name, because one would be larger
    than IAM allows: CAST AI's identity, the other roles, and the rest. A person who deploys with
    CDK needs `cdk_deployer` instead, because the onboarding's function then does the work.

    Raises DocumentTooLargeError if one of them is too large for a managed policy.
    """
    documents = {
        "castai-eks-admin-iam": [
            allow("FindPoliciesAndRoles", [*FINDS], ["*"]),
            *_identity_statements(scope, modes, boundary, account_wide=account_wide),
        ],
        "castai-eks-admin-roles": _other_role_statements(scope, boundary),
        "castai-eks-admin-cluster": [
            # None of these takes a resource.
            allow("ReadCallerAndNodes", ["sts:GetCallerIdentity", *NODE_READS], ["*"]),
            *_own_security_group_statements(scope),
            *_former_policy_statements(scope, account_wide=account_wide),
            *_cluster_access_statements(scope, modes, own_role_arn=None),
            *_credentials_statements(scope, credentials_kms_key),
            *api_key_statements(
                FunctionScope(scope.partition, scope.account, (scope.region,)),
                api_key_secret,
                api_key_kms_key,
            ),
        ],
    }
    return all_checked(documents)


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
    """The permissions of the custom resource's function for one cluster.

    Returns managed policies by name, because one would be larger than IAM allows. They cover both
    modes if the cluster's name is short enough for user mode: an update may change the mode, and
    its rollback changes it back. `own_role_arn` is the function's role, which has access to the
    cluster while the function works. `function` is the function's name. `api_key_secret` is a name
    or an ARN. With CDK tokens in the scope, `measured` is False: a token and its value differ in
    length.

    Raises DocumentTooLargeError if one of them is too large for a managed policy.
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
            allow("ReadNodes", [*NODE_READS], ["*"]),
            *_own_security_group_statements(scope),
            *_cluster_access_statements(scope, modes, own_role_arn=own_role_arn),
            *_credentials_statements(scope, credentials_kms_key),
        ],
        "castai-eks-onboarding-run": [
            own_log(here),
            *_former_policy_statements(scope, account_wide=account_wide),
            *api_key_statements(here, api_key_secret, api_key_kms_key),
            *(vpc_statements(here) if in_vpc else ()),
        ],
    }
    if not measured:
        return {name: document_of(statements) for name, statements in documents.items()}
    return all_checked(documents)


_NAME_LIMIT: Final = 64  # IAM quotas: role names; Lambda: function names
_REGION_ROOM: Final = len("-ap-northeast-1")  # the longest region; the role's name ends in it


def function_name(prefix: str, cluster: str) -> str:
    """The name of the cluster's onboarding function. A name that is too long ends in a hash."""
    name, limit = f"{prefix}-{cluster}", _NAME_LIMIT - _REGION_ROOM
    if len(name) <= limit:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - 9]}-{digest}"


def cdk_deployer(
    partition: str, account: str, region: str, *, qualifier: str = "hnb659fds"
) -> Document:
    """The permission for `cdk deploy` in a bootstrapped account: assume the bootstrap roles."""
    roles = ("deploy", "file-publishing", "lookup")
    return document_of(
        [
            allow(
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
        allow(
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
    """Allow to remove the shared policy after AccountWidePolicy was set to false.

    IAM refuses the removal while the policy is attached. The statement is not in the document of
    the identity, because that document has no room for it with a long path.
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
    return [allow("FormerPolicy", actions, [scope.policy_arn(account_wide=True)])]


def _found_by_name(scope: Scope, found: Mapping[str, list[str]]) -> list[Document]:
    """Allow reads by name without the path: what does not exist has no path in IAM."""
    if scope.path == "/":
        return []
    arns = list(dict.fromkeys(arn for each in found.values() for arn in each))
    return [allow("FindByName", [action for action, of in found.items() if of], arns)]


def _user_statements(scope: Scope, attachable: list[str], boundary: str | None) -> list[Document]:
    user = [scope.user_arn]
    return [
        allow(
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
        allow(
            "UserWithinBoundary",
            ["iam:CreateUser", "iam:PutUserPolicy", *_put_boundary("User", boundary)],
            user,
            _bounded(boundary),
        ),
        allow("UserPolicies", ["iam:AttachUserPolicy"], user, _bounded(boundary, attachable)),
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
        allow("Role", [*_ROLE_ACTIONS], role),
        allow(
            "RoleWithinBoundary",
            ["iam:CreateRole", "iam:PutRolePolicy", *_put_boundary("Role", boundary)],
            role,
            _bounded(boundary),
        ),
        allow("RolePolicies", ["iam:AttachRolePolicy"], role, _bounded(boundary, attachable)),
    ]


def _other_role_statements(scope: Scope, boundary: str | None) -> list[Document]:
    """The node role with its instance profile, and the role of CAST AI's own function."""
    roles = [scope.node_role_arn, scope.castai_function_role_arn]
    node_policies = list(node_managed_policies(scope.partition, ssm=True, ebs_csi=True))
    return [
        allow("OtherRoles", [*_ROLE_ACTIONS], roles),
        allow(
            "OtherRolesWithinBoundary",
            ["iam:CreateRole", *_put_boundary("Role", boundary)],
            roles,
            _bounded(boundary),
        ),
        allow(
            "NodeRolePolicies",
            ["iam:AttachRolePolicy"],
            [scope.node_role_arn],
            _bounded(boundary, node_policies),
        ),
        # The IPv6 policy of the nodes, and the only policy of the function's role.
        allow("OtherRolesInline", ["iam:PutRolePolicy"], roles, _bounded(boundary)),
        allow(
            "SpotFunction",
            ["lambda:GetFunctionConfiguration"],
            [scope.regional("lambda", f"function:{names.SPOT_FUNCTION}")],
        ),
        *_found_by_name(
            scope,
            {
                "iam:GetRole": [
                    scope.pathless.node_role_arn,
                    scope.pathless.castai_function_role_arn,
                ],
                "iam:GetInstanceProfile": [scope.pathless.instance_profile_arn],
            },
        ),
        *_instance_profile_statements(scope),
    ]


def _instance_profile_statements(scope: Scope) -> list[Document]:
    return [
        allow(
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
        allow(
            "PassNodeRole",
            ["iam:PassRole"],
            [scope.node_role_arn],
            {"StringEquals": {"iam:PassedToService": ec2_services(scope.partition)}},
        ),
    ]


def _own_security_group_statements(scope: Scope) -> list[Document]:
    groups = scope.ec2("security-group/*")
    return [
        allow("CreateSecurityGroup", ["ec2:CreateSecurityGroup"], [groups, scope.vpc_arn]),
        allow(
            "TagSecurityGroup",
            ["ec2:CreateTags"],
            [groups],
            {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}},
        ),
        allow(
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
    """Access entries for the principals that the onboarding maps, and no others."""
    admins = [scope.user_arn] if Mode.USER in modes else []
    if own_role_arn:
        admins.append(own_role_arn)
    principals = [scope.node_role_arn, scope.spot_role_arn, *admins]
    statements = [
        allow("Cluster", ["eks:DescribeCluster", "eks:ListAccessEntries"], [scope.cluster_arn]),
        allow(
            "CreateAccessEntries",
            ["eks:CreateAccessEntry"],
            [scope.cluster_arn],
            {"ArnLike": {"eks:principalArn": principals}},
        ),
        allow(
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
    # The role's date shows whether an entry is older than the role.
    statements.append(allow("SpotHandlerRole", ["iam:GetRole"], [scope.spot_role_arn]))
    if not own_role_arn:
        # `castai-eks offboard` finds our entries by their tags, for any role of the spot handler.
        every = scope.regional("eks", f"access-entry/{scope.cluster}/*")
        statements.append(allow("FindAccessEntries", ["eks:DescribeAccessEntry"], [every]))
    if admins:
        policy = f"arn:{scope.partition}:eks::aws:cluster-access-policy/{ADMIN_ACCESS_POLICY}"
        statements.append(
            allow(
                "ClusterAdmins",
                ["eks:AssociateAccessPolicy", "eks:DisassociateAccessPolicy"],
                [_access_entry(scope, principal) for principal in admins],
                {"ArnEquals": {"eks:policyArn": policy}},
            )
        )
    return statements


def _access_entry(scope: Scope, principal_arn: str) -> str:
    """The ARN of a principal's access entry; it ends in an id that EKS generates."""
    kind, _, name = principal_arn.rpartition(":")[2].partition("/")
    entry = f"access-entry/{scope.cluster}/{kind}/{scope.account}/{name.rpartition('/')[2]}/*"
    return scope.regional("eks", entry)


def _credentials_statements(scope: Scope, kms_key: str | None) -> list[Document]:
    """The secret with the user's access key, and its KMS key if that is not AWS's own."""
    statements = [
        allow(
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
            allow(
                "EncryptCredentials",
                ["kms:Decrypt", "kms:GenerateDataKey"],
                [kms_key],
                by_secrets_manager(scope.partition, [scope.region]),
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
