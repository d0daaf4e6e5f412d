"""Typed properties: a struct and the values given → typed values and every fault at once. Pure.

Custom resources, the CDK context and environment variables are read by this one reader. msgspec
converts each field by itself, because it stops at the first fault of a struct. A field declares
everything about itself, once, in its annotation:

    Meta(ge=…, le=…, pattern=…)    limits
    Meta(title=…)                  a description of what is allowed; default: that of the type
    Meta(description=…)            documentation for users
    Meta(extra={"before": f})      f(given) runs before the conversion
    Meta(extra={"check": f})       f(value) runs after it and returns the value
    Meta(extra={"former": {…}})    former values → the present ones, for the error

`before` and `check` raise CastaiError with what is wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct, inspect
from msgspec.structs import FieldInfo

from lambdas.common.errors import CastaiError, PermanentError
from lambdas.common.text import cut, masked, shown


class Fault(NamedTuple):
    """One thing that is wrong."""

    name: str
    """The property, as its author writes it."""
    what: str
    """What is wrong with it, or what to give."""

    def __str__(self) -> str:
        return f"{cut(self.name)}: {self.what}"


class PropertiesError(PermanentError):
    """Properties are wrong. The message lists every fault, one a line."""

    def __init__(self, faults: Collection[Fault]) -> None:
        super().__init__(
            "\n".join(["Correct these properties:", *(f"- {each}" for each in faults)])
        )


def read(
    struct: type[Struct], given: Mapping[str, Any], *, text: bool = False
) -> tuple[dict[str, Any], list[Fault]]:
    """The values by field name, and a fault for each property that is missing or not allowed.

    An absent, null or empty property means its default. With `text` only an absent one does, text
    may stand for a list or a map ("a,b", "a=1,b=2", JSON), and a list has no entry twice.
    """
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for each in fields(struct):
        name = each.encode_name
        raw = given.get(name)
        if name not in given or (not text and (raw is None or raw == "")):
            if each.required:
                faults.append(Fault(name, "is missing"))
            continue
        kind = inspect.type_info(each.type)
        try:
            values[each.name] = _value(raw, each.type, kind, text=text)
        except (msgspec.DecodeError, UnicodeEncodeError) as error:  # half of a surrogate pair
            faults.append(Fault(name, _explain(raw, kind, str(error))))
        except CastaiError as error:
            faults.append(Fault(name, str(error)))
    return values, faults


def unknown(
    known: Collection[str], given: Mapping[str, Any], *, noun: str = "property", prefix: str = ""
) -> Iterator[Fault]:
    """A fault for each name given that is not known, with the nearest known name."""
    for name in given:
        if name not in known:
            yield Fault(name, f"there is no such {noun}{did_you_mean(name, known, prefix)}")


@cache
def fields(struct: type[Struct]) -> tuple[FieldInfo, ...]:
    """The fields of a struct. msgspec reads the annotations anew for each call, in 1 ms."""
    return msgspec.structs.fields(struct)


def names(struct: type[Struct]) -> list[str]:
    """The names of a struct's properties, as their author writes them."""
    return [each.encode_name for each in fields(struct)]


def default(struct: type[Struct], name: str) -> Any:  # noqa: ANN401 - as the field declares it
    """The default of a field, so that another struct need not repeat it."""
    (field,) = (each for each in fields(struct) if each.name == name)
    return field.default if field.default is not msgspec.NODEFAULT else field.default_factory()


def did_you_mean(word: str, known: Collection[str], prefix: str = "") -> str:
    """A hint at the nearest of the known names, or nothing."""
    from difflib import get_close_matches  # noqa: PLC0415 - a cold start without faults skips it

    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1)
    return f"; did you mean {prefix}{lower[close[0]]}?" if close else ""


