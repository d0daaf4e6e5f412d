"""The user's AWS account, with the identity that the AWS SDK finds."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Self

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from acceptance.errors import AcceptanceError
from lambdas.common import aws

# Throttled calls are repeated: the inventory reads lists of a whole account.
CONFIG = Config(retries={"total_max_attempts": 8, "mode": "standard"})
# Each command gets the credentials that were found. None of these may replace them.
_OF_CREDENTIALS = frozenset(
    {
        "AWS_ACCESS_KEY_ID",
        "AWS_CREDENTIAL_EXPIRATION",
        "AWS_DEFAULT_PROFILE",
        "AWS_PROFILE",
        "AWS_ROLE_ARN",
        "AWS_ROLE_SESSION_NAME",
        "AWS_SECRET_ACCESS_KEY",
        "AWS_SESSION_TOKEN",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
    }
)


@dataclass(frozen=True)
class Account:
    """An account, a region and the identity that acts."""

    session: boto3.Session
    partition: str
    account: str
    region: str
    identity: str
    """ARN of the identity."""

    @classmethod
    def found(cls, region: str | None) -> Self:
        """Return the account of the SDK's credentials.

        Raises AcceptanceError without credentials or region, or if AWS does not answer.
        """
        try:
            session = boto3.Session(region_name=region)
            own_region = aws.region(session)
            caller = session.client("sts", config=CONFIG).get_caller_identity()
        except (BotoCoreError, ClientError) as error:
            raise AcceptanceError(
                f"Give this shell credentials of the account (aws sso login, AWS_PROFILE): {error}"
            ) from error
        partition = caller["Arn"].split(":")[1]
        return cls(session, partition, caller["Account"], own_region, caller["Arn"])

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are dynamic
        """Return a client in the region."""
        return self.session.client(service, config=CONFIG)  # type: ignore[call-overload] # by name

    def environment(self) -> dict[str, str]:
        """Return the AWS variables with which the CDK CLI acts as this identity."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if name.startswith("AWS_") and name not in _OF_CREDENTIALS
        }
        region = {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}
        return {**kept, **region, **self._credentials()}

    def _credentials(self) -> dict[str, str]:
        found = self.session.get_credentials()
        if found is None:
            raise AcceptanceError("Give this shell credentials of the account: the SDK finds none")
        frozen = found.get_frozen_credentials()
        token = {"AWS_SESSION_TOKEN": frozen.token} if frozen.token else {}
        return {
            "AWS_ACCESS_KEY_ID": str(frozen.access_key),
            "AWS_SECRET_ACCESS_KEY": str(frozen.secret_key),
            **token,
        }
