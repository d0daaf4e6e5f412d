"""The permissions that CloudFormation needs for a resource of a template.

CloudFormation calls the service with its execution role. Listed are the types of our stacks and of
the bootstrap stack, with the calls that change something or read what a change needs.
Source: CloudFormation registry, "handlers" → "permissions" in the schema of each type.
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
    """The actions on a type's resource for each operation."""

    arns: Callable[[Resource], list[str]]
    create: str
    update: str
    delete: str
    more: Callable[[Resource, str], Iterator[Check]] = lambda _resource, _operation: iter(())
    """Checks on other resources or with condition keys, by operation."""


def checks(operation: str, resource: Resource) -> list[Check]:
    """Return what is evaluated for an operation. Raises UnknownTypeError for a type not listed."""
    if resource.type in _OWN:
        return []
    kind = _CUSTOM if _is_custom(resource) else _KINDS.get(resource.type)
    if kind is None:
        raise UnknownTypeError(
            f"Add the permissions for {resource.type} to sandbox/emulator/resource_permissions.py"
        )
    tags = _tags(resource.properties.get("Tags")) if operation == CREATE else {}
    own = [
        Check(action, arn, tags)
        for action in getattr(kind, operation).split()
        for arn in kind.arns(resource)
    ]
    return [*own, *kind.more(resource, operation)]


def _is_custom(resource: Resource) -> bool:
    custom = "AWS::CloudFormation::CustomResource"
    return resource.type == custom or resource.type.startswith("Custom::")


def _tags(tags: Any) -> dict[str, Any]:
    pairs = [(tag["Key"], tag["Value"]) for tag in tags or () if isinstance(tag, dict)]
    keys: dict[str, Any] = {f"aws:RequestTag/{key}": value for key, value in pairs}
    return {**keys, "aws:TagKeys": [key for key, _value in pairs]} if pairs else {}


def _named(service: str, kind: str, name: str) -> Callable[[Resource], list[str]]:
    return lambda resource: [resource.named(service, kind, name)]


def _role(resource: Resource) -> list[str]:
    return [resource.named("iam", "role" + (resource.text("Path") or "/"), "RoleName")]


def _role_policies(resource: Resource, operation: str) -> Iterator[Check]:
    """Yield the checks of a role's policies and of its boundary."""
    verb, verbs = ("Delete", "Detach") if operation == DELETE else ("Put", "Attach")
    [arn] = _role(resource)
    boundary = resource.text("PermissionsBoundary")
    bounded = {"iam:PermissionsBoundary": boundary} if boundary else {}
    if operation == CREATE:
        tags = _tags(resource.properties.get("Tags"))
        yield Check("iam:CreateRole", arn, {**tags, **bounded})
        if tags:
            yield Check("iam:TagRole", arn, tags)
    if resource.properties.get("Policies"):
        yield Check(f"iam:{verb}RolePolicy", arn, bounded)
    for policy in resource.properties.get("ManagedPolicyArns") or ():
        yield Check(f"iam:{verbs}RolePolicy", arn, {"iam:PolicyARN": policy, **bounded})


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


def _retention(resource: Resource, operation: str) -> Iterator[Check]:
    if operation == CREATE and resource.properties.get("RetentionInDays"):
        [arn] = _LOG_GROUP(resource)
        yield Check("logs:PutRetentionPolicy", arn)


def _access_entry(resource: Resource) -> list[str]:
    kind, _, name = resource.text("PrincipalArn").rpartition(":")[2].partition("/")
    entry = f"{kind}/{resource.account}/{name.rpartition('/')[2]}/*"
    return [resource.arn("eks", f"access-entry/{resource.text('ClusterName')}/{entry}")]


def _new_access_entry(resource: Resource, operation: str) -> Iterator[Check]:
    if operation == CREATE:
        cluster = resource.arn("eks", f"cluster/{resource.text('ClusterName')}")
        yield Check("eks:CreateAccessEntry", cluster, _tags(resource.properties.get("Tags")))
    if operation != DELETE and resource.properties.get("AccessPolicies"):
        yield Check("eks:AssociateAccessPolicy", _access_entry(resource)[0])


def _topics(resource: Resource) -> list[str]:
    return [*(resource.properties.get("Topics") or ())]


def _topic_of_subscription(resource: Resource, operation: str) -> Iterator[Check]:
    if operation != DELETE:
        yield Check("sns:Subscribe", resource.text("TopicArn"))


def _queues(resource: Resource) -> list[str]:
    urls = resource.properties.get("Queues") or ()
    return [resource.arn("sqs", str(url).rpartition("/")[2]) for url in urls]


def _token(resource: Resource) -> list[str]:
    return [resource.text("ServiceToken")]


