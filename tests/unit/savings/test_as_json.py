"""The estimate as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from msgspec import Struct
from msgspec.structs import fields

from savings.as_json import FORMAT, document
from savings.estimate import Estimate
from tests.support import estimates


def names(value: Any, path: str = "") -> Iterator[str]:
    """Every field of a struct and of what is in it."""
    if isinstance(value, Struct):
        for each in fields(value):
            yield f"{path}.{each.encode_name}"
            yield from names(getattr(value, each.name), f"{path}.{each.encode_name}")
    elif isinstance(value, tuple):
        for number, each in enumerate(value):
            yield from names(each, f"{path}[{number}]")


def paths(value: Any, path: str = "") -> Iterator[str]:
    """Every key of a document and of what is in it."""
    if isinstance(value, dict):
        for key, each in value.items():
            yield f"{path}.{key}"
            yield from paths(each, f"{path}.{key}")
    elif isinstance(value, list):
        for number, each in enumerate(value):
            yield from paths(each, f"{path}[{number}]")


@pytest.mark.parametrize("name", estimates.cases())
def test_no_field_is_left_out_because_it_has_its_default(name: str) -> None:
    estimate = estimates.cases()[name]

    assert set(names(estimate)) <= set(paths(document(estimate)))


def test_the_units_say_what_the_numbers_are() -> None:
    found = document(estimates.packed_well())

    assert found["format"] == FORMAT
    assert found["units"]["money"] == "CNY per hour"
    assert found["units"]["hoursPerMonth"] == 730
    assert found["interruptions"] is None
    assert found["typesWithoutPrice"] == []


@given(estimates.estimates())
def test_any_estimate_is_json_that_holds_exact_numbers(estimate: Estimate) -> None:
    found = document(estimate)

    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["now"]["cost"] == estimate.now.cost
    assert found["saved"] == pytest.approx(
        found["now"]["cost"] - found["steps"][-1]["cost"], abs=1e-6
    )
