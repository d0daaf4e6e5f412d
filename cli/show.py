"""What the commands print: tables for people, JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from lambdas.common.errors import PermanentError
from lambdas.onboarding.ledger import Action, Row

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object, for programs.")]

WIDE: Final = 400  # characters: ARNs of longest names, and a sentence
_COLOURS: Final = {
    Action.CREATE: "green",
    Action.UPDATE: "yellow",
    Action.DELETE: "red",
    Action.CONFLICT: "bold red",
}


def as_object(found: Iterable[Row], facts: Mapping[str, str] | None = None) -> None:
    """Rows, and names with values, as one JSON object."""
    listed = [
        {"step": row.step, "action": row.action, "thing": row.thing, "detail": row.detail}
        for row in found
    ]
    document({"rows": listed, **({} if facts is None else {"facts": dict(facts)})})


def refuse_question(*, as_json: bool, answered: bool, options: str = "--yes") -> None:
    """Refuse JSON where the command would ask a question. Raises PermanentError."""
    if as_json and not answered:
        raise PermanentError(f"Give {options} with --json: there is no question then")


def rows(found: Iterable[Row]) -> None:
    """The rows of a plan, or of what a run did."""
    table = Table(box=None, header_style="bold")
    for head in ("step", "", "thing", "detail"):
        table.add_column(head, overflow="fold")
    for row in found:
        style = _COLOURS.get(row.action, "dim")
        table.add_row(*map(Text, (row.step, row.action, row.thing, row.detail)), style=style)
    _console().print(table)


def facts(found: Mapping[str, str]) -> None:
    """Names and values; what has no value is left out."""
    table = Table(box=None, show_header=False)
    for name, value in found.items():
        if value:
            table.add_row(Text(name), Text(value))
    _console().print(table)


def _console() -> Console:
    """The console; in a pipe or a file each row is one line, however long."""
    console = Console()
    return console if console.is_terminal else Console(width=WIDE)


def document(value: Any) -> None:  # noqa: ANN401 - any JSON
    """Print JSON without the terminal's colours and line breaks: it may go into a file."""
    print(json.dumps(value, indent=2))
