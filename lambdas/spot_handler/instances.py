"""An instance as EC2 describes it, and the cluster that its tags name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lambdas.common import aws
from lambdas.common.errors import AwsRefusedError

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client


# EKS's own tags first, the last of them Auto Mode's: they name the cluster. The ownership tag is a
# family of tags: its key names the cluster.
NAME_TAGS = ("aws:eks:cluster-name", "eks:cluster-name", "eks:eks-cluster-name")
OWNERSHIP_TAG = "kubernetes.io/cluster/"
OWNERSHIP = ("owned", "shared")
GONE = frozenset({"shutting-down", "terminated", "stopping", "stopped"})


@dataclass(frozen=True)
class Instance:
    """An instance as EC2 describes it. `dns_name` may be empty even while it runs."""

    id: str
    state: str
    dns_name: str
    tags: Mapping[str, str]

    @property
    def gone(self) -> bool:
        return self.state in GONE

    @property
    def cluster(self) -> str:
        """The name of the cluster that the instance belongs to; empty where no tag names one."""
        for key in NAME_TAGS:
            if self.tags.get(key):
                return self.tags[key]
        for ownership in OWNERSHIP:
            for key, value in sorted(self.tags.items()):
                name = key.removeprefix(OWNERSHIP_TAG)
                if value == ownership and name != key and name:
                    return name
        return ""


def find(ec2: EC2Client, instance_id: str) -> Instance | None:
    """One DescribeInstances; None where EC2 does not know the id.

    Raises AwsUnavailableError or AwsRefusedError.
    """
    try:
        with aws.translated_errors("ec2:DescribeInstances"):
            answer = ec2.describe_instances(InstanceIds=[instance_id])
    except AwsRefusedError as error:
        if error.code.startswith("InvalidInstanceID."):
            return None
        raise
    for reservation in answer["Reservations"]:
        for found in reservation["Instances"]:
            return Instance(
                id=instance_id,
                state=found["State"]["Name"],
                dns_name=found.get("PrivateDnsName", ""),
                tags={tag["Key"]: tag.get("Value", "") for tag in found.get("Tags", ())},
            )
    return None
