"""Typed decoding: the fields of a kind, and the types of their values.

The kinds' fields are those of lightkube's models, which are generated from Kubernetes' OpenAPI.
Without lightkube nothing is checked.
"""

from __future__ import annotations

import base64
import binascii
import datetime as dt
import functools
import importlib
import re
import types
import typing
from collections.abc import Callable, Sequence

import msgspec

from kubesim import syntax
from kubesim.errors import ApiError, bad_request
from kubesim.resources import Json, Obj, Resource

Model = type[msgspec.Struct]

_GO_NAMES = {str: "string", bool: "bool", int: "number", float: "number", dict: "object",
             list: "array"}  # fmt: skip
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class WrongTypeError(Exception):
    """A value that the kind's Go type does not take, with the message of Go's decoder."""


def model_of(resource: Resource) -> Model | None:
    """The model class of a resource's kind; None if lightkube has none."""
    return model(resource.group, resource.version, resource.kind)


@functools.cache
def model(group: str, version: str, kind: str) -> Model | None:
    """The model class of a kind; None if lightkube has none."""
    package = group.partition(".")[0] or "core"
    try:
        module = importlib.import_module(f"lightkube.models.{package}_{version}")
    except ImportError:
        return None
    found: Model | None = getattr(module, kind, None)
    return found


def decode(model: Model | None, obj: Obj, *, empty: bool = False) -> tuple[Obj, list[str]]:
    """The object without null values and unknown fields, and the paths of its unknown fields.

    Without `empty`, maps and lists that are empty are left out as well: the server does not store
    them. A struct stays (`emptyDir: {}`), and a role's rules have an owner also without a rule.

    Raises WrongTypeError (a value has a type that the field does not have).
    """
    if model is None:
        return obj, []
    unknown: list[str] = []
    decoded: Obj = _Decoder(unknown, empty=empty).object(model, obj, "")
    return decoded, unknown


def report(
    unknown: Sequence[str],
    validation: str,
    warnings: list[str],
    refuse: Callable[[str], ApiError] = bad_request,
) -> None:
    """Report unknown fields: as warnings by default, not at all with Ignore.

    Raises the error that `refuse` makes (the validation is Strict).
    """
    texts = [f'unknown field "{path}"' for path in unknown]
    if texts and validation == "Strict":
        raise refuse(f"strict decoding error: {', '.join(texts)}")
    if validation != "Ignore":
        warnings.extend(texts)


@functools.cache
def _fields(model: Model) -> dict[str, typing.Any]:
    """The fields of a model by their name in JSON, and their types."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(model)}


@functools.cache
def _is_map_or_list(expected: Json) -> bool:
    """Whether a field's type is a map or a list; each may be optional."""
    parts = [part for part in typing.get_args(expected) if part is not type(None)]
    origin: Json = typing.get_origin(expected)
    if origin in (typing.Union, types.UnionType) and len(parts) == 1:
        return bool(_is_map_or_list(parts[0]))
    return expected is dict or origin in (dict, list)


@functools.cache
def _form(expected: Json) -> tuple[Json, tuple[Json, ...]]:
    """The origin of a field's type, and its arguments without None."""
    arguments = tuple(a for a in typing.get_args(expected) if a is not type(None))
    return typing.get_origin(expected), arguments


