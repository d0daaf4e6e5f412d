"""Instance types, list prices and spot prices that the emulator answers. Fixed, of 2026-11-28.

The sizes and limits are EC2's. The prices are the sandbox's own: near AWS's list prices of Linux in
eu-central-1, not AWS's. Every region has them, under its own name. The times of the spot prices'
changes count back from the moment of the request, so that a history is never over.
"""

import dataclasses
import zlib
from collections.abc import Iterator

DATE = "2026-11-28"
SPOT = ("Linux/UNIX", "Windows")
_WINDOWS = 0.046  # USD per vCPU and hour beyond Linux
_CHANGES = ((97, 1.08), (71, 0.94), (44, 1.15), (19, 0.9), (4, 1.02))
"""Of a spot price: days ago, and its factor from then on."""
_SIZES = {
    "medium": (0.5, 3, 6),
    "large": (0.5, 3, 10),
    "xlarge": (1, 4, 15),
    "2xlarge": (2, 4, 15),
    "4xlarge": (4, 8, 30),
    "8xlarge": (8, 8, 30),
}
"""By size: parts of an xlarge, network interfaces, IPv4 addresses of each."""


@dataclasses.dataclass(frozen=True)
class Family:
    """Types that differ in their size only."""

    name: str
    memory: float
    """GiB of each vCPU."""
    price: float
    """Of the xlarge size, USD per hour."""
    spot: int
    """Spot price, in percent of the list price."""
    arch: str = "x86_64"
    zones: str = "abc"
    sizes: tuple[str, ...] = ("large", "xlarge", "2xlarge", "4xlarge", "8xlarge")


_ARM = "arm64"
FAMILIES = (
    Family("t3", 4, 0.192, 32, sizes=("medium", "large", "xlarge", "2xlarge")),
    Family("m5", 4, 0.23, 42),
    Family("m6i", 4, 0.23, 40),
    Family("m6a", 4, 0.207, 38),
    Family("m6g", 4, 0.184, 44, _ARM),
    Family("m7i", 4, 0.2415, 46),
    Family("m7g", 4, 0.1955, 47, _ARM, "ab"),
    Family("c6i", 2, 0.194, 41),
    Family("c6g", 2, 0.1552, 45, _ARM),
    Family("c7i", 2, 0.2037, 48),
    Family("r6i", 8, 0.304, 35),
    Family("r6g", 8, 0.2432, 37, _ARM),
    Family("r7i", 8, 0.3192, 43, zones="bc"),
    Family("g4dn", 4, 0.658, 36, zones="ab", sizes=("xlarge", "2xlarge", "4xlarge", "8xlarge")),
)
_EXCEPTIONS = {
    "t3.medium": {"memory": 4.0, "price": 0.048},
    "t3.large": {"addresses": 12},
    "g4dn.xlarge": {"interfaces": 3, "addresses": 10},
    "g4dn.2xlarge": {"interfaces": 3, "addresses": 10, "price": 0.94},
    "g4dn.4xlarge": {"interfaces": 3, "addresses": 10, "price": 1.505},
    "g4dn.8xlarge": {"interfaces": 4, "addresses": 15, "price": 2.72},
}
"""What does not follow from family and size."""


@dataclasses.dataclass(frozen=True)
class Type:
    """An instance type."""

    name: str
    family: Family
    vcpus: int
    memory: float
    """GiB."""
    interfaces: int
    addresses: int
    price: float
    """List price for Linux, USD per hour."""

    @property
    def burstable(self) -> bool:
        return self.family.name == "t3"

    @property
    def gpus(self) -> int:
        return int(self.family.name == "g4dn")

    def windows(self) -> float:
        return round(self.price + self.vcpus * _WINDOWS, 4)

    def spot(self, zone: str, product: str) -> Iterator[tuple[int, float]]:
        """Yield the changes of the spot price in a zone, newest first: days ago, USD per hour."""
        # The zones differ by up to 20 %, each type in its own way.
        zone_factor = 0.9 + zlib.crc32(f"{self.name} {zone[-1]}".encode()) % 21 / 100
        full = self.price if product == "Linux/UNIX" else self.windows()
        for days, factor in reversed(_CHANGES):
            yield days, round(full * self.family.spot / 100 * zone_factor * factor, 4)


def _types() -> Iterator[Type]:
    for family in FAMILIES:
        for size in family.sizes:
            name = f"{family.name}.{size}"
            parts, interfaces, addresses = _SIZES[size]
            vcpus = int(4 * parts)
            found = Type(
                name,
                family,
                vcpus,
                vcpus * family.memory,
                interfaces,
                addresses,
                round(family.price * parts, 5),
            )
            yield dataclasses.replace(found, **_EXCEPTIONS.get(name, {}))  # type: ignore[arg-type]


TYPES = {found.name: found for found in _types()}
