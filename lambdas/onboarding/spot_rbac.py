"""What the spot handler may do in the cluster: its ClusterRole and ClusterRoleBinding.

`make docs` writes manifests/spot-handler-rbac.yaml from these objects.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    ("pods", ("get", "list", "watch", "delete"), ()),
    ("pods/eviction", ("create",), ()),
    ("events", ("create",), ()),
    ("configmaps", ("get",), (AGENT_METADATA,)),
)
"""Resource, verbs, and the names of the only objects where not all are meant."""

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
    """The ClusterRoleBinding to the group that access entry and aws-auth give the handler."""
    return {
        **_head("ClusterRoleBinding"),
        "roleRef": {"apiGroup": API, "kind": "ClusterRole", "name": SPOT_HANDLER},
        "subjects": [{"apiGroup": API, "kind": "Group", "name": SPOT_HANDLER_GROUP}],
    }


def _head(kind: str) -> Object:
    metadata = {"name": SPOT_HANDLER, "labels": dict(LABELS)}
    return {"apiVersion": VERSION, "kind": kind, "metadata": metadata}


def thing(kind: str) -> str:
    """The thing that one of the two is."""
    return f"{kind} {SPOT_HANDLER}"


def ensure(ctx: Context) -> None:
    """Put both in place, where the spot handler's role is known."""
    if ctx.onboarding.spot_handler_role_arn is None:
        return
    for wanted in (role(), binding()):
        kind = wanted["kind"]
        wanted["metadata"]["annotations"] = {OWNER_ANNOTATION: ctx.resource}
        found = ctx.kube().get(VERSION, kind, SPOT_HANDLER)
        if found is None:
            ctx.ledger.create(
                thing(kind),
                lambda wanted=wanted: ctx.kube().apply(wanted),  # type: ignore[misc]
                undo=lambda kind=kind: ctx.kube().delete(VERSION, kind, SPOT_HANDLER),  # type: ignore[misc]
            )
        elif _meaning(found) == _meaning(wanted):
            ctx.ledger.keep(thing(kind))
        elif _is_ours(ctx, found) or ctx.onboarding.adopt:
            ctx.ledger.update(
                thing(kind),
                lambda found=found, wanted=wanted: _put(ctx, found, wanted),  # type: ignore[misc]
                undo=lambda found=found, kind=kind: _put(ctx, _now(ctx, kind), found),  # type: ignore[misc]
                detail="rules",
            )
        else:
            ctx.ledger.conflict(thing(kind), "made by someone else, and with other rules")


def _now(ctx: Context, kind: str) -> Object:
    return ctx.kube().get(VERSION, kind, SPOT_HANDLER) or _head(kind)


def _put(ctx: Context, over: Object, wanted: Object) -> None:
    """Write `wanted` over what is there, whoever owns its fields: this was decided before."""
    version = over["metadata"].get("resourceVersion")
    ctx.kube().replace({**wanted, "metadata": {**wanted["metadata"], "resourceVersion": version}})


def _is_ours(ctx: Context, found: Object) -> bool:
    marks = found["metadata"].get("annotations") or {}
    return bool(marks.get(OWNER_ANNOTATION) == ctx.resource)


def _meaning(thing: Mapping[str, Any]) -> object:
    if thing["kind"] == "ClusterRole":
        return sorted(
            (
                sorted(rule.get("apiGroups") or ()),
                sorted(rule.get("resources") or ()),
                sorted(rule.get("resourceNames") or ()),
                sorted(rule.get("nonResourceURLs") or ()),
                sorted(rule["verbs"]),
            )
            for rule in thing.get("rules") or ()
        )
    return (
        (thing["roleRef"]["kind"], thing["roleRef"]["name"]),
        sorted((each["kind"], each["name"]) for each in thing.get("subjects") or ()),
    )


def remove(ctx: Context) -> None:
    """Remove what we put in place, the binding first."""
    if ctx.facts.cluster is None or not _was_wanted(ctx):
        return
    for kind in ("ClusterRoleBinding", "ClusterRole"):
        if thing(kind) in ctx.ledger.protected:
            continue
        found = ctx.kube().get(VERSION, kind, SPOT_HANDLER)
        if found is None:
            continue
        if not _is_ours(ctx, found):
            ctx.ledger.leave(thing(kind), "not ours")
            continue
        ctx.ledger.delete(
            thing(kind),
            lambda kind=kind: ctx.kube().delete(VERSION, kind, SPOT_HANDLER),  # type: ignore[misc]
        )


def is_ours(ctx: Context) -> bool:
    """Whether we put the spot handler's rights into the cluster."""
    found = ctx.kube().get(VERSION, "ClusterRoleBinding", SPOT_HANDLER)
    return found is not None and _is_ours(ctx, found)


def _was_wanted(ctx: Context) -> bool:
    wishes = (ctx.onboarding, ctx.previous)
    return ctx.discover or any(wish and wish.spot_handler_role_arn for wish in wishes)