def allowed(kind: inspect.Type) -> str:
    """A description of what may be given."""
    match kind:
        case inspect.Metadata(extra_json_schema={"title": str(title)}):
            words = title
        case inspect.Metadata(type=inner):
            words = allowed(inner)
        case inspect.LiteralType() | inspect.EnumType():
            words = _either(_choices(kind))
        case inspect.BoolType():
            words = "true or false"
        case inspect.IntType(ge=low, le=high) | inspect.FloatType(ge=low, le=high):
            number = "whole number" if isinstance(kind, inspect.IntType) else "number"
            words = f"a {number} from {low} to {high}"
        case inspect.VarTupleType(item_type=item) | inspect.FrozenSetType(item_type=item):
            words = f"a list; each entry {allowed(item)}"
        case inspect.DictType(key_type=key, value_type=value):
            words = f"a map; each key {allowed(key)}, each value {allowed(value)}"
        case inspect.UnionType(types=types):
            words = allowed(next(t for t in types if not isinstance(t, inspect.NoneType)))
        case _:
            words = "text"
    return words


def description(kind: inspect.Type) -> str:
    """Meta.description of a field, or of the type beside None in its union."""
    match kind:
        case inspect.Metadata(extra_json_schema={"description": str(words)}):
            return words
        case inspect.UnionType(types=types):
            return next(filter(None, map(description, types)), "")
        case _:
            return ""


def _value(raw: object, declared: Any, kind: inspect.Type, *, text: bool) -> object:  # noqa: ANN401 - a type annotation
    """One value, converted and checked."""
    extra = _extra(kind)
    if isinstance(raw, str) and (now := extra.get("former", {}).get(raw)):
        raise PermanentError(f"{raw} is now {now}")
    if text:
        raw = _untext(raw, _bare(kind))
    if before := extra.get("before"):
        raw = before(raw)
    value = msgspec.convert(raw, declared, strict=False)
    if text and isinstance(value, tuple):
        twice = next((item for n, item in enumerate(value) if item in value[:n]), None)
        if twice is not None:
            raise PermanentError(f"{shown(raw)} has {shown(twice)} twice")
    check = extra.get("check")
    return check(value) if check and value is not None else value


def _untext(raw: object, kind: inspect.Type) -> object:
    """The JSON value that text stands for; other values as they are.

    Where text is a choice, JSON may have read it as a number: a version is one.
    """
    if isinstance(raw, float) and isinstance(kind, inspect.LiteralType):
        return str(raw)
    if not isinstance(raw, str):
        return raw
    text = raw.strip()
    match kind:
        case inspect.UnionType() if not text:
            return None
        case inspect.VarTupleType() | inspect.FrozenSetType() | inspect.DictType() if text[:1] in (
            "[", "{",
        ):  # fmt: skip
            return msgspec.json.decode(text)
        case inspect.VarTupleType() | inspect.FrozenSetType():
            return [item.strip() for item in text.split(",") if item.strip()]
        case inspect.DictType():
            pairs = (item.partition("=") for item in text.split(",") if item.strip())
            return {key.strip(): value.strip() for key, _, value in pairs}
        case _:
            return text


def _bare(kind: inspect.Type) -> inspect.Type:
    """A type without its metadata."""
    return _bare(kind.type) if isinstance(kind, inspect.Metadata) else kind


def _extra(kind: inspect.Type) -> dict[str, Any]:
    """Meta.extra of a field, or of the type beside None in its union."""
    match kind:
        case inspect.Metadata(type=inner, extra=extra):
            return {**_extra(inner), **(extra or {})}
        case inspect.UnionType(types=types):
            return {key: value for each in types for key, value in _extra(each).items()}
        case _:
            return {}


def _choices(kind: inspect.Type) -> list[str]:
    match kind:
        case inspect.LiteralType(values=values):
            return [str(value) for value in values]
        case inspect.EnumType(cls=cls):
            return [str(member.value) for member in cls]
        case _:
            return []


def _either(words: list[str]) -> str:
    return f"{', '.join(words[:-1])} or {words[-1]}" if len(words) > 1 else words[0]


def _explain(raw: object, kind: inspect.Type, error: str) -> str:
    # Inside a list or a map msgspec says where and what; `allowed` says a pattern in words.
    what, at, where = error.rpartition(" - ")
    inside = f" ({cut(masked(where if 'regex' in what else error))})" if at else ""
    hint = did_you_mean(raw, _choices(_bare(kind))) if isinstance(raw, str) else ""
    return f"give {allowed(kind)}, not {shown(raw)}{inside}{hint}"
