"""What IAM evaluates for a request: one or more actions, each on one resource."""

import dataclasses
from collections.abc import Mapping
from typing import Any

Parameters = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Check:
    """An action on a resource, with the condition keys of this resource."""

    action: str
    resource: str
    context: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def first(params: Parameters, name: str) -> str:
    """Return a parameter of a query request. The emulator has a list for each."""
    value = params.get(name, "")
    return str(value[0] if isinstance(value, list) and value else value or "")
