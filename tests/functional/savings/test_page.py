"""The estimate as a page, shown by a browser where there is one."""

from __future__ import annotations

from pathlib import Path

import pytest

from savings.page import render
from tests.support import browser, estimates


@pytest.mark.skipif(not browser.found(), reason="no browser: tests/unit/savings parses the page")
def test_a_browser_shows_the_pages_without_a_request_or_a_complaint(tmp_path: Path) -> None:
    with browser.page(browser.found() or "", tmp_path / "profile") as tab:
        for name, estimate in estimates.cases().items():
            file = tmp_path / f"{name}.html"
            file.write_text(render(estimate), encoding="utf-8")
            for width in (1200, 380):
                for dark in (False, True):
                    tab.show(file, width=width, dark=dark)
                    assert tab.value("document.documentElement.scrollWidth") <= width, name
                    colour = tab.value("getComputedStyle(document.body).backgroundColor")
                    assert (colour == "rgb(255, 255, 255)") != dark
            unnamed = [
                node
                for node in tab.call("Accessibility.getFullAXTree")["nodes"]
                if node.get("role", {}).get("value") in {"image", "img", "table", "region"}
                and not node.get("name", {}).get("value")
            ]
            assert unnamed == []
        assert {url.partition("://")[0] for url in tab.requests} == {"file"}
        assert len(tab.requests) == 4 * len(estimates.cases())
        assert tab.complaints == []


@pytest.mark.skipif(not browser.found(), reason="no browser: tests/unit/savings parses the page")
def test_the_check_by_a_browser_sees_requests_and_complaints(tmp_path: Path) -> None:
    """The test above can fail."""
    file = tmp_path / "bad.html"
    file.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("x")</script>')
    with browser.page(browser.found() or "", tmp_path / "profile") as tab:
        tab.show(file, width=380, dark=False)

    assert "http://127.0.0.1:9/x.png" in tab.requests
    assert tab.complaints
