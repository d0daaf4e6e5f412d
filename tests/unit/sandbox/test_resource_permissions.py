"""The permissions that the emulator's CloudFormation needs for the resources of a template."""

from __future__ import annotations

import json
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import pytest
import resource_permissions
from resource_permissions import CREATE, DELETE, UPDATE, Resource, UnknownTypeError, checks
from template_conditions import joined

from tests.support.cloudformation_registry import permissions

SNAPSHOTS = Path(__file__).parents[2] / "infra" / "__snapshots__"
ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/r"


def resource(kind: str, identifier: str = "stack-Logical-0", **properties: Any) -> Resource:
    return Resource(kind, properties, identifier, "eu-west-1", ACCOUNT)


def needed(operation: str, of: Resource) -> dict[str, str]:
    """The resource of each action."""
    return {check.action: check.resource for check in checks(operation, of)}


def test_a_function_needs_its_code_and_the_right_to_pass_its_role() -> None:
    function = resource(
        "AWS::Lambda::Function", FunctionName="f", Role=ROLE, Code={"S3Bucket": "b", "S3Key": "k"}
    )
    created = needed(CREATE, function)
    assert created["lambda:CreateFunction"] == f"arn:aws:lambda:eu-west-1:{ACCOUNT}:function:f"
    assert created["iam:PassRole"] == ROLE
    assert created["s3:GetObject"] == "arn:aws:s3:::b/k"
    assert set(needed(DELETE, function)) == {"lambda:DeleteFunction", "lambda:GetFunction"}


def test_a_role_needs_the_right_to_each_policy_within_its_boundary() -> None:
    role = resource(
        "AWS::IAM::Role",
        RoleName="r",
        Path="/castai/",
        PermissionsBoundary="boundary",
        ManagedPolicyArns=["view"],
        Policies=[{}],
        Tags=[{"Key": "team", "Value": "a"}],
    )
    found = {check.action: check for check in checks(CREATE, role)}
    assert set(found) == {
        "iam:CreateRole",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:TagRole",
        "iam:PutRolePolicy",
        "iam:AttachRolePolicy",
    }
    assert {check.resource for check in found.values()} == {f"arn:aws:iam::{ACCOUNT}:role/castai/r"}
    assert found["iam:CreateRole"].context["iam:PermissionsBoundary"] == "boundary"
    assert found["iam:CreateRole"].context["aws:RequestTag/team"] == "a"
    assert found["iam:AttachRolePolicy"].context["iam:PolicyARN"] == "view"
    assert set(needed(DELETE, role)) == {
        "iam:GetRole",
        "iam:ListAttachedRolePolicies",
        "iam:ListRolePolicies",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
    }


def test_a_resource_without_a_name_is_known_by_its_physical_id() -> None:
    queue = resource("AWS::SQS::Queue", "https://localhost/111122223333/stack-Queue-1a")
    arn = f"arn:aws:sqs:eu-west-1:{ACCOUNT}:stack-Queue-1a"
    assert needed(DELETE, queue) == {"sqs:DeleteQueue": arn, "sqs:GetQueueAttributes": arn}


@pytest.mark.parametrize("kind", ["Custom::Thing", "AWS::CloudFormation::CustomResource"])
def test_a_custom_resource_invokes_its_function(kind: str) -> None:
    assert needed(UPDATE, resource(kind, ServiceToken="f")) == {"lambda:InvokeFunction": "f"}


def test_the_access_entrys_resource_is_the_cluster_until_it_exists() -> None:
    entry = resource("AWS::EKS::AccessEntry", ClusterName="prod", PrincipalArn=ROLE)
    prefix = f"arn:aws:eks:eu-west-1:{ACCOUNT}"
    assert needed(CREATE, entry)["eks:CreateAccessEntry"] == f"{prefix}:cluster/prod"
    arn = f"{prefix}:access-entry/prod/role/{ACCOUNT}/r/*"
    assert needed(DELETE, entry) == {"eks:DeleteAccessEntry": arn, "eks:DescribeAccessEntry": arn}


def test_calls_that_name_no_resource_are_evaluated_on_all() -> None:
    place = f"eu-west-1:{ACCOUNT}"
    alarm = needed(DELETE, resource("AWS::CloudWatch::Alarm", AlarmName="a"))
    assert alarm["cloudwatch:DescribeAlarms"] == f"arn:aws:cloudwatch:{place}:alarm:*"
    group = needed(DELETE, resource("AWS::Logs::LogGroup", LogGroupName="g"))
    assert group["logs:DescribeLogGroups"] == f"arn:aws:logs:{place}:log-group::log-stream:"
    function = resource("AWS::Lambda::Function", FunctionName="f", VpcConfig={"SubnetIds": ["s"]})
    assert needed(DELETE, function)["ec2:DescribeNetworkInterfaces"] == "*"


