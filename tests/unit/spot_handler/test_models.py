"""Our lean EC2 model says of the one call that we make what the SDK's own model says."""

from __future__ import annotations

import json
from typing import Any

import botocore.session

from lambdas.spot_handler.instances import MODELS

OURS: dict[str, Any] = json.loads((MODELS / "ec2/2016-11-15/service-2.json").read_text())
THEIRS: dict[str, Any] = (
    botocore.session.Session()
    .get_component("data_loader")
    .load_service_model("ec2", "service-2", api_version="2016-11-15")
)


def differences(ours: Any, theirs: Any, path: str = "$") -> list[str]:
    """Where ours says something that theirs does not say; not the other way round."""
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


def test_every_word_of_it_is_the_sdks() -> None:
    assert differences({k: v for k, v in OURS.items() if k != "version"}, THEIRS) == []


def test_a_difference_would_be_seen() -> None:
    assert differences({"shapes": {"Tag": {"type": "list"}}}, THEIRS)
    assert differences({"operations": {"DescribeInstance": {}}}, THEIRS)


def test_every_shape_that_is_named_is_there() -> None:
    named = set[str]()

    def collect(value: Any) -> None:
        if isinstance(value, dict):
            named.update(v for k, v in value.items() if k == "shape")
            for inner in value.values():
                collect(inner)

    collect(OURS)
    assert named == set(OURS["shapes"])
