"""Parts that the generated pages share."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

DOCS: Final = Path(__file__).parents[2] / "docs"
HEADER: Final = "<!-- Written by `make docs`. Change tools/docs or the policies, not this file. -->"


def table(head: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def joined(parts: Iterable[str]) -> str:
    """The page with these blocks."""
    return "\n\n".join(parts) + "\n"
