"""The estimate as a pure function: a snapshot and prices in, a plan out. No network, no clock."""

from __future__ import annotations

from dataclasses import dataclass

from savings.estimate import Estimate
from savings.prices import Prices
from savings.snapshot import Amounts, Market, Snapshot, Taint


@dataclass(frozen=True)
class PlannedNode:
    """A node of a packing."""

    name: str
    """Of a node that exists and stays as it is. Empty: a new one."""
    instance_type: str
    market: Market
    zone: str
    group: str
    price: float
    """Per hour."""
    labels: dict[str, str]
    taints: tuple[Taint, ...]
    allocatable: Amounts
    """Before DaemonSets' and static pods; `pods` included."""


@dataclass(frozen=True)
class Packing:
    """Where each pod goes in one step."""

    nodes: tuple[PlannedNode, ...]
    placed: tuple[tuple[int, int], ...]
    """(index in the snapshot's pods, index in `nodes`), in the order of placing."""
    lower_bound: float


@dataclass(frozen=True)
class Plan:
    """The estimate, and the packings behind its three steps."""

    estimate: Estimate
    packings: tuple[Packing, ...]


def make(snapshot: Snapshot, prices: Prices) -> Plan:
    """Raises PermanentError for a snapshot and prices that do not fit together."""
    raise NotImplementedError
