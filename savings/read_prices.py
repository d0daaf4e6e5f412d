"""Read instance types and prices of a region from AWS: four reads, all of them of EC2's catalogue.

No read is about the account's own resources.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from lambdas.common.aws_calls import AwsCalls
from lambdas.common.errors import PermanentError
from savings import instance_types
from savings.instance_types import SpotNow
from savings.prices import InstanceType, Prices
from savings.rights import Rights

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

HISTORY_DAYS: Final = 90  # EC2 keeps no older spot prices
SERVICE: Final = "AmazonEC2"
_TYPES_PER_REQUEST: Final = 100
_FILTERS: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}

Progress = Callable[[str], None]
"""Gets what is being read, as `spot prices, page 2`."""


def price_list_region(region: str) -> str:
    """The region whose Price List endpoint has the prices of a region.

    Source: botocore's endpoints of `pricing`; the nearest of them. Raises PermanentError for a
    partition without an endpoint, such as aws-us-gov.
    """
    if region.startswith("cn-"):
        return "cn-northwest-1"
    place = re.fullmatch(r"(af|ap|ca|eu|il|me|mx|sa|us)-(?!gov|iso)[a-z]+-\d+", region)
    if not place:
        raise PermanentError(
            f"Give the prices by --prices FILE: AWS has no Price List in the partition of {region}."
        )
    nearest = {"ap": "ap-south-1", "me": "ap-south-1", "eu": "eu-central-1", "il": "eu-central-1"}
    return nearest.get(place[1], "us-east-1")


@dataclass(frozen=True)
class Source:
    """AWS's catalogue for one region."""

    ec2: EC2Client
    pricing: Any
    """The client of `pricing` in `price_list_region`. Any: boto3-stubs is without this service."""
    calls: AwsCalls
    region: str
    progress: Progress = lambda _: None

    def read(self, used: Collection[str], rights: Rights | None = None) -> Prices:
        """The types worth considering for a cluster that has the types `used`, with prices.

        All reads are tried before a missing right is raised. Raises MissingRightsError with every
        right that `rights` lacks by then, AwsRefusedError, AwsUnavailableError, and PermanentError
        for a Price List that is of no use.
        """
        rights = rights or Rights()
        now = datetime.fromtimestamp(int(self.calls.clock.now()), UTC)
        types: dict[str, InstanceType] = {}
        zones: dict[str, tuple[str, ...]] = {}
        spot: SpotNow = {}
        listed: list[str] = []
        with rights.read():
            types = instance_types.described(self._types())
        with rights.read():
            zones = instance_types.zones_of(self._offerings(), self.region)
        with rights.read():
            spot = instance_types.spot_now(self._spot("spot prices", now, now), self.region)
        with rights.read():
            listed = self._listed()
        rights.check()
        currency, on_demand = instance_types.on_demand(listed, self.region)
        priced = [
            replace(each, zones=zones.get(each.name, ()), on_demand=on_demand.get(each.name))
            for each in types.values()
        ]
        kept = instance_types.useful(instance_types.candidates(priced, used), spot, used)
        names = sorted(each.name for each in kept)
        begin = now - timedelta(days=HISTORY_DAYS)
        rows = (
            row
            for part in range(0, len(names), _TYPES_PER_REQUEST)
            for row in self._spot(
                f"spot prices of {HISTORY_DAYS} days",
                begin,
                now,
                InstanceTypes=names[part : part + _TYPES_PER_REQUEST],
            )
        )
        kept_now = {name: spot[name] for name in names if name in spot}
        ranges = instance_types.with_history(kept_now, rows, self.region)
        return Prices(
            region=self.region,
            currency=currency,
            taken=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            history_days=HISTORY_DAYS,
            types=tuple(
                replace(each, spot=ranges.get(each.name, {}))
                for each in sorted(kept, key=lambda each: each.name)
            ),
        )

    def _types(self) -> Iterator[Any]:
        return self._items("instance types", self.ec2.describe_instance_types, "InstanceTypes")

    def _offerings(self) -> Iterator[Any]:
        return self._items(
            "zones of instance types",
            self.ec2.describe_instance_type_offerings,
            "InstanceTypeOfferings",
            LocationType="availability-zone",
        )

    def _spot(
        self, what: str, begin: datetime, end: datetime, **arguments: object
    ) -> Iterator[Any]:
        return self._items(
            what,
            self.ec2.describe_spot_price_history,
            "SpotPriceHistory",
            StartTime=begin,
            EndTime=end,
            ProductDescriptions=[instance_types.LINUX],
            **arguments,
        )

    def _listed(self) -> list[str]:
        filters = _FILTERS | {"regionCode": self.region}
        return list(
            self._items(
                "list prices",
                self.pricing.get_products,
                "PriceList",
                ServiceCode=SERVICE,
                Filters=[
                    {"Type": "TERM_MATCH", "Field": field, "Value": value}
                    for field, value in filters.items()
                ],
            )
        )

    def _items(
        self, what: str, method: Callable[..., Any], key: str, **arguments: object
    ) -> Iterator[Any]:
        self.progress(what)
        for number, page in enumerate(self.calls.pages(method, **arguments), 1):
            if number > 1:
                self.progress(f"{what}, page {number}")
            yield from page.get(key, ())
