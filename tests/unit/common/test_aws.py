"""The errors that the SDK's errors become."""

from __future__ import annotations

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, ParamValidationError

from lambdas.common import aws
from lambdas.common.errors import AwsRefusedError, AwsUnavailableError, CastaiError
from lambdas.common.text import REFUSAL_LIMIT

LONG = "because " * 1500


def client_error(code: str, status: int) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": LONG},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "DescribeInstances",
    )


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (client_error("UnauthorizedOperation", 403), AwsRefusedError),
        (client_error("RequestLimitExceeded", 503), AwsUnavailableError),
        (client_error("InternalError", 500), AwsUnavailableError),
        (EndpointConnectionError(endpoint_url=LONG), AwsUnavailableError),
        (ParamValidationError(report=LONG), AwsRefusedError),
    ],
)
def test_an_error_of_the_sdk_becomes_ours_with_a_cut_message(
    error: Exception, kind: type[CastaiError]
) -> None:
    with pytest.raises(kind) as caught, aws.translated_errors("ec2:DescribeInstances"):
        raise error
    assert "because" in str(caught.value)
    assert len(str(caught.value)) < REFUSAL_LIMIT + 150
