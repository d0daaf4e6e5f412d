"""Reads instance types and their prices of one region from AWS. It reads and nothing else."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeVar

from lambdas.common.aws_calls import AwsCalls
from lambdas.common.errors import PermanentError
from savings import types
from savings.prices import InstanceType, Prices
from savings.rights import Rights
from savings.snapshot import ON_DEMAND, SPOT, Market

T = TypeVar("T")

HISTORY_DAYS: Final = 90
"""As far back as EC2 keeps spot prices."""
_PRODUCT: Final = "Linux/UNIX"
_TYPES_AT_ONCE: Final = 100  # of a request for spot prices; and of instances
_LIST_FILTERS: Final = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}
# The regions that have an endpoint of the Price List, by partition. Source: AWS Price List's
# endpoints. aws-us-gov has none.
_LIST_ENDPOINTS: Final = {
    "aws": ("us-east-1", "eu-central-1", "ap-south-1"),
    "aws-cn": ("cn-northwest-1",),
}
Progress = Callable[[str], None]


def pricing_region(partition: str, region: str) -> str:
    """The region whose endpoint has the Price List. Raises PermanentError where there is none."""
    endpoints = _LIST_ENDPOINTS.get(partition)
    if not endpoints:
        raise PermanentError(
            f"Use --prices FILE: AWS has no Price List endpoint in the partition {partition}"
        )
    return region if region in endpoints else endpoints[0]


class PriceReader:
    """The four reads of prices, each with its retries."""

    def __init__(
        self,
        calls: AwsCalls,
        ec2: Any,  # noqa: ANN401 - boto3's clients are dynamic
        pricing: Any,  # noqa: ANN401
        *,
        region: str,
        rights: Rights,
        progress: Progress = lambda _: None,
    ) -> None:
        self._calls = calls
        self._ec2 = ec2
        self._pricing = pricing
        self._region = region
        self._rights = rights
        self._progress = progress

    def read(self, in_use: Collection[str]) -> Prices:
        """Types that are worth considering, and all in use. A refused read is noted in `rights`."""
        now = datetime.fromtimestamp(self._calls.clock.now(), UTC)
        zones = self._zones()
        described = [
            kind
            for item in self._items("instance types", self._ec2.describe_instance_types,
                                    "InstanceTypes")
            if item["InstanceType"] in zones
            and (kind := types.described(item, zones[item["InstanceType"]]))
        ]  # fmt: skip
        currency, listed = types.list_prices(self._products())
        current = self._spot(now, now, None)
        priced = types.priced(described, listed, types.spot_prices(current, ()))
        worth = types.worth_considering(priced, in_use)
        names = [kind.name for kind in worth]
        history = self._spot(now - timedelta(days=HISTORY_DAYS), now, names)
        spot = types.spot_prices((r for r in current if r["InstanceType"] in names), history)
        found: Sequence[InstanceType] = types.priced(worth, listed, spot)
        return Prices(
            region=self._region,
            currency=currency,
            taken=now.strftime("%Y-%m-%dT%H:%M:%SZ"),
            history_days=HISTORY_DAYS,
            types=tuple(found),
        )

    def _zones(self) -> dict[str, set[str]]:
        """The region's own zones that offer each type; local zones have other names."""
        zones: dict[str, set[str]] = defaultdict(set)
        for offered in self._items(
            "instance types by zone",
            self._ec2.describe_instance_type_offerings,
            "InstanceTypeOfferings",
            LocationType="availability-zone",
        ):
            zone = offered["Location"]
            if zone[:-1] == self._region:
                zones[offered["InstanceType"]].add(zone)
        return zones

    def _products(self) -> list[str]:
        filters = {"regionCode": self._region, **_LIST_FILTERS}
        return self._items(
            "list prices",
            self._pricing.get_products,
            "PriceList",
            ServiceCode="AmazonEC2",
            Filters=[
                {"Type": "TERM_MATCH", "Field": field, "Value": value}
                for field, value in filters.items()
            ],
        )

    def _spot(
        self, start: datetime, end: datetime, names: Sequence[str] | None
    ) -> list[dict[str, Any]]:
        """Rows of these types, or of all. EC2 adds the last change before the start."""
        what = "spot prices" if names is None else f"spot prices of {HISTORY_DAYS} days"
        request = {"StartTime": start, "EndTime": end, "ProductDescriptions": [_PRODUCT]}
        rows: list[dict[str, Any]] = []
        for some in [None] if names is None else _batches(names):
            more = {} if some is None else {"InstanceTypes": some}
            rows += self._items(
                what,
                self._ec2.describe_spot_price_history,
                "SpotPriceHistory",
                **request,
                **more,
            )
        return rows

    def _items(
        self, what: str, method: Callable[..., Any], key: str, **arguments: object
    ) -> list[Any]:
        """The items of every page; none where the right is missing."""

        def read() -> list[Any]:
            found: list[Any] = []
            self._progress(f"reading {what}")
            for page in self._calls.pages(method, **arguments):
                found += page[key]
                self._progress(f"reading {what}: {len(found):,}")
            return found

        return self._rights.ask(read, [])


def markets_of(calls: AwsCalls, ec2: Any, instances: Sequence[str]) -> dict[str, Market]:  # noqa: ANN401
    """Whether each of these instances is on spot."""
    found: dict[str, Market] = {}
    for some in _batches(instances):
        filters = [{"Name": "instance-id", "Values": some}]
        for reservation in calls.items(ec2.describe_instances, "Reservations", Filters=filters):
            for instance in reservation["Instances"]:
                spot = instance.get("InstanceLifecycle") == "spot"
                found[instance["InstanceId"]] = SPOT if spot else ON_DEMAND
    return found


def _batches(items: Iterable[T]) -> list[list[T]]:
    items = list(items)
    return [items[at : at + _TYPES_AT_ONCE] for at in range(0, len(items), _TYPES_AT_ONCE)]
