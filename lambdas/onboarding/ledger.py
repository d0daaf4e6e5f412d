"""Record every write with its undo, so that a run can be planned, applied and undone.

The steps write only through a Ledger. With `dry` it keeps the rows and writes nothing. A run that
fails is undone in reverse order, write by write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from lambdas.common.errors import AwsRefusedError, CastaiError, PermanentError, bug

T = TypeVar("T")

# Refusals before anything is written. After any other error the write may have been done: the
# answer may be lost, and a retry may have found the result of the first try.
_NOT_WRITTEN: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "ValidationError"}
)


REMOVE_OR_ADOPT: Final = "Remove what is in the way, or set Adopt to take it over:"


class Action(StrEnum):
    """What happens to a thing."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    DELETE = "delete"
    LEAVE = "leave"  # a removal keeps it: not ours, or still in use
    CONFLICT = "conflict"  # it has a name that we need, and it is not ours


@dataclass(frozen=True)
class Row:
    """One line of a plan, or of what a run did."""

    step: str
    thing: str
    action: Action
    detail: str = ""


@dataclass(frozen=True)
class _Undo:
    """How to undo the write of a thing."""

    thing: str
    undo: Callable[[], object]
    leads_to_the_rest: bool


@dataclass
class Ledger:
    """What one run did, how to undo it, and what it must not remove."""

    dry: bool = False
    protected: frozenset[str] = frozenset()
    """Things that a removal does not touch: `claimed` of the run before it."""
    step: str = ""
    """The step that is running; the caller sets it, and each row has it."""
    rows: list[Row] = field(default_factory=list)
    _undo: list[_Undo] = field(default_factory=list)

    def keep(self, thing: str, detail: str = "") -> None:
        """The thing is as it should be."""
        self._add(thing, Action.KEEP, detail)

    def leave(self, thing: str, detail: str) -> None:
        """The thing stays, for the reason in `detail`."""
        self._add(thing, Action.LEAVE, detail)

    def conflict(self, thing: str, detail: str) -> None:
        """The thing has a name that we need, and it is not ours. A plan continues.

        Raises PermanentError unless planning.
        """
        self._add(thing, Action.CONFLICT, detail)
        if not self.dry:
            raise PermanentError(f"{REMOVE_OR_ADOPT} {thing}: {detail}")

    def create(
        self,
        thing: str,
        write: Callable[[], T],
        *,
        undo: Callable[[], object],
        detail: str = "",
        leads_to_the_rest: bool = False,
    ) -> T | None:
        """Create the thing; None when planning.

        `undo` also runs if the answer to the write was lost. Then there may be nothing to undo.
        `leads_to_the_rest`: a next run finds the other things by this one. It is not undone while
        one of them is left.
        """
        self._add(thing, Action.CREATE, detail)
        return self._write(thing, write, undo, leads_to_the_rest=leads_to_the_rest)

    def update(
        self,
        thing: str,
        write: Callable[[], T],
        *,
        undo: Callable[[], object] | None = None,
        detail: str = "",
    ) -> T | None:
        """Change the thing; None when planning. `undo` restores the former state."""
        self._add(thing, Action.UPDATE, detail)
        return self._write(thing, write, undo)

    def delete(self, thing: str, write: Callable[[], object], detail: str = "") -> bool:
        """Remove the thing unless it is protected; returns whether it is (or would be) removed."""
        if thing in self.protected:
            return False
        self._add(thing, Action.DELETE, detail)
        if not self.dry:
            write()
        return True

    def of(self, *actions: Action) -> list[Row]:
        """The rows with one of these actions."""
        return [row for row in self.rows if row.action in actions]

    @property
    def claimed(self) -> frozenset[str]:
        """Everything that this run created, changed or found correct."""
        return frozenset(r.thing for r in self.of(Action.CREATE, Action.UPDATE, Action.KEEP))

    def undo_all(self) -> list[str]:
        """Undo every write, the last first; returns what could not be undone, with the reason."""
        left: list[str] = []
        for each in reversed(self._undo):
            if each.leads_to_the_rest and left:
                left.append(f"{each.thing} (kept: the next run finds the rest by it)")
                continue
            try:
                each.undo()
            except CastaiError as error:
                left.append(f"{each.thing} ({first_line(error)})")
            except Exception as error:  # noqa: BLE001 - the other writes are undone all the same
                left.append(f"{each.thing} ({bug(error)})")
        self._undo.clear()
        return left

    def _add(self, thing: str, action: Action, detail: str) -> None:
        self.rows.append(Row(self.step, thing, action, detail))

    def _write(
        self,
        thing: str,
        write: Callable[[], T],
        undo: Callable[[], object] | None,
        *,
        leads_to_the_rest: bool = False,
    ) -> T | None:
        if self.dry:
            return None
        try:
            result = write()
        except Exception as error:
            if undo and not _was_refused(error):
                self._undo.append(_Undo(thing, undo, leads_to_the_rest))
            raise
        if undo:
            self._undo.append(_Undo(thing, undo, leads_to_the_rest))
        return result


def _was_refused(error: Exception) -> bool:
    return isinstance(error, AwsRefusedError) and error.code in _NOT_WRITTEN


def first_line(error: BaseException) -> str:
    """The first line of an error's message, which says what to do."""
    return str(error).partition("\n")[0]


def listed(rows: Iterable[Row]) -> str:
    """The rows as lines of an error."""
    return "\n".join(f"- {row.thing}: {row.detail}" for row in rows)
