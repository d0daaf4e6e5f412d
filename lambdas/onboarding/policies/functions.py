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
    """The name of the role of a custom resource's function. Roles are account-wide, functions are
    in a region.

    The role has a name of its own, so that its policy can give access to it and to no other role.
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
    """Lambda's own rights to attach the function to a VPC, which the function's code never uses.

    Lambda checks the role for them on every resource before it takes the function, so it is the
    code that is denied the writes, as AWS advises:
    https://docs.aws.amazon.com/lambda/latest/dg/configuration-vpc.html#configuration-vpc-permissions
    """
    own = where.arns("lambda", f"function:{where.function}")
    return [
        allow("AttachToVpc", [*INTERFACE_WRITES, *INTERFACE_READS], ["*"]),
        deny(
            "NoInterfacesForCode",
            INTERFACE_WRITES,
            # With and without the version that runs.
            {"ArnLike": {"lambda:SourceFunctionArn": [*own, *(f"{arn}:*" for arn in own)]}},
        ),
    ]


def api_key_statements(
    where: FunctionScope, secret: str | None, kms_key: str | None
) -> list[Document]:
    """Read CAST AI's API key, and decrypt it where the secret has a key of its own."""
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
    """The key serves Secrets Manager only, in these regions."""
    services = [
        f"secretsmanager.{region}{suffix}"
        for region in regions
        for suffix in dns_suffixes(partition)
    ]
    return {"StringEquals": {"kms:ViaService": services}}


def lambda_trust(partition: str) -> Document:  # noqa: ARG001 - one name in every partition
    """Lambda may run a function as the role; it needs no other service."""
    return service_trust("lambda.amazonaws.com")
