"""Which instance types are considered, and what is read of EC2's and the Price List's answers."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.common.errors import PermanentError
from savings import instance_types
from savings.instance_types import candidates, useful
from savings.prices import InstanceType, SpotPrice, addressed_pods

REGION = "eu-central-1"
A, B = f"{REGION}a", f"{REGION}b"
GIB = 1 << 30


def made(name: str, vcpus: int = 2, memory: int = 8, **changed: Any) -> InstanceType:
    given: dict[str, Any] = {"zones": (A, B), "arch": "amd64", "interfaces": 3, "addresses": 10}
    return InstanceType(name=name, vcpus=vcpus, memory=memory * GIB, **{**given, **changed})


def names(found: list[InstanceType]) -> list[str]:
    return [each.name for each in found]


def item(name: str, **changed: Any) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "CurrentGeneration": True,
        "SupportedUsageClasses": ["on-demand", "spot"],
        "BareMetal": False,
        "BurstablePerformanceSupported": False,
        "ProcessorInfo": {"SupportedArchitectures": ["x86_64"]},
        "VCpuInfo": {"DefaultVCpus": 4},
        "MemoryInfo": {"SizeInMiB": 16384},
        "NetworkInfo": {"MaximumNetworkInterfaces": 4, "Ipv4AddressesPerInterface": 15},
        **changed,
    }


def product(name: str = "m5.large", price: str = "0.115", **changed: Any) -> dict[str, Any]:
    """As the Price List has it."""
    attributes = {
        "instanceType": name,
        "regionCode": REGION,
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "preInstalledSw": "NA",
        "capacitystatus": "Used",
        "licenseModel": "No License required",
        "marketoption": "OnDemand",
        "operation": "RunInstances",
        "locationType": "AWS Region",
        **changed.pop("attributes", {}),
    }
    dimension = {
        "unit": changed.pop("unit", "Hrs"),
        "beginRange": "0",
        "pricePerUnit": changed.pop("money", {"USD": price}),
    }
    term = {"sku": "S", "priceDimensions": {"S.T.R": dimension}, "termAttributes": {}}
    reserved = {"priceDimensions": {"R": {"unit": "Quantity", "pricePerUnit": {"USD": "900"}}}}
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": "S"},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {"S.T": term}, "Reserved": {"S.R": reserved}},
    }


def on_demand(*products: dict[str, Any] | str) -> tuple[str, dict[str, float]]:
    texts = [each if isinstance(each, str) else json.dumps(each) for each in products]
    return instance_types.on_demand(texts, REGION)


def spot_row(name: str, zone: str, price: str, at: int = 0, **changed: str) -> dict[str, Any]:
    return {
        "InstanceType": name,
        "AvailabilityZone": zone,
        "SpotPrice": price,
        "Timestamp": at,
        "ProductDescription": "Linux/UNIX",
        **changed,
    }


class TestDescribed:
    def test_a_type_has_what_ec2_states(self) -> None:
        (found,) = instance_types.described([item("m5.xlarge")]).values()
        assert found == made("m5.xlarge", 4, 16, zones=(), interfaces=4, addresses=15)
        assert addressed_pods(found) == 4 * 14 + 2

    @pytest.mark.parametrize(
        ("names", "arch"),
        [(["i386", "x86_64"], "amd64"), (["arm64"], "arm64"), (["x86_64_mac"], None)],
    )
    def test_the_architecture_is_kubernetes_name_of_it(
        self, names: list[str], arch: str | None
    ) -> None:
        found = instance_types.described(
            [item("x", ProcessorInfo={"SupportedArchitectures": names})]
        )
        assert [each.arch for each in found.values()] == ([arch] if arch else [])

    def test_the_interfaces_are_those_of_the_default_network_card(self) -> None:
        network = {
            "MaximumNetworkInterfaces": 60,
            "DefaultNetworkCardIndex": 0,
            "NetworkCards": [
                {"NetworkCardIndex": 1, "MaximumNetworkInterfaces": 14},
                {"NetworkCardIndex": 0, "MaximumNetworkInterfaces": 15},
            ],
            "Ipv4AddressesPerInterface": 50,
        }
        (found,) = instance_types.described([item("p4d.24xlarge", NetworkInfo=network)]).values()
        assert found.interfaces == 15

    @pytest.mark.parametrize(
        ("fields", "accelerators"),
        [
            (
                {"GpuInfo": {"Gpus": [{"Manufacturer": "NVIDIA", "Count": 4}]}},
                {"nvidia.com/gpu": 4},
            ),
            ({"GpuInfo": {"Gpus": [{"Manufacturer": "AMD", "Count": 1}]}}, {"amd.com/gpu": 1}),
            (
                {"GpuInfo": {"Gpus": [{"Manufacturer": "Habana", "Count": 8}]}},
                {"habana.ai/gaudi": 8},
            ),
            (
                {
                    "NeuronInfo": {"NeuronDevices": [{"Count": 6, "Name": "Inferentia2"}]},
                    "InferenceAcceleratorInfo": {
                        "Accelerators": [{"Manufacturer": "AWS", "Count": 6}]
                    },
                },
                {"aws.amazon.com/neuron": 6},
            ),
            (
                {
                    "InferenceAcceleratorInfo": {
                        "Accelerators": [{"Manufacturer": "AWS", "Count": 1}]
                    }
                },
                {"aws.amazon.com/neuron": 1},
            ),
            (
                {
                    "InferenceAcceleratorInfo": {
                        "Accelerators": [{"Manufacturer": "Qualcomm", "Count": 8}]
                    }
                },
                {"qualcomm": 8},
            ),
        ],
    )
    def test_accelerators_have_the_resource_of_their_device_plugin(
        self, fields: dict[str, Any], accelerators: dict[str, int]
    ) -> None:
        (found,) = instance_types.described([item("x", **fields)]).values()
        assert found.accelerators == accelerators

    def test_local_and_wavelength_zones_are_no_zones_of_nodes(self) -> None:
        rows = [
            {"InstanceType": "m5.large", "Location": zone}
            for zone in (B, A, f"{REGION}-ham-1a", f"{REGION}-wl1-ber-wlz-1", "eu-central-10a")
        ]
        assert instance_types.zones_of(rows, REGION) == {"m5.large": (A, B)}


class TestListPrices:
    def test_a_price_is_that_of_a_linux_instance_by_the_hour(self) -> None:
        others = [
            product(price="9", attributes=changed)
            for changed in (
                {"operatingSystem": "Windows"},
                {"tenancy": "Dedicated"},
                {"preInstalledSw": "SQL Std"},
                {"capacitystatus": "UnusedCapacityReservation"},
                {"regionCode": "eu-central-1-ham-1", "locationType": "AWS Local Zone"},
                {"operation": "RunInstances:0002"},
                {"marketoption": "CapacityBlock"},
                {"licenseModel": "Bring your own license"},
            )
        ]
        month = product(price="0.008", unit="Mo")
        found = on_demand(*others, product(), month, product("m5.xlarge", "0.2300000000"))
        assert found == ("USD", {"m5.large": 0.115, "m5.xlarge": 0.23})

    @pytest.mark.parametrize("price", ["0.0000000000", "-1", "NaN", "inf", "free", ""])
    def test_what_is_not_positive_is_no_price(self, price: str) -> None:
        found = on_demand(product(price=price), product("m5.xlarge", "0.23"))
        assert found == ("USD", {"m5.xlarge": 0.23})

    def test_a_type_that_is_listed_twice_has_the_lowest_price_in_any_order(self) -> None:
        twice = [product(price="0.2"), product(price="0.1")]
        assert on_demand(*twice) == on_demand(*reversed(twice)) == ("USD", {"m5.large": 0.1})

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"product": {}}', '"x"', "null", "\ud800"])
    def test_a_product_that_cannot_be_read_is_left_out(self, text: str) -> None:
        assert on_demand(text, product()) == ("USD", {"m5.large": 0.115})

    def test_prices_in_yuan_are_read_and_two_currencies_refused(self) -> None:
        yuan = product(money={"CNY": "0.8"})
        assert on_demand(yuan) == ("CNY", {"m5.large": 0.8})
        with pytest.raises(PermanentError, match="two currencies, CNY and USD"):
            on_demand(yuan, product("m5.xlarge"))
        with pytest.raises(PermanentError, match="two currencies"):
            on_demand(product(money={"USD": "1", "CNY": "7"}))

    def test_a_list_without_a_price_is_refused(self) -> None:
        with pytest.raises(PermanentError, match=f"--prices FILE.*none for region {REGION}"):
            on_demand()

    @given(
        st.lists(
            st.recursive(
                st.none() | st.floats() | st.text(),
                lambda inner: (
                    st.lists(inner)
                    | st.dictionaries(
                        st.sampled_from(["product", "terms", "attributes", "OnDemand", "x"]), inner
                    )
                ),
            ).map(json.dumps)
            | st.text()
        )
    )
    def test_no_text_makes_it_fail(self, texts: list[str]) -> None:
        assert on_demand(*texts, product()) == ("USD", {"m5.large": 0.115})


class TestSpotPrices:
    def test_the_newest_row_is_the_price_of_now(self) -> None:
        rows = [spot_row("m5.large", A, "0.05", 1), spot_row("m5.large", A, "0.04", 2)]
        for given_rows in (rows, rows[::-1]):
            assert instance_types.spot_now(given_rows, REGION) == {"m5.large": {A: 0.04}}

    def test_other_products_and_zones_and_bad_prices_are_left_out(self) -> None:
        rows = [
            spot_row("m5.large", A, "0.05", ProductDescription="Windows"),
            spot_row("m5.large", f"{REGION}-ham-1a", "0.05"),
            spot_row("m5.large", A, "0"),
            spot_row("m5.large", A, "x"),
        ]
        assert instance_types.spot_now(rows, REGION) == {}

    def test_the_range_has_the_history_and_the_price_of_now(self) -> None:
        history = [spot_row("m5.large", A, price) for price in ("0.06", "0.05")]
        found = instance_types.with_history({"m5.large": {A: 0.04, B: 0.03}}, history, REGION)
        assert found == {
            "m5.large": {
                A: SpotPrice(now=0.04, low=0.04, high=0.06),
                B: SpotPrice(now=0.03, low=0.03, high=0.03),
            }
        }

    @given(
        st.lists(
            st.builds(
                spot_row,
                st.sampled_from(["m5.large", "c5.large"]),
                st.sampled_from([A, B, "eu-central-1-ham-1a", ""]),
                st.floats(width=32).map(str) | st.text(max_size=3),
                st.integers(0, 9),
            )
        ),
        st.integers(0, 20),
    )
    def test_now_is_within_the_range_for_any_rows(
        self, rows: list[dict[str, Any]], recent: int
    ) -> None:
        now = instance_types.spot_now(rows[:recent], REGION)
        for zones in instance_types.with_history(now, rows, REGION).values():
            for zone, price in zones.items():
                assert zone in (A, B)
                assert 0 < price.low <= price.now <= price.high < float("inf")


class TestCandidates:
    def test_common_families_of_an_architecture_in_use_are_considered(self) -> None:
        types = [
            made("m5.large"),
            made("c7i.xlarge", 4),
            made("r6id.large"),
            made("m7g.large", arch="arm64"),
            made("i4i.large"),
            made("t3.large", burstable=True),
            made("m7i-flex.large"),
            made("mac2.large"),
        ]
        assert names(candidates(types, ["m5.large"])) == ["m5.large", "c7i.xlarge", "r6id.large"]

    @pytest.mark.parametrize(
        ("changed", "considered"),
        [
            ({}, True),
            ({"current": False}, False),
            ({"bare_metal": True}, False),
            ({"burstable": True}, False),
            ({"accelerators": {"nvidia.com/gpu": 1}}, False),
            ({"vcpus": 1}, False),
            ({"vcpus": 32}, True),
            ({"vcpus": 33}, False),
            ({"memory": 3}, False),
            ({"memory": 4}, True),
            ({"zones": ()}, False),
        ],
    )
    def test_a_type_that_is_not_in_use_has_to_fit(
        self, changed: dict[str, Any], considered: bool
    ) -> None:
        types = [made("m5.large"), made("m6i.large", **changed)]
        assert (len(candidates(types, ["m5.large"])) == 2) is considered

    def test_sizes_of_a_family_in_use_are_considered(self) -> None:
        gpu = {"nvidia.com/gpu": 1}
        types = [
            made("t3.large", burstable=True),
            made("t3.xlarge", 4, 16, burstable=True),
            made("g4dn.xlarge", 4, 16, accelerators=gpu),
            made("g4dn.2xlarge", 8, 32, accelerators=gpu),
            made("m7i-flex.large"),
            made("m7i-flex.xlarge", 4),
        ]
        used = {"t3.large", "g4dn.xlarge", "m7i-flex.large"}
        assert sorted(names(candidates(types, used))) == sorted(names(types))

    def test_a_type_in_use_stays_whatever_it_is(self) -> None:
        old = made("m1.small", 1, 1, current=False, zones=(), bare_metal=True, burstable=True)
        assert names(candidates([old], ["m1.small"])) == ["m1.small"]

    def test_types_may_be_as_large_as_the_largest_in_use(self) -> None:
        types = [made("m5.24xlarge", 96), made("m6i.24xlarge", 96), made("m6i.32xlarge", 128)]
        assert names(candidates(types, ["m5.24xlarge"])) == ["m5.24xlarge", "m6i.24xlarge"]

    def test_of_an_unknown_cluster_amd64_is_considered(self) -> None:
        types = [made("m5.large"), made("m7g.large", arch="arm64")]
        assert names(candidates(types, ["m9x.large"])) == ["m5.large"]


class TestUseful:
    dear, cheap = made("m5.large", on_demand=0.2), made("m6a.large", on_demand=0.1)

    def kept(self, *types: InstanceType, used: tuple[str, ...] = (), **spot: Any) -> list[str]:
        now = {name.replace("_", "."): zones for name, zones in spot.items()}
        return names(useful(types, now, used))

    def test_a_type_that_is_dearer_and_no_larger_is_dropped(self) -> None:
        assert self.kept(self.dear, self.cheap) == ["m6a.large"]

    def test_a_type_in_use_stays(self) -> None:
        assert self.kept(self.dear, self.cheap, used=("m5.large",)) == ["m5.large", "m6a.large"]

    @pytest.mark.parametrize(
        "smaller",
        [
            {"vcpus": 1},
            {"memory": 4},
            {"interfaces": 2},
            {"zones": (A,)},
            {"arch": "arm64"},
            {"burstable": True},
            {"bare_metal": True},
            {"accelerators": {"nvidia.com/gpu": 1}},
            {"name": "m7i-flex.large"},
        ],
    )
    def test_one_that_lacks_something_replaces_none(self, smaller: dict[str, Any]) -> None:
        cheap = made(**{"name": "m6a.large", "on_demand": 0.1, **smaller})
        assert len(self.kept(self.dear, cheap)) == 2

    def test_one_with_a_cheaper_spot_price_in_one_zone_stays(self) -> None:
        spot = {"m5_large": {A: 0.05, B: 0.02}, "m6a_large": {A: 0.04, B: 0.03}}
        assert self.kept(self.dear, self.cheap, **spot) == ["m5.large", "m6a.large"]
        spot["m6a_large"][B] = 0.02
        assert self.kept(self.dear, self.cheap, **spot) == ["m6a.large"]

    def test_equal_types_keep_the_one_in_use_or_the_first_by_name(self) -> None:
        types = [made(name, on_demand=0.1) for name in ("m6i.large", "m5.large")]
        spot = {"m5_large": {A: 0.05}, "m6i_large": {A: 0.05}}
        assert self.kept(*types, **spot) == ["m5.large"]
        assert self.kept(*types[::-1], **spot) == ["m5.large"]
        assert self.kept(*types, used=("m6i.large",), **spot) == ["m6i.large"]

    def test_the_larger_of_two_at_one_price_stays_whatever_its_name(self) -> None:
        types = [made("m5.large", on_demand=0.1), made("m6i.large", memory=9, on_demand=0.1)]
        assert self.kept(*types) == ["m6i.large"]

    def test_a_type_without_a_list_price_stays_only_for_its_spot_price(self) -> None:
        unknown = made("m5.large")
        assert self.kept(unknown, self.cheap) == ["m6a.large"]
        spot = {"m5_large": {A: 0.03}, "m6a_large": {A: 0.04}}
        assert self.kept(unknown, self.cheap, **spot) == ["m5.large", "m6a.large"]

    @given(st.data())
    def test_what_is_dropped_has_a_replacement_for_each_market_and_zone(
        self, data: st.DataObject
    ) -> None:
        prices = st.sampled_from([0.1, 0.2, 0.3])
        types = [
            made(
                f"m{number}.large",
                data.draw(st.sampled_from([2, 4])),
                data.draw(st.sampled_from([8, 16])),
                zones=data.draw(st.sampled_from([(A,), (A, B)])),
                on_demand=data.draw(prices | st.none()),
            )
            for number in range(data.draw(st.integers(1, 7)))
        ]
        now = {
            each.name: {zone: data.draw(prices) for zone in each.zones if data.draw(st.booleans())}
            for each in types
        }
        kept = useful(types, now, ())
        assert names(useful(types[::-1], now, ())) == names(kept)[::-1]
        for each in types:
            larger = [o for o in kept if o.vcpus >= each.vcpus and o.memory >= each.memory]
            if each.on_demand is not None:
                assert any(
                    o.on_demand is not None
                    and o.on_demand <= each.on_demand
                    and set(o.zones) >= set(each.zones)
                    for o in larger
                )
            for zone, price in now[each.name].items():
                assert any(now[o.name].get(zone, 9) <= price for o in larger)
