"""The ledger plans without writing, undoes in reverse order, and leaves what is protected."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lambdas.common.errors import AwsRefusedError, AwsUnavailableError, PermanentError
from lambdas.onboarding.ledger import Action, Ledger


def failing(error: Exception) -> Callable[[], None]:
    def write() -> None:
        raise error

    return write


def test_a_plan_keeps_the_rows_and_writes_nothing() -> None:
    ledger, done = Ledger(dry=True), list[str]()
    ledger.step = "step"
    assert ledger.create("a", lambda: done.append("a"), undo=lambda: None) is None
    ledger.update("b", lambda: done.append("b"), detail="tags")
    assert ledger.delete("c", lambda: done.append("c"))
    ledger.conflict("d", "in the way")
    assert done == []
    assert [(row.step, row.thing, row.action) for row in ledger.rows] == [
        ("step", "a", Action.CREATE),
        ("step", "b", Action.UPDATE),
        ("step", "c", Action.DELETE),
        ("step", "d", Action.CONFLICT),
    ]


def test_what_was_done_is_taken_back_in_reverse() -> None:
    ledger, undone = Ledger(), list[str]()
    for thing in "abc":
        ledger.create(thing, lambda: None, undo=lambda t=thing: undone.append(t))  # type: ignore[misc]
    ledger.update("no way back", lambda: None)
    assert ledger.undo_all() == []
    assert undone == ["c", "b", "a"]
    assert ledger.undo_all() == []
    assert undone == ["c", "b", "a"]


def test_what_cannot_be_taken_back_is_named_and_stops_nothing() -> None:
    ledger, undone = Ledger(), list[str]()
    ledger.create("a", lambda: None, undo=lambda: undone.append("a"))
    ledger.create("b", lambda: None, undo=failing(PermanentError("Do this\nand that")))
    assert ledger.undo_all() == ["b (Do this)"]
    assert undone == ["a"]


@pytest.mark.parametrize(
    ("error", "is_undone"),
    [
        (AwsRefusedError("no", code="AccessDenied"), False),
        (AwsRefusedError("twice", code="EntityAlreadyExists"), True),
        (AwsUnavailableError("silence"), True),
        (RuntimeError("a bug"), True),
    ],
)
def test_a_write_whose_answer_is_lost_is_taken_back_as_well(
    error: Exception, is_undone: bool
) -> None:
    ledger, undone = Ledger(), list[str]()
    with pytest.raises(type(error)):
        ledger.create("a", failing(error), undo=lambda: undone.append("a"))
    ledger.undo_all()
    assert bool(undone) is is_undone


def test_what_is_protected_is_passed_over_without_a_row() -> None:
    ledger, done = Ledger(protected=frozenset({"a"})), list[str]()
    assert not ledger.delete("a", lambda: done.append("a"))
    assert ledger.delete("b", lambda: done.append("b"))
    assert done == ["b"]
    assert [row.thing for row in ledger.rows] == ["b"]


def test_a_run_claims_what_it_made_changed_or_found_right() -> None:
    ledger = Ledger()
    ledger.create("a", lambda: None, undo=lambda: None)
    ledger.update("b", lambda: None)
    ledger.keep("c")
    ledger.delete("d", lambda: None)
    ledger.leave("e", "not ours")
    assert ledger.claimed == {"a", "b", "c"}


def test_a_conflict_stops_a_run() -> None:
    with pytest.raises(PermanentError, match="a: made by someone else"):
        Ledger().conflict("a", "made by someone else")
