"""The reads of instance types and prices, by real clients whose answers are given."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber

from lambdas.common import aws
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.errors import AwsRefusedError, AwsUnavailableError, PermanentError
from savings.prices import SpotPrice
from savings.read_prices import Source, price_list_region
from savings.rights import MissingRightsError, Rights
from tests.support.fake_time import FakeTime
from tests.unit.savings.test_instance_types import A, item, product

REGION = "eu-central-1"
NOW = datetime(2026, 11, 28, 12, tzinfo=UTC)
LINUX = {"ProductDescriptions": ["Linux/UNIX"]}
PRODUCTS = {
    "ServiceCode": "AmazonEC2",
    "Filters": [
        {"Type": "TERM_MATCH", "Field": field, "Value": value}
        for field, value in (
            ("operatingSystem", "Linux"),
            ("tenancy", "Shared"),
            ("preInstalledSw", "NA"),
            ("capacitystatus", "Used"),
            ("regionCode", REGION),
        )
    ],
}
OFFERINGS = {"LocationType": "availability-zone"}
NAMES = ("m5.xlarge", "m6i.xlarge", "t3.xlarge")


class Aws:
    """Both clients, their answers in order, and the clock."""

    def __init__(self) -> None:
        keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
        self.ec2 = boto3.client("ec2", region_name=REGION, config=aws.CONFIG, **keys)
        self.pricing = boto3.client("pricing", region_name=REGION, config=aws.CONFIG, **keys)
        self.catalogue, self.list = Stubber(self.ec2), Stubber(self.pricing)
        self.time = FakeTime(NOW.timestamp())
        self.said: list[str] = []

    def source(self, until: float = 60) -> Source:
        end = self.time.now + until
        calls = AwsCalls(self.time.clock, lambda: end)
        return Source(self.ec2, self.pricing, calls, REGION, self.said.append)

    def types(self, **changed: Any) -> None:
        items = [
            item(name, BurstablePerformanceSupported=name.startswith("t"), **changed)
            for name in NAMES
        ]
        self.catalogue.add_response("describe_instance_types", {"InstanceTypes": items}, {})

    def offerings(self) -> None:
        rows = [{"InstanceType": name, "Location": A} for name in NAMES]
        self.catalogue.add_response(
            "describe_instance_type_offerings", {"InstanceTypeOfferings": rows}, OFFERINGS
        )

    def spot(self, *rows: tuple[str, str, int], days: int = 0, **expected: Any) -> None:
        found = [
            {
                "InstanceType": name,
                "AvailabilityZone": A,
                "SpotPrice": price,
                "Timestamp": NOW - timedelta(days=ago),
                "ProductDescription": "Linux/UNIX",
            }
            for name, price, ago in rows
        ]
        window = {"StartTime": NOW - timedelta(days=days), "EndTime": NOW}
        self.catalogue.add_response(
            "describe_spot_price_history",
            {"SpotPriceHistory": found, "NextToken": ""},
            {**window, **LINUX, **expected},
        )

    def products(self) -> None:
        texts = [json.dumps(product(name, "0.23")) for name in NAMES]
        self.list.add_response("get_products", {"PriceList": texts}, PRODUCTS)


@pytest.fixture
def account() -> Iterator[Aws]:
    account = Aws()
    with account.catalogue, account.list:
        yield account
        account.catalogue.assert_no_pending_responses()
        account.list.assert_no_pending_responses()


def test_the_types_have_limits_zones_prices_and_a_history(account: Aws) -> None:
    account.types()
    account.offerings()
    account.spot(("m5.xlarge", "0.10", 3), ("m6i.xlarge", "0.08", 2))
    account.products()
    kept = {"InstanceTypes": ["m5.xlarge", "m6i.xlarge"]}
    account.spot(("m5.xlarge", "0.12", 40), ("m5.xlarge", "0.09", 95), days=90, **kept)
    prices = account.source().read(["m5.xlarge"])
    assert (prices.region, prices.currency, prices.history_days) == (REGION, "USD", 90)
    assert prices.taken == "2026-11-28T12:00:00Z"
    m5, m6i = prices.types
    assert (m5.name, m5.zones, m5.on_demand, m5.vcpus) == ("m5.xlarge", (A,), 0.23, 4)
    assert m5.spot == {A: SpotPrice(now=0.1, low=0.09, high=0.12)}
    assert m6i.spot == {A: SpotPrice(now=0.08, low=0.08, high=0.08)}
    assert account.said == [
        "instance types",
        "zones of instance types",
        "spot prices",
        "list prices",
        "spot prices of 90 days",
    ]


def test_every_page_is_read_and_said_an_empty_one_too(account: Aws) -> None:
    parts: tuple[tuple[list[Any], dict[str, str]], ...] = (
        ([item("m5.xlarge")], {}),
        ([], {"NextToken": "1"}),
        ([item("m6i.xlarge")], {"NextToken": "2"}),
    )
    for number, (items, asked) in enumerate(parts, 1):
        following = {"NextToken": str(number)} if number < len(parts) else {}
        answer = {"InstanceTypes": items, **following}
        account.catalogue.add_response("describe_instance_types", answer, asked)
    account.offerings()
    account.spot()
    first = {"PriceList": [json.dumps(product("m5.xlarge"))], "NextToken": "t"}
    second = {"PriceList": [json.dumps(product("m6i.xlarge"))]}
    account.list.add_response("get_products", first, PRODUCTS)
    account.list.add_response("get_products", second, {**PRODUCTS, "NextToken": "t"})
    account.spot(days=90, InstanceTypes=["m5.xlarge"])
    prices = account.source().read(["m5.xlarge"])
    assert [each.name for each in prices.types] == ["m5.xlarge"]
    assert account.said[:3] == [
        "instance types",
        "instance types, page 2",
        "instance types, page 3",
    ]
    assert "list prices, page 2" in account.said


def test_every_missing_right_is_said_at_once(account: Aws) -> None:
    for name in (
        "describe_instance_types",
        "describe_instance_type_offerings",
        "describe_spot_price_history",
    ):
        account.catalogue.add_client_error(name, "UnauthorizedOperation", "no")
    account.list.add_client_error("get_products", "AccessDeniedException", "no")
    rights = Rights()
    with rights.read():
        raise AwsRefusedError("eks:DescribeCluster", code="AccessDenied")
    with pytest.raises(MissingRightsError) as missing:
        account.source().read(["m5.xlarge"], rights)
    for right in (
        "eks:DescribeCluster",
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeSpotPriceHistory",
        "pricing:GetProducts",
    ):
        assert right in str(missing.value)
    assert len(str(missing.value).splitlines()) == 1 + 5


def test_a_throttled_page_is_read_again_and_an_outage_ends_in_time(account: Aws) -> None:
    account.catalogue.add_client_error(
        "describe_instance_types", "RequestLimitExceeded", http_status_code=503
    )
    account.types()
    account.offerings()
    account.spot()
    account.products()
    account.spot(days=90, InstanceTypes=["m5.xlarge"])
    assert account.source().read(["m5.xlarge"]).types
    assert account.time.slept
    account.catalogue.add_client_error("describe_instance_types", "InternalError", "", 500)
    with pytest.raises(AwsUnavailableError, match="ec2:DescribeInstanceTypes"):
        account.source(until=-1).read(["m5.xlarge"])


def test_an_error_that_is_no_missing_right_is_raised(account: Aws) -> None:
    account.catalogue.add_client_error("describe_instance_types", "AuthFailure", "bad key")
    with pytest.raises(AwsRefusedError, match="AuthFailure"):
        account.source().read([])


def test_a_price_list_without_prices_is_refused_before_the_history_is_read(account: Aws) -> None:
    account.types()
    account.offerings()
    account.spot()
    account.list.add_response("get_products", {"PriceList": []}, PRODUCTS)
    with pytest.raises(PermanentError, match="--prices FILE"):
        account.source().read([])


def test_the_history_is_asked_for_a_hundred_types_at_a_time(account: Aws) -> None:
    # Each is in use, so that all are kept.
    names = sorted(f"m5.{number}xlarge" for number in range(101))
    items = [item(name) for name in names]
    account.catalogue.add_response("describe_instance_types", {"InstanceTypes": items}, {})
    account.offerings()
    account.spot()
    account.products()
    for part in (names[:100], names[100:]):
        account.spot(days=90, InstanceTypes=part)
    assert len(account.source().read(names).types) == 101


@pytest.mark.parametrize(
    ("region", "endpoint"),
    [
        ("eu-central-1", "eu-central-1"),
        ("eu-west-1", "eu-central-1"),
        ("us-west-2", "us-east-1"),
        ("sa-east-1", "us-east-1"),
        ("ap-southeast-7", "ap-south-1"),
        ("me-central-1", "ap-south-1"),
        ("cn-north-1", "cn-northwest-1"),
    ],
)
def test_the_price_list_is_read_at_an_endpoint_that_exists(region: str, endpoint: str) -> None:
    assert price_list_region(region) == endpoint
    partition = "aws-cn" if region.startswith("cn") else "aws"
    known: Callable[..., list[str]] = boto3.Session().get_available_regions
    assert endpoint in known("pricing", partition)


@pytest.mark.parametrize(
    "region", ["us-gov-west-1", "us-iso-east-1", "eu-isoe-west-1", "eusc-de-1"]
)
def test_a_partition_without_a_price_list_is_refused(region: str) -> None:
    with pytest.raises(PermanentError, match=f"--prices FILE.*{region}"):
        price_list_region(region)
