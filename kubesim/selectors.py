"""Label and field selectors. Each is parsed once, then matched with objects."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from kubesim import errors, syntax
from kubesim.resources import EVENTS, NAMESPACES, NODES, PODS, SECRETS, SERVICES, Obj, Resource

Labels = Mapping[str, str]
LabelTest = Callable[[Labels], bool]

_SET = re.compile(r"^(?P<key>[^\s!=,()]+)\s+(?P<op>in|notin)\s+\((?P<values>[^)]*)\)$")
_EQUAL = re.compile(r"^(?P<key>[^\s!=,()]+)\s*(?P<op>==|=|!=)\s*(?P<value>[^\s,()]*)$")
_COMPARED = re.compile(r"^(?P<key>[^\s!=,()<>]+)\s*(?P<op>[<>])\s*(?P<value>[^\s,()]*)$")
_EXISTS = re.compile(r"^(?P<not>!\s*)?(?P<key>[^\s!=,()]+)$")
_COMMA = re.compile(r",(?![^(]*\))")

_COMMON_FIELDS = ("metadata.name", "metadata.namespace")
_FIELDS = {
    PODS: (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    ),
    NODES: ("spec.unschedulable",),
    NAMESPACES: ("status.phase",),
    SECRETS: ("type",),
    SERVICES: ("spec.clusterIP", "spec.type"),
    EVENTS: (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    ),
}


def _requirement(key: str, operator: str, values: tuple[str, ...]) -> LabelTest:
    wanted = frozenset(values)
    tests: dict[str, LabelTest] = {
        "In": lambda labels: labels.get(key) in wanted,
        # As in Kubernetes, NotIn also matches objects without the label.
        "NotIn": lambda labels: labels.get(key) not in wanted,
        "Exists": lambda labels: key in labels,
        "DoesNotExist": lambda labels: key not in labels,
    }
    return tests[operator]


def label_selector(text: str) -> LabelTest:
    """A selector of a query: `a=b,c!=d,e in (f,g),h,!i`. An empty one matches all objects.

    Raises ApiError (400: it is invalid).
    """
    parts = _COMMA.split(text) if text.strip() else []
    tests = [_parse_label(part.strip(), text) for part in parts]
    return lambda labels: all(test(labels) for test in tests)


def _parse_label(part: str, text: str) -> LabelTest:
    if found := _COMPARED.match(part):
        return _comparison(_valid_key(found["key"]), found["op"], found["value"])
    if found := _SET.match(part):
        values = _valid_values(value.strip() for value in found["values"].split(","))
        operator = "In" if found["op"] == "in" else "NotIn"
        return _requirement(_valid_key(found["key"]), operator, values)
    if found := _EQUAL.match(part):
        operator = "NotIn" if found["op"] == "!=" else "In"
        return _requirement(_valid_key(found["key"]), operator, _valid_values([found["value"]]))
    if found := _EXISTS.match(part):
        operator = "DoesNotExist" if found["not"] else "Exists"
        return _requirement(_valid_key(found["key"]), operator, ())
    raise errors.bad_request(f'unable to parse requirement: found "{part}" in "{text}"')


def _valid_key(key: str) -> str:
    return _valid(key, syntax.qualified_name(key))


def _valid_values(values: Iterable[str]) -> tuple[str, ...]:
    return tuple(_valid(value, syntax.label_value(value)) for value in values)


def _valid(text: str, messages: list[str]) -> str:
    if messages:
        raise errors.bad_request(
            f'unable to parse requirement: Invalid value: "{text}": {messages[0]}'
        )
    return text


def _comparison(key: str, operator: str, value: str) -> LabelTest:
    try:
        bound = int(value)
    except ValueError as fault:
        why = "for 'Gt', 'Lt' operators, the value must be an integer"
        raise errors.bad_request(
            f'unable to parse requirement: values[0]: Invalid value: "{value}": {why}'
        ) from fault

    def test(labels: Labels) -> bool:
        found = labels.get(key, "")
        if not found.lstrip("-").isdigit():
            return False
        return int(found) > bound if operator == ">" else int(found) < bound

    return test


def match_selector(selector: Mapping[str, Any] | None) -> LabelTest:
    """A LabelSelector of a spec (matchLabels, matchExpressions).

    None matches no object, an empty one matches all: the rule of policy/v1 and apps/v1.
    """
    if selector is None:
        return lambda _labels: False
    tests = [_requirement(k, "In", (v,)) for k, v in (selector.get("matchLabels") or {}).items()]
    tests += [
        _requirement(e["key"], e["operator"], tuple(e.get("values") or ()))
        for e in selector.get("matchExpressions") or ()
    ]
    return lambda labels: all(test(labels) for test in tests)


def selector_text(selector: Mapping[str, Any]) -> str:
    """A LabelSelector of a spec as text, as in a query, ordered by key."""
    parts = [(key, f"{key}={value}") for key, value in (selector.get("matchLabels") or {}).items()]
    for requirement in selector.get("matchExpressions") or ():
        key, values = requirement["key"], ",".join(sorted(requirement.get("values") or ()))
        text = {
            "In": f"{key} in ({values})",
            "NotIn": f"{key} notin ({values})",
            "Exists": key,
            "DoesNotExist": f"!{key}",
        }
        parts.append((key, text[requirement["operator"]]))
    return ",".join(text for _, text in sorted(parts))


def labels_of(obj: Obj) -> Labels:
    labels: Labels = obj["metadata"].get("labels") or {}
    return labels


class FieldSelector:
    """A field selector of one resource: `spec.nodeName=a,status.phase!=Failed`."""

    def __init__(self, resource: Resource, text: str) -> None:
        """Raises ApiError (400 for a field that this resource does not support)."""
        known = (*_COMMON_FIELDS, *_FIELDS.get(resource, ()))
        self.equals: dict[str, str] = {}
        self._differs: list[tuple[str, str]] = []
        for part in filter(None, text.split(",")):
            found = _EQUAL.match(part.strip())
            if found is None:
                raise errors.bad_request(f"invalid selector: '{part}'; can't understand '{part}'")
            if found["key"] not in known:
                raise errors.bad_request(f"field label not supported: {found['key']}")
            if found["op"] == "!=":
                self._differs.append((found["key"], found["value"]))
            else:
                self.equals[found["key"]] = found["value"]

    def __bool__(self) -> bool:
        return bool(self.equals or self._differs)

    def matches(self, obj: Obj) -> bool:
        return all(_field(obj, path) == value for path, value in self.equals.items()) and all(
            _field(obj, path) != value for path, value in self._differs
        )


def _field(obj: Obj, path: str) -> str:
    value: Any = obj
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    if isinstance(value, dict):  # `source` of events selects by its component
        value = value.get("component")
    if path in ("spec.unschedulable", "spec.hostNetwork"):
        return "true" if value else "false"
    if isinstance(value, list):  # the addresses of a pod
        return ",".join(each["ip"] for each in value)
    return "" if value is None else str(value)
