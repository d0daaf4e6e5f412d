"""Field validation: what `fieldValidation` makes of fields that a kind does not have."""

from __future__ import annotations

from typing import Any

from sandbox.cluster import errors
from sandbox.cluster.resources import Json, Obj, Resource

_EVICTION = ("apiVersion", "kind", "metadata", "deleteOptions")


def check(resource: Resource, obj: Json, validation: str, warnings: list[str]) -> None:
    """Placeholder."""


def check_eviction(body: Json, validation: str, warnings: list[str]) -> None:
    """The same for the body of an eviction.

    Raises:
        ApiError: 400, it is none, or carries unknown fields and validation is Strict.
    """
    if not isinstance(body, dict) or body.get("kind") != "Eviction":
        raise errors.bad_request("the request body is no Eviction")
    unknown = [f'unknown field "{name}"' for name in body if name not in _EVICTION]
    _report(unknown, validation, warnings, body)


def _report(unknown: list[str], validation: str, warnings: list[str], obj: Obj) -> None:
    if not unknown or validation == "Ignore":
        return
    if validation != "Strict":
        warnings.extend(unknown)
        return
    kind, version = obj.get("kind"), obj.get("apiVersion")
    raise errors.bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: '
        + ", ".join(unknown)
    )
