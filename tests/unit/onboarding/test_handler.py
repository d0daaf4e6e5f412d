"""The errors that the handler gives to CloudFormation."""

from __future__ import annotations

from typing import Any

import pytest

from lambdas.common import own_stack
from lambdas.common.errors import PermanentError
from lambdas.common.names import OWN_ROLE_VARIABLE
from lambdas.common.text import REASON_LIMIT
from lambdas.onboarding import handler
from lambdas.onboarding.handler import OnboardingResourceError, lambda_handler
from tests.support.lambda_context import LambdaContext


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def respond(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(own_stack, "check", lambda _: None)
    monkeypatch.setattr(handler, "dependencies", lambda: None)
    monkeypatch.setattr(handler, "respond", respond)


def answer() -> OnboardingResourceError:
    with pytest.raises(OnboardingResourceError) as error:
        lambda_handler({}, LambdaContext())  # type: ignore[arg-type]
    return error.value


def test_a_long_reason_is_cut_between_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, PermanentError("Do this\n" + "é" * 5000))
    reason = str(answer())
    assert reason.startswith("Do this\n")
    assert len(reason.encode()) <= REASON_LIMIT
    assert reason.endswith("é…")


def test_notes_are_part_of_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    error = PermanentError("Do this")
    error.add_note("Remove that by hand as well")
    failing(monkeypatch, error)
    assert str(answer()) == "Do this\nRemove that by hand as well"


def test_a_bug_is_reported_by_type_and_line_without_its_message(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing(monkeypatch, KeyError("wJalrXUtnFEMI"))
    error = answer()
    assert str(error).startswith("Report this as a bug: KeyError at test_handler.py:")
    assert error.__cause__ is None
    assert error.__suppress_context__
    assert "wJalrXUtnFEMI" not in capsys.readouterr().out


def test_a_function_without_own_role_arn_says_to_set_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_stack, "check", lambda _: None)
    monkeypatch.delenv(OWN_ROLE_VARIABLE, raising=False)
    handler.dependencies.cache_clear()
    assert str(answer()).startswith("Set OWN_ROLE_ARN")
