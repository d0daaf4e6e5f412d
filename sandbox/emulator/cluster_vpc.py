"""Set the VPC in DescribeCluster to that of the subnets, as on AWS. The emulator invents one."""

from typing import Any

import guard


def install() -> None:
    """Look the VPC up when a cluster is created."""
    eks = guard.module("ministack.services.eks")
    create = guard.function(eks, "_create_cluster", "body", "creator_arn")
    subnets = guard.value(guard.module("ministack.services.ec2"), "_subnets", object)

    def create_in_vpc(body: dict[str, Any], creator_arn: str | None = None) -> Any:
        config = body.get("resourcesVpcConfig") or {}
        for subnet in config.get("subnetIds", []):
            found = subnets.get(subnet)
            if found is not None:
                body = {**body, "resourcesVpcConfig": {**config, "vpcId": found["VpcId"]}}
                break
        return create(body, creator_arn)

    eks._create_cluster = create_in_vpc  # type: ignore[attr-defined]
