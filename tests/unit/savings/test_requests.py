"""What pods request: by the rules of kube-scheduler, in every notation of a quantity."""

from __future__ import annotations

from typing import Any

import pytest

from lambdas.common.errors import PermanentError
from savings.requests import amounts, requests_of, without_requests
from tests.support.requests import SPECS, container


@pytest.mark.parametrize(("spec", "requested"), SPECS.values(), ids=SPECS)
def test_the_requests_of_a_pod(spec: dict[str, Any], requested: dict[str, int]) -> None:
    assert requests_of(spec, "pod a/b") == requested


@pytest.mark.parametrize(
    ("quantity", "cores"),
    [
        ("0", 0),
        ("1", 1000),
        (2, 2000),
        ("0.1", 100),
        (".5", 500),
        ("1.", 1000),
        ("1.0005", 1001),
        ("250m", 250),
        ("1500000u", 1500),
        ("1u", 1),
        ("1n", 1),
        ("100000001n", 101),
        ("1e1", 10_000),
        ("1E1", 10_000),
        ("5e-1", 500),
        ("1k", 1_000_000),
        ("+1", 1000),
    ],
)
def test_processor_is_in_millicores_rounded_up(quantity: Any, cores: int) -> None:
    assert amounts({"cpu": quantity}, "pod a/b") == {"cpu": cores}


@pytest.mark.parametrize(
    ("quantity", "bytes_"),
    [
        ("128974848", 128_974_848),
        ("129e6", 129_000_000),
        ("129E6", 129_000_000),
        ("128974848000m", 128_974_848),
        ("1001m", 2),
        ("1.5Gi", 3 << 29),
        ("1Ki", 1 << 10),
        ("1Mi", 1 << 20),
        ("1Ti", 1 << 40),
        ("1Pi", 1 << 50),
        ("7Ei", 7 << 60),
        ("1k", 10**3),
        ("1M", 10**6),
        ("1G", 10**9),
        ("1T", 10**12),
        ("1P", 10**15),
        ("1E", 10**18),
        ("1.5E", 15 * 10**17),
    ],
)
def test_memory_is_in_bytes_rounded_up(quantity: str, bytes_: int) -> None:
    assert amounts({"memory": quantity}, "pod a/b") == {"memory": bytes_}


@pytest.mark.parametrize("quantity", ["", "x", "1 Gi", "1gi", "1KB", "NaN", "1e", "--1", [], {}])
def test_what_is_no_quantity_is_said_with_the_pod(quantity: Any) -> None:
    spec = {"containers": [{"name": "c", "resources": {"requests": {"memory": quantity}}}]}
    with pytest.raises(PermanentError, match=r"^Correct the quantity memory: .* of pod a/b$"):
        requests_of(spec, "pod a/b")


@pytest.mark.parametrize(
    ("containers", "whole", "missing"),
    [
        ([container(cpu="1", memory="1")], {}, False),
        ([container(cpu="1")], {}, True),
        ([container(cpu="1", memory="1"), container(memory="1")], {}, True),
        ([container()], {"cpu": "1", "memory": "1"}, False),
        ([container(memory="1")], {"cpu": "1"}, False),
        ([container()], {"cpu": "1"}, True),
    ],
)
def test_a_pod_without_requests(
    containers: list[dict[str, Any]], whole: dict[str, str], missing: bool
) -> None:
    spec = {"containers": containers, "resources": {"requests": whole}}
    assert without_requests(spec) is missing
