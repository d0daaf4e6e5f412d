"""Which rights of its role let a function of the emulator write its log."""

from __future__ import annotations

import pytest
from role_logs import needed

from tests.support.iam_evaluator import Request, is_allowed

PREFIX = "arn:aws:logs:eu-west-1:111122223333:log-group:"
CONFIG = {"FunctionArn": "arn:aws:lambda:eu-west-1:111122223333:function:drain"}
STREAM = f"{PREFIX}/aws/lambda/drain:log-stream:sandbox"


def may_create(resource: str) -> bool:
    """Whether a role that may write to every stream, and create this resource, creates a group."""
    writing = {"Action": ["logs:CreateLogStream", "logs:PutLogEvents"], "Resource": "*"}
    creating = {"Action": "logs:CreateLogGroup", "Resource": resource}
    statements = [{"Effect": "Allow", **each} for each in (writing, creating)]
    document = {"Version": "2012-10-17", "Statement": statements}
    return all(is_allowed([document], Request(*each)) for each in needed(CONFIG, ()))


def test_a_group_that_exists_is_not_created() -> None:
    assert needed(CONFIG, {"/aws/lambda/drain"}) == [
        ("logs:CreateLogStream", STREAM),
        ("logs:PutLogEvents", STREAM),
    ]


def test_a_group_of_the_functions_settings_is_used() -> None:
    config = CONFIG | {"LoggingConfig": {"LogGroup": "own"}}
    assert ("logs:CreateLogGroup", f"{PREFIX}own:log-stream:") in needed(config, ())


@pytest.mark.parametrize(
    ("resource", "allowed"),
    [
        ("*", True),
        (f"{PREFIX}*", True),
        (f"{PREFIX}/aws/lambda/drain:*", True),  # the ARN that CloudFormation gives
        (f"{PREFIX}/aws/lambda/drain:log-stream:*", True),
        (f"{PREFIX}/aws/lambda/drain", False),
        (f"{PREFIX}/aws/lambda/other:*", False),
    ],
)
def test_a_missing_group_is_created_with_the_rights_that_aws_asks_for(
    resource: str, allowed: bool
) -> None:
    assert may_create(resource) is allowed
