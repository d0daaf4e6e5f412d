"""Create what an account has before onboarding: IAM user, VPC, EKS cluster, instances."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sandbox import wait
from sandbox.aws import Aws
from sandbox.state import Administrator, Node

IMAGE = "ami-0123456789abcdef0"
EKS_VERSION = "1.36"
VPC = "10.0.0.0/16"
SUBNETS = (("a", "10.0.0.0/18"), ("b", "10.0.64.0/18"), ("c", "10.0.128.0/18"))


class Machine(msgspec.Struct, frozen=True):
    """An instance to be launched as a node."""

    kind: str
    """Instance type."""
    zone: str
    """Last letter of the availability zone: a, b or c."""
    spot: bool = False


def create_administrator(aws: Aws) -> Administrator:
    """Create the IAM user that deploys. It is not the root user: IAM policies do not limit root."""
    iam = aws.iam_as_root()
    iam.create_user(UserName="administrator")
    iam.attach_user_policy(
        UserName="administrator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
    )
    key = iam.create_access_key(UserName="administrator")["AccessKey"]
    return Administrator(key["AccessKeyId"], key["SecretAccessKey"])


def create_network(aws: Aws, cluster: str) -> list[str]:
    """Create a VPC with a subnet in each zone, tagged as EKS needs. Returns the subnet ids."""
    tags = {f"kubernetes.io/cluster/{cluster}": "shared", "Name": cluster}
    vpc = aws.ec2.create_vpc(CidrBlock=VPC, **_tagged("vpc", tags))["Vpc"]["VpcId"]
    return [
        aws.ec2.create_subnet(
            VpcId=vpc,
            CidrBlock=block,
            AvailabilityZone=aws.region + zone,
            **_tagged("subnet", tags),
        )["Subnet"]["SubnetId"]
        for zone, block in SUBNETS
    ]


def create_cluster(aws: Aws, name: str, subnets: Sequence[str]) -> None:
    """Create an EKS cluster that accepts access entries, and wait until it is active."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "eks.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
    role = aws.iam.create_role(RoleName=f"{name}-eks", AssumeRolePolicyDocument=json.dumps(trust))[
        "Role"
    ]["Arn"]
    aws.iam.attach_role_policy(
        RoleName=f"{name}-eks", PolicyArn="arn:aws:iam::aws:policy/AmazonEKSClusterPolicy"
    )
    aws.eks.create_cluster(
        name=name,
        version=EKS_VERSION,
        roleArn=role,
        resourcesVpcConfig={"subnetIds": list(subnets)},
        accessConfig={"authenticationMode": "API_AND_CONFIG_MAP"},
    )
    wait.until(
        lambda: aws.eks.describe_cluster(name=name)["cluster"]["status"] == "ACTIVE",
        f"EKS cluster {name} to become active",
        timeout=30,
    )


def launch(
    aws: Aws, cluster: str, subnets: Sequence[str], machines: Sequence[Machine]
) -> list[Node]:
    """Launch instances with the tags that EKS node groups and Karpenter set on theirs."""
    nodes = []
    zones = dict(zip((zone for zone, _block in SUBNETS), subnets, strict=True))
    for machine in machines:
        tags = {
            f"kubernetes.io/cluster/{cluster}": "owned",
            "aws:eks:cluster-name": cluster,
            "eks:cluster-name": cluster,
            "Name": f"{cluster}-{'spot' if machine.spot else 'on-demand'}",
        }
        request: dict[str, Any] = {
            "ImageId": IMAGE,
            "InstanceType": machine.kind,
            "SubnetId": zones[machine.zone],
            "MinCount": 1,
            "MaxCount": 1,
            **_tagged("instance", tags),
        }
        if machine.spot:
            request["InstanceMarketOptions"] = {"MarketType": "spot"}
        launched = aws.ec2.run_instances(**request)["Instances"][0]
        nodes.append(
            Node(
                instance=launched["InstanceId"],
                name=launched["PrivateDnsName"],
                zone=aws.region + machine.zone,
                spot=machine.spot,
            )
        )
    return nodes


def _tagged(kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": pairs}]}
