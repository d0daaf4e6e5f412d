"""Nodes: get, list in pages, cordon by a conditional patch."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.contract.api import JSON_PATCH, MERGE, NODES, STRATEGIC, Api, Space, Target, unique
from tests.contract.conftest import make_node

DRAINING = {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"}
LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


@pytest.fixture
def three_nodes(target: Target) -> Iterator[list[str]]:
    names = [unique("page") for _ in range(3)]
    for name in names:
        make_node(target.admin, name)
    yield names
    for name in names:
        target.admin.delete(f"{NODES}/{name}")


def taints(node: dict[str, dict[str, list[dict[str, str]]]]) -> list[dict[str, str]]:
    """The taints, without those that the node controller sets."""
    found = node["spec"].get("taints", [])
    return [taint for taint in found if not taint["key"].startswith("node.kubernetes.io/")]


def test_a_node_by_name(space: Space) -> None:
    node = space.api.get(f"{NODES}/{space.node}").ok()

    assert (node["kind"], node["apiVersion"]) == ("Node", "v1")
    assert node["spec"]["providerID"] == f"aws:///eu-central-1a/i-{space.node}"


def test_a_missing_node(target: Target) -> None:
    answer = target.admin.get(f"{NODES}/ip-10-9-9-9.absent.internal")

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["message"] == 'nodes "ip-10-9-9-9.absent.internal" not found'
    assert answer.body["details"] == {"name": "ip-10-9-9-9.absent.internal", "kind": "nodes"}


def test_all_pages_have_one_version_and_each_node_once(
    target: Target, three_nodes: list[str]
) -> None:
    first = target.admin.get(f"{NODES}?limit=2").ok()
    late = unique("late")
    make_node(target.admin, late)
    try:
        names = [node["metadata"]["name"] for node in first["items"]]
        page = first
        while token := page["metadata"].get("continue"):
            assert page["metadata"].get("remainingItemCount", 1) >= 1
            page = target.admin.get(f"{NODES}?limit=2&continue={token}").ok()
            assert page["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
            names += [node["metadata"]["name"] for node in page["items"]]
    finally:
        target.admin.delete(f"{NODES}/{late}")

    assert first["kind"] == "NodeList"
    assert "kind" not in first["items"][0]
    assert first["metadata"]["remainingItemCount"] == len(names) - 2
    assert set(three_nodes) <= set(names)
    assert len(names) == len(set(names))
    assert late not in names


def test_an_invalid_continue_token(target: Target) -> None:
    answer = target.admin.get(f"{NODES}?limit=2&continue=nonsense")

    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.body["message"].startswith("invalid continue token: continue key is not valid:")


def test_a_cordon_is_one_conditional_patch(space: Space) -> None:
    path = f"{NODES}/{space.node}"
    version = space.api.get(path).ok()["metadata"]["resourceVersion"]
    patch = {
        "metadata": {"resourceVersion": version, "labels": {LABEL: "true"}},
        "spec": {"unschedulable": True, "taints": [DRAINING]},
    }

    node = space.api.patch(path, patch, STRATEGIC).ok()

    assert node["spec"]["unschedulable"] is True
    assert taints(node) == [DRAINING]
    assert node["metadata"]["labels"][LABEL] == "true"
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == space.node
    assert node["metadata"]["resourceVersion"] != version


@pytest.mark.parametrize("kind", [STRATEGIC, MERGE])
def test_a_patch_with_an_old_version_is_a_conflict(space: Space, kind: str) -> None:
    path = f"{NODES}/{space.node}"
    patch = {"metadata": {"resourceVersion": "1"}, "spec": {"unschedulable": True}}

    answer = space.api.patch(path, patch, kind)

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.body["message"] == (
        f'Operation cannot be fulfilled on nodes "{space.node}": the object has been modified;'
        " please apply your changes to the latest version and try again"
    )
    assert "unschedulable" not in space.api.get(path).ok()["spec"]


@pytest.mark.parametrize("kind", [STRATEGIC, MERGE])
def test_a_patch_replaces_all_taints(space: Space, kind: str) -> None:
    path = f"{NODES}/{space.node}"
    space.api.patch(path, {"spec": {"taints": [DRAINING]}}, kind).ok()
    other = {"key": "other", "effect": "NoSchedule"}

    node = space.api.patch(path, {"spec": {"taints": [other]}}, kind).ok()

    assert taints(node) == [other]


def test_a_json_patch_with_a_test_operation(space: Space) -> None:
    path = f"{NODES}/{space.node}"
    version = space.api.get(path).ok()["metadata"]["resourceVersion"]
    test = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    add = {"op": "add", "path": "/spec/unschedulable", "value": True}

    assert space.api.patch(path, [test, add], JSON_PATCH).ok()["spec"]["unschedulable"] is True
    assert space.api.patch(path, [{**test, "value": "1"}, add], JSON_PATCH).status == 422


def test_a_patch_that_changes_nothing_writes_nothing(space: Space) -> None:
    path = f"{NODES}/{space.node}"
    space.api.patch(path, {"metadata": {"labels": {"x": "1"}}}, STRATEGIC).ok()
    before = space.api.get(path).ok()["metadata"]["resourceVersion"]

    again = space.api.patch(path, {"metadata": {"labels": {"x": "1"}}}, STRATEGIC).ok()

    assert again["metadata"]["resourceVersion"] == before


def test_an_unsupported_taint_effect(space: Space) -> None:
    patch = {"spec": {"taints": [{"key": "x", "effect": "Sometimes"}]}}

    answer = space.api.patch(f"{NODES}/{space.node}", patch)

    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    assert {cause["reason"] for cause in answer.causes} == {"FieldValueNotSupported"}
    assert {cause["field"] for cause in answer.causes} == {"metadata.taints[0].effect"}


def test_a_patch_of_a_missing_node(target: Target) -> None:
    answer = target.admin.patch(f"{NODES}/absent", {"spec": {"unschedulable": True}})

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")


def test_without_the_right_to_patch(space: Space, unprivileged: Api) -> None:
    answer = unprivileged.patch(f"{NODES}/{space.node}", {"spec": {"unschedulable": True}})

    user = unprivileged.headers["Impersonate-User"]
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert answer.body["message"] == (
        f'nodes "{space.node}" is forbidden: User "{user}" cannot patch resource "nodes" in API'
        ' group "" at the cluster scope'
    )


def test_an_unknown_patch_type(space: Space) -> None:
    answer = space.api.patch(f"{NODES}/{space.node}", {}, "application/x-patch")

    assert (answer.status, answer.body["reason"]) == (415, "UnsupportedMediaType")
