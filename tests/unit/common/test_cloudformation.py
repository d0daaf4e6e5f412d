"""A request of CloudFormation is read, or its fault is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from lambdas.common.cloudformation import (
    MalformedRequestError,
    owner,
    request_type,
    resource_properties,
)

OWN = "arn:aws:cloudformation:eu-central-1:111122223333:stack/castai-agent/0a1b2c3d"


def test_the_owner_is_stack_and_logical_id() -> None:
    assert owner({"StackId": OWN, "LogicalResourceId": "Prod"}) == "castai-agent/Prod"


@pytest.mark.parametrize(
    ("read", "event", "named"),
    [
        (owner, {"LogicalResourceId": "Prod"}, "StackId"),
        (owner, {"StackId": OWN, "LogicalResourceId": ["Prod"]}, "LogicalResourceId"),
        (request_type, {"RequestType": "Upsert"}, "RequestType"),
        (request_type, {}, "RequestType"),
        (resource_properties, {"ResourceProperties": "text"}, "ResourceProperties"),
    ],
)
def test_a_field_that_is_not_usable_is_named(
    read: Callable[[Any], object], event: dict[str, Any], named: str
) -> None:
    with pytest.raises(MalformedRequestError, match=rf"through CloudFormation: .* {named}$"):
        read(event)
