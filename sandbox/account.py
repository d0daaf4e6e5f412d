"""Create what an account has before onboarding: IAM user, VPC, EKS cluster, instances."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from sandbox import wait
from sandbox.aws import Aws
from sandbox.external import NodeInstance
from sandbox.state import Administrator, Node

IMAGE = "ami-0123456789abcdef0"
EKS_VERSION = "1.36"
VPC = "10.0.0.0/16"
KIND = "m6i.xlarge"  # instance type, where no label says it
SUBNETS = (("a", "10.0.0.0/18"), ("b", "10.0.64.0/18"), ("c", "10.0.128.0/18"))
FREE_BLOCK = 192  # the first /24 that no subnet has


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
    tags = _tagged("vpc", _network_tags(cluster))
    vpc = aws.ec2.create_vpc(CidrBlock=VPC, **tags)["Vpc"]["VpcId"]
    return [_create_subnet(aws, cluster, vpc, block, aws.region + zone) for zone, block in SUBNETS]


def subnets(aws: Aws, cluster: str) -> list[str]:
    """Return the ids of the cluster's subnets in the order of SUBNETS."""
    return [_described(aws, cluster)[aws.region + zone] for zone, _block in SUBNETS]


def _described(aws: Aws, cluster: str) -> dict[str, str]:
    """Return the ids of the cluster's subnets by zone."""
    found = aws.ec2.describe_subnets(Filters=[{"Name": "tag:Name", "Values": [cluster]}])
    return {subnet["AvailabilityZone"]: subnet["SubnetId"] for subnet in found["Subnets"]}


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
        launched = aws.ec2.run_instances(
            **_request(cluster, machine.kind, zones[machine.zone], spot=machine.spot)
        )["Instances"][0]
        nodes.append(
            Node(
                instance=launched["InstanceId"],
                name=launched["PrivateDnsName"],
                zone=aws.region + machine.zone,
                spot=machine.spot,
            )
        )
    return nodes


def launch_as(aws: Aws, cluster: str, instances: Sequence[NodeInstance]) -> None:
    """Launch the instances that these nodes of another cluster name, unless they run already.

    The emulator takes the id from ClientToken: sandbox/emulator/external_cluster.py.
    """
    running = {
        instance["InstanceId"]
        for page in aws.ec2.get_paginator("describe_instances").paginate()
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
        if instance["State"]["Name"] == "running"
    }
    for each in instances:
        node = each.node
        if node.instance in running:
            continue
        request = _request(
            cluster, each.kind or KIND, _subnet(aws, cluster, node.zone), spot=node.spot
        )
        if each.address:
            request["PrivateIpAddress"] = each.address
        if node.name.startswith(node.instance):
            request["PrivateDnsNameOptions"] = {"HostnameType": "resource-name"}
        aws.ec2.run_instances(**request, ClientToken=node.instance)


def _request(cluster: str, kind: str, subnet: str, *, spot: bool) -> dict[str, Any]:
    tags = {
        f"kubernetes.io/cluster/{cluster}": "owned",
        "aws:eks:cluster-name": cluster,
        "eks:cluster-name": cluster,
        "Name": f"{cluster}-{'spot' if spot else 'on-demand'}",
    }
    request: dict[str, Any] = {
        "ImageId": IMAGE,
        "InstanceType": kind,
        "SubnetId": subnet,
        "MinCount": 1,
        "MaxCount": 1,
        **_tagged("instance", tags),
    }
    if spot:
        request["InstanceMarketOptions"] = {"MarketType": "spot"}
    return request


def _subnet(aws: Aws, cluster: str, zone: str) -> str:
    """Return the cluster's subnet in the zone, created if there is none."""
    known = _described(aws, cluster)
    if zone in known:
        return known[zone]
    vpc = aws.eks.describe_cluster(name=cluster)["cluster"]["resourcesVpcConfig"]["vpcId"]
    return _create_subnet(aws, cluster, vpc, f"10.0.{FREE_BLOCK + len(known)}.0/24", zone)


def _create_subnet(aws: Aws, cluster: str, vpc: str, block: str, zone: str) -> str:
    return aws.ec2.create_subnet(
        VpcId=vpc,
        CidrBlock=block,
        AvailabilityZone=zone,
        **_tagged("subnet", _network_tags(cluster)),
    )["Subnet"]["SubnetId"]


def _network_tags(cluster: str) -> dict[str, str]:
    return {f"kubernetes.io/cluster/{cluster}": "shared", "Name": cluster}


def _tagged(kind: str, tags: Mapping[str, str]) -> dict[str, Any]:
    pairs = [{"Key": key, "Value": value} for key, value in tags.items()]
    return {"TagSpecifications": [{"ResourceType": kind, "Tags": pairs}]}
