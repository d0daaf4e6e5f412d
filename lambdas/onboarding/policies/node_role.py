"""What the nodes that CAST AI launches may do."""

from __future__ import annotations

from typing import Final

from lambdas.onboarding.policies.aws import aws_managed, service_trust
from lambdas.onboarding.policies.document import Document, allow, document_of

NODE_ACCESS_GROUPS: Final = ("system:bootstrappers", "system:nodes")


def node_ipv6_policy(partition: str, region: str, account: str) -> Document:
    """The inline policy of the node role in an IPv6 cluster: the VPC CNI assigns addresses to pods.

    AWS has no managed policy for it:
    https://docs.aws.amazon.com/eks/latest/userguide/cni-iam-role.html
    """
    interfaces = f"arn:{partition}:ec2:{region}:{account}:network-interface/*"
    return document_of(
        [
            allow("AssignAddresses", ["ec2:AssignIpv6Addresses"], [interfaces]),
            allow(
                "FindInterfaces",
                [
                    "ec2:DescribeInstances",
                    "ec2:DescribeInstanceTypes",
                    "ec2:DescribeNetworkInterfaces",
                    "ec2:DescribeTags",
                ],
                ["*"],  # these actions take no resource
            ),
            allow("TagInterfaces", ["ec2:CreateTags"], [interfaces]),
        ]
    )


def node_trust(partition: str) -> Document:
    """The trust policy with which EC2 may give the node role to an instance."""
    china = partition == "aws-cn"
    return service_trust("ec2.amazonaws.com.cn" if china else "ec2.amazonaws.com")


def node_managed_policies(partition: str, *, ssm: bool, ebs_csi: bool) -> tuple[str, ...]:
    """AWS's policies for the node role; on request those of Session Manager and the EBS driver."""
    return aws_managed(
        partition,
        (
            "AmazonEKSWorkerNodePolicy",
            "AmazonEC2ContainerRegistryReadOnly",
            "AmazonEKS_CNI_Policy",
            *(("AmazonSSMManagedInstanceCore",) if ssm else ()),
            *(("service-role/AmazonEBSCSIDriverPolicy",) if ebs_csi else ()),
        ),
    )
