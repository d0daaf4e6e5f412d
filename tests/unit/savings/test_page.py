"""The estimate as a page, parsed in each case. A browser shows it in tests/functional/savings."""

from __future__ import annotations

import re
import sys
from collections import Counter
from html.parser import HTMLParser
from itertools import pairwise

import pytest
from hypothesis import given

from savings.estimate import Estimate
from savings.page import render
from tests.support import estimates

VOID = {"meta", "br", "hr", "link", "img", "input"}
SHAPES = {"svg", "title", "defs", "pattern", "g", "rect", "path", "text", "tspan"}
HEAD = {"html", "head", "meta", "title", "style", "body", "main"}
FLOW = {"h1", "h2", "h3", "p", "dl", "dt", "dd", "ul", "ol", "li", "div", "figure", "figcaption"}
TABLES = {"table", "caption", "thead", "tbody", "tfoot", "tr", "th", "td"}
TAGS = SHAPES | HEAD | FLOW | TABLES
REFERENCES = {"href", "xlink:href", "src", "srcset", "action", "data", "poster", "background"}


class Parsed(HTMLParser):
    """Elements, texts and styles of a page. An element that is closed wrongly fails."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.texts: list[str] = []
        self.comments: list[str] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(attrs) == len(dict(attrs)), f"an attribute of {tag} is there twice"
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def of(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture(params=estimates.cases(), scope="module")
def page(request: pytest.FixtureRequest) -> str:
    return render(estimates.cases()[request.param])


def test_the_answer_comes_first(page: str) -> None:
    assert page.index('class="answer"') < page.index("<h2")
    assert page.startswith("<!DOCTYPE html>")


def test_nothing_is_fetched_and_nothing_runs(page: str) -> None:
    parsed = Parsed(page)

    assert {tag for tag, _ in parsed.elements} <= TAGS
    for tag, attributes in parsed.elements:
        assert not REFERENCES & attributes.keys(), tag
        assert not [name for name in attributes if name.startswith("on")], tag
    assert parsed.comments == []
    assert "@import" not in page
    assert set(re.findall(r"url\([^)]*\)", page)) <= {"url(#now-stripes)", "url(#steps-stripes)"}
    hosts = set(re.findall(r"\bhttps?://[^\s\"'<]*", page))
    assert hosts <= {"http://www.w3.org/2000/svg"}  # the name of SVG, which is not fetched


def test_the_policy_forbids_all_but_inline_style(page: str) -> None:
    policies = [each for each in Parsed(page).of("meta") if "http-equiv" in each]

    assert [each["content"] for each in policies] == [
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
    ]


def test_a_screen_reader_finds_headings_headers_and_descriptions(page: str) -> None:
    parsed = Parsed(page)
    headings = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h\d", tag)]
    tables = page.split("<table>")[1:]

    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(headings))
    assert all(each["role"] == "img" and each["aria-label"] for each in parsed.of("svg"))
    assert all(each.get("scope") in {"col", "row"} for each in parsed.of("th"))
    assert all(each.startswith("<caption>") and "<thead>" in each for each in tables)
    assert len(parsed.of("table")) == len(tables)


def test_ids_are_unique(page: str) -> None:
    ids = Counter(each["id"] for _, each in Parsed(page).elements if "id" in each)

    assert [name for name, times in ids.items() if times > 1] == []


def test_a_hostile_name_stays_text() -> None:
    parsed = Parsed(render(estimates.hostile()))
    shown = estimates.HOSTILE.replace("\x1b", "\N{REPLACEMENT CHARACTER}").replace(
        "\u202e", "\N{REPLACEMENT CHARACTER}"
    )

    assert shown in parsed.texts  # a cell
    assert any(shown in each["aria-label"] for each in parsed.of("svg"))
    assert parsed.of("script") == parsed.of("b") == []
    assert any(shown in text and "costs" in text for text in parsed.texts)


def test_the_same_estimate_gives_the_same_page() -> None:
    """It depends on no clock and no random number."""
    assert render(estimates.rich()) == render(estimates.rich())


def test_no_finder_of_pygal_stays_that_python_3_11_warns_of() -> None:
    assert not [each for each in sys.meta_path if type(each).__module__ == "pygal"]


def test_long_tables_are_cut() -> None:
    page = render(estimates.large())

    assert len(page) < 300_000
    assert "... and 1395 more rows: --json shows all" in page


def test_figures_of_the_page_are_those_of_the_table() -> None:
    texts = Parsed(render(estimates.rich())).texts

    for shown in ("2.7504", "1.6324", "2,007.79", "390.99", "2.2148", "1,616.80", "80.5 % of now"):
        assert shown in texts


@given(estimates.estimates())
def test_any_estimate_is_a_well_formed_page(estimate: Estimate) -> None:
    parsed = Parsed(render(estimate))

    assert {tag for tag, _ in parsed.elements} <= TAGS