class _Decoder:
    def __init__(self, unknown: list[str], *, empty: bool) -> None:
        self._unknown = unknown
        self._empty = empty

    def object(self, model: Model, value: Json, path: str) -> Obj:
        if not isinstance(value, dict):
            raise _mismatch(value, path or model.__name__, model.__name__)
        fields = _fields(model)
        decoded: Obj = {}
        for key, element in value.items():
            below = f"{path}.{key}" if path else key
            if not path and key in ("kind", "apiVersion"):
                decoded[key] = element
            elif key not in fields:
                self._unknown.append(below)
            elif element is not None:
                named = f"{model.__name__}.{key}"
                found = self._value(fields[key], element, below, named)
                if found or self._empty or key == "rules" or not _is_map_or_list(fields[key]):
                    decoded[key] = found
        return decoded

    def _value(self, expected: Json, value: Json, path: str, field: str) -> Json:
        """`field`: the struct's name and the field's, as Go's decoder names it."""
        origin, arguments = _form(expected)
        if origin in (typing.Union, types.UnionType):
            if len(arguments) == 1:
                return self._value(arguments[0], value, path, field)
            return _int_or_string(value, field)
        if origin is list:
            return self._list(arguments[0], value, path, field)
        if dict in (origin, expected):
            return self._map(value, field)
        if isinstance(expected, type) and issubclass(expected, msgspec.Struct):
            return self.object(expected, value, path)
        _scalar(expected, value, field)
        return value

    def _list(self, item: Json, value: Json, path: str, field: str) -> Json:
        if not isinstance(value, list):
            raise _mismatch(value, field, "[]")
        return [
            self._value(item, {} if element is None else element, f"{path}[{place}]", field)
            for place, element in enumerate(value)
        ]

    @staticmethod
    def _map(value: Json, field: str) -> Json:
        if not isinstance(value, dict):
            raise _mismatch(value, field, "map")
        check = _MAP_VALUES.get(field) or _MAP_VALUES.get(field.partition(".")[2], _string)
        for element in value.values():
            if element is not None:
                check(element, field)
        return {key: "" if element is None else element for key, element in value.items()}


def _mismatch(value: Json, field: str, expected: str) -> WrongTypeError:
    found = _GO_NAMES.get(type(value), type(value).__name__)
    return WrongTypeError(
        f"json: cannot unmarshal {found} into Go struct field {field} of type {expected}"
    )


def _string(value: Json, field: str) -> None:
    if not isinstance(value, str):
        raise _mismatch(value, field, "string")


def _any(_value: Json, _field: str) -> None:
    """Every value is valid."""


def _bytes(value: Json, field: str) -> None:
    _string(value, field)
    try:
        base64.b64decode(value, validate=True)
    except binascii.Error as fault:
        raise WrongTypeError("illegal base64 data at input byte 0") from fault


def _quantity(value: Json, field: str) -> None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise _mismatch(value, field, "resource.Quantity")
    if syntax.quantity(value) is None:
        raise WrongTypeError(
            "quantities must match the regular expression"
            " '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
        )


def _time(value: Json, field: str) -> None:
    _string(value, field)
    if not _TIME.fullmatch(value):
        raise WrongTypeError(f'parsing time "{value}" as "2006-01-02T15:04:05Z07:00": cannot parse')


def _int_or_string(value: Json, field: str) -> Json:
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _mismatch(value, field, "intstr.IntOrString")
    return value


def _scalar(expected: Json, value: Json, field: str) -> None:
    if field.partition(".")[2] in _QUANTITIES:
        _quantity(value, field)
    elif expected is dt.datetime:
        _time(value, field)
    elif expected is str:
        _string(value, field)
    elif expected in (bool, int) and type(value) is not expected:
        raise _mismatch(value, field, {bool: "bool", int: "int64"}[expected])
    elif expected is float and type(value) not in (int, float):
        raise _mismatch(value, field, "float64")


_QUANTITIES = frozenset({"divisor", "sizeLimit", "averageValue"})
"""Fields whose Go type is Quantity; their OpenAPI type is string."""

_MAP_VALUES: dict[str, Callable[[Json, str], None]] = {
    **dict.fromkeys(
        ("limits", "requests", "hard", "used", "capacity", "allocatable", "overhead",
         "allocatedResources"),
        _quantity,
    ),
    **dict.fromkeys(("fieldsV1", "all", "single", "basic"), _any),
    **dict.fromkeys(("Secret.data", "binaryData"), _bytes),
    "disruptedPods": _time,
}  # fmt: skip
"""How the values of a map are checked, by field; in other maps they are strings."""
