"""What the functions of both custom resources do around a request."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest

from lambdas.agent import handler as agent
from lambdas.common import custom_resource
from lambdas.common.custom_resource import RequestFailedError, answered_errors
from lambdas.common.errors import CastaiError, PermanentError, SettingsError
from lambdas.common.names import OWN_ROLE_VARIABLE, STACK_ID_VARIABLE
from lambdas.common.text import REASON_LIMIT
from lambdas.onboarding import handler as onboarding
from tests.support.lambda_context import LambdaContext

OWN = "arn:aws:cloudformation:eu-central-1:111122223333:stack/castai-agent/0a1b2c3d"
PROPERTIES = {"ClusterName": "prod", "ApiKeySecret": "castai/key"}


@pytest.fixture(params=[agent, onboarding], ids=["agent", "onboarding"])
def handler(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A handler whose request is not to reach its clients."""
    module: ModuleType = request.param
    monkeypatch.setattr(module, "dependencies", lambda: pytest.fail("the request was handled"))
    monkeypatch.setenv(STACK_ID_VARIABLE, OWN)
    return module


def failure(handler: ModuleType, event: Any) -> str:
    with pytest.raises(RequestFailedError) as caught:
        handler.lambda_handler(event, LambdaContext())
    return str(caught.value)


class TestOwnStack:
    @pytest.mark.parametrize("kind", ["Create", "Update", "Delete"])
    @pytest.mark.parametrize("stack", [OWN[:-1], OWN + "4", "castai-agent", "", None])
    def test_a_request_of_another_stack_is_refused(
        self, handler: ModuleType, kind: str, stack: str | None
    ) -> None:
        event = {"RequestType": kind, "StackId": stack, "ResourceProperties": PROPERTIES}
        assert failure(handler, event).startswith(
            "Call this function through its own CloudFormation"
        )

    def test_a_request_to_look_again_is_refused_too(self, handler: ModuleType) -> None:
        event = {"RequestType": "Create", "ReadyUntil": 0, "StackId": "other"}
        assert "the request names other" in failure(handler, event)

    def test_an_event_without_a_stack_is_refused(self, handler: ModuleType) -> None:
        assert failure(handler, {}).endswith("the request names none")

    def test_a_function_without_its_stack_id_names_the_variable(
        self, handler: ModuleType, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv(STACK_ID_VARIABLE)
        assert failure(handler, {"StackId": ""}).startswith("Set STACK_ID")


class TestAnsweredErrors:
    def answer(self, error: Exception) -> CastaiError:
        with pytest.raises(RequestFailedError) as caught, answered_errors():
            raise error
        return caught.value

    def test_a_long_reason_is_cut_between_characters(self) -> None:
        reason = str(self.answer(PermanentError("Do this\n" + "é" * 5000)))
        assert reason.startswith("Do this\n")
        assert len(reason.encode()) <= REASON_LIMIT
        assert reason.endswith("é…")

    def test_notes_are_part_of_the_reason(self) -> None:
        error = PermanentError("Do this")
        error.add_note("Remove that by hand as well")
        assert str(self.answer(error)) == "Do this\nRemove that by hand as well"

    def test_a_bug_is_named_by_type_and_place_without_its_text(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = self.answer(KeyError("wJalrXUtnFEMI"))
        assert str(error).startswith("Report this as a bug: KeyError at test_custom_resource.py:")
        assert error.__cause__ is None
        assert error.__suppress_context__
        assert "wJalrXUtnFEMI" not in capsys.readouterr().out


def test_a_function_without_its_role_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(OWN_ROLE_VARIABLE, raising=False)
    with pytest.raises(SettingsError, match=r"^Set OWN_ROLE_ARN"):
        custom_resource.own_role()
