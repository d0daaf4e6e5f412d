"""Every error begins with what to do: CloudFormation shows its first line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from botocore.exceptions import ClientError, NoCredentialsError, ReadTimeoutError

from lambdas.common.aws import translated_errors
from lambdas.common.errors import CastaiError
from lambdas.common.kubernetes_answers import error_of
from lambdas.common.kubernetes_objects import RULES
from simulation.resources.words import says_what_to_do


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


# Errors whose text begins in the code -------------------------------------------------------------

LAMBDAS = Path(__file__).parents[3] / "lambdas"
FILES = [
    file for part in ("agent", "common", "onboarding") for file in (LAMBDAS / part).rglob("*.py")
]
OF_PYTHON = {"AssertionError", "ConstructorError", "ValueError"}
BUG = "Report this as a bug: "


def beginnings(source: str) -> Iterator[str]:
    """How the texts of errors begin; a text that begins with a value is left out."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name), args=[text, *_]) if name.endswith("Error"):
                first = text.values[0] if isinstance(text, ast.JoinedStr) else text
                if isinstance(first, ast.Constant) and name not in OF_PYTHON:
                    yield str(first.value)


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(LAMBDAS)))
def test_an_error_of_a_custom_resource_begins_with_what_to_do(file: Path) -> None:
    for text in beginnings(file.read_text()):
        # A fault of one property is a line below "Correct these properties:".
        is_line = file.name == "properties.py" and text[0].islower()
        assert is_line or text == BUG or says_what_to_do(text), text


@pytest.mark.parametrize(
    "text",
    ["The key is gone.", "Failed to do it.", "Internal error 5", "iam:GetUser: Throttling", BUG],
)
def test_what_happened_is_not_what_to_do(text: str) -> None:
    assert not says_what_to_do(text)
