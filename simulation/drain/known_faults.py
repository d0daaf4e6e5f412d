"""Faults that the spot handler once had, put back one at a time: the days have to find them.

Each is a row with the promise that shows it, and replaces a part of the shipped code while it is
open. A simulation that does not find them proves nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from lambdas.common import castai
from lambdas.spot_handler import cordon, drain, evictions, interruption, node_api, notices, pods
from lambdas.spot_handler.drain import Drain, PodDrain
from lambdas.spot_handler.evictions import EvictionAnswer, Verdict
from lambdas.spot_handler.notices import PARSERS, Notice
from lambdas.spot_handler.objects import Node
from lambdas.spot_handler.taint import DRAIN_TAINT
from simulation import lambda_runtime

_CORDON_PATCH, _UNCORDON_PATCH = cordon.cordon_patch, cordon.uncordon_patch


@dataclass(frozen=True)
class KnownFault:
    """A fault to put back."""

    what: str
    """What goes wrong, in one sentence."""
    patches: tuple[tuple[Any, str, Any], ...]
    """Owner, name and value of each replaced part."""


@contextmanager
def put_back(fault: str) -> Iterator[None]:
    """The shipped code has the fault while this is open."""
    with ExitStack() as replaced:
        for owner, name, value in KNOWN_FAULTS[fault].patches:
            replaced.enter_context(patch.object(owner, name, value))
        yield


def _force_at_once(self: Drain, pod_drain: PodDrain) -> float:
    return pods.last_moment(pod_drain.pod, end=self._window.end)


def _respect_longer(self: Drain, pod_drain: PodDrain) -> float:
    last_moment = pods.last_moment(pod_drain.pod, end=self._window.end)
    return max(last_moment, self._window.hard_end)


def _no_right(_causes: object, message: str) -> EvictionAnswer:
    return EvictionAnswer(Verdict.FORBIDDEN, message)


def _only_our_taint(node: Node, notice: Notice) -> dict[str, Any] | None:
    patch = _CORDON_PATCH(node, notice)
    if patch is not None and "taints" in patch.get("spec", {}):
        patch["spec"]["taints"] = patch["spec"]["taints"][-1:]
    return patch


def _lift_any_cordon(node: Node, *, running_since: float) -> dict[str, Any] | None:
    patch = _UNCORDON_PATCH(node, running_since=running_since)
    if patch is not None:
        patch.setdefault("spec", {})["unschedulable"] = None
    return patch


async def _believe(self: Drain, pod_drain: PodDrain, *, force: bool) -> EvictionAnswer:
    answer = await self._answer(pod_drain, force=force)
    if answer.verdict is Verdict.GONE:
        self._end(pod_drain.pod.uid)
    return answer


async def _no_last_look(self: Drain) -> None:
    await self._all_gone.wait()
    await self._settled()
    await self._all_gone.wait()
    self._unconfirmed = ""


async def _one_last_look(self: Drain) -> None:
    await self._all_gone.wait()
    await self._settled()
    await self._list()
    await self._all_gone.wait()
    self._unconfirmed = ""


def _believe_list(self: Drain, listed: Any, _known: object) -> None:
    present = {pod.uid: pod for pod in listed}
    for uid in self._pods.keys() - present.keys():
        self._end(uid)
    for pod in present.values():
        self._see(pod)
    self._note_progress()


_parse = notices.parse


def _parse_any(event: object, *, now: float, **_: object) -> notices.Notice | None:
    sources = {event["source"]} if isinstance(event, dict) else set()
    kinds = {detail_type for _, detail_type in PARSERS}
    known = isinstance(event, dict) and event["detail-type"] in kinds
    return _parse(event, now=now, drill_sources=frozenset(sources if known else ()))


_SAID = castai._said  # noqa: SLF001 - what masks the key


def _as_said(body: bytes, _secrets: object) -> str:
    return _SAID(body, ())


class _Everything:
    def __contains__(self, _: object) -> bool:
        return True


def _nothing() -> None:
    pass


KNOWN_FAULTS: dict[str, KnownFault] = {
    "libraries log at DEBUG": KnownFault(
        "With the log level DEBUG the libraries log signed requests.",
        ((lambda_runtime, "quiet_libraries", _nothing),),
    ),
    "force after any refusal": KnownFault(
        "A busy answer is taken for a budget's refusal, and a pod of a long grace is deleted.",
        ((Drain, "_force_from", _force_at_once),),
    ),
    "a budget is respected too long": KnownFault(
        "A budget that allows nothing holds its pods until half a minute before the end.",
        ((Drain, "_force_from", _respect_longer),),
    ),
    "every 403 is a missing right": KnownFault(
        "A policy's or a budget's 403 ends the drain as if RBAC had refused it.",
        ((evictions, "_forbidden", _no_right),),
    ),
    "a 401 is final": KnownFault(
        "One 401 ends the drain, while EKS is throttled for a second.",
        ((node_api, "UNAUTHORIZED_LIMIT", 0.0),),
    ),
    "a 404 is believed": KnownFault(
        "The 404 of a budget or a proxy counts as the pod's.",
        ((Drain, "_send", _believe), (Drain, "_until_empty", _no_last_look)),
    ),
    "a late list ends pods": KnownFault(
        "A list that was sent before the watch reported a pod ends that pod.",
        ((Drain, "_reconcile", _believe_list), (Drain, "_until_empty", _one_last_look)),
    ),
    "no wait for bindings": KnownFault(
        "An empty node is drained at once, and a binding under way lands afterwards.",
        ((drain, "SETTLING", 0.0),),
    ),
    "the cordon comes first": KnownFault(
        "A cordon that fails takes the whole notice, and nothing is evicted.",
        ((interruption, "CORDON_WAIT", 1e6), (interruption, "CORDON_PART", 1.0)),
    ),
    "EC2's first answer is final": KnownFault(
        "EC2 does not know a young instance yet, and its notice is ignored.",
        ((interruption, "UNKNOWN_POLL", 1e6),),
    ),
    "the taints of others are replaced": KnownFault(
        "A cordon writes its own taint in place of the list.",
        ((cordon, "cordon_patch", _only_our_taint),),
    ),
    "an uncordon lifts any cordon": KnownFault(
        "A node that others cordoned before the notice is uncordoned when its instance returns.",
        ((cordon, "uncordon_patch", _lift_any_cordon),),
    ),
    "no wait for the node": KnownFault(
        "The node of a young instance registers after the notice, and nobody looks again.",
        ((interruption, "REGISTRATION", 0.0),),
    ),
    "a server's words are not cut": KnownFault(
        "A webhook's long text fills the result and the log.",
        ((evictions, "cut", str),),
    ),
    "CAST AI holds the function": KnownFault(
        "A run waits for CAST AI until its deadline.",
        ((interruption, "CASTAI_WAIT", 1e6),),
    ),
    "the drain taint alone is tolerated": KnownFault(
        "A pod that tolerates the drain's taint and not a cordon is left to die.",
        ((pods, "UNSCHEDULABLE", DRAIN_TAINT),),
    ),
    "any source is a notice": KnownFault(
        "An event of a foreign source drains a node.",
        ((notices, "parse", _parse_any),),
    ),
    "CAST AI's words are not masked": KnownFault(
        "An answer of CAST AI that repeats the API key is logged.",
        ((castai, "_said", _as_said),),
    ),
    "an uncordon takes a label of others": KnownFault(
        "A label that others have changed since the cordon is removed by the uncordon.",
        ((cordon, "_VALUES", dict.fromkeys(cordon._VALUES, _Everything())),),  # noqa: SLF001
    ),
    "a pod that comes back is evicted at once": KnownFault(
        "On a node that was uncordoned a pod starts and is evicted again without end.",
        ((drain, "LATE_AT_ONCE", 1e9),),
    ),
    "a pod that never ends is waited for": KnownFault(
        "A finalizer holds the function until the deadline.",
        ((drain, "STUCK", 1e6),),
    ),
}
