"""Lists by selector, and watches from the version of a list."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.api import STRATEGIC, Api, Space, Target


def names(listed: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in listed["items"]]


def test_pods_of_a_node_in_all_namespaces(space: Space) -> None:
    for name in ("a", "b"):
        space.pod(name)

    listed = space.api.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{space.node}").ok()

    assert listed["kind"] == "PodList"
    assert names(listed) == ["a", "b"]
    assert {pod["metadata"]["namespace"] for pod in listed["items"]} == {space.name}


def test_pages_by_selector_do_not_count_what_remains(space: Space) -> None:
    for name in ("a", "b", "c"):
        space.pod(name)
    query = f"/api/v1/pods?fieldSelector=spec.nodeName%3D{space.node}&limit=2"

    first = space.api.get(query).ok()
    second = space.api.get(f"{query}&continue={first['metadata']['continue']}").ok()

    assert "remainingItemCount" not in first["metadata"]
    assert names(first) + names(second) == ["a", "b", "c"]
    assert "continue" not in second["metadata"]


@pytest.mark.parametrize(
    ("selector", "found"),
    [
        ("app=a", ["a"]),
        ("app!=a", ["b", "c"]),
        ("app in (a,b)", ["a", "b"]),
        ("app notin (a,b)", ["c"]),
        ("app,app!=b", ["a", "c"]),
        ("!app", []),
    ],
)
def test_label_selectors(space: Space, selector: str, found: list[str]) -> None:
    for name in ("a", "b", "c"):
        space.pod(name)

    answer = space.api.client.get(space.pods, params={"labelSelector": selector})

    assert names(answer.json()) == found


def test_a_phase_can_be_excluded(space: Space) -> None:
    space.pod("a")
    space.pod("b", state="succeeded")

    listed = space.api.get(f"{space.pods}?fieldSelector=status.phase!%3DSucceeded").ok()

    assert names(listed) == ["a"]


def test_an_unsupported_field_selector(target: Target) -> None:
    answer = target.admin.get("/api/v1/pods?fieldSelector=spec.nothing%3Dx")

    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.body["message"] == "field label not supported: spec.nothing"


def test_without_the_right_to_list(space: Space, unprivileged: Api) -> None:
    answer = unprivileged.get(f"/api/v1/pods?fieldSelector=spec.nodeName%3D{space.node}")

    user = unprivileged.headers["Impersonate-User"]
    assert answer.status == 403
    assert answer.body["details"] == {"kind": "pods"}
    assert answer.body["message"] == (
        f'pods is forbidden: User "{user}" cannot list resource "pods" in API group "" at the'
        " cluster scope"
    )


def test_a_watch_from_a_list_shows_the_eviction_of_a_pod(space: Space) -> None:
    space.pod("a")
    selector = f"spec.nodeName={space.node}"
    version = space.api.get(f"/api/v1/pods?fieldSelector={selector}").ok()["metadata"]
    space.evict("a", deleteOptions={"gracePeriodSeconds": 2})
    space.finish("a")

    with space.api.watch(
        "/api/v1/pods",
        fieldSelector=selector,
        resourceVersion=version["resourceVersion"],
        allowWatchBookmarks="1",
    ) as events:
        seen = []
        for event in events:
            if event["type"] != "BOOKMARK":
                seen.append(event)
            if event["type"] == "DELETED":
                break

    objects = [event["object"] for event in seen]
    assert [event["type"] for event in seen] == ["MODIFIED"] * 4 + ["DELETED"]
    assert [pod["status"]["phase"] for pod in objects] == ["Running"] * 2 + ["Succeeded"] * 3
    grace = [pod["metadata"].get("deletionGracePeriodSeconds") for pod in objects]
    assert grace == [None, 2, 2, 0, 0]
    versions = [int(pod["metadata"]["resourceVersion"]) for pod in objects]
    assert versions == sorted(set(versions))
    assert all(
        any(c["type"] == "DisruptionTarget" for c in pod["status"]["conditions"]) for pod in objects
    )


def test_an_object_that_no_longer_matches_is_sent_as_deleted(space: Space) -> None:
    space.pod("a")
    with space.api.watch(space.pods, labelSelector="app=a") as events:
        assert next(events)["type"] == "ADDED"
        labels = {"metadata": {"labels": {"app": "z"}}}
        space.api.patch(f"{space.pods}/a", labels, STRATEGIC).ok()
        gone = next(events)
        labels = {"metadata": {"labels": {"app": "a"}}}
        space.api.patch(f"{space.pods}/a", labels, STRATEGIC).ok()
        back = next(events)

    assert (gone["type"], back["type"]) == ("DELETED", "ADDED")
    assert gone["object"]["metadata"]["labels"] == {"app": "a"}


def test_a_watch_without_a_version_starts_with_the_existing_objects(space: Space) -> None:
    space.pod("a")
    with space.api.watch(space.pods) as events:
        event = next(events)

    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "a")


def test_a_watch_from_a_compacted_version_ends_with_an_error_event(space: Space) -> None:
    """Of events, because kube-apiserver has no watch cache of them, which would still serve it."""
    space.target.compact()

    with space.api.watch("/api/v1/events", resourceVersion="1") as events:
        event = next(events)

    assert event["type"] == "ERROR"
    status = event["object"]
    assert (status["kind"], status["code"], status["reason"]) == ("Status", 410, "Expired")


def test_a_watch_continues_after_many_changes_within_seconds(space: Space) -> None:
    body = {"metadata": {"name": "a"}}
    version = space.api.post(space.config_maps, body).ok()["metadata"]["resourceVersion"]
    for number in range(150):
        space.api.patch(f"{space.config_maps}/a", {"data": {"k": str(number)}}).ok()

    with space.api.watch(space.config_maps, resourceVersion=version) as events:
        event = next(events)

    assert (event["type"], event["object"]["data"]) == ("MODIFIED", {"k": "0"})


def test_the_server_ends_a_watch_at_its_time_out(space: Space) -> None:
    with space.api.watch(space.pods, timeoutSeconds="1") as events:
        seen = [event["type"] for event in events]

    assert set(seen) <= {"BOOKMARK"}


def test_the_resources_of_the_policy_group(target: Target) -> None:
    served = target.admin.get("/apis/policy/v1").ok()

    assert (served["kind"], served["groupVersion"]) == ("APIResourceList", "policy/v1")
    verbs = {resource["name"]: set(resource["verbs"]) for resource in served["resources"]}
    assert {"get", "list", "watch", "create", "delete"} <= verbs["poddisruptionbudgets"]
    assert verbs["poddisruptionbudgets/status"] == {"get", "patch", "update"}


def test_discovery_lists_the_eviction_subresource(target: Target) -> None:
    served = target.admin.get("/api/v1").ok()

    eviction = next(r for r in served["resources"] if r["name"] == "pods/eviction")
    assert (eviction["group"], eviction["version"], eviction["kind"]) == (
        "policy", "v1", "Eviction",
    )  # fmt: skip


@pytest.mark.parametrize(
    "path", ["/apis/contract.invalid", "/apis/contract.invalid/v1/things", "/contract"]
)
def test_a_group_that_is_not_served(target: Target, path: str) -> None:
    answer = target.admin.get(path)

    assert (answer.status, answer.text) == (404, "404 page not found\n")


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/nothings",
        "/api/v2/pods",
        "/apis/apps/v9",
        "/apis/apps/v9/deployments",
        "/api/v1/namespaces/default/nodes",
        "/api/v1/pods/a",
        "/api/v1/namespaces/default/pods/a/nothing",
    ],
)
def test_a_resource_that_its_group_does_not_have(target: Target, path: str) -> None:
    answer = target.admin.get(path)

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["message"] == "the server could not find the requested resource"
    assert answer.body["details"] == {}
