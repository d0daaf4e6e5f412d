"""What CAST AI may do: the policies and the trust of its user or cross-account role.

`Permissions.FULL` has the actions that CAST AI's onboarding script grants and its product names.
Where the script has the resource `*` and CAST AI does not need it, the resource is narrower here.
docs/permissions.md lists each difference, and what stays account-wide.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from lambdas.common.errors import PermanentError
from lambdas.common.names import CLUSTER_ID_TAG
from lambdas.onboarding import names
from lambdas.onboarding.policies.aws import aws_managed, ec2_services
from lambdas.onboarding.policies.document import (
    MANAGED_LIMIT,
    ROLE_INLINE_LIMIT,
    USER_INLINE_LIMIT,
    Document,
    Tags,
    allow,
    checked,
    document_of,
)
from lambdas.onboarding.policies.node_role import node_managed_policies
from lambdas.onboarding.policies.scope import Mode, Permissions, Scope


def cast_eks_policy(
    scope: Scope,
    permissions: Permissions,
    *,
    manage_spot_lambda: bool,
    boundary: str | None,
    account_wide: bool = False,
) -> Document:
    """The managed policy of CAST AI's identity.

    `manage_spot_lambda` lets CAST AI manage one spot function, which has a fixed name. The function
    runs as the role with `castai_function_policy`. It never runs as the role of our spot handler,
    which may have access to every cluster.
    `boundary` is the ARN of a permissions boundary. CAST AI may create roles only with it.
    With `account_wide` all clusters of the account share the document, so it names no cluster.

    Raises DocumentTooLargeError if the document is too large for a managed policy. Raises
    PermanentError for `account_wide` with strict: a shared policy cannot be bound to one cluster's
    tags.
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
        allow(
            "PassRoleEC2",
            ["iam:PassRole"],
            [where.node_role],
            {"StringEquals": {"iam:PassedToService": ec2_services(scope.partition)}},
        ),
        *(_node_role_statements(scope, where, boundary) if full else ()),
        _service_linked_role(scope, permissions),
        *(_security_group_statements(scope, where) if full else ()),
        *_key_pair_statements(scope, permissions),
        allow(
            "TagOnLaunching",
            ["ec2:CreateTags"],
            [scope.ec2("instance/*"), scope.ec2("volume/*"), scope.ec2("network-interface/*")],
            {"StringEquals": {"ec2:CreateAction": "RunInstances"}},
        ),
        *_run_instances_statements(scope, where),
        *(() if account_wide else _cluster_statements(scope)),
        *(_spot_lambda_statements(scope, where) if manage_spot_lambda else ()),
    ]
    return checked(document_of(statements), MANAGED_LIMIT, "CastEKSPolicy")


