"""Requests that kube-apiserver refuses: one row each, with the reason and the fields at fault."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.api import APPLY, JSON_PATCH, MERGE, STRATEGIC, Space

JSON = "application/json"
MAPS = "/api/v1/namespaces/{space}/configmaps"
NODE = "/api/v1/nodes/{node}"
BUDGETS = "/apis/policy/v1/namespaces/{space}/poddisruptionbudgets"
EVICT = "/api/v1/namespaces/{space}/pods/a/eviction"
POD = "/api/v1/namespaces/{space}/pods/a"
PODS = "/api/v1/namespaces/{space}/pods"
EVENTS = "/api/v1/namespaces/default/events"
MANAGER = "?fieldManager=contract"


def config_map(**fields: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, **fields}


def named(name: str, **fields: Any) -> dict[str, Any]:
    return config_map(metadata={"name": name, **fields})


def eviction(**fields: Any) -> dict[str, Any]:
    metadata = {"name": "a"}
    return {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": metadata, **fields}


def budget(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "x"}, "spec": spec}


@pytest.mark.parametrize(
    ("method", "path", "body", "kind", "status", "reason", "fields"),
    [
        # media types, methods, decoding
        ("POST", MAPS, named("x"), "text/plain", 415, "UnsupportedMediaType", ()),
        ("PATCH", f"{MAPS}/absent", {}, JSON, 415, "UnsupportedMediaType", ()),
        ("DELETE", POD, {}, "text/plain", 415, "UnsupportedMediaType", ()),
        ("PUT", PODS, {}, JSON, 405, "MethodNotAllowed", ()),
        ("POST", "/api/v1/pods", {}, JSON, 405, "MethodNotAllowed", ()),
        ("POST", MAPS, config_map(data={"k": 1}), JSON, 400, "BadRequest", ()),
        ("POST", MAPS, config_map(binaryData={"k": "!"}), JSON, 400, "BadRequest", ()),
        ("POST", MAPS, config_map(kind="Pod"), JSON, 400, "BadRequest", ()),
        ("POST", f"{MAPS}?fieldValidation=Strict", config_map(x=1), JSON, 400, "BadRequest", ()),
        ("DELETE", POD, {"kind": "Pod"}, JSON, 400, "BadRequest", ()),
        # options of requests
        ("POST", f"{MAPS}?dryRun=Some", named("x"), JSON, 422, "Invalid", ("dryRun",)),
        ("POST", f"{MAPS}?fieldValidation=No", named("x"), JSON, 422, "Invalid",
         ("fieldValidation",)),
        ("PATCH", f"{NODE}?force=true", {}, MERGE, 422, "Invalid", ("force",)),
        ("PATCH", f"{MAPS}/x", config_map(), APPLY, 422, "Invalid", ("fieldManager",)),
        ("DELETE", POD, {"propagationPolicy": "No"}, JSON, 422, "Invalid", ("propagationPolicy",)),
        ("DELETE", POD, {"dryRun": ["Some"]}, JSON, 422, "Invalid", ("dryRun",)),
        ("DELETE", POD, {"preconditions": {"uid": ""}}, JSON, 409, "Conflict", ()),
        ("GET", f"{PODS}?limit=x", None, JSON, 400, "BadRequest", ()),
        ("GET", f"{PODS}?resourceVersion=x", None, JSON, 400, "BadRequest", ()),
        ("GET", f"{PODS}?resourceVersionMatch=Exact", None, JSON, 422, "Invalid",
         ("resourceVersionMatch",)),
        ("GET", f"{PODS}?watch=1&timeoutSeconds=1&resourceVersionMatch=Exact", None, JSON, 422,
         "Invalid", ("resourceVersionMatch", "resourceVersionMatch")),
        ("GET", f"{PODS}?labelSelector=a%3Dnot%20valid!", None, JSON, 400, "BadRequest", ()),
        ("GET", f"{PODS}?labelSelector=a,,b", None, JSON, 400, "BadRequest", ()),
        # metadata
        ("POST", MAPS, named(""), JSON, 422, "Invalid", ("metadata.name",)),
        ("POST", MAPS, named("UPPER"), JSON, 422, "Invalid", ("metadata.name",)),
        ("POST", MAPS, named("a" * 254), JSON, 422, "Invalid", ("metadata.name",)),
        ("POST", MAPS, config_map(metadata={"generateName": "Not_valid"}), JSON, 422, "Invalid",
         ("metadata.generateName", "metadata.name")),
        ("POST", "/api/v1/namespaces", {"metadata": {"name": "a.b"}}, JSON, 422, "Invalid",
         ("metadata.name",)),
        ("POST", MAPS, named("x", namespace="default"), JSON, 400, "BadRequest", ()),
        ("POST", MAPS, named("x", labels={"a": "not valid!"}), JSON, 422, "Invalid",
         ("metadata.labels",)),
        ("POST", MAPS, named("x", annotations={"a b": ""}), JSON, 422, "Invalid",
         ("metadata.annotations",)),
        ("POST", MAPS, named("x", finalizers=["keep"]), JSON, 422, "Invalid",
         ("metadata.finalizers[0]",)),
        ("POST", MAPS, named("x", resourceVersion="1"), JSON, 500, None, ()),
        # objects
        ("POST", MAPS, config_map(data={"a/b": ""}), JSON, 422, "Invalid", ("data[a/b]",)),
        ("POST", BUDGETS, budget(minAvailable=1, maxUnavailable=1), JSON, 422, "Invalid",
         ("spec",)),
        ("POST", BUDGETS, budget(minAvailable=-1), JSON, 422, "Invalid", ("spec.minAvailable",)),
        ("POST", BUDGETS, budget(maxUnavailable="101%"), JSON, 422, "Invalid",
         ("spec.maxUnavailable",)),
        ("POST", EVENTS, {"metadata": {"name": "a"}, "involvedObject": {"namespace": "other"}},
         JSON, 422, "Invalid", ("involvedObject.namespace",)),
        ("PATCH", POD, {"spec": {"nodeName": "other"}}, MERGE, 422, "Invalid", ("spec",)),
        # nodes
        ("PATCH", NODE, {"spec": {"providerID": "aws:///z/i-2"}}, MERGE, 422, "Invalid",
         ("spec.providerID",)),
        ("PATCH", NODE, {"spec": {"unschedulable": "yes"}}, MERGE, 422, "Invalid", ("patch",)),
        ("PATCH", NODE, {"spec": {"unschedulable": "yes"}}, STRATEGIC, 422, "Invalid",
         ("patch",)),
        ("PATCH", NODE, {"metadata": {"name": "renamed"}}, MERGE, 400, "BadRequest", ()),
        ("PATCH", NODE, {"metadata": {"resourceVersion": "x"}}, MERGE, 500, None, ()),
        ("PATCH", NODE, [], MERGE, 400, "BadRequest", ()),
        ("PATCH", NODE, {"op": "add"}, JSON_PATCH, 400, "BadRequest", ()),
        ("PATCH", NODE, [{"op": "remove", "path": "/none"}], JSON_PATCH, 422, "Invalid", ()),
        # evictions
        ("POST", EVICT, eviction(apiVersion="v1"), JSON, 400, "BadRequest", ()),
        ("POST", EVICT, eviction(metadata={"name": "a", "namespace": "default"}), JSON, 400,
         "BadRequest", ()),
        ("POST", EVICT, eviction(deleteOptions={"dryRun": ["Some"]}), JSON, 422, "Invalid",
         ("dryRun",)),
        ("POST", EVICT, eviction(deleteOptions={"gracePeriodSeconds": "1"}), JSON, 400,
         "BadRequest", ()),
        # server-side apply
        ("PATCH", f"{MAPS}/x{MANAGER}", config_map(apiVersion="v2"), APPLY, 400, "BadRequest", ()),
        ("PATCH", f"{MAPS}/x{MANAGER}", config_map(kind="Secret"), APPLY, 400, "BadRequest", ()),
        ("PATCH", f"{MAPS}/x{MANAGER}", named("other"), APPLY, 400, "BadRequest", ()),
        ("PATCH", f"{MAPS}/x{MANAGER}", config_map(data={"k": 1}), APPLY, 500, None, ()),
        ("PATCH", f"{MAPS}/x{MANAGER}", config_map(unknown=1), APPLY, 500, None, ()),
        ("PATCH", f"{MAPS}/x{MANAGER}", named("x", uid="x"), APPLY, 409, "Conflict", ()),
    ],
)  # fmt: skip
def test_a_request_that_is_refused(  # noqa: PLR0917 - the columns of the table
    space: Space,
    method: str,
    path: str,
    body: Any,
    kind: str,
    status: int,
    reason: str | None,
    fields: tuple[str, ...],
) -> None:
    space.pod("a")

    answer = space.api.call(method, path.format(space=space.name, node=space.node), body, kind)

    assert (answer.status, answer.body.get("reason")) == (status, reason), answer.body
    assert tuple(sorted(cause["field"] for cause in answer.causes)) == fields


def test_an_unknown_field_is_dropped(space: Space) -> None:
    made = space.api.post(space.config_maps, config_map(unknown=1)).ok()
    patched = space.api.patch(f"{space.config_maps}/x", {"other": 1}).ok()

    assert not {"unknown", "other"} & (made.keys() | patched.keys())


def test_an_object_that_is_being_deleted_is_not_created_again(space: Space) -> None:
    space.pod("a")
    space.api.delete(f"{space.pods}/a").ok()

    answer = space.api.post(
        space.pods,
        {"metadata": {"name": "a"}, "spec": {"containers": [{"name": "c", "image": "x"}]}},
    )

    assert (answer.status, answer.body["reason"]) == (409, "AlreadyExists")
    assert answer.body["message"] == 'object is being deleted: pods "a" already exists'


@pytest.mark.parametrize(
    ("policy", "finalizer"), [("Foreground", "foregroundDeletion"), ("Orphan", "orphan")]
)
def test_a_propagation_policy_replaces_the_one_before(
    space: Space, policy: str, finalizer: str
) -> None:
    """The pod of another finalizer stays, so that its finalizers can be seen."""
    space.pod("a", finalizers=("contract.invalid/hold",))
    path = f"{space.pods}/a"
    space.api.delete(path, propagationPolicy=policy, gracePeriodSeconds=0).ok()
    marked = space.api.get(path).ok()["metadata"]["finalizers"]

    space.api.delete(path, propagationPolicy="Background", gracePeriodSeconds=0).ok()

    left = space.api.get(path).ok()["metadata"]["finalizers"]
    if not space.target.disruption_controller:  # else the garbage collector may be faster
        assert marked == ["contract.invalid/hold", finalizer]
    assert left == ["contract.invalid/hold"]
