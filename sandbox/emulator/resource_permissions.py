"""The permissions that CloudFormation needs for a resource of a template.

CloudFormation calls the service with its execution role. Listed are the types of our stacks and of
the bootstrap stack, with what a create, update and delete may need for the properties of the
template. A test compares the list with its source: the CloudFormation registry, "handlers" →
"permissions" in the schema of each type.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from authorization import Check

CREATE, UPDATE, DELETE = "create", "update", "delete"
_OWN = {  # CloudFormation calls no other service for them
    "AWS::CDK::Metadata",
    "AWS::CloudFormation::WaitCondition",
    "AWS::CloudFormation::WaitConditionHandle",
}


class UnknownTypeError(ValueError):
    """The permissions for a resource type are not listed here."""


@dataclasses.dataclass(frozen=True)
class Resource:
    """A resource of a template: its properties, and its physical id, or the start of a new one."""

    type: str
    properties: Mapping[str, Any]
    identifier: str
    region: str
    account: str

    def text(self, name: str) -> str:
        value = self.properties.get(name)
        return value if isinstance(value, str) else ""

    def arn(self, service: str, resource: str) -> str:
        region = "" if service in ("iam", "s3") else self.region
        account = "" if service == "s3" else self.account
        return f"arn:aws:{service}:{region}:{account}:{resource}"

    def named(self, service: str, kind: str, name: str) -> str:
        """Return the ARN. The name is a property, or the last part of the physical id."""
        own = self.text(name) or self.identifier.rpartition("/")[2].rpartition(":")[2]
        return self.arn(service, kind + own)

    def function(self) -> str:
        """Return the ARN of the function that the property FunctionName names."""
        name = self.text("FunctionName")
        return name if name.startswith("arn:") else self.arn("lambda", f"function:{name}")


@dataclasses.dataclass(frozen=True)
class _Kind:
    """The actions for each operation on a type."""

    arns: Callable[[Resource], list[str]]
    create: str = ""
    update: str = ""
    delete: str = ""
    where: Mapping[str, tuple[str, str, str]] = dataclasses.field(default_factory=dict)
    """By property: what create, update and delete need where the template has it."""
    more: Callable[[Resource, str], Iterator[Check]] = lambda _resource, _operation: iter(())
    """Checks on other resources or with condition keys, by operation."""

    def actions(self, operation: str, resource: Resource) -> list[str]:
        at = (CREATE, UPDATE, DELETE).index(operation)
        parts = [
            actions[at] for name, actions in self.where.items() if resource.properties.get(name)
        ]
        return " ".join([getattr(self, operation), *parts]).split()


def checks(operation: str, resource: Resource) -> list[Check]:
    """Return what is evaluated for an operation. Raises UnknownTypeError for a type not listed."""
    if resource.type in _OWN:
        return []
    kind = _CUSTOM if _is_custom(resource) else _KINDS.get(resource.type)
    if kind is None:
        raise UnknownTypeError(
            f"Add the permissions for {resource.type} to sandbox/emulator/resource_permissions.py"
        )
    tags = _tags(resource) if operation == CREATE else {}
    own = [
        Check(action, _listing(action, resource) or arn, tags)
        for action in kind.actions(operation, resource)
        for arn in kind.arns(resource)
    ]
    return [*kind.more(resource, operation), *own]


def _listing(action: str, resource: Resource) -> str:
    """Return the resource of a call that names none; empty for other calls."""
    if action not in _LISTINGS:
        return ""
    kind = _LISTINGS[action]
    return resource.arn(action.partition(":")[0], kind) if kind else "*"


def _is_custom(resource: Resource) -> bool:
    custom = "AWS::CloudFormation::CustomResource"
    return resource.type == custom or resource.type.startswith("Custom::")


def _tags(resource: Resource) -> dict[str, Any]:
    tags = resource.properties.get("Tags") or ()
    pairs = [(tag["Key"], tag["Value"]) for tag in tags if isinstance(tag, dict)]
    keys: dict[str, Any] = {f"aws:RequestTag/{key}": value for key, value in pairs}
    return {**keys, "aws:TagKeys": [key for key, _value in pairs]} if pairs else {}


def _tagging(tag: str, untag: str) -> dict[str, tuple[str, str, str]]:
    return {"Tags": (tag, f"{tag} {untag}", "")}


def _named(service: str, kind: str, name: str) -> Callable[[Resource], list[str]]:
    return lambda resource: [resource.named(service, kind, name)]


def _with_path(kind: str, name: str) -> Callable[[Resource], list[str]]:
    return lambda resource: [resource.named("iam", kind + (resource.text("Path") or "/"), name)]


_role = _with_path("role", "RoleName")


def _role_policies(resource: Resource, operation: str) -> Iterator[Check]:
    """Yield the checks with condition keys: a role's policies, its boundary and its creation."""
    put, attach = {
        CREATE: (("Put",), ("Attach",)),
        UPDATE: (("Put", "Delete"), ("Attach", "Detach")),
        DELETE: (("Delete",), ("Detach",)),
    }[operation]
    [arn] = _role(resource)
    boundary = resource.text("PermissionsBoundary")
    bounded = {"iam:PermissionsBoundary": boundary} if boundary else {}
    if operation == CREATE:
        yield Check("iam:CreateRole", arn, {**_tags(resource), **bounded})
    if operation == UPDATE and boundary:
        yield Check("iam:PutRolePermissionsBoundary", arn, bounded)
        yield Check("iam:DeleteRolePermissionsBoundary", arn, bounded)
    if resource.properties.get("Policies"):
        for verb in put:
            yield Check(f"iam:{verb}RolePolicy", arn, bounded)
    for policy in resource.properties.get("ManagedPolicyArns") or ():
        for verb in attach:
            yield Check(f"iam:{verb}RolePolicy", arn, {"iam:PolicyARN": policy, **bounded})