# A resource of any type with each property that asks for permissions of its own.
PROPERTIES: dict[str, Any] = {
    "AccessControl": "LogDeliveryWrite",
    "AccessPolicies": [{}],
    "BucketEncryption": {"x": 1},
    "Code": {"S3Bucket": "b", "S3Key": "k"},
    "Description": "d",
    "ImageTagMutability": "IMMUTABLE",
    "LifecycleConfiguration": {"x": 1},
    "LifecyclePolicy": {"x": 1},
    "ManagedPolicyArns": ["view"],
    "PermissionsBoundary": "boundary",
    "Policies": [{}],
    "PublicAccessBlockConfiguration": {"x": 1},
    "Queues": ["https://localhost/111122223333/q"],
    "RepositoryPolicyText": {"x": 1},
    "ReservedConcurrentExecutions": 2,
    "RetentionInDays": 7,
    "Role": ROLE,
    "RoleArn": ROLE,
    "Roles": ["r"],
    "Tags": [{"Key": "team", "Value": "a"}],
    "Topics": ["t"],
    "VersioningConfiguration": {"x": 1},
    "VpcConfig": {"x": 1},
}
# By type: what its handlers need for properties and values that no template here has. AWS may ask
# for some reads of a function without the property.
ELSE = {
    "AWS::ECR::Repository": "kms:* PutImageScanningConfiguration",
    "AWS::Events::Rule": "iam:PassRole",  # for targets other than functions
    "AWS::IAM::ManagedPolicy": "Attach*Policy Detach*Policy",
    "AWS::IAM::Policy": "*UserPolicy *GroupPolicy",
    "AWS::KMS::Key": "EnableKey DisableKey *KeyRotation UpdateKeyDescription *TagResource"
    " UntagResource",
    "AWS::Lambda::Alias": "*ProvisionedConcurrencyConfig codedeploy:*",
    "AWS::Lambda::Function": "GetObjectVersion elasticfilesystem:* s3files:* kms:*"
    " *CodeSigningConfig GetLayerVersion *RuntimeManagementConfig *RecursionConfig"
    " *ScalingConfig PassCapacityProvider AssociateRuntimeAlias PublishVersion",
    "AWS::Lambda::Version": "*ProvisionedConcurrencyConfig *RuntimeManagementConfig *ScalingConfig",
    "AWS::Logs::LogGroup": "*DataProtectionPolicy CreateLogDelivery s3:* firehose:*"
    " *ResourcePolicy DescribeResourcePolicies *IndexPolicy DescribeIndexPolicies *KmsKey"
    " PutLogGroupDeletionProtection PutBearerTokenAuthentication",
    "AWS::S3::Bucket": "*Abac *Accelerate* *Analytics* *CORS *Cors *Inventory* *Logging *Metadata*"
    " *Metrics* *Notification *ObjectLock* *OwnershipControls *Replication* *Tiering* *Website"
    " PutObjectAcl GetBucketAcl DeleteObject iam:* s3tables:*"
    # no actions of IAM: a removal needs the right to put
    " DeleteBucketEncryption DeleteBucketLifecycle",
    "AWS::SNS::Subscription": "iam:*",
    "AWS::SNS::Topic": "iam:* Subscribe Unsubscribe *DataProtectionPolicy",
    "AWS::StepFunctions::StateMachine": "kms:* s3:*",
}
# Handlers that name the right to tag where no tag changes.
NO_TAGS = {
    ("AWS::IAM::Role", CREATE): {"iam:UntagRole"},
    ("AWS::IAM::Role", DELETE): {"iam:TagRole", "iam:UntagRole"},
}


def declared(kind: str, operation: str) -> set[str]:
    """What the registry's schema says for our properties.

    A type whose schema has no handler for updates is replaced.
    """
    of = permissions(kind)
    found = of[operation] if operation in of else of[CREATE] | of[DELETE]
    others = [other if ":" in other else f"*:{other}" for other in ELSE.get(kind, "").split()]
    return {
        action
        for action in found - NO_TAGS.get((kind, operation), set())
        if not any(fnmatchcase(action, other) for other in others)
    }


@pytest.mark.parametrize("operation", [CREATE, UPDATE, DELETE])
@pytest.mark.parametrize("kind", sorted(resource_permissions._KINDS))
def test_the_permissions_are_those_of_the_registrys_schema(kind: str, operation: str) -> None:
    assert set(needed(operation, resource(kind, **PROPERTIES))) == declared(kind, operation)


@pytest.mark.parametrize("kind", ["AWS::Other::Thing", "AWS::CloudFormation::Stack"])
def test_a_type_that_is_not_listed_is_refused(kind: str) -> None:
    with pytest.raises(UnknownTypeError, match=f"Add the permissions for {kind}"):
        checks(CREATE, resource(kind))


@pytest.mark.parametrize("operation", [CREATE, UPDATE, DELETE])
def test_every_type_of_our_stacks_is_listed(operation: str) -> None:
    templates = [json.loads(path.read_text()) for path in SNAPSHOTS.rglob("*.json")]
    found = [each for template in templates for each in template["Resources"].values()]
    assert found
    for each in found:
        checks(operation, resource(each["Type"], **each.get("Properties", {})))


@pytest.mark.parametrize(("policies", "text"), [("", ""), ("a,b", "ab")])
def test_a_condition_joins_the_list_of_a_parameter(policies: str, text: str) -> None:
    """As in the bootstrap template, which asks for its execution policies in this way."""
    condition = {"Fn::Not": [{"Fn::Equals": ["", {"Fn::Join": ["", {"Ref": "Policies"}]}]}]}
    found = joined(condition, {"Policies": {"Value": policies}})
    assert found == {"Fn::Not": [{"Fn::Equals": ["", text]}]}
