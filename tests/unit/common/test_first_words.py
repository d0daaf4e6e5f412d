"""Every error of a service begins with what to do: CloudFormation shows its first line."""

from __future__ import annotations

import httpx2
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ReadTimeoutError

from lambdas.common.aws import translated_errors
from lambdas.common.errors import CastaiError
from lambdas.common.kubernetes_answers import error_of
from lambdas.common.kubernetes_objects import RULES


def answer(code: str, status: int) -> ClientError:
    return ClientError(
        {
            "Error": {"Code": code, "Message": "why"},
            "ResponseMetadata": {"HTTPStatusCode": status},  # type: ignore[typeddict-item]
        },
        "CreateRole",
    )


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (answer("ThrottlingException", 400), "Try again: iam:CreateRole: ThrottlingException"),
        (answer("InternalFailure", 500), "Try again: iam:CreateRole: InternalFailure"),
        (ReadTimeoutError(endpoint_url="https://iam.invalid"), "Try again: iam:CreateRole: AWS"),
        (answer("AccessDenied", 403), "Allow iam:CreateRole to this identity. "),
        (answer("EntityAlreadyExists", 409), "Correct what AWS names, or try again: iam:Create"),
        (NoCredentialsError(), "Correct the credentials, the region or the arguments: iam:Create"),
    ],
)
def test_an_error_of_aws_begins_with_what_to_do(error: Exception, words: str) -> None:
    with pytest.raises(CastaiError) as caught, translated_errors("iam:CreateRole"):
        raise error
    assert str(caught.value).startswith(words)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_an_answer_of_a_cluster_that_may_pass_begins_with_what_to_do(status: int) -> None:
    error = error_of("reading ConfigMap", httpx2.Response(status), RULES)
    assert str(error).startswith(f"Try again: reading ConfigMap: {status}")