def _inline_policy(resource: Resource) -> list[str]:
    return [resource.arn("iam", f"role/{role}") for role in resource.properties.get("Roles") or ()]


def _passed(property_: str, service: str) -> Callable[[Resource, str], Iterator[Check]]:
    def more(resource: Resource, operation: str) -> Iterator[Check]:
        role = resource.text(property_)
        if role and operation != DELETE:
            yield Check("iam:PassRole", role, {"iam:PassedToService": service})

    return more


def _function_code(resource: Resource, operation: str) -> Iterator[Check]:
    yield from _passed("Role", "lambda.amazonaws.com")(resource, operation)
    code = resource.properties.get("Code") or {}
    if operation != DELETE and code.get("S3Bucket"):
        yield Check("s3:GetObject", resource.arn("s3", f"{code['S3Bucket']}/{code.get('S3Key')}"))


def _access_entry(resource: Resource) -> list[str]:
    kind, _, name = resource.text("PrincipalArn").rpartition(":")[2].partition("/")
    entry = f"{kind}/{resource.account}/{name.rpartition('/')[2]}/*"
    return [resource.arn("eks", f"access-entry/{resource.text('ClusterName')}/{entry}")]


def _new_access_entry(resource: Resource, operation: str) -> Iterator[Check]:
    if operation == CREATE:
        cluster = resource.arn("eks", f"cluster/{resource.text('ClusterName')}")
        yield Check("eks:CreateAccessEntry", cluster, _tags(resource))


def _topics(resource: Resource) -> list[str]:
    return [*(resource.properties.get("Topics") or ())]


def _topic_of_subscription(resource: Resource, operation: str) -> Iterator[Check]:
    if operation == CREATE:
        yield Check("sns:Subscribe", resource.text("TopicArn"))


def _queues(resource: Resource) -> list[str]:
    urls = resource.properties.get("Queues") or ()
    return [resource.arn("sqs", str(url).rpartition("/")[2]) for url in urls]


def _function(resource: Resource) -> list[str]:
    return [resource.function()]


