"""The ledger: plan without writes, undo in reverse order, protected resources."""

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


def test_writes_are_undone_once_in_reverse_order() -> None:
    ledger, undone = Ledger(), list[str]()
    for thing in "abc":
        ledger.create(thing, lambda: None, undo=lambda t=thing: undone.append(t))  # type: ignore[misc]
    ledger.update("without undo", lambda: None)
    assert ledger.undo_all() == []
    assert undone == ["c", "b", "a"]
    assert ledger.undo_all() == []
    assert undone == ["c", "b", "a"]


def test_an_undo_that_fails_is_named_and_stops_no_other() -> None:
    ledger, undone = Ledger(), list[str]()
    ledger.create("a", lambda: None, undo=lambda: undone.append("a"))
    ledger.create("b", lambda: None, undo=failing(PermanentError("Do this\nand that")))
    assert ledger.undo_all() == ["b (Do this)"]
    assert undone == ["a"]


def test_what_leads_to_the_rest_is_undone_only_if_nothing_else_is_left() -> None:
    ledger, undone = Ledger(), list[str]()
    ledger.create("id", lambda: None, undo=lambda: undone.append("id"), leads_to_the_rest=True)
    ledger.create("a", lambda: None, undo=lambda: undone.append("a"))
    assert ledger.undo_all() == []
    assert undone == ["a", "id"]
    ledger.create("id", lambda: None, undo=lambda: undone.append("id"), leads_to_the_rest=True)
    ledger.create("b", lambda: None, undo=failing(PermanentError("Do this")))
    assert ledger.undo_all() == ["b (Do this)", "id (kept: the next run finds the rest by it)"]
    assert undone == ["a", "id"]


def test_an_unforeseen_error_in_an_undo_stops_no_other() -> None:
    ledger, undone = Ledger(), list[str]()
    ledger.create("a", lambda: None, undo=lambda: undone.append("a"))
    ledger.create("b", lambda: None, undo=failing(ValueError("a secret")))
    (left,) = ledger.undo_all()
    assert left.startswith("b (Report this as a bug: ValueError at test_ledger.py:")
    assert "a secret" not in left
    assert undone == ["a"]


@pytest.mark.parametrize(
    ("error", "is_undone"),
    [
        (AwsRefusedError("no", code="AccessDenied"), False),
        (AwsRefusedError("twice", code="EntityAlreadyExists"), True),
        (AwsUnavailableError("no answer"), True),
        (RuntimeError("a bug"), True),
    ],
)
def test_a_write_that_may_have_been_done_is_undone(error: Exception, is_undone: bool) -> None:
    ledger, undone = Ledger(), list[str]()
    with pytest.raises(type(error)):
        ledger.create("a", failing(error), undo=lambda: undone.append("a"))
    ledger.undo_all()
    assert bool(undone) is is_undone


def test_a_protected_resource_is_not_deleted_and_has_no_row() -> None:
    ledger, done = Ledger(protected=frozenset({"a"})), list[str]()
    assert not ledger.delete("a", lambda: done.append("a"))
    assert ledger.delete("b", lambda: done.append("b"))
    assert done == ["b"]
    assert [row.thing for row in ledger.rows] == ["b"]


def test_created_updated_and_kept_resources_are_claimed() -> None:
    ledger = Ledger()
    ledger.create("a", lambda: None, undo=lambda: None)
    ledger.update("b", lambda: None)
    ledger.keep("c")
    ledger.delete("d", lambda: None)
    ledger.leave("e", "not ours")
    assert ledger.claimed == {"a", "b", "c"}


def test_a_conflict_stops_a_run() -> None:
    with pytest.raises(
        PermanentError, match=r"^Remove what is in the way, or .*: a: made by someone else"
    ):
        Ledger().conflict("a", "made by someone else")
