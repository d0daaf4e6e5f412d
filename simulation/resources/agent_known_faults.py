"""Faults that are put into the shipped code, to see that the days of the agent find them.

Each is a context manager without arguments. The next fault is a row of `KNOWN_FAULTS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from unittest import mock

from lightkube.types import PatchType

from lambdas.agent import apply, handler, readiness
from lambdas.agent.manifest import OWNED
from lambdas.agent.readiness import Readiness
from lambdas.common import kubernetes_objects, temporary_access
from lambdas.common.custom_resource import logger
from lambdas.common.kubernetes_objects import FIELD_MANAGER, Kube
from simulation import lambda_runtime
from simulation.resources.known_faults import KnownFault, around, instead, with_fault


def put_back(fault: str) -> AbstractContextManager[None]:
    """The code with a fault."""
    return with_fault(KNOWN_FAULTS[fault])


def _labelled(obj: Mapping[str, Any], _owner: str) -> bool:
    return OWNED.items() <= (obj["metadata"].get("labels") or {}).items()


def _keeps_former(shipped: Callable[..., Any], kube: Kube, objects: Any, **more: Any) -> Any:
    with mock.patch.object(apply, "_owned", return_value=()):
        return shipped(kube, objects, **more)


def _takes_over(self: Kube, obj: Mapping[str, Any], *, dry_run: bool = False) -> Any:
    metadata = obj["metadata"]
    where = {"namespace": metadata["namespace"]} if "namespace" in metadata else {}
    resource = kubernetes_objects._class(obj["apiVersion"], obj["kind"])  # noqa: SLF001

    def call() -> Any:
        return self._client.patch(
            resource,
            metadata["name"],
            resource(obj),
            patch_type=PatchType.APPLY,
            field_manager=FIELD_MANAGER,
            force=True,
            dry_run=dry_run,
            **where,
        )

    return self._ask(f"applying {obj['kind']}", call)


def _uses_any_namespace(wanted: Any, found: Any, owner: str) -> None:
    """A namespace that others made is applied as ours."""


def _former_id(shipped: Callable[..., Any], event: Any, *more: Any) -> Any:
    answer = shipped(event, *more)
    if "PhysicalResourceId" in event:
        answer["PhysicalResourceId"] = event["PhysicalResourceId"]
    return answer


@contextmanager
def _changing_physical_id() -> Iterator[None]:
    numbers, shipped = itertools.count(), handler._create_or_update  # noqa: SLF001

    def changed(*given: Any) -> Any:
        answer = shipped(*given)
        return answer | {"PhysicalResourceId": f"{answer['PhysicalResourceId']}-{next(numbers)}"}

    with mock.patch.object(handler, "_create_or_update", changed):
        yield


def _logs_the_key(shipped: Callable[..., Any], agent: Any, ref: Any, key: str) -> Any:
    logger().info("Rendered", extra={"key": key})
    return shipped(agent, ref, key)


def _undoes_nothing(_kube: Kube, _made: Any, _owner: str, _error: Exception) -> None:
    pass


def _forgets_the_unanswered(
    kube: Kube, wanted: Any, found: Any, changes: Any, made: list[apply.Reference]
) -> None:
    """What is created is known when it is answered: what the code did before."""
    before: list[apply.Reference] = []
    try:
        _SHIPPED_WRITE(kube, wanted, found, changes, before)
    except BaseException:
        made += [each for each in before if apply.title(each) in changes.created]
        raise


_SHIPPED_WRITE: Final = apply._write  # noqa: SLF001

KNOWN_FAULTS: Final[dict[str, KnownFault]] = {
    "a Delete takes objects of others along": instead(apply, "_foreign_in", lambda *_: iter(())),
    "a Delete takes a namespace that others made": instead(
        apply, "_skip_foreign_namespace", _uses_any_namespace
    ),
    "a Delete does not wait for the end": instead(apply, "left", lambda *_, **__: ""),
    "the owner's mark is not checked": instead(apply, "_is_ours", _labelled),
    "fields of others are taken over": instead(Kube, "apply", _takes_over),
    "an Update keeps an object that is no longer wanted": around(apply, "apply", _keeps_former),
    "an Update to another cluster answers the former id": around(
        handler, "_create_or_update", _former_id
    ),
    "an Update of nothing changes the physical id": _changing_physical_id,
    "a rollback leaves the other cluster": instead(handler, "_left_cluster", lambda *_: ""),
    "a failed Create is not undone": instead(apply, "_undo", _undoes_nothing),
    "an object that was not answered stays": instead(apply, "_write", _forgets_the_unanswered),
    "the access of the wait stays": instead(temporary_access, "end_wait", lambda *_, **__: None),
    "an agent that does not run counts as ready": instead(
        readiness, "look", lambda *_: Readiness(ready=True, sentence="")
    ),
    "a log line has the API key": around(handler, "render", _logs_the_key),
    "the libraries log at DEBUG": instead(lambda_runtime, "quiet_libraries", lambda: None),
}
