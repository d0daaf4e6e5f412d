"""What the spot handler may do in the cluster: its ClusterRole and ClusterRoleBinding.

`make docs` writes manifests/spot-handler-rbac.yaml from these objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from lambdas.common.names import AGENT_METADATA, OWNER_ANNOTATION, SPOT_HANDLER, SPOT_HANDLER_GROUP
from lambdas.onboarding.context import Context

API: Final = "rbac.authorization.k8s.io"
VERSION: Final = f"{API}/v1"
LABELS: Final = {
    "app.kubernetes.io/name": SPOT_HANDLER,
    "app.kubernetes.io/part-of": "castai-eks-cdk",
}

RULES: Final[tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...]] = (
    ("nodes", ("get", "list", "patch"), ()),
    ("pods", ("list", "watch", "delete"), ()),
    ("pods/eviction", ("create",), ()),
    ("events", ("create",), ()),
    ("configmaps", ("get",), (AGENT_METADATA,)),
)
"""Resource, verbs, and the names of the objects; no name: all objects."""

Object = dict[str, Any]


def role() -> Object:
    """The ClusterRole."""
    rules = [
        {"apiGroups": [""], "resources": [resource], "verbs": list(verbs)}
        | ({"resourceNames": list(only)} if only else {})
        for resource, verbs, only in RULES
    ]
    return {**_head("ClusterRole"), "rules": rules}


def binding() -> Object:
    """The ClusterRoleBinding of the handler's group, which access entry and aws-auth assign."""
    return {
        **_head("ClusterRoleBinding"),
        "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": SPOT_HANDLER},
        "subjects": [{"apiGroup": API, "kind": "Group", "name": SPOT_HANDLER_GROUP}],
    }


def _head(kind: str) -> Object:
    metadata = {"name": SPOT_HANDLER, "labels": dict(LABELS)}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata}


def label(kind: str) -> str:
    """One of the two objects in rows and messages."""
    return f"{kind} {SPOT_HANDLER}"


def ensure(ctx: Context) -> None:
    """Create or correct both objects, if the properties name the spot handler's role."""
    if ctx.onboarding.spot_handler_role_arn is None:
        return
    for wanted in (role(), binding()):
        kind = wanted["kind"]
        wanted["metadata"]["annotations"] = {OWNER_ANNOTATION: ctx.resource}
        found = ctx.kube().get(VERSION, kind, SPOT_HANDLER)
        if found is None:
            ctx.ledger.create(
                label(kind), partial(ctx.kube().apply, wanted), undo=partial(_delete, ctx, kind)
            )
        elif _meaning(found) == _meaning(wanted):
            ctx.ledger.keep(label(kind))
        elif _is_ours(ctx, found) or ctx.onboarding.adopt:
            ctx.ledger.update(
                label(kind),
                partial(_put, ctx, found, wanted),
                undo=partial(_put_back, ctx, found),
                detail="rules",
            )
        else:
            ctx.ledger.conflict(label(kind), "made by someone else, and with other rules")


def _put_back(ctx: Context, former: Object) -> None:
    kind = former["kind"]
    _put(ctx, ctx.kube().get(VERSION, kind, SPOT_HANDLER) or _head(kind), former)


def _delete(ctx: Context, kind: str) -> None:
    ctx.kube().delete(VERSION, kind, SPOT_HANDLER)


def _put(ctx: Context, over: Object, wanted: Object) -> None:
    """Replace the object `over` by `wanted`, whichever field manager owns its fields."""
    version = over["metadata"].get("resourceVersion")
    ctx.kube().replace({**wanted, "metadata": {**wanted["metadata"], "resourceVersion": version}})


def _is_ours(ctx: Context, found: Object) -> bool:
    annotations = found["metadata"].get("annotations") or {}
    return bool(annotations.get(OWNER_ANNOTATION) == ctx.resource)


def _meaning(found: Mapping[str, Any]) -> object:
    """The permissions of the object, without the order of its lists."""
    if found["kind"] == "ClusterRole":
        return sorted(
            (
                sorted(rule.get("apiGroups") or ()),
                sorted(rule.get("resources") or ()),
                sorted(rule.get("resourceNames") or ()),
                sorted(rule.get("nonResourceURLs") or ()),
                sorted(rule["verbs"]),
            )
            for rule in found.get("rules") or ()
        )
    return (
        (found["roleRef"]["kind"], found["roleRef"]["name"]),
        sorted((each["kind"], each["name"]) for each in found.get("subjects") or ()),
    )


def remove(ctx: Context) -> None:
    """Delete the objects that are ours, the binding first."""
    if ctx.facts.cluster is None or not _was_wanted(ctx):
        return
    for kind in ("ClusterRoleBinding", "ClusterRole"):
        if label(kind) in ctx.ledger.protected:
            continue
        found = ctx.kube().get(VERSION, kind, SPOT_HANDLER)
        if found is None:
            continue
        if not _is_ours(ctx, found):
            ctx.ledger.leave(label(kind), "not ours")
            continue
        ctx.ledger.delete(label(kind), partial(_delete, ctx, kind))


def is_ours(ctx: Context) -> bool:
    """Whether the binding in the cluster is ours."""
    found = ctx.kube().get(VERSION, "ClusterRoleBinding", SPOT_HANDLER)
    return found is not None and _is_ours(ctx, found)


def _was_wanted(ctx: Context) -> bool:
    return ctx.discover or any(each.spot_handler_role_arn for each in ctx.every_properties)
