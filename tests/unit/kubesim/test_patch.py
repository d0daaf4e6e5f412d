"""Patches and field ownership, as functions of values."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kubesim import ownership, patch
from kubesim.errors import ApiError

NAMES = st.sampled_from(["a", "b", "c"])
OBJECTS = st.recursive(
    st.none() | st.integers(0, 3) | NAMES,
    lambda inner: st.dictionaries(NAMES, inner, max_size=3) | st.lists(inner, max_size=3),
    max_leaves=12,
)


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_is_idempotent_and_changes_nothing_in_place(target: Any, body: Any) -> None:
    before = deepcopy(target)

    once = patch.merge(target, body)

    assert patch.merge(once, body) == once
    assert target == before


@pytest.mark.parametrize(
    ("target", "body", "result"),
    [  # the examples of RFC 7386, appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge(target: Any, body: Any, result: Any) -> None:
    assert patch.merge(target, body) == result


@pytest.mark.parametrize(
    ("target", "body", "result"),
    [
        (
            {"containers": [{"name": "a", "image": "1"}, {"name": "b"}]},
            {"containers": [{"name": "a", "image": "2"}]},
            {"containers": [{"name": "a", "image": "2"}, {"name": "b"}]},
        ),
        (
            {"conditions": [{"type": "Ready", "status": "True"}]},
            {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other"}]},
            {"conditions": [{"type": "Ready", "status": "False"}, {"type": "Other"}]},
        ),
        ({"tolerations": [{"key": "a"}]}, {"tolerations": [{"key": "b"}]},
         {"tolerations": [{"key": "b"}]}),
        ({"volumes": [{"name": "a"}]}, {"volumes": [{"$patch": "replace"}, {"name": "b"}]},
         {"volumes": [{"name": "b"}]}),
        ({"taints": [{"key": "a"}]}, {"taints": [{"key": "b"}]}, {"taints": [{"key": "b"}]}),
        ({"finalizers": ["a"]}, {"finalizers": ["b"]}, {"finalizers": ["a", "b"]}),
        ({"finalizers": ["a", "b"]}, {"$deleteFromPrimitiveList/finalizers": ["a"]},
         {"finalizers": ["b"]}),
        ({"x": {"a": 1}}, {"x": {"$patch": "replace", "b": 2}}, {"x": {"b": 2}}),
        ({"x": {"a": 1}}, {"x": {"$patch": "delete"}}, {}),
        ({"x": {"a": 1, "b": 2}}, {"x": {"$retainKeys": ["c"], "c": 3}}, {"x": {"c": 3}}),
        (
            {"env": [{"name": "a"}, {"name": "b"}]},
            {"$setElementOrder/env": [{"name": "b"}, {"name": "a"}],
             "env": [{"name": "a", "v": 1}]},
            {"env": [{"name": "b"}, {"name": "a", "v": 1}]},
        ),
        ({"ports": [{"containerPort": 1}]}, {"ports": [{"containerPort": 2}]},
         {"ports": [{"containerPort": 1}, {"containerPort": 2}]}),
    ],
)  # fmt: skip
def test_strategic(target: Any, body: Any, result: Any) -> None:
    before = deepcopy(target)

    assert patch.strategic(target, body) == result
    assert target == before


@pytest.mark.parametrize(
    ("operations", "result"),
    [
        ([{"op": "add", "path": "/l/1", "value": 9}], {"l": [1, 9, 2], "m": {"a": 1}}),
        ([{"op": "add", "path": "/l/-", "value": 9}], {"l": [1, 2, 9], "m": {"a": 1}}),
        ([{"op": "remove", "path": "/l/0"}], {"l": [2], "m": {"a": 1}}),
        ([{"op": "replace", "path": "/m/a", "value": 2}], {"l": [1, 2], "m": {"a": 2}}),
        ([{"op": "move", "from": "/m/a", "path": "/m/b"}], {"l": [1, 2], "m": {"b": 1}}),
        ([{"op": "copy", "from": "/m/a", "path": "/m/b~1c"}],
         {"l": [1, 2], "m": {"a": 1, "b/c": 1}}),
    ],
)  # fmt: skip
def test_json_patch(operations: Any, result: Any) -> None:
    target = {"l": [1, 2], "m": {"a": 1}}

    assert patch.json_patch(target, operations) == result
    assert target == {"l": [1, 2], "m": {"a": 1}}


@pytest.mark.parametrize(
    "operations",
    [
        [{"op": "test", "path": "/a", "value": 2}],
        [{"op": "replace", "path": "/b", "value": 2}],
        [{"op": "remove", "path": "/b"}],
        [{"op": "add", "path": "a", "value": 2}],
        [{"op": "jump", "path": "/a"}],
        {"op": "add"},
    ],
)
def test_an_invalid_json_patch(operations: Any) -> None:
    with pytest.raises(ApiError):
        patch.json_patch({"a": 1}, operations)


DATA = st.dictionaries(NAMES, st.sampled_from(["1", "2"]), max_size=3)


def manager(name: str) -> ownership.Manager:
    return ownership.Manager(name, "Apply", "v1", frozenset(), "2026-11-21T03:21:15Z")


def applied(live: Any, name: str, data: dict[str, str], *, force: bool = True) -> Any:
    body = {"metadata": {"name": "x"}, **({"data": data} if data else {})}
    return ownership.apply(live, body, manager(name), force=force)


@given(st.lists(st.tuples(st.sampled_from(["m1", "m2"]), DATA), min_size=1, max_size=6))
def test_an_object_has_the_fields_that_are_still_applied(
    history: list[tuple[str, dict[str, str]]],
) -> None:
    live: Any = None
    values: dict[str, str] = {}
    owners: dict[str, set[str]] = {}
    for name, data in history:
        live = applied(live, name, data)

        for key in set(owners) - set(data):
            owners[key].discard(name)
        for key, value in data.items():
            others = owners.get(key, set()) if values.get(key) == value else set()
            owners[key] = others | {name}
        values = {key: data.get(key, values.get(key, "")) for key in owners if owners[key]}
        assert live.get("data", {}) == values


@given(DATA, DATA)
def test_a_conflict_is_a_field_of_another_manager_that_would_change(
    first: dict[str, str], second: dict[str, str]
) -> None:
    live = applied(None, "m1", first)
    differ = {key for key in first.keys() & second.keys() if first[key] != second[key]}

    if differ:
        with pytest.raises(ApiError) as refused:
            applied(live, "m2", second, force=False)
        causes = refused.value.details["causes"]
        assert {cause["field"] for cause in causes} == {f".data.{key}" for key in differ}
        assert {cause["message"] for cause in causes} == {'conflict with "m1"'}
    else:
        applied(live, "m2", second, force=False)


def test_paths_as_messages_show_them() -> None:
    container = {"name": "c", "image": "x", "ports": [{"containerPort": 80}], "args": ["a"]}
    spec = {"template": {"spec": {"containers": [container]}}, "selector": {"matchLabels": {}}}

    shown = {ownership.render(path) for path in ownership.fields_of({"spec": spec})}

    one = '.spec.template.spec.containers[name="c"]'
    port = f'{one}.ports[containerPort=80,protocol="TCP"]'
    assert shown == {
        one, f"{one}.name", f"{one}.image", f"{one}.args", port, f"{port}.containerPort",
        ".spec.selector",
    }  # fmt: skip
