"""What the emulator lets IAM evaluate for a request to EC2, and what CAST AI may do of it.

The resources and keys are those of the service authorization reference.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from ec2_requests import Ec2Request, Inventory

from lambdas.common.names import CLUSTER_ID_TAG
from lambdas.onboarding.policies import castai_identity
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import Permissions, Scope
from tests.support.iam_evaluator import Request, is_allowed

REGION, ACCOUNT, OWNER = "eu-west-1", "111122223333", "222233334444"
ID = "aaaaaaaa-0000-4000-8000-000000000001"
SCOPE = Scope("aws", REGION, ACCOUNT, "prod", ID, "vpc-1")
TAGS = {SCOPE.cluster_tag: "owned", CLUSTER_ID_TAG: ID}
PREFIX = f"arn:aws:ec2:{REGION}:{ACCOUNT}:"
INVENTORY = Inventory(
    tags={"sg-1": [{"Key": "team", "Value": "a"}], "i-1": [{"Key": "team", "Value": "a"}]},
    vpcs={"vpc-1": {"OwnerId": ACCOUNT}, "vpc-2": {"OwnerId": ACCOUNT}},
    subnets={
        "subnet-1": {"VpcId": "vpc-1", "OwnerId": ACCOUNT, "AvailabilityZone": "eu-west-1a"},
        "subnet-2": {"VpcId": "vpc-2", "OwnerId": ACCOUNT, "AvailabilityZone": "eu-west-1a"},
    },
    groups={
        "sg-1": {"VpcId": "vpc-1", "GroupName": "nodes"},
        "sg-2": {"VpcId": "vpc-2", "GroupName": "default"},
    },
    interfaces={"eni-1": {"VpcId": "vpc-1"}},
    key_pairs={},
    default_subnet="subnet-2",
)
SHARED = replace(
    INVENTORY,
    vpcs={"vpc-1": {"OwnerId": OWNER}},
    subnets={"subnet-1": {"VpcId": "vpc-1", "OwnerId": OWNER, "AvailabilityZone": "eu-west-1a"}},
)


def tagged(number: int, kind: str, tags: dict[str, str]) -> dict[str, str]:
    pairs = {
        f"TagSpecification.{number}.Tag.{position}.{field}": text
        for position, (key, value) in enumerate(tags.items(), 1)
        for field, text in (("Key", key), ("Value", value))
    }
    return {f"TagSpecification.{number}.ResourceType": kind, **pairs} if pairs else {}


def launch(tags: dict[str, str] = TAGS, **changes: str) -> dict[str, str]:
    """The launch of a node as CAST AI does it."""
    return {
        "Action": "RunInstances",
        "ImageId": "ami-1",
        "InstanceType": "m6i.large",
        "KeyName": "k",
        "SubnetId": "subnet-1",
        "SecurityGroupId.1": "sg-1",
        **tagged(1, "instance", tags),
        **tagged(2, "volume", tags),
        **changes,
    }


def evaluated(params: dict[str, str], inventory: Inventory = INVENTORY) -> list[tuple[str, str]]:
    return [
        (check.action, check.resource)
        for check in Ec2Request(params, inventory, REGION, ACCOUNT).checks()
    ]


def test_every_resource_of_a_launch_is_evaluated_and_the_tags_of_new_ones() -> None:
    assert evaluated(launch()) == [
        ("ec2:RunInstances", f"{PREFIX}instance/*"),
        ("ec2:RunInstances", f"arn:aws:ec2:{REGION}::image/ami-1"),
        ("ec2:RunInstances", f"{PREFIX}subnet/subnet-1"),
        ("ec2:RunInstances", f"{PREFIX}network-interface/*"),
        ("ec2:RunInstances", f"{PREFIX}security-group/sg-1"),
        ("ec2:RunInstances", f"{PREFIX}volume/*"),
        ("ec2:RunInstances", f"{PREFIX}key-pair/k"),
        ("ec2:CreateTags", f"{PREFIX}instance/*"),
        ("ec2:CreateTags", f"{PREFIX}volume/*"),
    ]


@pytest.mark.parametrize(
    ("name", "value", "resource"),
    [
        ("LaunchTemplate.LaunchTemplateId", "lt-1", f"{PREFIX}launch-template/lt-1"),
        ("Placement.GroupName", "g", f"{PREFIX}placement-group/g"),
        (
            "BlockDeviceMapping.1.Ebs.SnapshotId",
            "snap-1",
            f"arn:aws:ec2:{REGION}::snapshot/snap-1",
        ),
        ("NetworkInterface.1.NetworkInterfaceId", "eni-1", f"{PREFIX}network-interface/eni-1"),
        ("NetworkInterface.1.SecurityGroupId.1", "sg-2", f"{PREFIX}security-group/sg-2"),
    ],
)
def test_what_a_launch_names_besides_is_evaluated(name: str, value: str, resource: str) -> None:
    assert ("ec2:RunInstances", resource) in evaluated(launch(**{name: value}))


def test_a_launch_without_network_is_one_in_the_default_subnet_and_group() -> None:
    resources = [resource for _action, resource in evaluated({"Action": "RunInstances"})]
    assert f"{PREFIX}subnet/subnet-2" in resources
    assert f"{PREFIX}security-group/sg-2" in resources


def test_a_shared_vpc_and_its_subnets_have_the_owners_account() -> None:
    resources = [resource for _action, resource in evaluated(launch(), SHARED)]
    assert f"arn:aws:ec2:{REGION}:{OWNER}:subnet/subnet-1" in resources
    assert f"{PREFIX}security-group/sg-1" in resources
    group = {"Action": "CreateSecurityGroup", "GroupName": "g", "VpcId": "vpc-1"}
    [new, vpc] = Ec2Request(group, SHARED, REGION, ACCOUNT).checks()
    assert vpc.resource == f"arn:aws:ec2:{REGION}:{OWNER}:vpc/vpc-1"
    assert new.context == {"ec2:Vpc": vpc.resource}


def test_each_named_resource_is_evaluated_with_its_own_tags() -> None:
    both = {"Action": "TerminateInstances", "InstanceId.1": "i-1", "InstanceId.2": "i-2"}
    [ours, theirs] = Ec2Request(both, INVENTORY, REGION, ACCOUNT).checks()
    assert ours.context == {"ec2:ResourceTag/team": "a", "aws:ResourceTag/team": "a"}
    assert (theirs.resource, theirs.context) == (f"{PREFIX}instance/i-2", {})


def test_a_description_takes_no_resource() -> None:
    one = {"Action": "DescribeInstances", "InstanceId.1": "i-1"}
    assert evaluated(one) == [("ec2:DescribeInstances", "*")]


def documents(permissions: Permissions = Permissions.FULL) -> list[Document]:
    """The two policies that the onboarding gives to CAST AI's identity."""
    return [
        castai_identity.cast_eks_policy(
            SCOPE, permissions, manage_spot_lambda=False, boundary=None
        ),
        castai_identity.restricted_access(SCOPE, permissions),
    ]


