"""JSON merge patch (RFC 7386), JSON patch (RFC 6902) and Kubernetes' strategic merge patch.

All functions are pure: they never change the object in place.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

from kubesim import errors
from kubesim.resources import Json

MERGE_KEYS = {
    "containers": "name",
    "initContainers": "name",
    "ephemeralContainers": "name",
    "env": "name",
    "volumes": "name",
    "volumeMounts": "mountPath",
    "volumeDevices": "devicePath",
    "conditions": "type",
    "addresses": "type",
    "imagePullSecrets": "name",
    "secrets": "name",
    "hostAliases": "ip",
    "podIPs": "ip",
    "ownerReferences": "uid",
    "topologySpreadConstraints": "topologyKey",
    "schedulingGates": "name",
    "resourceClaims": "name",
    "drivers": "name",
}
"""patchMergeKey of the lists that a strategic merge patch merges (from the API's Go types). Every
other list is replaced as a whole, spec.taints of a node too; `finalizers` and `podCIDRs` are merged
lists of plain values."""

_PRIMITIVE_LISTS = frozenset({"finalizers", "podCIDRs"})
_DIRECTIVES = ("$patch", "$retainKeys", "$setElementOrder/", "$deleteFromPrimitiveList/")


def merge_key(field: str, items: list[Any]) -> str | None:
    """The key by which a list is merged; None for a list that is replaced as a whole."""
    if field == "ports":  # a container's ports have containerPort, a service's have port
        first = next((item for item in items if isinstance(item, dict)), {})
        return "containerPort" if "containerPort" in first else "port"
    return MERGE_KEYS.get(field)


def merge(target: Json, patch: Json) -> Json:
    """RFC 7386: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge(result.get(key), value)
    return result


def strategic(target: Json, patch: Json) -> Json:
    """Strategic merge patch, with its directives ($patch, $retainKeys, $setElementOrder,
    $deleteFromPrimitiveList)."""
    if not isinstance(patch, dict):
        return patch
    if patch.get("$patch") == "replace":
        return {k: v for k, v in patch.items() if k != "$patch"}
    result = dict(target) if isinstance(target, dict) else {}
    if "$retainKeys" in patch:
        result = {k: v for k, v in result.items() if k in patch["$retainKeys"]}
    for key, value in patch.items():
        if key.startswith("$deleteFromPrimitiveList/"):
            field = key.partition("/")[2]
            result[field] = [item for item in result.get(field, ()) if item not in value]
        if key.startswith(_DIRECTIVES):
            continue
        if value is None or (isinstance(value, dict) and value.get("$patch") == "delete"):
            result.pop(key, None)
        else:
            order = patch.get(f"$setElementOrder/{key}")
            result[key] = _strategic_value(key, result.get(key), value, order)
    return result


def _strategic_value(field: str, target: Json, patch: Json, order: list[Any] | None) -> Json:
    if target is None and not (isinstance(patch, dict) and "$patch" in patch):
        return _without_directives(patch)
    if isinstance(patch, list):
        return _strategic_list(field, target or [], patch, order)
    return strategic(target, patch)


def _without_directives(value: Json) -> Json:
    """A value of a patch for a field that the target does not have."""
    if isinstance(value, dict):
        return {
            key: _without_directives(each)
            for key, each in value.items()
            if each is not None and not key.startswith(_DIRECTIVES)
        }
    if isinstance(value, list):
        return [
            _without_directives(each)
            for each in value
            if not (isinstance(each, dict) and "$patch" in each)
        ]
    return value


def _strategic_list(
    field: str, target: list[Any], patch: list[Any], order: list[Any] | None
) -> list[Any]:
    if field in _PRIMITIVE_LISTS:
        return list(dict.fromkeys([*target, *patch]))
    key = merge_key(field, [*patch, *target])
    if key is None or any(not isinstance(item, dict) for item in patch):
        return patch
    if any(item.get("$patch") == "replace" for item in patch):
        return [item for item in patch if "$patch" not in item]
    merged = {item.get(key): item for item in target}
    for item in patch:
        if item.get("$patch") == "delete":
            merged.pop(item.get(key), None)
        else:
            merged[item.get(key)] = strategic(merged.get(item.get(key)), item)
    items = list(merged.values())
    if order:
        rank = {entry.get(key): place for place, entry in enumerate(order)}
        items.sort(key=lambda item: rank.get(item.get(key), len(rank)))
    return items


def json_patch(target: Json, operations: Json) -> Json:
    """RFC 6902.

    Raises ApiError (400: not a list of operations, 422: an operation cannot be applied).
    """
    if not isinstance(operations, list):
        raise errors.bad_request("error decoding patch: a JSON patch is a list of operations")
    document = deepcopy(target)
    for operation in operations:
        try:
            document = _OPERATIONS[operation["op"]](document, operation)
        except (KeyError, IndexError, ValueError, TypeError, AttributeError) as fault:
            message = (
                "the server rejected our request due to an error in our request:"
                f" {operation!r}: {type(fault).__name__}"
            )
            raise errors.ApiError(422, "Invalid", message, details={}) from fault
    return document


def _tokens(pointer: str) -> list[str]:
    if pointer and not pointer.startswith("/"):
        raise ValueError(pointer)
    return [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]


def _walk(document: Json, tokens: list[str]) -> Json:
    for token in tokens:
        document = document[int(token)] if isinstance(document, list) else document[token]
    return document


def _put(document: Json, pointer: str, value: Json, *, replace: bool) -> Json:
    tokens = _tokens(pointer)
    if not tokens:
        return value
    parent, last = _walk(document, tokens[:-1]), tokens[-1]
    if isinstance(parent, list):
        if replace:
            parent[int(last)] = value
        else:
            place = len(parent) if last == "-" else int(last)
            if place > len(parent):
                raise IndexError(pointer)
            parent.insert(place, value)
    else:
        if replace and last not in parent:
            raise KeyError(pointer)
        parent[last] = value
    return document


def _add(document: Json, operation: dict[str, Any]) -> Json:
    return _put(document, operation["path"], operation["value"], replace=False)


def _replace(document: Json, operation: dict[str, Any]) -> Json:
    return _put(document, operation["path"], operation["value"], replace=True)


def _remove(document: Json, operation: dict[str, Any]) -> Json:
    tokens = _tokens(operation["path"])
    parent = _walk(document, tokens[:-1])
    del parent[int(tokens[-1]) if isinstance(parent, list) else tokens[-1]]
    return document


def _test(document: Json, operation: dict[str, Any]) -> Json:
    if _walk(document, _tokens(operation["path"])) != operation["value"]:
        raise ValueError(operation["path"])
    return document


def _copy(document: Json, operation: dict[str, Any]) -> Json:
    value = deepcopy(_walk(document, _tokens(operation["from"])))
    return _put(document, operation["path"], value, replace=False)


def _move(document: Json, operation: dict[str, Any]) -> Json:
    value = _walk(document, _tokens(operation["from"]))
    return _put(
        _remove(document, {"path": operation["from"]}), operation["path"], value, replace=False
    )


_OPERATIONS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
    "add": _add,
    "replace": _replace,
    "remove": _remove,
    "test": _test,
    "copy": _copy,
    "move": _move,
}
