"""The functions of the custom resources refuse every request but those of their own stack."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from lambdas.agent import handler as agent
from lambdas.common.errors import CastaiError
from lambdas.common.own_stack import STACK_ID
from lambdas.onboarding import handler as onboarding
from tests.support.lambda_context import LambdaContext

OWN = "arn:aws:cloudformation:eu-central-1:111122223333:stack/castai-agent/0a1b2c3d"


@pytest.fixture(params=[agent, onboarding], ids=["agent", "onboarding"])
def handler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A handler; the test fails if it makes its clients."""
    module: ModuleType = request.param
    monkeypatch.setattr(module, "dependencies", lambda: pytest.fail("the request was accepted"))
    monkeypatch.setenv(STACK_ID, OWN)
    return module


def refusal(handler: ModuleType, event: Any) -> str:
    with pytest.raises(CastaiError) as caught:
        handler.lambda_handler(event, LambdaContext())
    assert type(caught.value).__name__.endswith("ResourceError")  # logged, and cut for the answer
    return str(caught.value)


@pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
@pytest.mark.parametrize("stack", [OWN[:-1], OWN + "4", "castai-agent", "", None])
def test_a_request_of_another_stack_is_refused(
    handler: ModuleType, kind: str, stack: str | None
) -> None:
    event = {"RequestType": kind, "StackId": stack, "ResourceProperties": {"ClusterName": "prod"}}
    assert refusal(handler, event).startswith("Call this function through its own CloudFormation")


def test_an_is_complete_request_of_another_stack_is_refused(handler: ModuleType) -> None:
    event = {"RequestType": "Create", "ReadyUntil": 0, "StackId": "other"}
    assert "the request names other" in refusal(handler, event)


def test_an_event_without_a_stack_is_refused(handler: ModuleType) -> None:
    assert refusal(handler, {}).endswith("the request names none")


def test_a_function_without_stack_id_says_to_set_it(
    handler: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(STACK_ID)
    assert refusal(handler, {"StackId": ""}).startswith("Set STACK_ID")
