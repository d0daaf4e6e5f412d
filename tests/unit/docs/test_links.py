"""Links and file names in the documents."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support import pages
from tests.support.pages import PAGES, ROOT

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
CODE = re.compile(r"`([^`\n]+)`")
FILE = re.compile(r"(?:lambdas|stacks|cli|sandbox|tests|docs|manifests|benchmarks)/[\w./-]+")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_between_documents_resolve(page: Path) -> None:
    for target in LINK.findall(pages.prose(page)):
        if target.startswith("https://"):
            continue
        file, _, fragment = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        assert path.exists(), target
        assert not fragment or fragment in pages.anchors(path), target


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_in_the_documents_exist(page: Path) -> None:
    for words in CODE.findall(pages.prose(page)):
        if FILE.fullmatch(words):
            assert (ROOT / words).exists(), words


def test_every_document_is_linked_from_the_readme_or_from_a_linked_one() -> None:
    seen: set[Path] = set()
    todo = [pages.README]
    while todo:
        page = todo.pop()
        if page in seen:
            continue
        seen.add(page)
        files = (target.partition("#")[0] for target in LINK.findall(pages.prose(page)))
        todo += [
            (page.parent / file).resolve()
            for file in files
            if file.endswith(".md") and not file.startswith("https://")
        ]
    assert set(PAGES) - seen == set()


def test_every_adr_is_in_the_index_with_its_title_and_has_its_parts() -> None:
    folder = ROOT / "docs" / "adr"
    index = {row[0]: row[1] for row in pages.rows((folder / "README.md").read_text())}
    for page in sorted(folder.glob("0*.md")):
        number, title = page.read_text().splitlines()[0].removeprefix("# ").split(". ", 1)
        assert int(number) == int(page.name[:4])
        assert index.pop(number) == f"[{title}]({page.name})"
        for part in ("Context", "Decision", "Consequences", "Alternatives"):
            assert f"**{part}.**" in page.read_text(), (page.name, part)
    assert index == {}
