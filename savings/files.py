"""The two files of an estimate: what was seen of the cluster, and the prices.

Both are JSON. They are checked beyond their types: the plan relies on it.
"""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from lambdas.common.errors import PermanentError
from lambdas.common.text import cut
from savings.prices import InstanceType, Prices
from savings.snapshot import Amounts, Budget, Snapshot

MOST_BYTES: Final = 1 << 30  # of a file: a larger one is none of ours
MOST_PRICE: Final = 1e6  # per hour: the largest instances cost some hundreds
MOST_AMOUNT: Final = 1 << 50  # bytes, a petabyte: more than any node has
_PERCENT: Final = re.compile(r"\d+%")
_SHOWN: Final = 3  # faults in one message
_File = TypeVar("_File", Snapshot, Prices)


def read_snapshot(path: Path) -> Snapshot:
    """Raises PermanentError, with file and place, for what is no snapshot."""
    return _read(path, Snapshot, "--snapshot", _snapshot_faults)


def read_prices(path: Path) -> Prices:
    """Raises PermanentError, with file and place, for what are no prices."""
    return _read(path, Prices, "--prices", _price_faults)


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Write it whole or not at all, readable for its owner only: it names workloads.

    Raises PermanentError where that is not possible.
    """
    _write(path, snapshot)


def write_prices(path: Path, prices: Prices) -> None:
    """As `write_snapshot`."""
    _write(path, prices)


def check(snapshot: Snapshot, prices: Prices) -> None:
    """Raise PermanentError if the prices are not for this cluster: of another region, or without a
    type of its nodes.
    """
    if snapshot.region != prices.region:
        raise PermanentError(
            f"Give prices of the cluster's region {snapshot.region}: these are of {prices.region}."
        )
    known = {each.name for each in prices.types}
    types = {each.instance_type for each in snapshot.nodes if each.instance_type}
    if types and not types & known:
        raise PermanentError(
            "Give prices that have the types of the cluster's nodes "
            f"({cut(', '.join(sorted(types)))}): these have none of them."
        )


def _read(
    path: Path, kind: type[_File], option: str, faults: Callable[[_File], Iterable[str]]
) -> _File:
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise PermanentError(
            f"Give {option} a file that can be read: {path}: {error.strerror}."
        ) from error
    if len(content) > MOST_BYTES:
        raise PermanentError(f"Give {option} a file of at most 1 GiB: {path} is larger.")
    try:
        found = msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PermanentError(
            f"Give {option} a whole file that `castai-eks savings {option}` wrote, of this "
            f"release: {path}: {cut(error)}."
        ) from error
    wrong = list(_first(faults(found)))
    if wrong:
        raise PermanentError(f"Correct {path} or write it again: {'; '.join(wrong)}.")
    return found


def _first(faults: Iterable[str]) -> Iterator[str]:
    for number, fault in enumerate(faults):
        if number == _SHOWN:
            yield "and more"
            return
        yield cut(fault)


def _write(path: Path, content: Snapshot | Prices) -> None:
    text = msgspec.json.format(msgspec.json.encode(content), indent=1)
    try:
        # A temporary file is readable for its owner only.
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(text + b"\n")
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise PermanentError(
            f"Give a file that can be written: {path}: {error.strerror}."
        ) from error


def _snapshot_faults(snapshot: Snapshot) -> Iterator[str]:
    if not snapshot.region:
        yield "region is empty"
    yield from _repeated("node", (each.name for each in snapshot.nodes))
    pods = (f"{each.namespace}/{each.name}" for each in snapshot.pods)
    yield from _repeated("pod", pods)
    sets = (f"{each.namespace}/{each.name}" for each in snapshot.daemon_sets)
    yield from _repeated("DaemonSet", sets)
    owners = (f"{each.namespace} {each.owner}" for each in snapshot.workloads)
    yield from _repeated("workload", owners)
    for node in snapshot.nodes:
        yield from _impossible(f"allocatable of node {node.name}", node.allocatable)
    for pod in snapshot.pods:
        yield from _impossible(f"requests of pod {pod.namespace}/{pod.name}", pod.demand.requests)
        if any(each.max_skew < 1 for each in pod.spread):
            yield f"maxSkew of pod {pod.namespace}/{pod.name} is below 1"
    for each in snapshot.daemon_sets:
        yield from _impossible(f"requests of DaemonSet {each.name}", each.demand.requests)
    for budget in snapshot.budgets:
        yield from _budget_faults(budget)
    for workload in snapshot.workloads:
        if workload.replicas < 0:
            yield f"replicas of {workload.namespace} {workload.owner} are {workload.replicas}"


def _budget_faults(budget: Budget) -> Iterator[str]:
    for given in (budget.min_available, budget.max_unavailable):
        if isinstance(given, str) and not _PERCENT.fullmatch(given):
            yield f"budget {budget.namespace}/{budget.name} has {given!r}"


def _price_faults(prices: Prices) -> Iterator[str]:
    if not prices.region or not prices.currency:
        yield "region or currency is empty"
    if prices.history_days < 0:
        yield f"historyDays is {prices.history_days}"
    yield from _repeated("type", (each.name for each in prices.types))
    for each in prices.types:
        yield from _type_faults(each)


def _type_faults(each: InstanceType) -> Iterator[str]:
    if min(each.vcpus, each.memory) <= 0:
        yield f"{each.name} has {each.vcpus} vCPUs and {each.memory} bytes of memory"
    if min(each.interfaces, each.addresses) < 0:
        yield f"{each.name} has {each.interfaces} interfaces of {each.addresses} addresses"
    yield from _impossible(f"accelerators of {each.name}", each.accelerators)
    if each.on_demand is not None and not _is_price(each.on_demand):
        yield f"onDemand of {each.name} is {each.on_demand}"
    for zone, price in each.spot.items():
        if not all(map(_is_price, (price.low, price.now, price.high))):
            yield f"a spot price of {each.name} in {zone} is not above 0"
        elif not price.low <= price.now <= price.high:
            yield f"spot prices of {each.name} in {zone} are not low <= now <= high"
    if each.interrupted is not None and not 0 <= each.interrupted <= 4:  # noqa: PLR2004 - AWS's ranges
        yield f"interrupted of {each.name} is {each.interrupted}"


def _is_price(price: float) -> bool:
    return 0 < price < MOST_PRICE


def _impossible(what: str, amounts: Amounts) -> Iterator[str]:
    for name, amount in amounts.items():
        if not 0 <= amount <= MOST_AMOUNT:
            yield f"{what} has {name} {amount}"


def _repeated(kind: str, names: Iterable[str]) -> Iterator[str]:
    for name, count in Counter(names).items():
        if count > 1 or not name:
            yield f"{kind} {name!r} is there {count} times"
