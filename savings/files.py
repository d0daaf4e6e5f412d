"""Snapshots, prices and the Spot Advisor's feed as files: what is read is checked."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx2
import msgspec

from lambdas.common.errors import PermanentError
from savings.prices import InstanceType, Prices
from savings.snapshot import Data, Snapshot

T = TypeVar("T", bound=Data)

_PRIVATE: Final = 0o600
"""A snapshot names workloads."""
_FEED_LIMIT: Final = 64 * 2**20  # bytes; the feed has about 4 MB
_FEED_TIMEOUT: Final = 20.0  # s
_RATINGS: Final = range(5)


def read_snapshot(path: Path) -> Snapshot:
    """Raises PermanentError for a file that is no snapshot, or one with impossible values."""
    found = _read(path, Snapshot)
    _refuse(path, _faults_of_snapshot(found))
    return found


def read_prices(path: Path) -> Prices:
    """Raises PermanentError for a file that is no price file, or one with impossible values."""
    found = _read(path, Prices)
    _refuse(path, _faults_of_prices(found))
    return found


def write(path: Path, document: Data) -> None:
    """Write a snapshot or prices. Raises as `write_bytes`."""
    write_bytes(path, msgspec.json.encode(document) + b"\n")


def write_bytes(path: Path, content: bytes) -> None:
    """Write the file whole or not at all. Raises PermanentError where that is impossible."""
    part = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(
            os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE), "wb"
        ) as file:
            file.write(content)
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise PermanentError(
            f"Name a file that can be written: {path}: {error.strerror}"
        ) from error


def check(snapshot: Snapshot, prices: Prices) -> None:
    """Raise PermanentError where the two do not belong together."""
    if snapshot.region != prices.region:
        raise PermanentError(
            f"Use prices of {snapshot.region}, where cluster {snapshot.cluster} is: these are of "
            f"{prices.region}"
        )


def read_advisor(source: str, region: str) -> dict[str, int]:
    """The Spot Advisor's range of each type, for Linux in the region, from a file or a URL.

    Raises PermanentError for a source that cannot be read or has no such region.
    """
    try:
        content = _fetched(source) if "://" in source else Path(source).read_bytes()
    except OSError as error:
        raise PermanentError(f"Name a file that can be read: {source}: {error.strerror}") from error
    try:
        types = msgspec.json.decode(content)["spot_advisor"][region]["Linux"]
        return {name: each["r"] for name, each in types.items() if each["r"] in _RATINGS}
    except (msgspec.DecodeError, KeyError, TypeError, AttributeError) as error:
        raise PermanentError(
            f"Give the Spot Advisor's feed with region {region}: {source} is none, or has no such "
            "region"
        ) from error


def with_ratings(prices: Prices, ratings: dict[str, int]) -> Prices:
    """The prices, with the advisor's range of each type."""
    types = (
        msgspec.structs.replace(kind, interrupted=ratings.get(kind.name)) for kind in prices.types
    )
    return msgspec.structs.replace(prices, types=tuple(types))


def _fetched(url: str) -> bytes:
    if not url.startswith("https://"):
        raise PermanentError(f"Use an https:// address for the Spot Advisor's feed: {url}")
    try:
        with httpx2.stream("GET", url, timeout=_FEED_TIMEOUT, follow_redirects=False) as response:
            response.raise_for_status()
            content = b""
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > _FEED_LIMIT:
                    raise PermanentError(f"Use the Spot Advisor's feed: {url} is larger than it is")
            return content
    except httpx2.HTTPError as error:
        raise PermanentError(
            f"Check that {url} can be reached, or use a file: {type(error).__name__}"
        ) from error


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise PermanentError(f"Name a file that can be read: {path}: {error.strerror}") from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PermanentError(
            f"Write {path} anew (castai-eks savings CLUSTER --{kind.__name__.lower()} FILE): it is "
            f"no {kind.__name__.lower()} file, or it was cut: {error}"
        ) from error


def _refuse(path: Path, faults: Iterable[str]) -> None:
    if first := next(iter(faults), ""):
        raise PermanentError(f"Correct {path}, or write it anew: {first}")


def _faults_of_snapshot(snapshot: Snapshot) -> Iterator[str]:
    yield from _twice("node", [node.name for node in snapshot.nodes])
    yield from _twice("pod", [f"{pod.namespace}/{pod.name}" for pod in snapshot.pods])
    for node in snapshot.nodes:
        if min(node.allocatable.values(), default=0) < 0:
            yield f"node {node.name} has less than nothing to allocate"
    for pod in snapshot.pods:
        if min(pod.demand.requests.values(), default=0) < 0:
            yield f"pod {pod.namespace}/{pod.name} requests less than nothing"


def _faults_of_prices(prices: Prices) -> Iterator[str]:
    yield from _twice("instance type", [kind.name for kind in prices.types])
    for kind in prices.types:
        yield from (f"{kind.name}: {fault}" for fault in _faults_of_type(kind))


def _faults_of_type(kind: InstanceType) -> Iterator[str]:
    if min(kind.vcpus, kind.memory, kind.interfaces, kind.addresses) <= 0:
        yield "vcpus, memory, interfaces and addresses have to be above 0"
    if kind.on_demand is not None and not _is_price(kind.on_demand):
        yield "onDemand has to be above 0; leave it out where it is not known"
    for zone, price in kind.spot.items():
        if not all(map(_is_price, (price.low, price.now, price.high))):
            yield f"spot prices of {zone} have to be above 0"
        elif not price.low <= price.now <= price.high:
            yield f"the spot price of {zone} is not between low and high"


def _is_price(price: float) -> bool:
    return 0 < price < math.inf


def _twice(what: str, names: Iterable[Any]) -> Iterator[str]:
    seen = set()
    for name in names:
        if name in seen:
            yield f"{what} {name} is there twice"
        seen.add(name)