_NETWORK = "ec2:DescribeSecurityGroups ec2:DescribeSubnets ec2:DescribeVpcs"
# Calls that name no resource are evaluated on all of them. CloudWatch and CloudWatch Logs have an
# ARN for that in their refusals.
_LISTINGS = {
    "cloudwatch:DescribeAlarms": "alarm:*",
    "logs:DescribeLogGroups": "log-group::log-stream:",
    **dict.fromkeys((*_NETWORK.split(), "ec2:DescribeNetworkInterfaces", "kms:CreateKey"), ""),
}
_CUSTOM = _Kind(lambda resource: [resource.text("ServiceToken")], *["lambda:InvokeFunction"] * 3)
_KINDS = {
    "AWS::CloudWatch::Alarm": _Kind(
        _named("cloudwatch", "alarm:", "AlarmName"),
        create="cloudwatch:PutMetricAlarm cloudwatch:DescribeAlarms cloudwatch:ListTagsForResource",
        update="cloudwatch:PutMetricAlarm cloudwatch:DescribeAlarms cloudwatch:ListTagsForResource",
        delete="cloudwatch:DeleteAlarms cloudwatch:DescribeAlarms",
        where=_tagging("cloudwatch:TagResource", "cloudwatch:UntagResource"),
    ),
    "AWS::ECR::Repository": _Kind(
        _named("ecr", "repository/", "RepositoryName"),
        create="ecr:CreateRepository",
        update="ecr:DescribeRepositories",
        delete="ecr:DeleteRepository",
        where={
            "ImageTagMutability": ("", "ecr:PutImageTagMutability", ""),
            "LifecyclePolicy": (
                "ecr:PutLifecyclePolicy",
                "ecr:PutLifecyclePolicy ecr:DeleteLifecyclePolicy",
                "",
            ),
            "RepositoryPolicyText": (
                "ecr:SetRepositoryPolicy",
                "ecr:SetRepositoryPolicy ecr:DeleteRepositoryPolicy",
                "",
            ),
            **_tagging("ecr:TagResource", "ecr:UntagResource"),
        },
    ),
    "AWS::EKS::AccessEntry": _Kind(
        _access_entry,
        create="eks:DescribeAccessEntry eks:ListAssociatedAccessPolicies",
        update="eks:DescribeAccessEntry eks:ListAssociatedAccessPolicies eks:UpdateAccessEntry",
        delete="eks:DeleteAccessEntry eks:DescribeAccessEntry",
        where={
            "AccessPolicies": (
                "eks:AssociateAccessPolicy",
                "eks:AssociateAccessPolicy eks:DisassociateAccessPolicy",
                "",
            ),
            **_tagging("eks:TagResource", "eks:UntagResource"),
        },
        more=_new_access_entry,
    ),
    "AWS::Events::Rule": _Kind(
        _named("events", "rule/", "Name"),
        create="events:DescribeRule events:PutRule events:PutTargets",
        update="events:DescribeRule events:PutRule events:PutTargets events:RemoveTargets",
        delete="events:DescribeRule events:ListTargetsByRule events:RemoveTargets"
        " events:DeleteRule",
        where=_tagging("events:TagResource", "events:UntagResource"),
    ),
    "AWS::IAM::ManagedPolicy": _Kind(
        _with_path("policy", "ManagedPolicyName"),
        create="iam:CreatePolicy",
        update="iam:GetPolicy iam:ListPolicyVersions iam:CreatePolicyVersion"
        " iam:DeletePolicyVersion",
        delete="iam:GetPolicy iam:ListEntitiesForPolicy iam:ListPolicyVersions"
        " iam:DeletePolicyVersion iam:DeletePolicy",
    ),
    "AWS::IAM::Policy": _Kind(
        _inline_policy,
        create="iam:GetRolePolicy iam:PutRolePolicy",
        update="iam:PutRolePolicy iam:DeleteRolePolicy",
        delete="iam:DeleteRolePolicy",
    ),
    "AWS::IAM::Role": _Kind(
        _role,
        create="iam:GetRole",
        update="iam:UpdateRole iam:UpdateAssumeRolePolicy",
        delete="iam:GetRole iam:ListAttachedRolePolicies iam:ListRolePolicies iam:DeleteRole",
        where={
            "Description": ("", "iam:UpdateRoleDescription", ""),
            "Policies": ("iam:GetRolePolicy", "", ""),
            **_tagging("iam:TagRole", "iam:UntagRole"),
        },
        more=_role_policies,
    ),
    "AWS::KMS::Alias": _Kind(
        _named("kms", "", "AliasName"),
        create="kms:CreateAlias",
        update="kms:UpdateAlias",
        delete="kms:DeleteAlias",
    ),
    "AWS::KMS::Key": _Kind(
        _named("kms", "key/", ""),
        create="kms:CreateKey kms:PutKeyPolicy",
        update="kms:DescribeKey kms:PutKeyPolicy kms:ListResourceTags",
        delete="kms:DescribeKey kms:ScheduleKeyDeletion",
    ),
    "AWS::Lambda::Alias": _Kind(
        _function,
        create="lambda:CreateAlias",
        update="lambda:UpdateAlias lambda:GetAlias",
        delete="lambda:DeleteAlias lambda:GetAlias",
    ),
    "AWS::Lambda::EventInvokeConfig": _Kind(
        _function,
        create="lambda:PutFunctionEventInvokeConfig",
        update="lambda:UpdateFunctionEventInvokeConfig",
        delete="lambda:DeleteFunctionEventInvokeConfig",
    ),
    "AWS::Lambda::Function": _Kind(
        _named("lambda", "function:", "FunctionName"),
        create="lambda:CreateFunction lambda:GetFunction",
        update="lambda:UpdateFunctionCode lambda:UpdateFunctionConfiguration lambda:GetFunction",
        delete="lambda:DeleteFunction lambda:GetFunction",
        where={
            "ReservedConcurrentExecutions": (
                "lambda:PutFunctionConcurrency",
                "lambda:PutFunctionConcurrency lambda:DeleteFunctionConcurrency",
                "",
            ),
            "VpcConfig": (_NETWORK, _NETWORK, "ec2:DescribeNetworkInterfaces"),
            **_tagging("lambda:TagResource", "lambda:UntagResource"),
        },
        more=_function_code,
    ),
    "AWS::Lambda::Permission": _Kind(
        _function,
        create="lambda:AddPermission",
        update="lambda:AddPermission lambda:RemovePermission",
        delete="lambda:RemovePermission",
    ),
    "AWS::Lambda::Version": _Kind(
        _function,
        create="lambda:PublishVersion lambda:GetFunctionConfiguration"
        " lambda:ListVersionsByFunction",
        update="lambda:GetFunctionConfiguration",
        delete="lambda:GetFunctionConfiguration lambda:DeleteFunction",
    ),
    "AWS::Logs::LogGroup": _Kind(
        _named("logs", "log-group:", "LogGroupName"),
        create="logs:DescribeLogGroups logs:CreateLogGroup",
        update="logs:DescribeLogGroups logs:ListTagsForResource",
        delete="logs:DescribeLogGroups logs:DeleteLogGroup",
        where={
            "RetentionInDays": (
                "logs:PutRetentionPolicy",
                "logs:PutRetentionPolicy logs:DeleteRetentionPolicy",
                "",
            ),
            **_tagging("logs:TagResource", "logs:UntagResource"),
        },
    ),
    "AWS::S3::Bucket": _Kind(
        _named("s3", "", "BucketName"),
        create="s3:CreateBucket s3:ListBucket",
        update="s3:ListBucket",
        delete="s3:DeleteBucket s3:ListBucket",
        where={
            "AccessControl": ("", "s3:PutBucketAcl", ""),
            "BucketEncryption": (*["s3:PutEncryptionConfiguration"] * 2, ""),
            "LifecycleConfiguration": (*["s3:PutLifecycleConfiguration"] * 2, ""),
            "PublicAccessBlockConfiguration": (*["s3:PutBucketPublicAccessBlock"] * 2, ""),
            "VersioningConfiguration": (*["s3:PutBucketVersioning"] * 2, ""),
            "Tags": (
                "s3:PutBucketTagging s3:TagResource",
                "s3:PutBucketTagging s3:TagResource s3:UntagResource",
                "",
            ),
        },
    ),
    "AWS::S3::BucketPolicy": _Kind(
        lambda resource: [resource.arn("s3", resource.text("Bucket"))],
        create="s3:GetBucketPolicy s3:PutBucketPolicy",
        update="s3:GetBucketPolicy s3:PutBucketPolicy",
        delete="s3:GetBucketPolicy s3:DeleteBucketPolicy",
    ),
    "AWS::SNS::Subscription": _Kind(
        lambda resource: [resource.identifier],
        update="sns:SetSubscriptionAttributes",
        delete="sns:GetSubscriptionAttributes sns:Unsubscribe",
        more=_topic_of_subscription,
    ),
    "AWS::SNS::Topic": _Kind(
        _named("sns", "", "TopicName"),
        create="sns:CreateTopic sns:GetTopicAttributes",
        update="sns:SetTopicAttributes sns:GetTopicAttributes sns:ListTagsForResource"
        " sns:ListSubscriptionsByTopic",
        delete="sns:GetTopicAttributes sns:DeleteTopic",
        where=_tagging("sns:TagResource", "sns:UntagResource"),
    ),
    "AWS::SNS::TopicPolicy": _Kind(_topics, *["sns:SetTopicAttributes"] * 3),
    "AWS::SQS::Queue": _Kind(
        _named("sqs", "", "QueueName"),
        create="sqs:CreateQueue sqs:GetQueueUrl sqs:GetQueueAttributes sqs:ListQueueTags",
        update="sqs:SetQueueAttributes sqs:GetQueueAttributes sqs:ListQueueTags",
        delete="sqs:GetQueueAttributes sqs:DeleteQueue",
        where=_tagging("sqs:TagQueue", "sqs:UntagQueue"),
    ),
    "AWS::SQS::QueuePolicy": _Kind(_queues, *["sqs:SetQueueAttributes"] * 3),
    "AWS::SSM::Parameter": _Kind(
        _named("ssm", "parameter", "Name"),
        create="ssm:PutParameter ssm:GetParameters",
        update="ssm:PutParameter ssm:GetParameters",
        delete="ssm:DeleteParameter",
        where=_tagging("ssm:AddTagsToResource", "ssm:RemoveTagsFromResource"),
    ),
    "AWS::StepFunctions::StateMachine": _Kind(
        _named("states", "stateMachine:", "StateMachineName"),
        create="states:CreateStateMachine states:DescribeStateMachine",
        update="states:UpdateStateMachine states:ListTagsForResource",
        delete="states:DeleteStateMachine states:DescribeStateMachine",
        where=_tagging("states:TagResource", "states:UntagResource"),
        more=_passed("RoleArn", "states.amazonaws.com"),
    ),
}
