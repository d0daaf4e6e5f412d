"""Which instance types are worth considering, and what EC2 and the Price List say of them. Pure.

Considered are the types in use, and others that

* are of the current generation, and EC2 sells them on demand;
* are of a family in use, or of the families c, m and r with all variants but the `flex` ones, which
  give 40 % of their processor for certain (EC2 user guide, "Flex instances");
* are no bare metal; burstable types and those with accelerators are of a family in use only;
* have an architecture in use, 2 vCPUs to 32 or as many as the largest type in use, and 4 GiB;
* are offered in one of the region's standard zones.

Of these, those that another one makes useless are dropped: see `useful`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lambdas.common.errors import PermanentError
from savings.prices import InstanceType, SpotPrice, addressed_pods

LINUX: Final = "Linux/UNIX"
"""EC2's name of the product in spot prices."""

FEWEST_VCPUS, MOST_VCPUS = 2, 32
LEAST_MEMORY: Final = 4 << 30  # bytes
AMD64, ARM64 = "amd64", "arm64"
_ARCHITECTURES: Final = {"x86_64": AMD64, "arm64": ARM64}  # EC2's name, Kubernetes'
_COMMON: Final = re.compile(r"[cmr]\d[a-z0-9]*")
_NEURON: Final = "aws.amazon.com/neuron"
_RESOURCES: Final = {"nvidia": "nvidia.com/gpu", "amd": "amd.com/gpu", "habana": "habana.ai/gaudi"}
"""As the device plugins register them, by the maker that EC2 states."""

SpotRows = Iterable[Mapping[str, Any]]
"""Items of ec2:DescribeSpotPriceHistory."""
SpotNow = dict[str, dict[str, float]]
"""Price by type and zone."""


class _Dimension(msgspec.Struct, frozen=True, rename="camel"):
    unit: str
    price_per_unit: dict[str, str]


class _Term(msgspec.Struct, frozen=True, rename="camel"):
    price_dimensions: dict[str, _Dimension]


class _Product(msgspec.Struct, frozen=True):
    attributes: dict[str, str]


class _Terms(msgspec.Struct, frozen=True):
    on_demand: dict[str, _Term] = msgspec.field(name="OnDemand", default_factory=dict)


class _Listed(msgspec.Struct, frozen=True):
    product: _Product
    terms: _Terms = _Terms()


def described(items: Iterable[Mapping[str, Any]]) -> dict[str, InstanceType]:
    """The types of DescribeInstanceTypes that Linux nodes can have, by name, without zones and
    prices. A type that EC2 does not sell on demand is `current=False`.
    """
    found = (_described(item) for item in items)
    return {each.name: each for each in found if each}


def _described(item: Mapping[str, Any]) -> InstanceType | None:
    names = item.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    arch = next((_ARCHITECTURES[name] for name in names if name in _ARCHITECTURES), None)
    vcpus = item.get("VCpuInfo", {}).get("DefaultVCpus", 0)
    memory = item.get("MemoryInfo", {}).get("SizeInMiB", 0) << 20
    network = item.get("NetworkInfo", {})
    if not (arch and vcpus and memory):
        return None
    sold = "on-demand" in item.get("SupportedUsageClasses", ())
    return InstanceType(
        name=item["InstanceType"],
        vcpus=vcpus,
        memory=memory,
        arch=arch,
        interfaces=_interfaces(network),
        addresses=network.get("Ipv4AddressesPerInterface", 0),
        accelerators=_accelerators(item),
        current=sold and bool(item.get("CurrentGeneration")),
        burstable=bool(item.get("BurstablePerformanceSupported")),
        bare_metal=bool(item.get("BareMetal")),
    )


def _interfaces(network: Mapping[str, Any]) -> int:
    """Of the default network card, as the VPC CNI and EKS's table of pods per node count."""
    default = network.get("DefaultNetworkCardIndex", 0)
    for card in network.get("NetworkCards", ()):
        if card.get("NetworkCardIndex") == default:
            return int(card.get("MaximumNetworkInterfaces", 0))
    return int(network.get("MaximumNetworkInterfaces", 0))


