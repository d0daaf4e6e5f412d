"""The syntax of names, labels, keys and quantities, as in apimachinery's util/validation.

Each function returns the messages about a value; an empty list: the value is valid.
"""

from __future__ import annotations

import re
from decimal import Decimal

from kubesim.resources import Json

SUBDOMAIN_LENGTH = 253
LABEL_LENGTH = 63
_ALPHANUMERIC = "[A-Za-z0-9]"
_DNS_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")
_DNS_1035_LABEL = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_SUBDOMAIN = re.compile(rf"{_DNS_LABEL.pattern}(\.{_DNS_LABEL.pattern})*")
_QUALIFIED = re.compile(rf"({_ALPHANUMERIC}[-A-Za-z0-9_.]*)?{_ALPHANUMERIC}")
_KEY = re.compile(r"[-._a-zA-Z0-9]+")
_ENV_NAME = re.compile(r"[ -<>-~]+")
_PERCENT = re.compile(r"[0-9]+%")
_QUANTITY = re.compile(
    r"(?P<number>[+-]?([0-9]+\.?[0-9]*|\.[0-9]+))"
    r"(?P<suffix>[eE][+-]?[0-9]+|[numkMGTPE]|[KMGTPE]i|)"
)
_DECIMAL_SUFFIXES = dict(
    zip(("n", "u", "m", "", "k", "M", "G", "T", "P", "E"), range(-3, 7), strict=True)
)
_BINARY_SUFFIXES = dict(zip(("Ki", "Mi", "Gi", "Ti", "Pi", "Ei"), range(1, 7), strict=True))


def _too_long(limit: int) -> str:
    return f"must be no more than {limit} bytes"


def _matched(value: str, pattern: re.Pattern[str], message: str) -> list[str]:
    if pattern.fullmatch(value):
        return []
    return [f"{message} (regex used for validation is '{pattern.pattern}')"]


def _limited(value: str, limit: int) -> list[str]:
    return [_too_long(limit)] if len(value.encode()) > limit else []


def subdomain(name: str) -> list[str]:
    """A DNS subdomain of RFC 1123: the name of most objects."""
    message = (
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or"
        " '.', and must start and end with an alphanumeric character"
    )
    return _limited(name, SUBDOMAIN_LENGTH) + _matched(name, _SUBDOMAIN, message)


def dns_label(name: str) -> list[str]:
    """A DNS label of RFC 1123: the name of a namespace or a container."""
    if "." in name:
        return ["must not contain dots"]
    message = (
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and"
        " must start and end with an alphanumeric character"
    )
    return _limited(name, LABEL_LENGTH) + _matched(name, _DNS_LABEL, message)


def dns_1035_label(name: str) -> list[str]:
    """A DNS label of RFC 1035: the name of a service."""
    message = (
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
        " alphabetic character, and end with an alphanumeric character"
    )
    return _limited(name, LABEL_LENGTH) + _matched(name, _DNS_1035_LABEL, message)


def path_segment(name: str) -> list[str]:
    """One segment of a URL's path: the name of an RBAC object, a budget or an event."""
    if name in (".", ".."):
        return [f"may not be '{name}'"]
    return [f"may not contain '{part}'" for part in ("/", "%") if part in name]


def qualified_name(name: str) -> list[str]:
    """`name` or `prefix/name`: a label, an annotation, a finalizer, a taint, a resource."""
    prefix, slash, rest = name.rpartition("/")
    found = []
    if "/" in prefix:
        return ["a qualified name must consist of at most one '/' and a valid DNS subdomain before"]
    if slash and not prefix:
        found.append("prefix part must be non-empty")
    elif slash:
        found += [f"prefix part {message}" for message in subdomain(prefix)]
    if not rest:
        return [*found, "name part must be non-empty", f"name part {_alphanumeric()}"]
    found += [f"name part {message}" for message in _limited(rest, LABEL_LENGTH)]
    return found + _matched(rest, _QUALIFIED, f"name part {_alphanumeric()}")


def _alphanumeric() -> str:
    return (
        "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an"
        " alphanumeric character"
    )


def label_value(value: str) -> list[str]:
    if not value:
        return []
    message = f"a valid label must be an empty string or {_alphanumeric().removeprefix('must ')}"
    return _limited(value, LABEL_LENGTH) + _matched(value, _QUALIFIED, message)


def data_key(key: str) -> list[str]:
    """A key of the data of a ConfigMap or a Secret."""
    message = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
    found = _limited(key, SUBDOMAIN_LENGTH) + _matched(key, _KEY, message)
    if key == ".":
        found.append("must not be '.'")
    elif key.startswith(".."):
        found.append("must not start with '..'")
    return found


def environment_name(name: str) -> list[str]:
    message = "a valid environment variable name must consist only of printable ASCII without '='"
    return _matched(name, _ENV_NAME, message)


def int_or_percent(value: int | str) -> list[str]:
    """A count of pods: a number from 0 on, or a percentage from 0 % to 100 %."""
    if isinstance(value, int):
        return ["must be greater than or equal to 0"] if value < 0 else []
    if not _PERCENT.fullmatch(value):
        return ["a valid percent string must be a numeric string followed by an ending '%'"]
    return ["must not be greater than 100%"] if int(value[:-1]) > 100 else []


def quantity(value: Json) -> Decimal | None:
    """The value of a quantity (`100m`, `1Gi`, 2); None: it is none."""
    found = _QUANTITY.fullmatch(str(value))
    if found is None:
        return None
    number, suffix = Decimal(found["number"]), found["suffix"]
    if suffix in _BINARY_SUFFIXES:
        return number * Decimal(1024) ** _BINARY_SUFFIXES[suffix]
    if suffix in _DECIMAL_SUFFIXES:
        return number * Decimal(1000) ** _DECIMAL_SUFFIXES[suffix]
    return number * Decimal(10) ** int(suffix[1:])
