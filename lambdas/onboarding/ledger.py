"""The one door through which the steps write, and the memory of what they wrote.

Every step reads freely and writes only through a Ledger. So the same code plans (`dry`: the rows
are kept, nothing is written), applies, and takes back: each write comes with its inverse, and a
run that fails is undone in reverse order, write by write.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

from lambdas.common.errors import AwsRefusedError, CastaiError, PermanentError

T = TypeVar("T")

# Refused before anything was written. After any other error a write may have been done all the
# same: the answer was lost, and the next try found its own work.
_NOT_WRITTEN: Final = frozenset(
    {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "ValidationError"}
)


class Action(StrEnum):
    """What happens to a thing."""

    CREATE = "create"
    UPDATE = "update"
    KEEP = "keep"
    DELETE = "delete"
    LEAVE = "leave"  # it stays although we are leaving: not ours, or still in use
    CONFLICT = "conflict"  # it is in the way, and someone else's


@dataclass(frozen=True)
class Row:
    """One line of a plan, or of what a run did."""

    step: str
    thing: str
    action: Action
    detail: str = ""


@dataclass
class Ledger:
    """What one run did, may still take back, and must not touch."""

    dry: bool = False
    protected: frozenset[str] = frozenset()
    """Things that a removal passes over: those that the run before it has claimed."""
    step: str = ""
    """The step that is running; set by the runner, written into each row."""
    rows: list[Row] = field(default_factory=list)
    _undo: list[tuple[str, Callable[[], object]]] = field(default_factory=list)

    def keep(self, thing: str, detail: str = "") -> None:
        """The thing is as it should be."""
        self._add(thing, Action.KEEP, detail)

    def leave(self, thing: str, detail: str) -> None:
        """The thing stays, for the reason in `detail`."""
        self._add(thing, Action.LEAVE, detail)

    def conflict(self, thing: str, detail: str) -> None:
        """The thing is in the way. A plan goes on and collects; a run stops here.

        Raises:
            PermanentError: not planning.
        """
        self._add(thing, Action.CONFLICT, detail)
        if not self.dry:
            raise PermanentError(f"{thing}: {detail}")

    def create(
        self,
        thing: str,
        write: Callable[[], T],
        *,
        undo: Callable[[], object],
        detail: str = "",
    ) -> T | None:
        """Make the thing; None when planning.

        `undo` must bear that there is nothing to undo: it also runs where the answer to the write
        was lost.
        """
        self._add(thing, Action.CREATE, detail)
        return self._write(thing, write, undo)

    def update(
        self,
        thing: str,
        write: Callable[[], T],
        *,
        undo: Callable[[], object] | None = None,
        detail: str = "",
    ) -> T | None:
        """Change the thing; None when planning. `undo` restores how it was."""
        self._add(thing, Action.UPDATE, detail)
        return self._write(thing, write, undo)

    def delete(self, thing: str, write: Callable[[], object], detail: str = "") -> bool:
        """Remove the thing unless it is protected; whether it is (or would be) removed."""
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
        """Everything that this run made, changed or found right: what it stands for."""
        return frozenset(r.thing for r in self.of(Action.CREATE, Action.UPDATE, Action.KEEP))

    def undo_all(self) -> list[str]:
        """Take every write back, the last one first; what could not be taken back, with why."""
        left = []
        for thing, undo in reversed(self._undo):
            try:
                undo()
            except CastaiError as error:
                left.append(f"{thing} ({first_line(error)})")
        self._undo.clear()
        return left

    def _add(self, thing: str, action: Action, detail: str) -> None:
        self.rows.append(Row(self.step, thing, action, detail))

    def _write(
        self, thing: str, write: Callable[[], T], undo: Callable[[], object] | None
    ) -> T | None:
        if self.dry:
            return None
        try:
            result = write()
        except Exception as error:
            if undo and not _surely_not_written(error):
                self._undo.append((thing, undo))
            raise
        if undo:
            self._undo.append((thing, undo))
        return result


def _surely_not_written(error: Exception) -> bool:
    return isinstance(error, AwsRefusedError) and error.code in _NOT_WRITTEN


def first_line(error: BaseException) -> str:
    """The first line of an error's message: the one that says what to do."""
    return str(error).partition("\n")[0]


def listed(rows: Iterable[Row]) -> str:
    """Rows for an error, one a line."""
    return "\n".join(f"- {row.thing}: {row.detail}" for row in rows)
