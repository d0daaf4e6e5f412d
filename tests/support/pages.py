"""The project's documents as tests read them: fenced blocks, tables, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
GENERATED = {
    "manual-onboarding.md",
    "permissions.md",
    "settings.md",
    "benchmarks.md",
}  # each has tests of its own
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
    ]
)
WRITTEN = [page for page in PAGES if page.name not in GENERATED]

_BLOCK = re.compile(r"^```([a-z]*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_SUBSTITUTED = re.compile(r"^[A-Z_]+=\$\((.*)\)$")
_ASSIGNMENT = re.compile(r"^[A-Z_]+=")


@dataclass(frozen=True)
class Block:
    """A fenced block of a page."""

    page: Path
    language: str
    text: str

    @property
    def needs(self) -> str:
        """What its first line says that it needs, where it says so."""
        first = self.text.splitlines()[0]
        return first if first.startswith("# Needs ") else ""

    def commands(self) -> Iterator[list[str]]:
        """Each command's words; an assignment's is the command in it."""
        for line in self.text.replace("\\\n", " ").splitlines():
            substituted = _SUBSTITUTED.match(line)
            words = shlex.split(substituted[1] if substituted else line, comments=True)
            while words and _ASSIGNMENT.match(words[0]):
                words.pop(0)
            if words:
                yield words


def blocks(page: Path, language: str) -> list[Block]:
    """The fenced blocks of one language."""
    found = _BLOCK.findall(page.read_text(encoding="utf-8"))
    return [Block(page, each, text) for each, text in found if each == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return _BLOCK.sub("", page.read_text(encoding="utf-8"))


def between(page: Path, name: str) -> str:
    """What stands between `<!-- name: begin … -->` and `<!-- name: end -->`."""
    text = page.read_text(encoding="utf-8")
    (inside,) = re.findall(
        rf"<!-- {name}: begin[^\n]*-->\n(.*?)<!-- {name}: end -->", text, re.DOTALL
    )
    return str(inside)


def rows(table: str) -> list[list[str]]:
    """The cells of each row of the Markdown tables in a text, headings left out."""
    lines = table.splitlines()
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for number, line in enumerate(lines)
        if line.startswith("|")
        and not line.startswith("|---")
        and not (number + 1 < len(lines) and lines[number + 1].startswith("|---"))
    ]


def section(page: Path, heading: str) -> str:
    """The text under a second-level heading, up to the next."""
    text = page.read_text(encoding="utf-8")
    return re.split(r"^## ", text.split(f"## {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def anchors(page: Path) -> set[str]:
    """The fragments by which GitHub knows the page's headings."""
    headings = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each.lower()).replace(" ", "-") for each in headings}
