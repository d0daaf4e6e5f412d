"""Server-side apply: which manager owns which field.

The rules are those of Kubernetes' structured-merge-diff, for the kinds served here. A field is a
path of FieldsV1 elements: `f:spec`, `k:{"name":"c"}` (item of a list with keys), `v:"x"` (member of
a set); a trailing `.` is the item itself. All functions are pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from kubesim import errors
from kubesim.resources import Json, Obj

Path = tuple[str, ...]
Paths = frozenset[Path]

LIST_KEYS: Mapping[str, tuple[str, ...]] = {
    "containers": ("name",),
    "initContainers": ("name",),
    "ephemeralContainers": ("name",),
    "env": ("name",),
    "volumes": ("name",),
    "volumeMounts": ("mountPath",),
    "volumeDevices": ("devicePath",),
    "conditions": ("type",),
    "addresses": ("type",),
    "imagePullSecrets": ("name",),
    "hostAliases": ("ip",),
    "ownerReferences": ("uid",),
    "topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
}
"""x-kubernetes-list-map-keys. Other lists are atomic (taints, tolerations, rules, subjects, args),
except `ports` (see `_list_keys`) and `finalizers` (a set)."""

_SETS = frozenset({"finalizers"})
_ATOMIC_MAPS = frozenset(
    {
        "selector",
        "nodeSelector",
        "secretKeyRef",
        "configMapKeyRef",
        "fieldRef",
        "resourceFieldRef",
        "roleRef",
        "scopeSelector",
        "labelSelector",
    }
)
"""x-kubernetes-map-type: atomic."""

_UNOWNED: frozenset[Path] = frozenset((f"f:{top}",) for top in ("apiVersion", "kind")) | frozenset(
    ("f:metadata", f"f:{name}")
    for name in (
        "name",
        "namespace",
        "generateName",
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "managedFields",
        "selfLink",
    )
)
_ITEM = "."
BEFORE_FIRST_APPLY = "before-first-apply"


@dataclass(frozen=True)
class Manager:
    """One entry of managedFields."""

    name: str
    operation: str
    api_version: str
    paths: Paths
    time: str
    subresource: str = ""

    def same(self, other: Manager) -> bool:
        """Whether both are the same manager; their fields may differ."""
        return (self.name, self.operation, self.subresource) == (
            other.name,
            other.operation,
            other.subresource,
        )

    def described(self) -> str:
        text = json.dumps(self.name)
        if self.subresource:
            text += f" with subresource {json.dumps(self.subresource)}"
        if self.operation == "Update":
            text += f" using {self.api_version} at {self.time}"
        return text


def _list_keys(field: str, items: list[Any]) -> tuple[str, ...] | None:
    if not items or any(not isinstance(item, dict) for item in items):
        return None
    if field == "ports":
        port = "containerPort" if "containerPort" in items[0] else "port"
        return (port, "protocol")
    keys = LIST_KEYS.get(field)
    if keys is not None and all(keys[0] in item for item in items):
        return keys
    return None


def _item_element(keys: tuple[str, ...], item: dict[str, Any]) -> str:
    key = {k: item.get(k, "TCP" if k == "protocol" else None) for k in sorted(keys)}
    return "k:" + json.dumps(key, separators=(",", ":"))


def _add_paths(value: Json, field: str, prefix: Path, found: set[Path]) -> None:
    if isinstance(value, dict) and value and field not in _ATOMIC_MAPS:
        for key, child in value.items():
            _add_paths(child, key, (*prefix, f"f:{key}"), found)
    elif isinstance(value, list) and field in _SETS:
        found.update((*prefix, f"v:{json.dumps(item)}") for item in value)
    elif value is None or (value == [] and (field in LIST_KEYS or field == "ports")):
        pass  # of a list with keys, only items have an owner
    elif isinstance(value, list) and (keys := _list_keys(field, value)):
        for item in value:
            path = (*prefix, _item_element(keys, item))
            found.add((*path, _ITEM))
            for key, child in item.items():
                _add_paths(child, key, (*path, f"f:{key}"), found)
    else:
        found.add(prefix)


def fields_of(obj: Obj, *, without: Iterable[str] = ()) -> Paths:
    """The fields that an object sets, except the top-level fields in `without`."""
    found: set[Path] = set()
    for key, value in obj.items():
        if key not in without:
            _add_paths(value, key, (f"f:{key}",), found)
    return frozenset(
        p for p in found if p != ("f:metadata",) and p[:2] not in _UNOWNED and p[:1] not in _UNOWNED
    )


def duplicates(value: Json, field: str = "", path: str = "") -> Iterator[tuple[str, str]]:
    """The items that a list has twice, as (path of the list, item): an apply must not have them."""
    if isinstance(value, dict):
        for key, child in value.items():
            yield from duplicates(child, key, f"{path}.{key}")
    elif isinstance(value, list) and field in _SETS:
        yield from ((path, f"[={json.dumps(item)}]") for item in _repeated(value))
    elif isinstance(value, list) and (keys := _list_keys(field, value)):
        elements = [_item_element(keys, item) for item in value]
        yield from ((path, render((element,))) for element in _repeated(elements))
        for element, item in zip(elements, value, strict=True):
            yield from duplicates(item, "", path + render((element,)))


def _repeated(items: list[str]) -> list[str]:
    return [item for place, item in enumerate(items) if item in items[:place]]


_MISSING = object()


def _child(value: Json, element: str, field: str) -> Json:
    if element == _ITEM:
        return value
    kind, _, rest = element.partition(":")
    if kind == "f":
        return value.get(rest, _MISSING) if isinstance(value, dict) else _MISSING
    if not isinstance(value, list):
        return _MISSING
    if kind == "v":
        return rest if json.loads(rest) in value else _MISSING
    keys = _list_keys(field, value)
    for item in value if keys else ():
        if _item_element(keys or (), item) == element:
            return item
    return _MISSING


def value_at(obj: Obj, path: Path) -> Json:
    """The value of a field, or `_MISSING` (equal to no value) if it is not set."""
    value: Json = obj
    field = ""
    for element in path:
        value = _child(value, element, field)
        if value is _MISSING:
            return _MISSING
        if element.startswith("f:"):
            field = element[2:]
    return True if path[-1] == _ITEM else value


def _merge(field: str, live: Json, applied: Json) -> Json:
    if isinstance(applied, dict) and isinstance(live, dict) and field not in _ATOMIC_MAPS:
        merged = dict(live)
        for key, value in applied.items():
            merged[key] = _merge(key, live[key], value) if key in live else value
        return merged
    if isinstance(applied, list) and isinstance(live, list):
        if field in _SETS:
            return list(dict.fromkeys([*live, *applied]))
        keys = _list_keys(field, applied)
        if keys and _list_keys(field, live) == keys:
            items = {_item_element(keys, item): item for item in live}
            for item in applied:
                element = _item_element(keys, item)
                items[element] = _merge("", items[element], item) if element in items else item
            return list(items.values())
    return applied


def _without_field(value: Json, path: Path, field: str) -> Json:
    """`value` without the field and without maps and lists that become empty; None: it is empty."""
    element, rest = path[0], path[1:]
    if element.startswith("f:"):
        name = element[2:]
        if not isinstance(value, dict) or name not in value:
            return value
        left = _without_field(value[name], rest, name) if rest else None
        trimmed = {k: v for k, v in value.items() if k != name}
        if left is not None:
            return {k: left if k == name else v for k, v in value.items()}
        return trimmed or None
    if not isinstance(value, list):
        return value
    if element.startswith("v:"):
        return [item for item in value if item != json.loads(element[2:])] or None
    keys = _list_keys(field, value) or ()
    items = []
    for item in value:
        if _item_element(keys, item) != element:
            items.append(item)
        elif rest != (_ITEM,) and (left := _without_field(item, rest, "")) is not None:
            items.append(left)
    return items or None


def render(path: Path) -> str:
    """A path as in messages: `.spec.template.spec.containers[name="c"].image`."""
    text = ""
    for element in path:
        kind, _, rest = element.partition(":")
        if kind == "f":
            text += f".{rest}"
        elif kind == "k":
            pairs = (f"{k}={json.dumps(v)}" for k, v in json.loads(rest).items())
            text += f"[{','.join(pairs)}]"
        elif kind == "v":
            text += f"[={rest}]"
    return text


def managers_of(obj: Obj) -> list[Manager]:
    """The managedFields of an object."""
    return [
        Manager(
            name=entry.get("manager", ""),
            operation=entry.get("operation", "Update"),
            api_version=entry.get("apiVersion", ""),
            paths=_from_fields_v1(entry.get("fieldsV1") or {}),
            time=entry.get("time", ""),
            subresource=entry.get("subresource", ""),
        )
        for entry in obj["metadata"].get("managedFields") or ()
    ]


def with_managers(obj: Obj, managers: Iterable[Manager]) -> Obj:
    """The object with these managedFields."""
    entries = []
    for manager in managers:
        if not manager.paths:
            continue
        entry: dict[str, Any] = {
            "manager": manager.name,
            "operation": manager.operation,
            "apiVersion": manager.api_version,
            "time": manager.time,
            "fieldsType": "FieldsV1",
            "fieldsV1": _to_fields_v1(manager.paths),
        }
        if manager.subresource:
            entry["subresource"] = manager.subresource
        entries.append(entry)
    metadata = {k: v for k, v in obj["metadata"].items() if k != "managedFields"}
    if entries:
        metadata["managedFields"] = entries
    return {**obj, "metadata": metadata}


def _from_fields_v1(tree: Mapping[str, Any], prefix: Path = ()) -> Paths:
    found: set[Path] = set()
    for element, below in tree.items():
        path = (*prefix, element)
        if element == _ITEM and not prefix[-1].startswith("k:"):
            continue  # the map itself; this server does not track it
        if below:
            found |= _from_fields_v1(below, path)
        else:
            found.add(path)
    return frozenset(found)


def _to_fields_v1(paths: Paths) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for path in sorted(paths):
        node = tree
        for element in path:
            node = node.setdefault(element, {})
    return tree


def updated(old: Obj | None, new: Obj, writer: Manager) -> Obj:
    """`new` with its managedFields after a write by `writer` that is not an apply.

    The writer becomes the only owner of the changed fields. `writer.paths` is ignored.
    """
    before = fields_of(old) if old is not None else frozenset()
    after = fields_of(new)
    changed = frozenset(
        path
        for path in after
        if path not in before or old is None or value_at(old, path) != value_at(new, path)
    )
    taken = changed | _new_above(old or {}, changed)
    removed = before - after  # an empty map that was applied is in neither, and keeps its owner
    managers: list[Manager] = []
    own = replace(writer, paths=changed)
    for manager in managers_of(old) if old is not None else ():
        if manager.same(writer):
            kept = manager.paths - removed
            time = writer.time if changed - manager.paths else manager.time
            own = replace(writer, paths=kept | changed, time=time)
        else:
            managers.append(replace(manager, paths=manager.paths - removed - taken))
    return with_managers(new, [*managers, own])


def apply(live: Obj | None, applied: Obj, writer: Manager, *, force: bool) -> Obj:
    """The object after `writer` applied `applied`. `writer.paths` is ignored.

    A field that the writer applied before and does not apply now is removed if no other manager
    owns it.

    Raises ApiError (409: another manager owns a field that would change, and `force` is not set).
    """
    wanted = fields_of(applied)
    own = replace(writer, paths=wanted)
    if live is None:
        return with_managers(applied, [own])
    managers = managers_of(live) or [
        replace(writer, name=BEFORE_FIRST_APPLY, operation="Update", paths=fields_of(live))
    ]
    previous = next((m.paths for m in managers if m.same(writer)), frozenset())
    others = [m for m in managers if not m.same(writer)]
    merged = _merge("", live, _with_live_metadata(live, applied))
    changed = frozenset(p for p in wanted if value_at(live, p) != value_at(merged, p))
    changed |= _new_above(live, wanted)
    conflicts = [(m, p) for m in others for p in sorted(m.paths & changed)]
    if conflicts and not force:
        raise _conflict(conflicts)
    others = [replace(m, paths=m.paths - changed) for m in others]
    kept = wanted.union(*(m.paths for m in others))
    kept |= {above for path in kept for above in _above(path)}
    for path in sorted(previous - kept, key=lambda p: (-len(p), p)):
        merged = _without_field(merged, path, "") or {}
    unchanged = previous == wanted
    time = writer.time
    if unchanged:
        time = next((m.time for m in managers if m.same(writer)), time)
    return with_managers(merged, [*others, replace(own, time=time)])


def _above(path: Path) -> Iterator[Path]:
    """The maps and lists that a field is in."""
    return (path[:end] for end in range(1, len(path)))


def _new_above(live: Obj, paths: Paths) -> Paths:
    """The maps and lists that these fields are in and that the live object does not have.

    A map that a manager applied without a value is not stored: with its first value it is new.
    """
    above = {each for path in paths for each in _above(path)}
    return frozenset(each for each in above if value_at(live, each) is _MISSING)


def _with_live_metadata(live: Obj, applied: Obj) -> Obj:
    """The applied object; metadata that only the server sets is that of the live object."""
    own = ("labels", "annotations", "ownerReferences", "finalizers")
    metadata = {k: v for k, v in applied["metadata"].items() if k in own}
    return {**applied, "metadata": {**live["metadata"], **_merged_metadata(live, metadata)}}


def _merged_metadata(live: Obj, applied: dict[str, Any]) -> dict[str, Any]:
    return {
        key: _merge(key, live["metadata"][key], value) if key in live["metadata"] else value
        for key, value in applied.items()
    }


def _conflict(conflicts: list[tuple[Manager, Path]]) -> errors.ApiError:
    count = len(conflicts)
    if count == 1:
        manager, path = conflicts[0]
        text = f"conflict with {manager.described()}: {render(path)}"
    else:
        by_manager: dict[str, list[str]] = {}
        for manager, path in conflicts:
            by_manager.setdefault(manager.described(), []).append(render(path))
        text = "\n".join(
            "\n".join([f"conflicts with {name}:", *(f"- {path}" for path in paths)])
            for name, paths in sorted(by_manager.items())
        )
    plural = "" if count == 1 else "s"
    causes = [
        errors.Cause("FieldManagerConflict", f"conflict with {m.described()}", render(p))
        for m, p in conflicts
    ]
    return errors.ApiError(
        409, "Conflict", f"Apply failed with {count} conflict{plural}: {text}", causes=causes
    )
