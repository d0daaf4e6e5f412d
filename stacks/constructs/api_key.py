"""The right to read CAST AI's API key, for the functions that speak to CAST AI."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from aws_cdk import ArnFormat, Stack
from aws_cdk import aws_iam as iam
from constructs import Construct

from stacks.settings import CastaiSettings


def api_key_statements(
    scope: Construct, castai: CastaiSettings, *, regions: Sequence[str] = ()
) -> Iterator[iam.PolicyStatement]:
    """Read the one secret, and decrypt it where it has a key of its own; nothing without a secret.

    regions: those in which a secret of this name is read; empty: the stack's own.
    """
    secret = castai.api_key_secret
    if secret is None:
        return
    stack = Stack.of(scope)
    arns = (
        [secret]
        if secret.startswith("arn:")
        else [
            stack.format_arn(
                service="secretsmanager",
                resource="secret",
                # Secrets Manager appends a hyphen and six characters to every name.
                resource_name=f"{secret}-??????",
                region=region,
                arn_format=ArnFormat.COLON_RESOURCE_NAME,
            )
            for region in regions or (stack.region,)
        ]
    )
    yield iam.PolicyStatement(
        sid="ReadApiKey", actions=["secretsmanager:GetSecretValue"], resources=arns
    )
    if castai.api_key_kms_key:
        yield iam.PolicyStatement(
            sid="DecryptApiKey", actions=["kms:Decrypt"], resources=[castai.api_key_kms_key]
        )
