"""Calls to AWS: IAM's names for them, retries, and listings with several pages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.common.aws_calls import AwsCalls, iam_action
from lambdas.common.errors import AwsRefusedError, AwsUnavailableError
from tests.support.fake_time import FakeTime

KEYS: dict[str, Any] = {
    "region_name": "eu-central-1",
    "aws_access_key_id": "testing",
    "aws_secret_access_key": "testing",
}


class Client:
    """Two methods of an IAM client, which give these answers in order."""

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


@pytest.fixture
def calls() -> AwsCalls:
    return AwsCalls(FakeTime().clock, until=lambda: 30.0)


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
def test_a_method_of_a_client_has_the_name_of_its_iam_action(
    method: Callable[[], Callable[..., object]], name: str
) -> None:
    assert iam_action(method()) == name


def test_a_refusal_names_the_iam_action_to_allow(calls: AwsCalls) -> None:
    with pytest.raises(AwsRefusedError, match="Allow iam:GetPolicy to this identity"):
        calls.call(Client("AccessDenied").get_policy)


def test_a_throttled_call_is_retried_until_the_given_time(calls: AwsCalls) -> None:
    client = Client("Throttling", {"Policy": 1})
    assert calls.call(client.get_policy, PolicyArn="arn") == {"Policy": 1}
    assert client.given == [{"PolicyArn": "arn"}] * 2
    with pytest.raises(AwsUnavailableError):
        calls.call(Client(*["Throttling"] * 100).get_policy)


def test_a_refusal_is_retried_only_for_the_given_codes(calls: AwsCalls) -> None:
    with pytest.raises(AwsRefusedError):
        calls.call(Client("NoSuchEntity", {}).get_policy)
    assert calls.retrying({"NoSuchEntity"}).call(Client("NoSuchEntity", {}).get_policy) == {}
    with pytest.raises(AwsRefusedError) as refused:
        calls.retrying({"NoSuchEntity"}).call(Client(*["NoSuchEntity"] * 100).get_policy)
    assert refused.value.code == "NoSuchEntity"


def test_find_returns_none_only_for_what_does_not_exist(calls: AwsCalls) -> None:
    assert calls.find(Client("NoSuchEntity").get_policy) is None
    assert calls.find_items(Client("NoSuchEntity").list_roles, "Roles") == []
    with pytest.raises(AwsRefusedError):
        calls.find(Client("AccessDenied").get_policy)
    with pytest.raises(AwsRefusedError):
        calls.items(Client("NoSuchEntity").list_roles, "Roles")


def test_a_listing_goes_on_after_an_empty_or_a_throttled_page(calls: AwsCalls) -> None:
    client = Client(
        {"Roles": [], "Marker": "2"},
        {"Roles": ["a"], "Marker": "3"},
        "Throttling",
        {"Roles": ["b"]},
    )
    assert calls.items(client.list_roles, "Roles", PathPrefix="/") == ["a", "b"]
    assert [each.get("Marker") for each in client.given] == [None, "2", "3", "3"]
