"""Calls to AWS: their names, their retries, and listings over several pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.common.aws_calls import AwsCalls, iam_action
from lambdas.common.clock import Clock
from lambdas.common.errors import AwsRefusedError, AwsUnavailableError

KEYS: dict[str, Any] = {
    "region_name": "eu-central-1",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}


class Client:
    """The methods of an IAM client, each with the answers that it still gives."""

    def __init__(self, *answers: dict[str, Any] | str) -> None:
        self.meta = boto3.client("iam", **KEYS).meta
        self.answers = list(answers)
        self.given: list[dict[str, Any]] = []

    def get_policy(self, **arguments: Any) -> Any:
        self.given.append(arguments)
        answer = self.answers.pop(0)
        if isinstance(answer, str):
            raise ClientError({"Error": {"Code": answer, "Message": "no"}}, "GetPolicy")
        return answer

    list_roles = get_policy


class Time:
    now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def calls() -> AwsCalls:
    time = Time()
    return AwsCalls(Clock(now=lambda: time.now, sleep=time.sleep), until=lambda: 30.0)


@pytest.mark.parametrize(
    ("method", "name"),
    [
        (lambda: boto3.client("iam", **KEYS).tag_policy, "iam:TagPolicy"),
        (lambda: boto3.client("secretsmanager", **KEYS).put_secret_value,
         "secretsmanager:PutSecretValue"),
        (lambda: boto3.client("lambda", **KEYS).get_function_configuration,
         "lambda:GetFunctionConfiguration"),
    ],
)  # fmt: skip
def test_a_call_has_the_name_that_iam_has_for_it(
    method: Callable[[], Callable[..., object]], name: str
) -> None:
    assert iam_action(method()) == name


def test_a_refusal_names_the_call(calls: AwsCalls) -> None:
    with pytest.raises(AwsRefusedError, match="Allow iam:GetPolicy to this function"):
        calls.call(Client("AccessDenied").get_policy)


def test_throttling_is_retried_until_the_time_is_used_up(calls: AwsCalls) -> None:
    client = Client("Throttling", {"Policy": 1})
    assert calls.call(client.get_policy, PolicyArn="arn") == {"Policy": 1}
    assert client.given == [{"PolicyArn": "arn"}] * 2
    with pytest.raises(AwsUnavailableError):
        calls.call(Client(*["Throttling"] * 100).get_policy)


def test_a_refusal_is_retried_only_on_request_and_stays_what_it_is(calls: AwsCalls) -> None:
    with pytest.raises(AwsRefusedError):
        calls.call(Client("NoSuchEntity", {}).get_policy)
    assert calls.retrying({"NoSuchEntity"}).call(Client("NoSuchEntity", {}).get_policy) == {}
    with pytest.raises(AwsRefusedError) as refused:
        calls.retrying({"NoSuchEntity"}).call(Client(*["NoSuchEntity"] * 100).get_policy)
    assert refused.value.code == "NoSuchEntity"


def test_what_does_not_exist_is_none_and_other_refusals_are_errors(calls: AwsCalls) -> None:
    assert calls.find(Client("NoSuchEntity").get_policy) is None
    assert calls.find_items(Client("NoSuchEntity").list_roles, "Roles") == []
    with pytest.raises(AwsRefusedError):
        calls.find(Client("AccessDenied").get_policy)
    with pytest.raises(AwsRefusedError):
        calls.items(Client("NoSuchEntity").list_roles, "Roles")


def test_a_page_may_be_empty_or_throttled_and_the_listing_goes_on(calls: AwsCalls) -> None:
    client = Client(
        {"Roles": [], "Marker": "2"},
        {"Roles": ["a"], "Marker": "3"},
        "Throttling",
        {"Roles": ["b"]},
    )
    assert calls.items(client.list_roles, "Roles", PathPrefix="/") == ["a", "b"]
    assert [each.get("Marker") for each in client.given] == [None, "2", "3", "3"]
