"""The ConfigMap `aws-auth` of a cluster: entries are added and removed, others stay as they are."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any, Final

from lambdas.common.kubernetes_objects import Kube, WrittenMeanwhileError
from lambdas.common.names import OWNER_ANNOTATION
from lambdas.onboarding import aws_auth
from lambdas.onboarding.aws_auth import AwsAuthError, Entry
from lambdas.onboarding.context import Context

_NAMESPACE, _NAME = aws_auth.CONFIG_MAP.split("/")
_TRIES: Final = 10  # conflicts in a row; each means that another client has written

Data = Mapping[str, str]
Change = Callable[[Data | None], Data | None]


def label(entry: Entry) -> str:
    """An entry of aws-auth in rows and messages."""
    return f"{entry.map_key} entry of {entry.arn} in {aws_auth.CONFIG_MAP}"


def data(ctx: Context) -> Data | None:
    """The data of the ConfigMap; None where it does not exist or holds none."""
    return _data(_config_map(ctx.kube()))


def ensure(ctx: Context, entries: Iterable[Entry]) -> None:
    """Add the entries that are missing."""
    now = data(ctx)
    for entry in entries:
        try:
            exists = aws_auth.ensure(now, [entry]) is now
        except AwsAuthError as error:
            ctx.ledger.conflict(label(entry), str(error))
            continue
        if exists:
            ctx.ledger.keep(label(entry))
        else:
            ctx.ledger.create(
                label(entry), partial(_add, ctx, entry), undo=partial(_remove, ctx, entry)
            )


def remove(ctx: Context, entries: Iterable[Entry]) -> None:
    """Remove the entries that exist."""
    now = data(ctx)
    for entry in entries:
        if aws_auth.remove(now, [entry]) is not now:
            ctx.ledger.delete(label(entry), partial(_remove, ctx, entry))


def _add(ctx: Context, entry: Entry) -> None:
    _edit(ctx, lambda now: aws_auth.ensure(now, [entry]))


def _remove(ctx: Context, entry: Entry) -> None:
    _edit(ctx, lambda now: aws_auth.remove(now, [entry]))


def _edit(ctx: Context, change: Change) -> None:
    """Read, change, dry-run, write; repeat if another client wrote in between."""
    kube = ctx.kube()
    for attempt in range(_TRIES):
        try:
            _edit_once(ctx, kube, change)
        except WrittenMeanwhileError:
            if attempt == _TRIES - 1 or ctx.clock.now() >= ctx.deadline:
                raise
        else:
            return


def _config_map(kube: Kube) -> dict[str, Any] | None:
    return kube.get("v1", "ConfigMap", _NAME, _NAMESPACE)


def _data(config_map: Mapping[str, Any] | None) -> Data | None:
    return config_map.get("data") if config_map else None


def _edit_once(ctx: Context, kube: Kube, change: Change) -> None:
    found = _config_map(kube)
    now = _data(found)
    changed = change(now)
    if changed is now or changed is None:
        return
    changed = {
        key: text
        for key, text in changed.items()
        if text == (now or {}).get(key) or aws_auth.has_entries(text)
    }
    if found is None:
        annotations = {OWNER_ANNOTATION: ctx.resource}
        metadata = {"name": _NAME, "namespace": _NAMESPACE, "annotations": annotations}
        kube.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": changed}
        )
    elif _is_own(ctx, found) and not any(map(aws_auth.has_entries, changed.values())):
        kube.delete("v1", "ConfigMap", _NAME, _NAMESPACE)  # ours, and no entry is left
    else:
        kube.replace({**found, "data": changed}, dry_run=True)
        kube.replace({**found, "data": changed})


def _is_own(ctx: Context, found: Mapping[str, Any]) -> bool:
    return bool((found["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION) == ctx.resource)
