"""Answers of EC2 and of the Price List → instance types with prices. Pure."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lambdas.common.errors import PermanentError
from savings.offers import FAMILY
from savings.prices import InstanceType, SpotPrice, addressed_pods

Object = Mapping[str, Any]

_MIB: Final = 2**20
_ARCHITECTURES: Final = {"x86_64": "amd64", "arm64": "arm64"}
_MAKERS: Final = {"NVIDIA": "nvidia.com/gpu", "AMD": "amd.com/gpu", "Habana": "habana.ai/gaudi"}
_NEURON: Final = "aws.amazon.com/neuron"
_CATEGORIES: Final = ("c", "m", "r")
_LEAST_VCPUS, _MOST_VCPUS = 2, 32
_LEAST_MEMORY: Final = 4 * 2**30
_CURRENCIES: Final = ("USD", "CNY")


def described(item: Object, zones: Iterable[str]) -> InstanceType | None:
    """A type of DescribeInstanceTypes, without prices; None without an
    architecture that EKS runs on.
    """
    processor = item.get("ProcessorInfo") or {}
    names = map(_ARCHITECTURES.get, processor.get("SupportedArchitectures") or ())
    arch = next((name for name in names if name), None)
    if arch is None:
        return None
    network = item.get("NetworkInfo") or {}
    return InstanceType(
        name=item["InstanceType"],
        vcpus=item["VCpuInfo"]["DefaultVCpus"],
        memory=item["MemoryInfo"]["SizeInMiB"] * _MIB,
        arch=arch,
        interfaces=network.get("MaximumNetworkInterfaces") or 1,
        addresses=network.get("Ipv4AddressesPerInterface") or 1,
        accelerators=_accelerators(item),
        zones=tuple(sorted(zones)),
        current=bool(item.get("CurrentGeneration")),
        burstable=bool(item.get("BurstablePerformanceSupported")),
        bare_metal=bool(item.get("BareMetal")),
    )


def _accelerators(item: Object) -> dict[str, int]:
    found: dict[str, int] = defaultdict(int)
    for key, parts in (("GpuInfo", "Gpus"), ("InferenceAcceleratorInfo", "Accelerators")):
        for each in (item.get(key) or {}).get(parts) or ():
            if name := _MAKERS.get(each.get("Manufacturer", "")):
                found[name] += each.get("Count") or 0
    for each in (item.get("NeuronInfo") or {}).get("NeuronDevices") or ():
        found[_NEURON] += each.get("Count") or 0
    return dict(found)


def list_price(product: str) -> tuple[str, str, float] | None:
    """(type, currency, price per hour) of a product of the Price List; None where it has no price.

    Raises PermanentError for a text that is no product.
    """
    try:
        content = json.loads(product)
        name = content["product"]["attributes"]["instanceType"]
        for term in (content.get("terms") or {}).get("OnDemand", {}).values():
            for dimension in term["priceDimensions"].values():
                price = _positive(dimension["pricePerUnit"]) if _hourly(dimension) else None
                if price is not None:
                    return name, *price
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PermanentError(
            f"Try again, or use --prices FILE: the Price List gave a product that is none "
            f"({type(error).__name__})"
        ) from error
    return None


def _hourly(dimension: Object) -> bool:
    return str(dimension.get("unit", "")).lower() in ("hrs", "hours")


def _positive(prices: Mapping[str, str]) -> tuple[str, float] | None:
    for currency in _CURRENCIES:
        if currency in prices and (price := float(prices[currency])) > 0:
            return currency, price
    return None


def list_prices(products: Iterable[str]) -> tuple[str, dict[str, float]]:
    """Currency, and the least price of each type: a type can have several products.

    Raises PermanentError where two currencies are mixed.
    """
    currency = ""
    prices: dict[str, float] = {}
    for product in products:
        if (found := list_price(product)) is None:
            continue
        name, its_currency, price = found
        if currency not in ("", its_currency):
            raise PermanentError(
                f"Use --prices FILE: the Price List has prices in {currency} and {its_currency}"
            )
        currency = its_currency
        prices[name] = min(price, prices.get(name, price))
    return currency or _CURRENCIES[0], prices


def spot_prices(
    now: Iterable[Object], history: Iterable[Object]
) -> dict[str, dict[str, SpotPrice]]:
    """By type and zone, from rows of DescribeSpotPriceHistory: the last one of `now`, and the
    lowest and highest of all. Rows without a price above 0 are left out.
    """
    last: dict[tuple[str, str], tuple[Any, float]] = {}
    low: dict[tuple[str, str], float] = {}
    high: dict[tuple[str, str], float] = {}
    for rows, current in ((now, True), (history, False)):
        for row in rows:
            key, price = (row["InstanceType"], row["AvailabilityZone"]), float(row["SpotPrice"])
            if not 0 < price < float("inf"):
                continue
            low[key] = min(price, low.get(key, price))
            high[key] = max(price, high.get(key, price))
            if current and (key not in last or row["Timestamp"] > last[key][0]):
                last[key] = (row["Timestamp"], price)
    found: dict[str, dict[str, SpotPrice]] = defaultdict(dict)
    for (name, zone), (_, price) in sorted(last.items(), key=lambda each: each[0]):
        found[name][zone] = SpotPrice(now=price, low=low[name, zone], high=high[name, zone])
    return dict(found)


def worth_considering(
    types: Iterable[InstanceType], in_use: Collection[str]
) -> tuple[InstanceType, ...]:
    """The types that a new node may have.

    Those in use; sizes of burstable families and of families with accelerators that are in use; and
    types of the current generation of the families c, m and r, with 2 to 32 vCPUs (or as many as
    the largest in use) and at least 4 GiB, of an architecture in use, and no bare metal. Of these
    the ones that another replaces are left out: as much of everything in all its zones for no more.
    """
    types = sorted(types, key=lambda kind: kind.name)
    used = [kind for kind in types if kind.name in in_use]
    families = {_family(kind) for kind in used}
    arches = {kind.arch for kind in used}
    most = max([_MOST_VCPUS, *(kind.vcpus for kind in used)])
    candidates = [
        kind
        for kind in types
        if kind.name not in in_use
        and kind.arch in arches
        and kind.vcpus <= most
        and _fits(kind, families)
    ]
    everything = sorted([*used, *candidates], key=_cheapest_first)
    useful = [kind for at, kind in enumerate(everything)
              if kind.name in in_use or not _replaced(kind, everything[:at])]  # fmt: skip
    return tuple(sorted(useful, key=lambda kind: kind.name))


def _family(kind: InstanceType) -> str:
    return kind.name.partition(".")[0]


def _fits(kind: InstanceType, families: Collection[str]) -> bool:
    if kind.bare_metal:
        return False
    if kind.burstable or kind.accelerators:
        return _family(kind) in families
    named = FAMILY.match(kind.name)
    return (
        kind.current
        and named is not None
        and named[1] in _CATEGORIES
        and kind.vcpus >= _LEAST_VCPUS
        and kind.memory >= _LEAST_MEMORY
    )


def _cheapest_first(kind: InstanceType) -> tuple[float, int, int, str]:
    price = float("inf") if kind.on_demand is None else kind.on_demand
    return price, -kind.vcpus, -kind.memory, kind.name


def _replaced(kind: InstanceType, cheaper: Sequence[InstanceType]) -> bool:
    """Whether others have as much of everything for no more: on demand in all its zones, and on
    spot in each of them.
    """
    larger = [each for each in cheaper if _as_much(each, kind)]
    on_demand = kind.on_demand is None or any(
        each.on_demand is not None and set(kind.zones) <= set(each.zones) for each in larger
    )
    return on_demand and all(
        any(zone in each.spot and each.spot[zone].now <= price.now for each in larger)
        for zone, price in kind.spot.items()
    ) and bool(larger)  # fmt: skip


def _as_much(one: InstanceType, other: InstanceType) -> bool:
    return (
        one.arch == other.arch
        and one.burstable <= other.burstable
        and one.vcpus >= other.vcpus
        and one.memory >= other.memory
        and addressed_pods(one) >= addressed_pods(other)
        and all(one.accelerators.get(name, 0) >= n for name, n in other.accelerators.items())
        and (not other.accelerators or _family(one) == _family(other))
    )


def priced(
    types: Iterable[InstanceType],
    prices: Mapping[str, float],
    spot: Mapping[str, Mapping[str, SpotPrice]],
) -> list[InstanceType]:
    """The types with their prices, spot prices only of zones that offer the type."""
    return [
        msgspec.structs.replace(
            kind,
            on_demand=prices.get(kind.name),
            spot={z: p for z, p in spot.get(kind.name, {}).items() if z in kind.zones},
        )
        for kind in types
    ]
