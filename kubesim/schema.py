"""Field validation (`fieldValidation`): unknown fields and values of the wrong type.

The kinds' fields are those of lightkube's models, which are generated from Kubernetes' OpenAPI.
"""

from __future__ import annotations

import functools
import importlib
import types
import typing
from collections.abc import Iterator

import msgspec

from kubesim import errors
from kubesim.resources import Json, Resource

_EVICTION = ("apiVersion", "kind", "metadata", "deleteOptions")
_UNCHECKED = frozenset({"metadata.managedFields"})
"""Written by the server."""
_SCALARS: dict[type, tuple[type, ...]] = {
    str: (str,),
    int: (int,),
    bool: (bool,),
    float: (int, float),
}
_GO_NAMES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object",
             list: "array"}  # fmt: skip


def check(resource: Resource, obj: Json, validation: str, warnings: list[str]) -> None:
    """Compare an object's fields with those of its kind.

    `validation`: Strict refuses unknown fields, Ignore accepts them, other values add a warning.

    Raises ApiError (400 for unknown fields under Strict and for a value of the wrong type).
    """
    model = _model(resource)
    if model is None:
        return
    unknown = []
    for path, wrong in _differences(model, obj, ""):
        if wrong:
            raise errors.bad_request(
                f'{resource.kind} in version "{resource.version}" cannot be handled as a'
                f" {resource.kind}: json: cannot unmarshal {wrong} into Go struct field"
                f" .{path}"
            )
        unknown.append(f'unknown field "{path}"')
    _report(unknown, validation, warnings, resource.kind, resource.version)


def check_eviction(body: Json, validation: str, warnings: list[str]) -> None:
    """Check the body of an eviction in the same way.

    Raises ApiError (400: it is not an Eviction, or has unknown fields under Strict).
    """
    if not isinstance(body, dict) or body.get("kind") != "Eviction":
        raise errors.bad_request("the request body is not an Eviction")
    unknown = [f'unknown field "{name}"' for name in body if name not in _EVICTION]
    _report(unknown, validation, warnings, "Eviction", "v1")


def _report(
    unknown: list[str], validation: str, warnings: list[str], kind: str, version: str
) -> None:
    if not unknown or validation == "Ignore":
        return
    if validation != "Strict":
        warnings.extend(unknown)
        return
    raise errors.bad_request(
        f'{kind} in version "{version}" cannot be handled as a {kind}: strict decoding error: '
        + ", ".join(unknown)
    )


@functools.cache
def _model(resource: Resource) -> type[msgspec.Struct] | None:
    """The model class of a kind; None if lightkube has none."""
    group = resource.group.partition(".")[0] or "core"
    try:
        module = importlib.import_module(f"lightkube.models.{group}_{resource.version}")
    except ImportError:
        return None
    model: type[msgspec.Struct] | None = getattr(module, resource.kind, None)
    return model


@functools.cache
def _fields(model: type[msgspec.Struct]) -> dict[str, typing.Any]:
    """The fields of a model by their name in JSON, and their types."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(model)}


def _differences(expected: Json, value: Json, path: str) -> Iterator[tuple[str, str]]:
    """Yield unknown fields as (path, "") and fields of the wrong type as (path, found type)."""
    if value is None or path in _UNCHECKED:
        return
    origin: Json = typing.get_origin(expected)
    arguments = typing.get_args(expected)
    if origin in (typing.Union, types.UnionType):
        chosen = [a for a in arguments if a is not type(None)]
        if len(chosen) == 1:
            yield from _differences(chosen[0], value, path)
    elif origin is list:
        yield from _list_differences(arguments[0], value, path)
    elif origin is dict:
        yield from _map_differences(arguments[1] if arguments else object, value, path)
    elif isinstance(expected, type) and issubclass(expected, msgspec.Struct):
        yield from _object_differences(expected, value, path)
    elif expected in _SCALARS and not _is_scalar(expected, value):
        yield path, _named(value)


def _list_differences(item: Json, value: Json, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, list):
        yield path, _named(value)
        return
    for index, element in enumerate(value):
        yield from _differences(item, element, f"{path}[{index}]")


def _map_differences(item: Json, value: Json, path: str) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield path, _named(value)
        return
    for key, element in value.items():
        yield from _differences(item, element, f"{path}.{key}" if path else key)


def _object_differences(
    model: type[msgspec.Struct], value: Json, path: str
) -> Iterator[tuple[str, str]]:
    if not isinstance(value, dict):
        yield path, _named(value)
        return
    fields = _fields(model)
    for key, element in value.items():
        below = f"{path}.{key}" if path else key
        if key in fields:
            yield from _differences(fields[key], element, below)
        elif path or key not in ("kind", "apiVersion"):
            yield below, ""


def _is_scalar(expected: type, value: Json) -> bool:
    if isinstance(value, bool):
        return expected is bool
    return isinstance(value, _SCALARS[expected])


def _named(value: Json) -> str:
    return _GO_NAMES.get(type(value), type(value).__name__)