_LOG_GROUP = _named("logs", "log-group:", "LogGroupName")
_CUSTOM = _Kind(_token, *["lambda:InvokeFunction"] * 3)
_KINDS = {
    "AWS::CloudWatch::Alarm": _Kind(
        _named("cloudwatch", "alarm:", "AlarmName"),
        create="cloudwatch:PutMetricAlarm",
        update="cloudwatch:PutMetricAlarm",
        delete="cloudwatch:DeleteAlarms",
    ),
    "AWS::ECR::Repository": _Kind(
        _named("ecr", "repository/", "RepositoryName"),
        create="ecr:CreateRepository",
        update="ecr:PutLifecyclePolicy",
        delete="ecr:DeleteRepository",
    ),
    "AWS::EKS::AccessEntry": _Kind(
        _access_entry,
        create="eks:DescribeAccessEntry",
        update="eks:UpdateAccessEntry",
        delete="eks:DeleteAccessEntry",
        more=_new_access_entry,
    ),
    "AWS::Events::Rule": _Kind(
        _named("events", "rule/", "Name"),
        create="events:PutRule events:PutTargets events:DescribeRule",
        update="events:PutRule events:PutTargets events:RemoveTargets",
        delete="events:RemoveTargets events:DeleteRule",
    ),
    "AWS::IAM::ManagedPolicy": _Kind(
        _named("iam", "policy/", "ManagedPolicyName"),
        create="iam:CreatePolicy",
        update="iam:CreatePolicyVersion iam:ListPolicyVersions",
        delete="iam:DeletePolicy iam:ListPolicyVersions",
    ),
    "AWS::IAM::Policy": _Kind(
        _inline_policy,
        create="iam:PutRolePolicy",
        update="iam:PutRolePolicy",
        delete="iam:DeleteRolePolicy",
    ),
    "AWS::IAM::Role": _Kind(
        _role,
        create="",
        update="iam:UpdateRole",
        delete="iam:DeleteRole",
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
        create="kms:CreateKey",
        update="kms:PutKeyPolicy",
        delete="kms:ScheduleKeyDeletion",
    ),
    "AWS::Lambda::Alias": _Kind(
        lambda resource: [resource.function()],
        create="lambda:CreateAlias",
        update="lambda:UpdateAlias",
        delete="lambda:DeleteAlias",
    ),
    "AWS::Lambda::EventInvokeConfig": _Kind(
        lambda resource: [resource.function()],
        create="lambda:PutFunctionEventInvokeConfig",
        update="lambda:UpdateFunctionEventInvokeConfig",
        delete="lambda:DeleteFunctionEventInvokeConfig",
    ),
    "AWS::Lambda::Function": _Kind(
        _named("lambda", "function:", "FunctionName"),
        create="lambda:CreateFunction lambda:GetFunction",
        update="lambda:UpdateFunctionCode lambda:UpdateFunctionConfiguration lambda:GetFunction",
        delete="lambda:DeleteFunction",
        more=_function_code,
    ),
    "AWS::Lambda::Permission": _Kind(
        lambda resource: [resource.function()],
        create="lambda:AddPermission",
        update="lambda:AddPermission lambda:RemovePermission",
        delete="lambda:RemovePermission",
    ),
    "AWS::Lambda::Version": _Kind(
        lambda resource: [resource.function()],
        create="lambda:PublishVersion",
        update="lambda:PublishVersion",
        delete="lambda:DeleteFunction",
    ),
    "AWS::Logs::LogGroup": _Kind(
        _LOG_GROUP,
        create="logs:CreateLogGroup",
        update="logs:PutRetentionPolicy",
        delete="logs:DeleteLogGroup",
        more=_retention,
    ),
    "AWS::S3::Bucket": _Kind(
        _named("s3", "", "BucketName"),
        create="s3:CreateBucket s3:PutEncryptionConfiguration s3:PutBucketPublicAccessBlock",
        update="s3:PutEncryptionConfiguration s3:PutBucketPublicAccessBlock",
        delete="s3:DeleteBucket",
    ),
    "AWS::S3::BucketPolicy": _Kind(
        lambda resource: [resource.arn("s3", resource.text("Bucket"))],
        create="s3:PutBucketPolicy",
        update="s3:PutBucketPolicy",
        delete="s3:DeleteBucketPolicy",
    ),
    "AWS::SNS::Subscription": _Kind(
        lambda _resource: ["*"],
        create="",
        update="",
        delete="sns:Unsubscribe",
        more=_topic_of_subscription,
    ),
    "AWS::SNS::Topic": _Kind(
        _named("sns", "", "TopicName"),
        create="sns:CreateTopic",
        update="sns:SetTopicAttributes",
        delete="sns:DeleteTopic",
    ),
    "AWS::SNS::TopicPolicy": _Kind(_topics, *["sns:SetTopicAttributes"] * 3),
    "AWS::SQS::Queue": _Kind(
        _named("sqs", "", "QueueName"),
        create="sqs:CreateQueue sqs:GetQueueAttributes",
        update="sqs:SetQueueAttributes sqs:GetQueueAttributes",
        delete="sqs:DeleteQueue",
    ),
    "AWS::SQS::QueuePolicy": _Kind(_queues, *["sqs:SetQueueAttributes"] * 3),
    "AWS::SSM::Parameter": _Kind(
        _named("ssm", "parameter", "Name"),
        create="ssm:PutParameter",
        update="ssm:PutParameter",
        delete="ssm:DeleteParameter",
    ),
    "AWS::StepFunctions::StateMachine": _Kind(
        _named("states", "stateMachine:", "StateMachineName"),
        create="states:CreateStateMachine",
        update="states:UpdateStateMachine",
        delete="states:DeleteStateMachine",
        more=_passed("RoleArn", "states.amazonaws.com"),
    ),
}
