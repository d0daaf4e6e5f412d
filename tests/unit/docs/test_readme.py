"""The README and the page of settings: settings, length, chapters of the demo."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec
import pytest

from sandbox.demo.chapters import CHAPTERS
from stacks.settings import PREFIX, Settings, groups
from tests.support import pages
from tests.support.pages import README, ROOT, WRITTEN
from tools.docs import settings_table

OPERATIONS = ROOT / "docs" / "operations.md"


def test_the_page_of_settings_is_current() -> None:
    assert settings_table.PAGE.read_text(encoding="utf-8") == settings_table.page(), "Run make docs"


def test_the_readme_has_at_most_150_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 150


@pytest.mark.parametrize(
    "block",
    [block for page in (README, OPERATIONS) for block in pages.blocks(page, "json")],
    ids=lambda block: block.text,
)
def test_the_settings_in_a_json_block_are_valid(block: pages.Block) -> None:
    Settings.from_context(json.loads(block.text))


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_settings_in_the_text_exist_and_take_the_value(page: Path) -> None:
    known = {f.encode_name for group in groups().values() for f in msgspec.structs.fields(group)}
    for key, value in re.findall(r"`castai:(\w+)(?:=([^`\s]+))?`", pages.prose(page)):
        assert key in known, key
        if value:
            Settings.from_context({PREFIX + key: value})


def test_the_chapters_in_the_readme_are_those_of_the_demo() -> None:
    shown = re.findall(r"^(\d+)  (.*)$", pages.between(README, "demo"), re.MULTILINE)
    expected = [(str(number), chapter.title) for number, chapter in enumerate(CHAPTERS, 1)]
    assert shown == expected, "Take the README's extract anew from the output of make demo"
