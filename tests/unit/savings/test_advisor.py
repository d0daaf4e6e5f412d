"""The Spot Advisor's ranges, of a file and of a URL."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx2
import pytest

from lambdas.common.errors import PermanentError
from savings import advisor
from savings.prices import Prices
from tests.unit.savings.test_instance_types import made

REGION = "eu-central-1"
URL = "https://advisor.test/data.json"
FEED: dict[str, Any] = {
    "global_rate": "<10%",
    "instance_types": {"m5.large": {"cores": 2, "ram_gb": 8.0, "emr": True}},
    "ranges": [{"index": 0, "label": "<5%", "dots": 0, "max": 5}],
    "spot_advisor": {
        REGION: {
            "Linux": {"m5.large": {"s": 60, "r": 0}, "c5.large": {"s": 50, "r": 4}},
            "Windows": {"m5.large": {"s": 30, "r": 3}},
        },
        "eu-south-9": {"Windows": {}},
    },
}


def answering(content: bytes, status: int = 200) -> httpx2.MockTransport:
    return httpx2.MockTransport(lambda _: httpx2.Response(status, content=content))


@pytest.fixture
def feed(tmp_path: Path) -> Path:
    path = tmp_path / "advisor.json"
    path.write_text(json.dumps(FEED))
    return path


def test_a_file_and_a_url_give_the_ranges_of_linux_in_the_region(feed: Path) -> None:
    expected = {"m5.large": 0, "c5.large": 4}
    assert advisor.read(str(feed), REGION) == expected
    assert advisor.read(URL, REGION, transport=answering(feed.read_bytes())) == expected


def test_a_range_that_is_none_of_aws_s_is_left_out(feed: Path) -> None:
    changed = json.loads(json.dumps(FEED))
    changed["spot_advisor"][REGION]["Linux"]["m5.large"]["r"] = 9
    feed.write_text(json.dumps(changed))
    assert advisor.read(str(feed), REGION) == {"c5.large": 4}


@pytest.mark.parametrize("region", ["mars-north-1", "eu-south-9"])
def test_a_region_that_the_feed_lacks_is_said(feed: Path, region: str) -> None:
    with pytest.raises(PermanentError, match=f"no Linux instances of region {region}"):
        advisor.read(str(feed), region)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"spot_advisor": {"x": {"Linux": {"m5": {}}}}}',
        b"\xff",
        b"[" * 9999,
    ],
)
def test_what_is_no_feed_is_said_with_its_source(feed: Path, content: bytes) -> None:
    feed.write_bytes(content)
    with pytest.raises(PermanentError, match=f"Give --advisor a file or URL as .*{feed}"):
        advisor.read(str(feed), REGION)


def test_a_file_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="No such file"):
        advisor.read(str(tmp_path / "missing"), REGION)
    with pytest.raises(PermanentError, match="Is a directory"):
        advisor.read(str(tmp_path), REGION)


@pytest.mark.parametrize("url", ["http://advisor.test/x", "ftp://advisor.test/x", "https:///x"])
def test_only_https_is_read(url: str) -> None:
    with pytest.raises(PermanentError, match="https URL"):
        advisor.read(url, REGION, transport=answering(b"{}"))


def test_an_answer_that_is_no_success_is_said_without_the_query() -> None:
    with pytest.raises(PermanentError, match="it answered 403") as refused:
        advisor.read(f"{URL}?token=secret", REGION, transport=answering(b"", 403))
    assert "secret" not in str(refused.value)


def test_a_redirect_is_not_followed() -> None:
    with pytest.raises(PermanentError, match="it answered 302"):
        advisor.read(URL, REGION, transport=answering(b"", 302))


def test_a_url_that_cannot_be_reached_is_said() -> None:
    def fail(_: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectTimeout("")

    with pytest.raises(PermanentError, match=r"advisor\.test can be reached"):
        advisor.read(URL, REGION, transport=httpx2.MockTransport(fail))


def test_a_source_that_is_too_large_is_refused(feed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(advisor, "MOST_BYTES", 10)
    for source in (str(feed), URL):
        with pytest.raises(PermanentError, match="larger than"):
            advisor.read(source, REGION, transport=answering(feed.read_bytes()))


def test_the_prices_get_the_ranges_of_their_types() -> None:
    types = (made("m5.large"), made("m6i.large", interrupted=2))
    prices = Prices(region=REGION, taken="", history_days=90, types=types)
    found = advisor.with_interruptions(prices, {"m5.large": 3}).types
    assert [each.interrupted for each in found] == [3, None]
