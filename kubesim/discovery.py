"""API discovery: version, groups, resources, OpenAPI."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

from kubesim.resources import GROUP_VERSIONS, TABLE, VERBS, Obj, Resource, singular

VERSION = {
    "major": "1",
    "minor": "36",
    "emulationMajor": "1",
    "emulationMinor": "36",
    "minCompatibilityMajor": "1",
    "minCompatibilityMinor": "35",
    "gitVersion": "v1.36.2",
    "gitCommit": "$Format:%H$",
    "gitTreeState": "clean",
    "buildDate": "1970-01-01T00:00:00Z",
    "goVersion": "go1.26.10",
    "compiler": "gc",
    "platform": "linux/amd64",
}

AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
"""Content type of aggregated discovery: one request for /api and one for /apis."""

_SUBRESOURCES: dict[str, dict[str, Any]] = {
    "eviction": {
        "kind": "Eviction",
        "group": "policy",
        "version": "v1",
        "verbs": ["create"],
    },
    "binding": {"kind": "Binding", "verbs": ["create"]},
    "finalize": {"verbs": ["update"]},
    "scale": {
        "kind": "Scale",
        "group": "autoscaling",
        "version": "v1",
        "verbs": ["get", "patch", "update"],
    },
    "status": {"verbs": ["get", "patch", "update"]},
}


def _verbs(resource: Resource) -> list[str]:
    return [v for v in VERBS if v != "deletecollection" or resource.plural != "namespaces"]


def _hash(resource: Resource) -> str:
    digest = hashlib.sha256(f"{resource.api_version}/{resource.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


def resource_list(group: str, version: str) -> Obj | None:
    """The APIResourceList of a group and version; None: not served."""
    served = [r for r in TABLE if (r.group, r.version) == (group, version)]
    if not served:
        return None
    resources: list[dict[str, Any]] = []
    for resource in served:
        entry: dict[str, Any] = {
            "name": resource.plural,
            "singularName": singular(resource),
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": _verbs(resource),
        }
        if resource.short:
            entry["shortNames"] = list(resource.short)
        entry["storageVersionHash"] = _hash(resource)
        resources.append(entry)
        resources += [
            {
                "name": f"{resource.plural}/{sub}",
                "singularName": "",
                "namespaced": resource.namespaced,
                "kind": resource.kind,
                **_SUBRESOURCES[sub],
            }
            for sub in resource.subresources
        ]
    group_version = f"{group}/{version}" if group else version
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    }


def root() -> Obj:
    """The paths of the API."""
    versions = [f"/apis/{group}/{version}" for group, version in GROUP_VERSIONS]
    groups = [f"/apis/{name}" for name in _names()]
    return {"paths": sorted(["/api", "/api/v1", "/apis", *groups, *versions])}


def core_versions() -> Obj:
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []}


def groups() -> Obj:
    """The APIGroupList."""
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(g) for g in _names()]}


def group(name: str) -> Obj | None:
    """The APIGroup of that name; None: not served."""
    if name not in _names():
        return None
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)}


def _names() -> list[str]:
    return list(dict.fromkeys(group for group, _ in GROUP_VERSIONS))


def _group(name: str) -> Obj:
    versions = [{"groupVersion": f"{g}/{v}", "version": v} for g, v in GROUP_VERSIONS if g == name]
    return {"name": name, "versions": versions, "preferredVersion": versions[0]}


def aggregated(*, core: bool) -> Obj:
    """The APIGroupDiscoveryList of the core group, or of all other groups."""
    pairs = [("", "v1")] if core else list(GROUP_VERSIONS)
    items = []
    for name in dict.fromkeys(group for group, _ in pairs):
        versions = [
            {
                "version": version,
                "resources": [_aggregated(r) for r in TABLE if (r.group, r.version) == pair],
                "freshness": "Current",
            }
            for pair in pairs
            if pair[0] == name
            for version in [pair[1]]
        ]
        items.append({"metadata": {"name": name} if name else {}, "versions": versions})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated(resource: Resource) -> Obj:
    def kind(name: str, group: str, version: str) -> Obj:
        return {"group": group, "version": version, "kind": name}

    own = kind(resource.kind, resource.group, resource.version)
    entry: Obj = {
        "resource": resource.plural,
        "responseKind": own,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": singular(resource),
        "verbs": _verbs(resource),
    }
    if resource.short:
        entry["shortNames"] = list(resource.short)
    subresources = []
    for name in resource.subresources:
        sub = _SUBRESOURCES[name]
        response = kind(
            sub.get("kind", resource.kind),
            sub.get("group", resource.group),
            sub.get("version", resource.version),
        )
        subresources.append({"subresource": name, "responseKind": response, "verbs": sub["verbs"]})
    if subresources:
        entry["subresources"] = subresources
    return entry


def openapi_index() -> Obj:
    """The root of OpenAPI v3."""
    paths = {"api/v1": {"serverRelativeURL": "/openapi/v3/api/v1"}}
    for name, version in GROUP_VERSIONS:
        path = f"apis/{name}/{version}"
        paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}"}
    return {"paths": paths}


def openapi(group_name: str, version: str) -> Obj | None:
    """The part of OpenAPI v3 of a group and version that kubectl reads; None: not served.

    If PATCH of a kind has the parameter `fieldValidation`, kubectl leaves validation to the server.
    """
    served = [r for r in TABLE if (r.group, r.version) == (group_name, version)]
    if not served:
        return None
    root = f"/apis/{group_name}/{version}" if group_name else f"/api/{version}"
    paths: Obj = {}
    for resource in served:
        space = "/namespaces/{namespace}" if resource.namespaced else ""
        operation = {
            "x-kubernetes-group-version-kind": {
                "group": resource.group,
                "version": resource.version,
                "kind": resource.kind,
            },
            "parameters": [
                {"name": name, "in": "query", "schema": {"type": "string", "uniqueItems": True}}
                for name in ("dryRun", "fieldManager", "fieldValidation", "force")
            ],
            "responses": {"200": {"description": "OK"}},
        }
        paths[f"{root}{space}/{resource.plural}/{{name}}"] = {"patch": operation}
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
        "paths": paths,
        "components": {},
    }