def restricted_access(
    scope: Scope,
    permissions: Permissions,
    *,
    mode: Mode = Mode.USER,
    account_wide: bool = False,
) -> Document:
    """The inline policy of CAST AI's identity: instances and network of the one cluster.

    The inline policies of a user may have 2,048 characters together. So the statements about the
    cluster's node groups and Auto Scaling groups are in the cluster's managed policy, and every
    cluster name of user mode fits here. With an account-wide managed policy these statements are
    here, and user mode then takes shorter cluster names only.

    Raises DocumentTooLargeError if the document is too large for an inline policy.
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
        allow(
            "RunInstancesTagRestriction",
            ["ec2:RunInstances"],
            [scope.ec2("instance/*")],
            {"StringEquals": launch},
        ),
        allow(
            "RunInstancesVpcRestriction",
            ["ec2:RunInstances"],
            [scope.ec2_of_any_account("subnet/*")],
            {"ArnEquals": {"ec2:Vpc": scope.vpc_arn}},
        ),
        allow(
            "InstanceActionsTagRestriction",
            ["ec2:TerminateInstances", "ec2:StartInstances", "ec2:StopInstances", "ec2:CreateTags"],
            [scope.ec2("instance/*")],
            {"StringEquals": instance},
        ),
        allow(
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
    return checked(document_of(statements), limit, names.INLINE_POLICY)


def _cluster_statements(scope: Scope) -> list[Document]:
    """Statements about the cluster's Auto Scaling groups (by tag) and node groups (by name)."""
    return [
        allow(
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
        allow(
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
    """The ARNs that differ between one cluster's policy and a policy that all clusters share."""

    node_role: str
    instance_profile: str
    castai_function_role: str
    vpc: str


def _here(scope: Scope) -> _Where:
    return _Where(
        scope.node_role_arn,
        scope.instance_profile_arn,
        scope.castai_function_role_arn,
        scope.vpc_arn,
    )


def _everywhere(scope: Scope) -> _Where:
    any_node_role = f"cast-*-eks-{names.UNKNOWN_ID}"
    return _Where(
        scope.iam(f"role{scope.path}{any_node_role}"),
        scope.iam(f"instance-profile{scope.path}{any_node_role}"),
        scope.iam(f"role{scope.path}{names.ANY_CASTAI_FUNCTION_ROLE}"),
        replace(scope, vpc_id="").vpc_arn,
    )


def _node_role_statements(scope: Scope, where: _Where, boundary: str | None) -> list[Document]:
    bounded = {"ArnEquals": {"iam:PermissionsBoundary": boundary}} if boundary else None
    allowed = list(node_managed_policies(scope.partition, ssm=True, ebs_csi=True))
    return [
        allow("CreateNodeRole", ["iam:CreateRole"], [where.node_role], bounded),
        allow("DeleteNodeRole", ["iam:DeleteRole"], [where.node_role]),
        allow(
            "NodeRolePolicies",
            ["iam:AttachRolePolicy", "iam:DetachRolePolicy"],
            [where.node_role],
            {"ArnEquals": {"iam:PolicyARN": allowed}},
        ),
        allow(
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
    # EC2 needs this role for spot instances. Its ARN names the service and the role.
    actions = ["iam:CreateServiceLinkedRole"]
    if permissions is Permissions.FULL:
        actions.append("iam:DeleteServiceLinkedRole")
    role = "role/aws-service-role/spot.amazonaws.com/AWSServiceRoleForEC2Spot"
    return allow("SpotServiceLinkedRole", actions, [scope.iam(role)])


def _security_group_statements(scope: Scope, where: _Where) -> list[Document]:
    return [
        allow(
            "CreateSecurityGroup",
            ["ec2:CreateSecurityGroup"],
            [scope.ec2("security-group/*"), where.vpc],
        ),
        allow(
            "TagSecurityGroups",
            ["ec2:CreateTags"],
            [scope.ec2("security-group/*")],
            {"StringEquals": {"ec2:CreateAction": "CreateSecurityGroup"}},
        ),
    ]


def _key_pair_statements(scope: Scope, permissions: Permissions) -> list[Document]:
    create, delete = ["ec2:CreateKeyPair", "ec2:ImportKeyPair"], ["ec2:DeleteKeyPair"]
    keys = [scope.ec2("key-pair/*")]
    tag = allow(
        "TagKeyPairs",
        ["ec2:CreateTags"],
        keys,
        {"StringEquals": {"ec2:CreateAction": ["CreateKeyPair", "ImportKeyPair"]}},
    )
    if permissions is not Permissions.STRICT:
        return [allow("KeyPairs", [*create, *delete], keys), tag]
    return [
        allow("CreateKeyPairs", create, keys, {"StringEquals": _own_tag("aws:RequestTag", scope)}),
        allow("DeleteKeyPairs", delete, keys, {"StringEquals": _own_tag("ec2:ResourceTag", scope)}),
        tag,
    ]


def _run_instances_statements(scope: Scope, where: _Where) -> list[Document]:
    """The resources of a launch, without instance and subnet, which the inline policy limits."""
    return [
        allow(
            "RunInstancesPermissions",
            ["ec2:RunInstances"],
            [
                scope.ec2("volume/*"),
                scope.ec2("key-pair/*"),
                f"arn:{scope.partition}:ec2:{scope.region}::image/*",
            ],
        ),
        allow(
            "RunInstancesNetwork",
            ["ec2:RunInstances"],
            [scope.ec2("network-interface/*"), scope.ec2_of_any_account("security-group/*")],
            # IfExists: an existing resource always has a VPC. An interface that the launch creates
            # is in the VPC of its subnet, which the inline policy limits.
            {"ArnLikeIfExists": {"ec2:Vpc": where.vpc}},
        ),
    ]


def _spot_lambda_statements(scope: Scope, where: _Where) -> list[Document]:
    return [
        allow(
            "PassRoleLambda",
            ["iam:PassRole"],
            [where.castai_function_role],
            {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}},
        ),
        allow(
            "SpotFunction",
            [
                "lambda:CreateFunction",
                "lambda:DeleteFunction",
                "lambda:UpdateFunctionCode",
                "lambda:AddPermission",
            ],
            [scope.regional("lambda", f"function:{names.SPOT_FUNCTION}")],
        ),
        allow(
            "SpotRule",
            ["events:PutRule", "events:DeleteRule", "events:PutTargets", "events:RemoveTargets"],
            [scope.regional("events", "rule/cast-*")],
        ),
    ]


def cross_account_trust(principal_arn: str, external_id: str) -> Document:
    """The trust policy of the cross-account role: CAST AI's principal for this one cluster.

    The external id is CAST AI's id of the cluster. With it, another customer of CAST AI cannot make
    CAST AI act in this account (the confused deputy problem).
    """
    return document_of(
        [
            {
                "Effect": "Allow",
                "Principal": {"AWS": principal_arn},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": external_id}},
            }
        ]
    )


def identity_managed_policies(partition: str, permissions: Permissions) -> tuple[str, ...]:
    """AWS's policies for CAST AI's identity. With strict, CAST AI cannot read IAM."""
    read_iam = () if permissions is Permissions.STRICT else ("IAMReadOnlyAccess",)
    return aws_managed(partition, ("AmazonEC2ReadOnlyAccess", *read_iam))


def _known(scope: Scope) -> None:
    """Raise ValueError unless both ids are known: these documents have no wildcard for an id."""
    if not (scope.cluster_id and scope.vpc_id):
        raise ValueError("CAST AI's id of the cluster and the VPC must be known for this document")


def _own_tag(prefix: str, scope: Scope) -> Tags:
    """The condition on the tag of CAST AI's own resources, with this cluster's id."""
    return {f"{prefix}/{CLUSTER_ID_TAG}": scope.cluster_id}