def _accelerators(item: Mapping[str, Any]) -> dict[str, int]:
    found: dict[str, int] = {}

    def add(resource: str, number: int) -> None:
        found[resource] = found.get(resource, 0) + number

    for gpu in item.get("GpuInfo", {}).get("Gpus", ()):
        maker = gpu.get("Manufacturer", "").lower()
        add(_RESOURCES.get(maker, maker), gpu.get("LogicalGpuCount") or gpu.get("Count", 0))
    neurons = item.get("NeuronInfo", {}).get("NeuronDevices", ())
    for device in neurons:
        add(_NEURON, device.get("Count", 0))
    if not neurons:  # EC2 states Inferentia in both fields, or in the older one only
        for device in item.get("InferenceAcceleratorInfo", {}).get("Accelerators", ()):
            maker = device.get("Manufacturer", "").lower()
            add(_NEURON if maker == "aws" else maker, device.get("Count", 0))
    return found


def zones_of(offerings: Iterable[Mapping[str, Any]], region: str) -> dict[str, tuple[str, ...]]:
    """The standard zones that offer each type, sorted. Local and Wavelength Zones are left out."""
    found: dict[str, set[str]] = {}
    for row in offerings:
        if is_standard(row["Location"], region):
            found.setdefault(row["InstanceType"], set()).add(row["Location"])
    return {name: tuple(sorted(zones)) for name, zones in found.items()}


def is_standard(zone: str, region: str) -> bool:
    """Whether it is a zone as `eu-central-1a`, not as `eu-central-1-ham-1a`."""
    return re.fullmatch(re.escape(region) + "[a-z]", zone) is not None


def on_demand(listed: Iterable[str], region: str) -> tuple[str, dict[str, float]]:
    """Currency and price per hour by type, of products of the Price List as JSON texts.

    Left out: a product that is not a Linux instance of the region by the hour, one that cannot be
    read, and a price that is not positive (a reservation's instance is listed with 0). Of several
    prices of a type the lowest. Raises PermanentError for prices in two currencies, and for none.
    """
    currency, prices = "", dict[str, float]()
    for text in listed:
        name, found = _listed(text, region)
        for unit, price in found:
            currency = currency or unit
            if unit != currency:
                raise PermanentError(
                    "Give the prices by --prices FILE: the Price List has them in two currencies, "
                    f"{currency} and {unit} (of {name})."
                )
            prices[name] = min(price, prices.get(name, price))
    if not prices:
        raise PermanentError(
            f"Give the prices by --prices FILE: the Price List has none for region {region}."
        )
    return currency, prices


_WANTED: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
    "licenseModel": "No License required",
    "marketoption": "OnDemand",
    "operation": "RunInstances",
    "locationType": "AWS Region",
}
"""Attributes of a product, where it has them: not every product has all."""


def _listed(text: str, region: str) -> tuple[str, list[tuple[str, float]]]:
    try:
        entry = msgspec.json.decode(text, type=_Listed)
    except (msgspec.DecodeError, UnicodeEncodeError):  # the latter: half of a surrogate pair
        return "", []
    attributes = entry.product.attributes
    name = attributes.get("instanceType", "")
    wanted = _WANTED | {"regionCode": region}
    if not name or any(attributes.get(key, value) != value for key, value in wanted.items()):
        return "", []
    found = [
        (currency, price)
        for term in entry.terms.on_demand.values()
        for dimension in term.price_dimensions.values()
        if dimension.unit == "Hrs"
        for currency, written in dimension.price_per_unit.items()
        if (price := positive(written))
    ]
    return name, found


def positive(written: object) -> float | None:
    """A price as a number; None for one that is no positive number."""
    try:
        price = float(str(written))
    except ValueError:
        return None
    return price if price > 0 and math.isfinite(price) else None


def spot_now(rows: SpotRows, region: str) -> SpotNow:
    """The newest price of each type and standard zone."""
    found: SpotNow = {}
    newest: dict[tuple[str, str], Any] = {}
    for name, zone, price, changed in _linux(rows, region):
        if (name, zone) not in newest or changed > newest[name, zone]:
            newest[name, zone] = changed
            found.setdefault(name, {})[zone] = price
    return found


def with_history(now: SpotNow, rows: SpotRows, region: str) -> dict[str, dict[str, SpotPrice]]:
    """Add the lowest and the highest price to the price of now.

    EC2 also returns the last change before the history's begin: that price was in force then.
    """
    ranges = {
        (name, zone): (price, price) for name, zones in now.items() for zone, price in zones.items()
    }
    for name, zone, price, _ in _linux(rows, region):
        if (name, zone) in ranges:
            low, high = ranges[name, zone]
            ranges[name, zone] = (min(low, price), max(high, price))
    found: dict[str, dict[str, SpotPrice]] = {}
    for (name, zone), (low, high) in sorted(ranges.items()):
        found.setdefault(name, {})[zone] = SpotPrice(now=now[name][zone], low=low, high=high)
    return found


