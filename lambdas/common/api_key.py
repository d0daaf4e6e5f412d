"""CAST AI's API key, from Secrets Manager. It is never in a template, a log or an error."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lambdas.common import aws
from lambdas.common.errors import AwsRefusedError, PermanentError

if TYPE_CHECKING:
    from mypy_boto3_secretsmanager import SecretsManagerClient


def read(secrets: SecretsManagerClient, name: str) -> str:
    """The key in the secret `name` (or ARN): its text, or the only value of a JSON object.

    Raises PermanentError for a secret without a key, AwsRefusedError for a secret that does not
    exist or may not be read, AwsUnavailableError when Secrets Manager does not answer.
    """
    try:
        with aws.translated_errors("secretsmanager:GetSecretValue"):
            text = secrets.get_secret_value(SecretId=name).get("SecretString", "").strip()
    except AwsRefusedError as error:
        if error.code != "ResourceNotFoundException":
            raise
        raise AwsRefusedError(
            f"Put CAST AI's API key into Secrets Manager, into a secret named {name}, in this "
            "region: there is none",
            code=error.code,
        ) from error
    key = _only_value(text) if text.startswith("{") else text
    if not key:
        raise PermanentError(
            f"Put CAST AI's API key, as plain text, into secret {name}: it holds something else"
        )
    return key


def _only_value(text: str) -> str:
    """The only value of a JSON object, which is how AWS's console writes a secret."""
    try:
        values = list(msgspec.json.decode(text, type=dict[str, str]).values())
    except msgspec.DecodeError:
        return ""
    return values[0].strip() if len(values) == 1 else ""
