"""IAM's decision about one request, from identity policies alone. Offline.

moto's evaluation ignores conditions and no kept library decides offline, so this is the part of
IAM's documented logic that the project's own documents use: an explicit deny wins, an allow must
match, everything else is denied. An operator or element that it does not know is an error and
never a match.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from lambdas.onboarding.policies.document import Document

Context = Mapping[str, str | list[str]]


@dataclass(frozen=True)
class Request:
    """One action on one resource, with the condition keys that AWS would fill in."""

    action: str
    resource: str
    context: Context = field(default_factory=dict)


def is_allowed(documents: Iterable[Document], request: Request) -> bool:
    """Whether the documents together allow the request."""
    effects = {
        statement["Effect"]
        for document in documents
        for statement in document["Statement"]
        if _matches(statement, request)
    }
    return effects == {"Allow"}


def _matches(statement: Mapping[str, Any], request: Request) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Action", *RESOURCES, "Condition"}
    if unknown:
        raise NotImplementedError(f"statement elements {sorted(unknown)}")
    return (
        any(_like(action, request.action, case=False) for action in _list(statement["Action"]))
        and _is_on(statement, request.resource)
        and _conditions_hold(statement.get("Condition", {}), request.context)
    )


RESOURCES = ("Resource", "NotResource")


def _is_on(statement: Mapping[str, Any], resource: str) -> bool:
    (element,) = statement.keys() & set(RESOURCES)
    found = any(_like(each, resource) for each in _list(statement[element]))
    return found is (element == "Resource")


def _conditions_hold(conditions: Mapping[str, Any], context: Context) -> bool:
    lowered = {key.lower(): value for key, value in context.items()}
    return all(
        _holds(operator, lowered.get(key.lower()), _list(expected))
        for operator, keys in conditions.items()
        for key, expected in keys.items()
    )


def _holds(operator: str, actual: str | list[str] | None, expected: list[str]) -> bool:
    if operator == "Null":
        return (actual is None) == (expected == ["true"])
    quantifier, _, operator = operator.rpartition(":")
    if_exists = operator.endswith("IfExists")
    operator = operator.removesuffix("IfExists")
    negated = "Not" in operator
    if operator not in OPERATORS or quantifier not in QUANTIFIERS:
        raise NotImplementedError(f"condition operator {quantifier}:{operator}")
    if actual is None:
        return if_exists or negated or quantifier == "ForAllValues"
    if isinstance(actual, list) and not quantifier:
        raise NotImplementedError(f"{operator} on a key with several values")
    compare = OPERATORS[operator]

    def fits(value: str) -> bool:
        found = any(compare(wanted, value) for wanted in expected)
        return not found if negated else found

    return QUANTIFIERS[quantifier](fits(value) for value in _list(actual))


QUANTIFIERS: dict[str, Callable[[Iterable[bool]], bool]] = {
    "": all,
    "ForAnyValue": any,
    "ForAllValues": all,
}


def _equal(wanted: str, value: str) -> bool:
    if "${" in wanted:
        raise NotImplementedError(f"policy variable in {wanted}")
    return wanted == value


def _arn_like(wanted: str, value: str) -> bool:
    """ARNs are compared part by part: a wildcard does not reach over a colon before the sixth."""
    wanted_parts, parts = wanted.split(":", 5), value.split(":", 5)
    return len(wanted_parts) == len(parts) and all(map(_like, wanted_parts, parts))


def _same_bool(wanted: str, value: str) -> bool:
    return wanted.lower() == value.lower()


def _like(pattern: str, value: str, *, case: bool = True) -> bool:
    if "${" in pattern:
        raise NotImplementedError(f"policy variable in {pattern}")
    return bool(_compiled(pattern, case).fullmatch(value))


@cache
def _compiled(pattern: str, case: bool) -> re.Pattern[str]:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    return re.compile(expression, re.DOTALL | (0 if case else re.IGNORECASE))


# Each: wanted, value. The negated ones compare as their plain form; the caller turns it round.
OPERATORS: dict[str, Callable[[str, str], bool]] = {
    "StringEquals": _equal,
    "StringNotEquals": _equal,
    "StringLike": _like,
    "StringNotLike": _like,
    "ArnEquals": _arn_like,  # IAM: the same as ArnLike
    "ArnLike": _arn_like,
    "ArnNotEquals": _arn_like,
    "ArnNotLike": _arn_like,
    "Bool": _same_bool,
}


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]
