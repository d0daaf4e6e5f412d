"""The lean models and endpoints are parts of the SDK's, and requests go to the same endpoints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import botocore.session
import pytest
from botocore.config import Config
from botocore.exceptions import EndpointProviderError, EndpointVariantError
from botocore.loaders import Loader

from lambdas.spot_handler import lean_sdk
from lambdas.spot_handler.lean_sdk import MODELS

LOADER = botocore.session.Session().get_component("data_loader")
SERVICES = {"ec2": "2016-11-15", "eks": "2017-11-01"}
OPERATIONS = {"ec2": "DescribeInstances", "eks": "DescribeCluster"}
PARTITIONS: list[dict[str, Any]] = LOADER.load_data("partitions")["partitions"]
REGIONS = [
    *(region for partition in PARTITIONS for region in partition["regions"]),
    "eu-somewhere-9",  # a region that does not exist yet
]


def ours(path: str) -> Any:
    return json.loads((MODELS / path).read_text())


def differences(ours: Any, theirs: Any, path: str = "$") -> list[str]:
    """The values of `ours` that are missing or different in `theirs`."""
    if isinstance(ours, dict):
        return [
            fault
            for key, value in ours.items()
            for fault in (
                differences(value, theirs[key], f"{path}.{key}")
                if isinstance(theirs, dict) and key in theirs
                else [f"{path}.{key} is not in the SDK's model"]
            )
        ]
    return [] if ours == theirs else [f"{path}: {ours!r} is {theirs!r} in the SDK's model"]


@pytest.mark.parametrize("service", SERVICES)
class TestModel:
    def model(self, service: str) -> dict[str, Any]:
        found: dict[str, Any] = ours(f"{service}/{SERVICES[service]}/service-2.json")
        return found

    def test_it_is_a_part_of_the_sdks_model(self, service: str) -> None:
        theirs = LOADER.load_service_model(service, "service-2", SERVICES[service])
        model = {key: value for key, value in self.model(service).items() if key != "version"}
        assert differences(model, theirs) == []

    def test_it_has_the_version_that_the_sdk_uses(self, service: str) -> None:
        assert LOADER.determine_latest_version(service, "service-2") == SERVICES[service]

    def test_it_has_every_shape_that_it_refers_to(self, service: str) -> None:
        named = set[str]()

        def collect(value: Any) -> None:
            if isinstance(value, dict):
                named.update(v for k, v in value.items() if k == "shape")
                for inner in value.values():
                    collect(inner)

        collect(self.model(service))
        assert named == set(self.model(service)["shapes"])


def test_differences_are_found() -> None:
    theirs = LOADER.load_service_model("ec2", "service-2", SERVICES["ec2"])
    assert differences({"shapes": {"Tag": {"type": "list"}}}, theirs)
    assert differences({"operations": {"DescribeInstance": {}}}, theirs)


def test_the_endpoints_are_the_sdks_for_our_services() -> None:
    """If it fails, replace the file by the SDK's endpoints.json with these two services only."""
    theirs = json.loads((Path(botocore.__file__).parent / "data/endpoints.json").read_text())
    for partition in theirs["partitions"]:
        partition["services"] = {
            name: service for name, service in partition["services"].items() if name in SERVICES
        }
    assert ours("endpoints.json") == theirs


class OneOperation(Loader):
    """The SDK's data, with one operation of each service.

    An endpoint does not depend on the operations, and each client of EC2 would get 750 methods.
    """

    def load_service_model(
        self, service: str, kind: str, api_version: str | None = None
    ) -> dict[str, Any]:
        model: dict[str, Any] = super().load_service_model(service, kind, api_version)
        if kind != "service-2":
            return model
        name = OPERATIONS[service]
        return model | {"operations": {name: model["operations"][name]}}


def endpoint(session: botocore.session.Session, service: str, region: str, **config: Any) -> str:
    """The URL of a client's requests and the region of their signature; or the error."""
    try:
        client = session.create_client(
            service,
            region_name=region,
            config=Config(**config),
            aws_access_key_id="testing",
            aws_secret_access_key="testing",
        )
        resolved = client._ruleset_resolver.construct_endpoint(
            operation_model=client.meta.service_model.operation_model(OPERATIONS[service]),
            call_args={},
            request_context={},
        )
    except (EndpointProviderError, EndpointVariantError) as error:
        return str(error)
    return f"{resolved.url} {client._request_signer.region_name}"


@pytest.mark.parametrize(
    "config",
    [
        {},
        pytest.param({"use_fips_endpoint": True}, marks=pytest.mark.long),
        pytest.param({"use_dualstack_endpoint": True}, marks=pytest.mark.long),
    ],
)
@pytest.mark.parametrize("service", SERVICES)
def test_endpoints_are_those_of_the_sdk(service: str, config: dict[str, bool]) -> None:
    lean = lean_sdk.session()
    plain = botocore.session.Session()
    plain.register_component("data_loader", OneOperation())
    assert {region: endpoint(lean, service, region, **config) for region in REGIONS} == {
        region: endpoint(plain, service, region, **config) for region in REGIONS
    }


def test_a_service_without_a_lean_model_has_the_sdks_model() -> None:
    client = lean_sdk.session().create_client(
        "sts", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    theirs = LOADER.load_service_model("sts", "service-2")
    assert set(client.meta.service_model.operation_names) == set(theirs["operations"])


def test_aws_endpoint_url_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://127.0.0.1:1")
    lean_sdk.session.cache_clear()
    client = lean_sdk.session().create_client(
        "ec2", "eu-central-1", aws_access_key_id="testing", aws_secret_access_key="testing"
    )
    lean_sdk.session.cache_clear()
    assert client.meta.endpoint_url == "https://127.0.0.1:1"
