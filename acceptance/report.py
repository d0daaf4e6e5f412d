"""The report: a Markdown file that can be attached to an issue. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from acceptance.checks import Check, passed

MARKS = {True: "passed", False: "FAILED", None: "remark"}


@dataclass
class Report:
    """What a run found. `hidden`: texts that it replaces, and by what."""

    hidden: Mapping[str, str]
    facts: dict[str, str] = field(default_factory=dict)
    checks: list[Check] = field(default_factory=list)
    result: Mapping[str, Any] = field(default_factory=dict)
    """The line that the function logged about the drill."""
    by_hand: list[str] = field(default_factory=list)
    """What the run could not undo: what to do about it."""
    errors: list[str] = field(default_factory=list)
    """Why the run ended early; empty if it did not."""

    @property
    def passed(self) -> bool:
        return passed(self.checks) and not self.errors and not self.by_hand

    def markdown(self, printed: Sequence[str]) -> str:
        """Return the file's text. `printed`: what the run has printed."""
        text = "\n".join([*self._head(), *self._body(printed)])
        for secret, word in self.hidden.items():
            text = text.replace(secret, word)
        return text

    def _head(self) -> Iterator[str]:
        yield f"# Acceptance: {'passed' if self.passed else 'FAILED'}"
        yield ""
        words = " and ".join(self.hidden.values())
        yield "The names of the cluster, the node and its pods are in this report; no key and no"
        yield f"token is. In place of the account's id and of who ran it, it says {words}."
        yield ""
        yield from _table(("what", "value"), list(self.facts.items()))

    def _body(self, printed: Sequence[str]) -> Iterator[str]:
        yield "## Verdict"
        yield ""
        rows = [(check.name, MARKS[check.passed], check.detail) for check in self.checks]
        yield from _table(("check", "result", "seen"), rows)
        if self.errors:
            lines = [line for error in self.errors for line in error.splitlines()]
            yield from ("The run ended early:", "", *_block(lines))
        if self.by_hand:
            yield from ("## Undo by hand", "", *(f"- {each}" for each in self.by_hand), "")
        if self.result:
            shown = json.dumps(self.result, indent=2)
            yield from ("## What the function logged", "", *_block(shown.splitlines(), "json"))
        yield from ("## Output", "", *_block(printed))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', '/') for cell in row)} |"
    yield ""


def _block(lines: Sequence[str], language: str = "text") -> Iterator[str]:
    yield from (f"```{language}", *lines, "```", "")


def versions(found: Mapping[str, str]) -> str:
    """Return versions in one cell."""
    return ", ".join(f"{name} {version}" for name, version in found.items())
