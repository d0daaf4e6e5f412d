"""Cordon a node by one conditional patch (unschedulable, taint, labels), and uncordon it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from lambdas.common import retry
from lambdas.common.clock import Clock
from lambdas.common.errors import CastaiError, ClusterRefusedError, ClusterUnavailableError
from lambdas.common.names import MARKS_ANNOTATION
from lambdas.spot_handler.node_api import NodeApi
from lambdas.spot_handler.notices import Kind, Notice
from lambdas.spot_handler.objects import Node
from lambdas.spot_handler.taint import DRAIN_LABEL, DRAIN_TAINT, NO_BALANCER_LABEL, is_drain_taint

CONFLICT = 409
_VALUES = {DRAIN_LABEL: frozenset(Kind), NO_BALANCER_LABEL: frozenset({"true"})}
"""What a cordon of ours writes into each label."""


class Marks(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a cordon of ours added to a node."""

    given: float
    """When the notice was given (epoch seconds)."""
    unschedulable: bool = False
    taint: bool = False
    labels: tuple[str, ...] = ()


def cordon_patch(node: Node, notice: Notice) -> dict[str, Any] | None:
    """The JSON merge patch that cordons this version of the node; None where nothing is to do.
    Pure.

    A merge patch replaces the whole list of taints, so it repeats the others. It carries the
    resourceVersion, so that it fails where another taint was set since, and no taint is lost.
    """
    labels = node.metadata.labels or {}
    missing: dict[str, str] = {}
    if labels.get(DRAIN_LABEL) != notice.kind.value:
        missing[DRAIN_LABEL] = notice.kind.value
    if NO_BALANCER_LABEL not in labels:
        missing[NO_BALANCER_LABEL] = "true"

    spec: dict[str, Any] = {}
    if not node.spec.unschedulable:
        spec["unschedulable"] = True
    taints = node.spec.taints or ()
    if not any(is_drain_taint(each) and each.get("value") == DRAIN_TAINT.value for each in taints):
        others = [each for each in taints if not is_drain_taint(each)]
        spec["taints"] = [*others, msgspec.to_builtins(DRAIN_TAINT)]

    if not missing and not spec:
        return None
    metadata: dict[str, Any] = {"resourceVersion": node.metadata.resource_version}
    if missing:
        metadata["labels"] = missing
    if notice.may_return and MARKS_ANNOTATION not in (node.metadata.annotations or {}):
        marks = Marks(notice.given, "unschedulable" in spec, "taints" in spec, tuple(missing))
        metadata["annotations"] = {MARKS_ANNOTATION: msgspec.json.encode(marks).decode()}
    return {"metadata": metadata, **({"spec": spec} if spec else {})}


def uncordon_patch(node: Node, *, running_since: float) -> dict[str, Any] | None:
    """The JSON merge patch that removes our marks from this version of the node. Pure.

    None where there are none, or where their notice is younger than `running_since` (epoch
    seconds): then EC2 is about to stop the instance.
    """
    text = (node.metadata.annotations or {}).get(MARKS_ANNOTATION, "")
    try:
        marks = msgspec.json.decode(text, type=Marks)
    except msgspec.DecodeError:  # none, or not ours
        return None
    if marks.given >= running_since:
        return None
    spec: dict[str, Any] = {"unschedulable": None} if marks.unschedulable else {}
    if marks.taint:
        spec["taints"] = [each for each in node.spec.taints or () if not is_drain_taint(each)]
    labels = node.metadata.labels or {}
    # A label that was changed since is another's now.
    ours = [name for name in marks.labels if labels.get(name) in _VALUES.get(name, ())]
    return {
        "metadata": {
            "resourceVersion": node.metadata.resource_version,
            "annotations": {MARKS_ANNOTATION: None},
            "labels": dict.fromkeys(sorted(ours)),
        },
        "spec": spec,
    }


async def cordon(
    api: NodeApi, node: Node, notice: Notice, *, until: float, clock: Clock
) -> Node | None:
    """Cordon the node; None where the node, or this instance behind its name, is gone.

    Raises ClusterForbiddenError and ClusterRefusedError at once, ClusterUnavailableError when the
    time is used up (`until`, epoch seconds).
    """
    return await _write(api, node, lambda now: cordon_patch(now, notice), until=until, clock=clock)


async def uncordon(
    api: NodeApi, node: Node, *, running_since: float, until: float, clock: Clock
) -> Node | None:
    """Remove our marks from the node of an instance that runs again; as `cordon` otherwise."""
    patch = partial(uncordon_patch, running_since=running_since)
    return await _write(api, node, patch, until=until, clock=clock)


async def _write(
    api: NodeApi,
    node: Node,
    patch_of: Callable[[Node], dict[str, Any] | None],
    *,
    until: float,
    clock: Clock,
) -> Node | None:
    """Patch the node as `patch_of` says; None where it is gone.

    After a conflict the node is read again and patched anew.
    """

    async def wait(error: CastaiError, attempt: int) -> None:
        await asyncio.sleep(retry.wait_after(error, attempt, until=until, clock=clock))

    read = partial(api.node, node.metadata.name)
    current: Node | None = node
    attempt = 0
    while current is not None and current.instance == node.instance:
        try:
            patch = patch_of(current)
            if patch is None:
                return current
            patched = await api.patch_node(node.metadata.name, patch)
            if patched is not None:
                return patched
            if attempt:  # not found, though it was just read: the answer may be a proxy's
                gone = ClusterUnavailableError("PATCH of the node: 404, but it is there")
                await wait(gone, attempt)
        except ClusterUnavailableError as error:
            await wait(error, attempt)
        except ClusterRefusedError as error:
            if error.code != CONFLICT:
                raise
            if attempt:  # the first conflict is retried at once
                await wait(error, attempt - 1)
        attempt += 1
        current = await retry.call_async(read, until=until, clock=clock)
    return None
