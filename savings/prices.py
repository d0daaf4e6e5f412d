"""Instance types, what they offer, and their prices in one region. Plain data."""

from __future__ import annotations

from typing import Final

import msgspec

from savings.snapshot import Data

FORMAT: Final = "castai-eks-savings-prices/1"
HOURS_PER_MONTH: Final = 730
"""AWS's own month, and that of CAST AI's cost report."""


class SpotPrice(Data, frozen=True, kw_only=True):
    """Of one type in one zone, per hour."""

    now: float
    low: float
    """The lowest of the history."""
    high: float


class InstanceType(Data, frozen=True, kw_only=True):
    """An instance type of the region."""

    name: str
    vcpus: int
    memory: int
    """Bytes, as EC2 states it: the operating system sees less."""
    arch: str
    """As Kubernetes names it: amd64 or arm64."""
    interfaces: int
    """Network interfaces."""
    addresses: int
    """IPv4 addresses of one interface."""
    accelerators: dict[str, int] = msgspec.field(default_factory=dict)
    """Resource name, as its device plugin registers it, and number: `nvidia.com/gpu`."""
    zones: tuple[str, ...] = ()
    """The zones that offer it."""
    current: bool = True
    """Of the current generation."""
    burstable: bool = False
    bare_metal: bool = False
    on_demand: float | None = None
    """List price for Linux, per hour. None: not known."""
    spot: dict[str, SpotPrice] = msgspec.field(default_factory=dict)
    """By zone."""
    interrupted: int | None = None
    """The Spot Advisor's range: 0 below 5 % of instances a month, 1 5-10 %, 2 10-15 %, 3 15-20 %,
    4 more than 20 %. None: not known."""


class Prices(Data, frozen=True, kw_only=True, tag_field="format", tag=FORMAT):
    """The types and prices of one region at one moment."""

    region: str
    currency: str = "USD"
    taken: str
    """UTC, `2026-01-31T12:00:00Z`."""
    history_days: int
    """Days over which `low` and `high` of spot prices are."""
    types: tuple[InstanceType, ...]


def addressed_pods(kind: InstanceType) -> int:
    """Pods of a node by its addresses. Of each interface one is its own; two pods use the node's.

    Source: eni-max-pods.txt of the EKS node images.
    """
    return kind.interfaces * (kind.addresses - 1) + 2
