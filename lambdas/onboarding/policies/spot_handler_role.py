"""What the spot handler may do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lambdas.onboarding.policies.aws import aws_managed
from lambdas.onboarding.policies.document import Document, allow, document_of
from lambdas.onboarding.policies.functions import (
    api_key_statements,
    own_log,
    tracing_statements,
    vpc_statements,
)
from lambdas.onboarding.policies.scope import FunctionScope

# CAST AI documents these for CastLambdaRoleForSpot.
SPOT_MANAGED_POLICIES: Final = (
    "CloudWatchLogsFullAccess",
    "service-role/AWSLambdaRole",
    "AmazonEC2ReadOnlyAccess",
)


def spot_handler(
    where: FunctionScope,
    *,
    failure_queue: str,
    clusters: Sequence[str] = (),
    least: bool = False,
    api_key_secret: str | None = None,
    api_key_kms_key: str | None = None,
    tracing: bool = False,
    in_vpc: bool = False,
) -> Document:
    """The inline policy of the spot handler's role.

    With `least` the role has no managed policies, so this document replaces them. `clusters` are
    names of EKS clusters; without any, every cluster is allowed. `api_key_secret` is a name or an
    ARN.
    """
    own_work = [
        own_log(where),
        allow("FindInstance", ["ec2:DescribeInstances"], ["*"]),  # takes no resource
    ]
    return document_of(
        [
            *(own_work if least else ()),
            allow(
                "FindCluster",
                ["eks:DescribeCluster"],
                [
                    arn
                    for cluster in clusters or ("*",)
                    for arn in where.arns("eks", f"cluster/{cluster}")
                ],
            ),
            allow("KeepFailedNotices", ["sqs:SendMessage"], where.arns("sqs", failure_queue)),
            *api_key_statements(where, api_key_secret, api_key_kms_key),
            *(tracing_statements() if tracing else ()),
            *(vpc_statements(where) if in_vpc else ()),
        ]
    )


def spot_managed_policies(partition: str) -> tuple[str, ...]:
    """AWS's policies for the spot handler's role."""
    return aws_managed(partition, SPOT_MANAGED_POLICIES)
