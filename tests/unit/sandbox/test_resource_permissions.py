"""The permissions that the emulator's CloudFormation needs for the resources of a template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from resource_permissions import CREATE, DELETE, UPDATE, Resource, UnknownTypeError, checks
from template_conditions import joined

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
    assert list(needed(DELETE, function)) == ["lambda:DeleteFunction"]


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
        "iam:TagRole",
        "iam:PutRolePolicy",
        "iam:AttachRolePolicy",
    }
    assert {check.resource for check in found.values()} == {f"arn:aws:iam::{ACCOUNT}:role/castai/r"}
    assert found["iam:CreateRole"].context["iam:PermissionsBoundary"] == "boundary"
    assert found["iam:CreateRole"].context["aws:RequestTag/team"] == "a"
    assert found["iam:AttachRolePolicy"].context["iam:PolicyARN"] == "view"
    assert set(needed(DELETE, role)) == {
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
    }


def test_a_resource_without_a_name_is_known_by_its_physical_id() -> None:
    queue = resource("AWS::SQS::Queue", "https://localhost/111122223333/stack-Queue-1a")
    assert needed(DELETE, queue) == {
        "sqs:DeleteQueue": f"arn:aws:sqs:eu-west-1:{ACCOUNT}:stack-Queue-1a"
    }


@pytest.mark.parametrize("kind", ["Custom::Thing", "AWS::CloudFormation::CustomResource"])
def test_a_custom_resource_invokes_its_function(kind: str) -> None:
    assert needed(UPDATE, resource(kind, ServiceToken="f")) == {"lambda:InvokeFunction": "f"}


def test_the_access_entrys_resource_is_the_cluster_until_it_exists() -> None:
    entry = resource("AWS::EKS::AccessEntry", ClusterName="prod", PrincipalArn=ROLE)
    prefix = f"arn:aws:eks:eu-west-1:{ACCOUNT}"
    assert needed(CREATE, entry)["eks:CreateAccessEntry"] == f"{prefix}:cluster/prod"
    assert needed(DELETE, entry) == {
        "eks:DeleteAccessEntry": f"{prefix}:access-entry/prod/role/{ACCOUNT}/r/*"
    }


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
