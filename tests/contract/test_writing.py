"""Writes: create, replace, server-side apply, events."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.api import NODES, ROLES, Api, Space, Target, unique

GROUP = "rbac.authorization.k8s.io"


def config_map(name: str, **data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}


def role(name: str, *verbs: str) -> dict[str, Any]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": list(verbs)}],
    }


@pytest.fixture
def role_name(target: Target) -> Iterator[str]:
    name = unique("role")
    yield name
    target.admin.delete(f"{ROLES}/{name}")


def test_an_object_is_created_once(space: Space) -> None:
    first = space.api.post(space.config_maps, config_map("a", k="v"))
    second = space.api.post(space.config_maps, config_map("a"))

    assert first.status == 201
    assert {"uid", "resourceVersion", "creationTimestamp"} <= first.body["metadata"].keys()
    assert (second.status, second.body["reason"]) == (409, "AlreadyExists")
    assert second.body["message"] == 'configmaps "a" already exists'


def test_a_missing_object(space: Space) -> None:
    answer = space.api.get(f"{space.config_maps}/aws-auth")

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["details"] == {"name": "aws-auth", "kind": "configmaps"}


def test_no_object_is_created_in_a_missing_namespace(target: Target) -> None:
    name = unique("absent")

    answer = target.admin.post(f"/api/v1/namespaces/{name}/configmaps", config_map("a"))

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["message"] == f'namespaces "{name}" not found'


def test_a_replacement_with_the_version_that_was_read(space: Space) -> None:
    read = space.api.post(space.config_maps, config_map("a", k="v")).ok()

    written = space.api.put(f"{space.config_maps}/a", {**read, "data": {"k": "w"}}).ok()

    assert written["data"] == {"k": "w"}
    assert written["metadata"]["uid"] == read["metadata"]["uid"]
    assert written["metadata"]["resourceVersion"] != read["metadata"]["resourceVersion"]


def test_a_replacement_with_an_older_version_is_a_conflict(space: Space) -> None:
    read = space.api.post(space.config_maps, config_map("a", k="v")).ok()
    space.api.put(f"{space.config_maps}/a", {**read, "data": {"k": "w"}}).ok()

    answer = space.api.put(f"{space.config_maps}/a", {**read, "data": {"lost": "update"}})

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert space.api.get(f"{space.config_maps}/a").ok()["data"] == {"k": "w"}


def test_an_event_about_a_node(space: Space) -> None:
    about = {"apiVersion": "v1", "kind": "Node", "name": space.node, "uid": space.node}
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "contract-", "namespace": "default"},
        "involvedObject": about,
        "reason": "SpotInterruption",
        "message": "m",
        "type": "Warning",
        "source": {"component": "contract"},
        "firstTimestamp": "2026-11-21T03:21:15Z",
        "lastTimestamp": "2026-11-21T03:21:15Z",
        "count": 1,
    }

    made = space.api.post("/api/v1/namespaces/default/events", event).ok()

    name = made["metadata"]["name"]
    assert name.startswith("contract-")
    assert len(name) == len("contract-") + 5
    query = f"/api/v1/events?fieldSelector=involvedObject.name%3D{space.node}"
    found = space.api.get(query).ok()["items"]
    assert [e["reason"] for e in found if e["metadata"]["name"] == name] == ["SpotInterruption"]
    space.api.delete(f"/api/v1/namespaces/default/events/{name}")


def test_an_event_about_a_node_must_be_in_the_default_namespace(space: Space) -> None:
    event = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": "a"},
        "involvedObject": {"kind": "Node", "name": space.node},
    }

    answer = space.api.post(f"/api/v1/namespaces/{space.name}/events", event)

    assert (answer.status, answer.causes[0]["field"]) == (422, "involvedObject.namespace")


def test_apply_creates_and_then_changes_nothing(target: Target, role_name: str) -> None:
    path, wanted = f"{ROLES}/{role_name}", role(role_name, "get", "list", "patch")

    first = target.admin.apply(path, wanted)
    second = target.admin.apply(path, wanted)

    assert (first.status, second.status) == (201, 200)
    version = first.body["metadata"]["resourceVersion"]
    assert second.body["metadata"]["resourceVersion"] == version


def test_apply_does_not_take_a_field_of_another_manager(target: Target, role_name: str) -> None:
    path = f"{ROLES}/{role_name}"
    target.admin.apply(path, role(role_name, "get", "list")).ok()

    answer = target.admin.apply(path, role(role_name, "get"), manager="other")

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert answer.body["message"] == (
        'Apply failed with 1 conflict: conflict with "contract": .rules'
    )
    conflict = 'conflict with "contract"'
    assert answer.causes == [
        {"reason": "FieldManagerConflict", "message": conflict, "field": ".rules"}
    ]


def test_apply_with_force_takes_the_field(target: Target, role_name: str) -> None:
    path = f"{ROLES}/{role_name}"
    target.admin.apply(path, role(role_name, "get", "list")).ok()

    taken = target.admin.apply(path, role(role_name, "get"), "other", "&force=true").ok()

    assert taken["rules"][0]["verbs"] == ["get"]
    assert target.admin.apply(path, role(role_name, "get", "list")).status == 409


def test_apply_as_a_dry_run_writes_nothing(target: Target, role_name: str) -> None:
    path = f"{ROLES}/{role_name}"
    version = target.admin.apply(path, role(role_name, "get")).ok()["metadata"]["resourceVersion"]

    shown = target.admin.apply(path, role(role_name, "list"), options="&dryRun=All").ok()

    assert shown["rules"][0]["verbs"] == ["list"]
    assert shown["metadata"]["resourceVersion"] == version
    assert target.admin.get(path).ok()["rules"][0]["verbs"] == ["get"]


def test_apply_removes_fields_that_no_manager_applies_any_more(space: Space) -> None:
    path = f"{space.config_maps}/a"
    space.api.apply(path, config_map("a", mine="1", shared="1")).ok()
    space.api.apply(path, config_map("a", theirs="1", shared="1"), manager="other").ok()

    left = space.api.apply(path, config_map("a")).ok()

    assert left["data"] == {"theirs": "1", "shared": "1"}


def test_empty_maps_and_lists_are_not_stored(space: Space, role_name: str) -> None:
    empty = config_map("a")
    empty["metadata"] |= {"labels": {}, "finalizers": []}
    created = space.api.post(space.config_maps, {**empty, "binaryData": {}}).ok()
    assert not {"data", "binaryData"} & created.keys()
    assert not {"labels", "finalizers", "managedFields"} & created["metadata"].keys()
    applied = space.api.apply(f"{space.config_maps}/b", config_map("b")).ok()
    assert "data" not in applied
    without_rules = space.api.apply(f"{ROLES}/{role_name}", {**role(role_name), "rules": []}).ok()
    assert not without_rules["rules"]


def test_the_owner_of_a_role_without_rules_conflicts_with_the_first(
    target: Target, role_name: str
) -> None:
    target.admin.post(f"{ROLES}?fieldManager=editor", {**role(role_name), "rules": []}).ok()
    answer = target.admin.apply(f"{ROLES}/{role_name}", role(role_name, "get"))
    assert [cause["field"] for cause in answer.causes] == [".rules"]


def test_apply_of_an_empty_map_owns_the_map(space: Space) -> None:
    """The map is new again with its first key: who applied it without a key has a conflict."""
    path = f"{space.config_maps}/a"
    space.api.apply(path, config_map("a")).ok()
    answer = space.api.apply(path, config_map("a", k="v"), manager="other")
    assert answer.status == 409
    assert [cause["field"] for cause in answer.causes] == [".data"]
    taken = space.api.apply(path, config_map("a", k="v"), "other", "&force=true").ok()
    assert [entry["manager"] for entry in taken["metadata"]["managedFields"]] == ["other"]


def test_an_update_leaves_the_owner_of_an_empty_map(space: Space) -> None:
    path = f"{space.config_maps}/a"
    space.api.apply(path, config_map("a")).ok()
    labelled = {**config_map("a"), "metadata": {"name": "a", "labels": {"team": "b"}}}
    space.api.put(f"{path}?fieldManager=editor", labelled).ok()
    assert space.api.apply(path, config_map("a", k="v"), manager="other").status == 409
    space.api.put(f"{path}?fieldManager=editor", config_map("a", k="v")).ok()
    assert space.api.apply(path, config_map("a", k="v"), manager="other").status == 200


def test_apply_of_a_key_where_the_same_manager_applied_an_empty_map(space: Space) -> None:
    path = f"{space.config_maps}/a"
    space.api.apply(path, config_map("a")).ok()
    assert space.api.apply(path, config_map("a", k="v")).ok()["data"] == {"k": "v"}


def test_apply_of_fields_that_were_not_written_by_apply(space: Space) -> None:
    space.api.post(f"{space.config_maps}?fieldManager=editor", config_map("a", k="v")).ok()

    same = space.api.apply(f"{space.config_maps}/a", config_map("a", k="v"))
    other = space.api.apply(f"{space.config_maps}/a", config_map("a", k="w"))

    assert same.status == 200
    assert other.status == 409
    assert other.causes[0]["message"].startswith('conflict with "editor" using v1')


def test_apply_of_one_container_leaves_the_others(space: Space) -> None:
    path = f"/apis/apps/v1/namespaces/{space.name}/deployments/d"

    def deployment(**images: str) -> dict[str, Any]:
        containers = [{"name": name, "image": image} for name, image in images.items()]
        template = {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": containers}}
        spec = {"replicas": 0, "selector": {"matchLabels": {"app": "d"}}, "template": template}
        metadata = {"name": "d"}
        return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec}

    space.api.apply(path, deployment(one="x:1")).ok()
    second = deployment(two="x:1")
    space.api.apply(path, second, manager="other").ok()

    third = space.api.apply(path, deployment(one="x:2")).ok()

    containers = third["spec"]["template"]["spec"]["containers"]
    assert {c["name"]: c["image"] for c in containers} == {"one": "x:2", "two": "x:1"}
    space.api.delete(path)


def test_apply_of_an_invalid_object(space: Space) -> None:
    template = {
        "metadata": {"labels": {"a": "c"}},
        "spec": {"containers": [{"name": "c", "image": "x"}]},
    }
    bad = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "bad", "namespace": space.name},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"a": "b"}}, "template": template},
    }

    answer = space.api.apply(f"/apis/apps/v1/namespaces/{space.name}/deployments/bad", bad)

    assert (answer.status, answer.body["reason"]) == (422, "Invalid")
    (cause,) = answer.causes
    assert cause["field"] == "spec.template.metadata.labels"
    assert cause["message"].endswith("`selector` does not match template `labels`")


@pytest.mark.parametrize(
    ("validation", "status"), [("Strict", 400), ("Warn", 201), ("Ignore", 201)]
)
def test_a_field_that_the_kind_does_not_have(space: Space, validation: str, status: int) -> None:
    body = {**config_map("a"), "dta": {}}

    answer = space.api.post(f"{space.config_maps}?fieldValidation={validation}", body)

    assert answer.status == status
    assert answer.headers.get("warning") == (
        '299 - "unknown field \\"dta\\""' if validation == "Warn" else None
    )


def test_a_user_cannot_grant_rights_that_they_do_not_hold(drainer: Api, role_name: str) -> None:
    path = f"{ROLES}/{role_name}"

    held = drainer.apply(path, role(role_name, "get", "list"))
    more = drainer.apply(path, role(role_name, "get", "delete"))

    assert held.status == 201
    assert (more.status, more.body["reason"]) == (403, "Forbidden")
    assert "is attempting to grant RBAC permissions not currently held" in more.body["message"]
    assert '{APIGroups:[""], Resources:["nodes"], Verbs:["delete"]}' in more.body["message"]


def test_without_the_right_to_apply(unprivileged: Api, role_name: str) -> None:
    answer = unprivileged.apply(f"{ROLES}/{role_name}", role(role_name, "get"))

    user = unprivileged.headers["Impersonate-User"]
    assert answer.status == 403
    assert answer.body["message"] == (
        f'clusterroles.{GROUP} "{role_name}" is forbidden: User "{user}" cannot patch resource'
        f' "clusterroles" in API group "{GROUP}" at the cluster scope'
    )
    assert answer.body["details"] == {"name": role_name, "group": GROUP, "kind": "clusterroles"}


def test_the_deletion_of_a_config_map_answers_with_a_status(space: Space) -> None:
    uid = space.api.post(space.config_maps, config_map("a")).ok()["metadata"]["uid"]

    gone = space.api.delete(f"{space.config_maps}/a").ok()

    assert (gone["kind"], gone["status"]) == ("Status", "Success")
    assert gone["details"] == {"name": "a", "kind": "configmaps", "uid": uid}


def test_the_nodes_path_accepts_no_object_of_another_kind(target: Target) -> None:
    assert target.admin.post(NODES, config_map("a")).status == 400
