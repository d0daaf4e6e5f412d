"""The IAM evaluator of the tests follows IAM's documented rules."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.iam_evaluator import Request, is_allowed

INSTANCE = "arn:aws:ec2:eu-west-1:111122223333:instance/i-1"


def policy(**statement: Any) -> dict[str, Any]:
    return {"Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"} | statement]}


def allows(document: dict[str, Any], **context: Any) -> bool:
    return is_allowed([document], Request("ec2:TerminateInstances", INSTANCE, context))


def test_without_a_matching_allow_a_request_is_denied() -> None:
    assert not is_allowed([], Request("ec2:TerminateInstances", INSTANCE))
    assert not allows(policy(Action="ec2:Start*"))
    assert not allows(policy(Resource="arn:aws:ec2:us-east-1:*"))


def test_a_deny_wins_over_an_allow_in_another_document() -> None:
    request = Request("ec2:TerminateInstances", INSTANCE)
    assert is_allowed([policy()], request)
    assert not is_allowed([policy(), policy(Effect="Deny")], request)


@pytest.mark.parametrize(
    ("action", "matches"),
    [
        ("ec2:TerminateInstances", True),
        ("EC2:terminateinstances", True),
        ("ec2:Terminate*", True),
        ("ec2:TerminateInstance?", True),
        ("ec2:TerminateInstance", False),
        (["ec2:StartInstances", "*"], True),
    ],
)
def test_actions_match_wildcards_and_any_case(action: str | list[str], matches: bool) -> None:
    assert allows(policy(Action=action)) is matches


@pytest.mark.parametrize(
    ("resource", "matches"),
    [(INSTANCE, True), (INSTANCE.upper(), False), ("arn:aws:ec2:*:instance/i-?", True)],
)
def test_resources_match_wildcards_and_the_same_case_only(resource: str, matches: bool) -> None:
    assert allows(policy(Resource=resource)) is matches


@pytest.mark.parametrize(
    ("resource", "matches"),
    [(INSTANCE, False), ("arn:aws:ec2:*:vpc/*", True), (["*:vpc/*", "*:instance/*"], False)],
)
def test_not_resource_matches_every_other_resource(
    resource: str | list[str], matches: bool
) -> None:
    document = policy(NotResource=resource)
    del document["Statement"][0]["Resource"]
    assert allows(document) is matches


VPC = "arn:aws:ec2:eu-west-1:111122223333:vpc/vpc-1"


@pytest.mark.parametrize(
    ("condition", "context", "holds"),
    [
        ({"StringEquals": {"k": "v"}}, {"k": "v"}, True),
        ({"StringEquals": {"k": "v"}}, {"K": "v"}, True),
        ({"StringEquals": {"k": "v"}}, {"k": "V"}, False),
        ({"StringEquals": {"k": "*"}}, {"k": "v"}, False),
        ({"StringEquals": {"k": ["v", "w"]}}, {"k": "w"}, True),
        ({"StringEquals": {"k": "v"}}, {}, False),
        ({"StringEquals": {"k": "v", "l": "w"}}, {"k": "v"}, False),
        ({"StringEqualsIfExists": {"k": "v"}}, {}, True),
        ({"StringEqualsIfExists": {"k": "v"}}, {"k": "w"}, False),
        ({"StringNotEquals": {"k": "v"}}, {}, True),
        ({"StringNotEquals": {"k": ["v", "w"]}}, {"k": "w"}, False),
        ({"StringLike": {"k": "v*"}}, {"k": "vvv"}, True),
        ({"ArnEquals": {"k": VPC}}, {"k": VPC}, True),
        ({"ArnEquals": {"k": VPC}}, {"k": VPC + "2"}, False),
        ({"ArnLike": {"k": "arn:aws:ec2:*:vpc/*"}}, {"k": VPC}, False),
        ({"ArnLike": {"k": "arn:aws:ec2:*:*:vpc/*"}}, {"k": VPC}, True),
        ({"ArnLikeIfExists": {"k": VPC}}, {}, True),
        ({"ArnLikeIfExists": {"k": VPC}}, {"k": VPC + "2"}, False),
        ({"Null": {"k": "true"}}, {}, True),
        ({"Null": {"k": "false"}}, {}, False),
        ({"Null": {"k": "false"}}, {"k": "v"}, True),
        ({"ForAnyValue:StringEquals": {"k": "v"}}, {"k": ["u", "v"]}, True),
        ({"ForAnyValue:StringEquals": {"k": "v"}}, {"k": ["u"]}, False),
        ({"ForAnyValue:StringEquals": {"k": "v"}}, {}, False),
        ({"ForAllValues:StringEquals": {"k": "v"}}, {"k": ["u", "v"]}, False),
        ({"ForAllValues:StringEquals": {"k": "v"}}, {}, True),
    ],
)
def test_a_condition_holds_as_iam_documents_it(
    condition: dict[str, Any], context: dict[str, Any], holds: bool
) -> None:
    assert allows(policy(Condition=condition), **context) is holds


@pytest.mark.parametrize(
    "statement",
    [
        {"NotAction": "ec2:*"},
        {"Condition": {"NumericEquals": {"k": "1"}}},
        {"Condition": {"StringEquals": {"k": "${aws:username}"}}},
        {"Resource": "arn:aws:iam::*:user/${aws:username}"},
    ],
)
def test_an_unknown_element_or_operator_is_an_error(statement: dict[str, Any]) -> None:
    with pytest.raises(NotImplementedError):
        allows(policy(**statement), k="1")