def denied(
    params: dict[str, str],
    inventory: Inventory = INVENTORY,
    permissions: Permissions = Permissions.FULL,
) -> list[str]:
    """The action and the resource's kind of each evaluation that CAST AI's policies deny."""
    return [
        f"{check.action} {check.resource.rpartition(':')[2]}"
        for check in Ec2Request(params, inventory, REGION, ACCOUNT).checks()
        if not is_allowed(
            documents(permissions), Request(check.action, check.resource, check.context)
        )
    ]


@pytest.mark.parametrize("permissions", Permissions)
@pytest.mark.parametrize("inventory", [INVENTORY, SHARED])
def test_castai_launches_nodes_with_the_tags_in_the_clusters_vpc(
    inventory: Inventory, permissions: Permissions
) -> None:
    assert denied(launch(), inventory, permissions) == []


@pytest.mark.parametrize(
    ("request_", "refused"),
    [
        (launch({}), ["ec2:RunInstances instance/*"]),
        (launch({"team": "a"}), ["ec2:RunInstances instance/*"]),
        (
            launch(SubnetId="subnet-2"),
            ["ec2:RunInstances subnet/subnet-2", "ec2:RunInstances network-interface/*"],
        ),
        (launch(**{"SecurityGroupId.1": "sg-2"}), ["ec2:RunInstances security-group/sg-2"]),
        (
            launch(**{"LaunchTemplate.LaunchTemplateId": "lt-1"}),
            ["ec2:RunInstances launch-template/lt-1"],
        ),
        (
            launch(
                **tagged(3, "network-interface", TAGS), **tagged(4, "spot-instances-request", TAGS)
            ),
            [
                "ec2:RunInstances spot-instances-request/*",
                "ec2:CreateTags spot-instances-request/*",
            ],
        ),
        (
            {"Action": "CreateTags", "ResourceId.1": "sg-1", "Tag.1.Key": "team"},
            ["ec2:CreateTags security-group/sg-1"],
        ),
        (
            {"Action": "TerminateInstances", "InstanceId.1": "i-1"},
            ["ec2:TerminateInstances instance/i-1"],
        ),
        (
            {
                "Action": "CreateSecurityGroup",
                "VpcId": "vpc-2",
                **tagged(1, "security-group", TAGS),
            },
            ["ec2:CreateSecurityGroup vpc/vpc-2"],
        ),
    ],
)
def test_castai_does_nothing_without_the_tags_or_elsewhere(
    request_: dict[str, str], refused: list[str]
) -> None:
    assert denied(request_) == refused


def test_castai_creates_a_tagged_security_group_in_the_clusters_vpc() -> None:
    group = {
        "Action": "CreateSecurityGroup",
        "VpcId": "vpc-1",
        **tagged(1, "security-group", TAGS),
    }
    assert denied(group) == []
    assert denied(group, SHARED) == []
