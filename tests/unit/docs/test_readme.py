"""The README says what the code does: settings, demo, behaviour, messages."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import msgspec
import pytest

from sandbox.demo.chapters import CHAPTERS
from stacks.settings import PREFIX, Settings, groups
from tests.support import pages
from tests.support.pages import README, ROOT, WRITTEN
from tools.docs import settings_table

SOURCES = ("lambdas", "stacks", "cli", "sandbox")


def test_the_table_of_settings_is_current() -> None:
    text = README.read_text(encoding="utf-8")
    assert settings_table.current(text) == text, "Run make docs"


def test_without_its_markers_the_table_is_written_nowhere() -> None:
    with pytest.raises(ValueError, match="markers"):
        settings_table.current("no markers")


@pytest.mark.parametrize("block", pages.blocks(README, "json"), ids=lambda block: block.text)
def test_the_settings_that_are_shown_are_settings(block: pages.Block) -> None:
    Settings.from_context(json.loads(block.text))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_that_are_named_exist_and_take_the_value(page: Path) -> None:
    known = {f.encode_name for group in groups().values() for f in msgspec.structs.fields(group)}
    for key, value in re.findall(r"`castai:(\w+)(?:=([^`\s]+))?`", pages.prose(page)):
        assert key in known, key
        if value:
            Settings.from_context({PREFIX + key: value})


def test_the_demo_that_is_shown_is_the_demo_that_runs() -> None:
    shown = re.findall(r"^(\d+)  (.*)$", pages.between(README, "demo"), re.MULTILINE)
    expected = [(str(number), chapter.title) for number, chapter in enumerate(CHAPTERS, 1)]
    assert shown == expected, "Take the README's extract anew from the output of make demo"


@pytest.mark.parametrize(
    "row", pages.rows(pages.section(README, "How it behaves when…")), ids=lambda row: row[0]
)
def test_each_behaviour_points_at_the_test_that_shows_it(row: list[str]) -> None:
    link = re.fullmatch(r"\[(.*)\]\((.*)\)", row[2])
    assert link, "the third cell is a link to a test"
    assert f"def test_{link[1].replace(' ', '_')}(" in (ROOT / link[2]).read_text()


@pytest.mark.parametrize(
    "row", pages.rows(pages.section(README, "Troubleshooting")), ids=lambda row: row[0]
)
def test_each_message_is_one_that_the_code_says(row: list[str]) -> None:
    message = re.fullmatch(r"`(.*)`", row[0])
    assert message, "the first cell is a message"
    assert any(message[1] in said for said in sayings()), message[1]


@cache
def sayings() -> tuple[str, ...]:
    """Every text in the sources, with … for what is filled in."""
    trees = (
        ast.parse(path.read_text(encoding="utf-8"))
        for room in SOURCES
        for path in (ROOT / room).rglob("*.py")
    )
    return tuple(said for tree in trees for said in _texts(tree))


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
            )
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
