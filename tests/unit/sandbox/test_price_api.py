"""What the emulator answers to the reads of instance types and prices."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from instance_prices import TYPES
from price_api import (
    PAGE,
    InvalidError,
    describe_instance_types,
    describe_offerings,
    describe_spot_price_history,
    price_list,
)

REGION = "eu-central-1"
FILTERS = {
    "regionCode": REGION,
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "preInstalledSw": "NA",
    "capacitystatus": "Used",
}


def products(**changed: Any) -> dict[str, Any]:
    terms = [
        {"Type": "TERM_MATCH", "Field": field, "Value": value} for field, value in FILTERS.items()
    ]
    request = {"ServiceCode": "AmazonEC2", "Filters": terms, **changed}
    return price_list("AWSPriceListService.GetProducts", REGION, request)


def history(start: datetime, **params: str) -> list[dict[str, Any]]:
    now = datetime.now(UTC).isoformat()
    given = {
        "StartTime": start.isoformat(),
        "EndTime": now,
        "InstanceType.1": "m6i.large",
        **params,
    }
    rows: list[dict[str, Any]] = describe_spot_price_history(given, REGION)["spotPriceHistorySet"]
    return rows


def test_types_come_in_pages() -> None:
    first = describe_instance_types({}, REGION)
    assert len(first["instanceTypeSet"]) == PAGE
    second = describe_instance_types({"NextToken": first["nextToken"]}, REGION)
    names = [item["instanceType"] for item in first["instanceTypeSet"] + second["instanceTypeSet"]]
    assert names == list(TYPES)
    assert second["nextToken"] == ""


@pytest.mark.parametrize(
    ("params", "code"),
    [
        ({"Filter.1.Name": "bare-metal", "Filter.1.Value.1": "false"}, "InvalidParameterValue"),
        ({"InstanceType.1": "m9x.large"}, "InvalidInstanceType"),
        ({"InstanceType.1": "m5.large", "MaxResults": "5"}, "InvalidParameterCombination"),
        ({"NextToken": "x"}, "InvalidNextToken"),
    ],
)
def test_what_ec2_refuses_is_refused(params: dict[str, str], code: str) -> None:
    with pytest.raises(InvalidError) as refused:
        describe_instance_types(params, REGION)
    assert refused.value.code == code


def test_a_type_is_not_offered_in_every_zone() -> None:
    params = {"LocationType": "availability-zone", "NextToken": "80"}
    rows = describe_offerings(params, REGION)["instanceTypeOfferingSet"]
    assert {row["location"] for row in rows} == {f"{REGION}{letter}" for letter in "abc"}
    zones = [row for row in rows if row["instanceType"] == "m7g.large"]
    assert len(zones) < 3


def test_the_price_of_now_is_the_last_change_before_it() -> None:
    rows = history(datetime.now(UTC), **{"ProductDescription.1": "Linux/UNIX"})
    assert [row["availabilityZone"][-1] for row in rows] == ["a", "b", "c"]
    assert all(row["timestamp"] < datetime.now(UTC).isoformat() for row in rows)


def test_a_history_has_the_last_change_before_its_begin_and_other_products() -> None:
    begin = datetime.now(UTC) - timedelta(days=90)
    rows = history(begin, **{"AvailabilityZone.1": f"{REGION}a"})
    assert len(rows) == 2 * 5
    assert min(row["timestamp"] for row in rows) < begin.isoformat()
    assert {row["productDescription"] for row in rows} == {"Linux/UNIX", "Windows"}


def test_spot_prices_are_below_the_list_price() -> None:
    for found in TYPES.values():
        for _, price in found.spot(f"{REGION}a", "Linux/UNIX"):
            assert 0.2 * found.price < price < found.price


def test_one_product_of_each_type_is_that_of_a_linux_instance() -> None:
    first = products()
    second = products(NextToken=first["NextToken"])
    listed = [json.loads(text) for text in first["PriceList"] + second["PriceList"]]
    assert [each["product"]["attributes"]["instanceType"] for each in listed] == list(TYPES)
    assert len(products(Filters=[{"Type": "TERM_MATCH", "Field": "regionCode", "Value": "x"}])) == 3


def test_the_price_list_refuses_what_it_does_not_answer() -> None:
    for changed in (
        {"ServiceCode": "AmazonRDS"},
        {"Filters": []},
        {"Filters": [{"Type": "TERM_MATCH", "Field": "colour", "Value": "red"}]},
        {"Filters": [{"Type": "CONTAINS", "Field": "regionCode", "Value": "eu"}]},
    ):
        with pytest.raises(InvalidError):
            products(**changed)
    with pytest.raises(InvalidError, match="no endpoint"):
        price_list("AWSPriceListService.GetProducts", "eu-west-1", {})
    with pytest.raises(InvalidError, match="Only GetProducts"):
        price_list("AWSPriceListService.DescribeServices", REGION, {})
