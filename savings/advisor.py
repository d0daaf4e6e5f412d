"""How often AWS interrupts spot instances of a type: AWS's Spot Advisor, from a file or a URL.

The feed is public, and no documented API of AWS. Its ranges are those of
`savings.prices.InstanceType.interrupted`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx2
import msgspec
from msgspec.structs import replace

from lambdas.common.errors import PermanentError
from lambdas.common.text import cut
from savings.prices import Prices

FEED: Final = "https://spot-bid-advisor.s3.amazonaws.com/spot-advisor-data.json"
TIMEOUT: Final = 15.0  # s
MOST_BYTES: Final = 64 << 20
MOST_RANGE: Final = 4
_LINUX: Final = "Linux"


class _Advice(msgspec.Struct, frozen=True):
    r: int


class _Feed(msgspec.Struct, frozen=True):
    spot_advisor: dict[str, dict[str, dict[str, _Advice]]]


def read(
    source: str, region: str, *, transport: httpx2.BaseTransport | None = None
) -> dict[str, int]:
    """The range of interruptions by type, of Linux instances in a region.

    `source` is a path or an https URL. Raises PermanentError for a source that cannot be read, and
    for one without the region.
    """
    content = _fetched(source, transport) if "://" in source else _file(source)
    source = _shown(source)
    try:
        feed = msgspec.json.decode(content, type=_Feed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PermanentError(
            f"Give --advisor a file or URL as {FEED}: {source}: {cut(error)}."
        ) from error
    found = feed.spot_advisor.get(region, {}).get(_LINUX)
    if not found:
        raise PermanentError(
            f"Leave --advisor out or give another one: {source} has no {_LINUX} instances of "
            f"region {region}."
        )
    return {name: each.r for name, each in found.items() if 0 <= each.r <= MOST_RANGE}


def with_interruptions(prices: Prices, ranges: Mapping[str, int]) -> Prices:
    """The prices with the ranges of the types that the advisor knows."""
    types = (replace(each, interrupted=ranges.get(each.name)) for each in prices.types)
    return replace(prices, types=tuple(types))


def _file(source: str) -> bytes | bytearray:
    try:
        with Path(source).open("rb") as file:
            return _bounded(file.read(MOST_BYTES + 1), source)
    except OSError as error:
        raise PermanentError(
            f"Give --advisor a file that can be read: {source}: {error.strerror}."
        ) from error


def _shown(source: str) -> str:
    """A URL without user and query, which may hold a secret; a path as it is."""
    parts = urlsplit(source)
    if "://" not in source:
        return source
    return f"{parts.scheme}://{parts.hostname or ''}{parts.path}"


def _fetched(source: str, transport: httpx2.BaseTransport | None) -> bytes:
    parts, shown = urlsplit(source), _shown(source)
    if parts.scheme != "https" or not parts.hostname:
        raise PermanentError(f"Give --advisor a file or an https URL: {shown} is none.")
    content = bytearray()
    try:
        with (
            httpx2.Client(transport=transport, timeout=TIMEOUT) as client,
            client.stream("GET", source) as response,
        ):
            if response.status_code != httpx2.codes.OK:
                raise PermanentError(
                    f"Check --advisor {shown}: it answered {response.status_code}."
                )
            for part in response.iter_bytes():
                content += part
                _bounded(content, shown)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise PermanentError(
            f"Check that {parts.hostname} can be reached, or give --advisor a file: "
            f"{shown}: {type(error).__name__}."
        ) from error
    return bytes(content)


def _bounded(content: bytes | bytearray, source: str) -> bytes | bytearray:
    if len(content) > MOST_BYTES:
        raise PermanentError(
            f"Give --advisor another source: {source} is larger than {MOST_BYTES >> 20} MiB."
        )
    return content
