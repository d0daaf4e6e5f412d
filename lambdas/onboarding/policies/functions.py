"""Statements that several functions of this app share: log, API key, VPC, tracing; trust."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from lambdas.onboarding.policies.aws import dns_suffixes, service_trust
from lambdas.onboarding.policies.document import Condition, Document, allow, deny
from lambdas.onboarding.policies.scope import FunctionScope

# https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
INTERFACE_WRITES: Final = (
    "ec2:CreateNetworkInterface",
    "ec2:DeleteNetworkInterface",
    "ec2:AssignPrivateIpAddresses",
    "ec2:UnassignPrivateIpAddresses",
)
INTERFACE_READS: Final = ("ec2:DescribeNetworkInterfaces", "ec2:DescribeSubnets")


def role_name(function: str, region: str) -> str:
    """The name of the role of a custom resource's function.

    It ends in the region, because roles are account-wide and functions are in a region. The stack
    sets it, so that the role's policy can allow access entries for this role and for no other.
    """
    return f"{function}-{region}"


def own_log(where: FunctionScope) -> Document:
    return allow(
        "WriteOwnLog",
        ["logs:CreateLogStream", "logs:PutLogEvents"],
        where.arns("logs", f"log-group:/aws/lambda/{where.function}:*"),
    )


def tracing_statements() -> list[Document]:
    return [allow("Trace", ["xray:PutTraceSegments", "xray:PutTelemetryRecords"], ["*"])]


def vpc_statements(where: FunctionScope) -> list[Document]:
    """The permissions with which Lambda attaches the function to a VPC; its code never uses them.

    Lambda creates the function only if the role has them on every resource. So a Deny blocks the
    writes for the function's code, as AWS advises:
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
    """
    own = where.arns("lambda", f"function:{where.function}")
    return [
        allow("AttachToVpc", [*INTERFACE_WRITES, *INTERFACE_READS], ["*"]),
        deny(
            "NoInterfacesForCode",
            INTERFACE_WRITES,
            # The ARN without and with a version.
            {"ArnLike": {"lambda:SourceFunctionArn": [*own, *(f"{arn}:*" for arn in own)]}},
        ),
    ]


def api_key_statements(
    where: FunctionScope, secret: str | None, kms_key: str | None
) -> list[Document]:
    """Allow to read CAST AI's API key, and to decrypt it if the secret has its own KMS key."""
    if secret is None:
        return []
    known = secret.startswith("arn:")
    # Secrets Manager appends a hyphen and six characters to every name.
    arns = [secret] if known else where.arns("secretsmanager", f"secret:{secret}-??????")
    statements = [allow("ReadApiKey", ["secretsmanager:GetSecretValue"], arns)]
    if kms_key:
        statements.append(
            allow(
                "DecryptApiKey",
                ["kms:Decrypt"],
                [kms_key],
                by_secrets_manager(where.partition, where.regions),
            )
        )
    return statements


def by_secrets_manager(partition: str, regions: Sequence[str]) -> Condition:
    """Limit a KMS key to requests of Secrets Manager in these regions."""
    services = [
        f"secretsmanager.{region}{suffix}"
        for region in regions
        for suffix in dns_suffixes(partition)
    ]
    return {"StringEquals": {"kms:ViaService": services}}


def lambda_trust(partition: str) -> Document:  # noqa: ARG001 - one name in every partition
    """The trust policy with which Lambda, and no other service, may run a function as the role."""
    return service_trust("lambda.amazonaws.com")