def _linux(rows: SpotRows, region: str) -> Iterable[tuple[str, str, float, Any]]:
    for row in rows:
        price = positive(row.get("SpotPrice"))
        linux = row.get("ProductDescription") == LINUX
        if linux and price and is_standard(row.get("AvailabilityZone", ""), region):
            yield row["InstanceType"], row["AvailabilityZone"], price, row["Timestamp"]


def family(name: str) -> str:
    """`m6i` of `m6i.large`."""
    return name.partition(".")[0]


def candidates(types: Iterable[InstanceType], used: Collection[str]) -> list[InstanceType]:
    """The types that the module's rule considers, those in use first, then by name."""
    known = sorted(types, key=lambda each: (each.name not in used, each.name))
    in_use = [each for each in known if each.name in used]
    families = {family(name) for name in used}
    architectures = {each.arch for each in in_use} or {AMD64}
    most = max([MOST_VCPUS, *(each.vcpus for each in in_use)])
    return [
        each
        for each in known
        if each.name in used
        or (
            each.current
            and not each.bare_metal
            and (family(each.name) in families or _is_common(each))
            and each.arch in architectures
            and FEWEST_VCPUS <= each.vcpus <= most
            and each.memory >= LEAST_MEMORY
            and each.zones
        )
    ]


def _is_common(found: InstanceType) -> bool:
    common = _COMMON.fullmatch(family(found.name)) is not None
    return common and not found.burstable and not found.accelerators


def useful(
    considered: Sequence[InstanceType], now: SpotNow, used: Collection[str]
) -> list[InstanceType]:
    """Without the types that others make useless. The types in use stay.

    A type is dropped if another one is as large in everything, is offered in all of its zones, and
    costs no more on demand, and if in each of its zones another one as large costs no more on spot.
    Of equal types the one in use stays, then the one that costs less on demand, then the first by
    name. A type whose processor is shared (burstable, `flex`) and bare metal replace their own kind
    only.
    """
    order = {
        each.name: (each.name not in used, each.on_demand or math.inf, each.name)
        for each in considered
    }
    kept = []
    for each in considered:
        larger = [other for other in considered if other is not each and _as_large(other, each)]
        useless = any(_replaces(other, each, order) for other in larger) and all(
            any(_cheaper_spot(other, each, zone, now, order) for other in larger)
            for zone in now.get(each.name, {})
        )
        if each.name in used or not useless:
            kept.append(each)
    return kept


def _as_large(other: InstanceType, than: InstanceType) -> bool:
    return (
        other.arch == than.arch
        and other.vcpus >= than.vcpus
        and other.memory >= than.memory
        and addressed_pods(other) >= addressed_pods(than)
        and _kind(other) == _kind(than)
        and all(other.accelerators[name] >= than.accelerators[name] for name in than.accelerators)
    )


def _kind(found: InstanceType) -> tuple[object, ...]:
    shared = found.burstable or family(found.name).endswith("-flex")
    return shared, found.bare_metal, frozenset(found.accelerators)


_Order = Mapping[str, tuple[bool, float, str]]


def _replaces(other: InstanceType, each: InstanceType, order: _Order) -> bool:
    if not set(other.zones) >= set(each.zones):
        return False
    if each.on_demand is None:  # it serves on spot only
        return other.on_demand is not None or _first(other, each, order)
    if other.on_demand is None or other.on_demand > each.on_demand:
        return False
    return other.on_demand < each.on_demand or _first(other, each, order)


def _cheaper_spot(
    other: InstanceType, each: InstanceType, zone: str, now: SpotNow, order: _Order
) -> bool:
    price, its = now[each.name][zone], now.get(other.name, {}).get(zone, math.inf)
    return its < price or (its == price and _first(other, each, order))


def _first(other: InstanceType, each: InstanceType, order: _Order) -> bool:
    """Whether the other one stays, if both cost the same: it is larger, or the first of equals."""
    return not _as_large(each, other) or order[other.name] < order[each.name]
