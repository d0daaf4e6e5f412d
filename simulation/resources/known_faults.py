"""Faults that are put into the shipped code, to see that the days of the onboarding find them.

Each is a context manager without arguments. The next fault is a row of `KNOWN_FAULTS`.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import partial
from typing import Any, Final
from unittest import mock

from msgspec import structs

from lambdas.common import temporary_access
from lambdas.common.custom_resource import logger
from lambdas.onboarding import (
    access_entries,
    aws_auth,
    credentials,
    handler,
    iam_principals,
    in_use,
    names,
    steps,
)
from lambdas.onboarding.ledger import Ledger
from simulation import lambda_runtime
from simulation.resources import life

KnownFault = Callable[[], AbstractContextManager[object]]


def instead(where: Any, name: str, of: Callable[..., Any]) -> KnownFault:
    """The function `of` in the place of `where.name`."""
    return lambda: mock.patch.object(where, name, of)


def around(where: Any, name: str, change: Callable[..., Any]) -> KnownFault:
    """`change` in the place of `where.name`; its first argument is the shipped function."""
    return lambda: mock.patch.object(where, name, partial(change, getattr(where, name)))


def _no_undo(part: str) -> KnownFault:
    """A run that fails does not undo the creation of what has `part` in its label."""
    shipped = Ledger.create

    def create(
        self: Ledger, thing: str, write: Any, *, undo: Callable[[], object], **more: Any
    ) -> object:
        if part in thing:
            return shipped(self, thing, write, undo=lambda: None, **more)
        return shipped(self, thing, write, undo=undo, **more)

    return instead(Ledger, "create", create)


def _no_delete(part: str) -> KnownFault:
    """What has `part` in its label is not deleted."""
    shipped = Ledger.delete

    def delete(self: Ledger, thing: str, write: Any, detail: str = "") -> bool:
        return shipped(self, thing, (lambda: None) if part in thing else write, detail)

    return instead(Ledger, "delete", delete)


def _takes_foreign_policies(shipped: Callable[..., Any], event: Any) -> Any:
    request = shipped(event)
    onboarding = structs.replace(request.onboarding, detach_foreign_policies=True)
    return type(request)(
        request.type, onboarding, request.resource, request.previous, request.physical_id
    )


def _empties_aws_auth(data: Any, entries: Any) -> Any:
    del entries
    return dict.fromkeys(data, "[]\n") if data else data


def _logs_the_key(shipped: Callable[..., Any], *arguments: Any) -> Any:
    new = arguments[3]
    logger().info("Stored", extra={"key": new.secret if new else ""})
    return shipped(*arguments)


def _keeps_dropped_tags(shipped: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    return shipped(*arguments, **{**more, "drop": lambda _keys: None})


def _creates_the_key_again(shipped: Callable[..., Any], ctx: Any, user: str) -> Any:
    """A try whose answer was lost leaves its key: what the code did before."""
    del shipped

    def create() -> credentials.Key:
        made = ctx.call(ctx.clients.iam.create_access_key, UserName=user)["AccessKey"]
        return credentials.Key(made["AccessKeyId"], made["SecretAccessKey"])

    return ctx.ledger.create(f"new access key of IAM user {user}", create, undo=lambda: None)


def _forgets_what_leads_to_the_rest() -> KnownFault:
    """The registration is deleted also while something is left: what the code did before."""
    shipped = Ledger.create

    def create(self: Ledger, *arguments: Any, leads_to_the_rest: bool = False, **more: Any) -> Any:
        del leads_to_the_rest
        return shipped(self, *arguments, **more)

    return instead(Ledger, "create", create)


@contextmanager
def _changing_physical_id() -> Iterator[None]:
    numbers, shipped = itertools.count(), names.physical_id
    with mock.patch.object(
        names, "physical_id", lambda *given: f"{shipped(*given)}-{next(numbers)}"
    ):
        yield


def _goes_on(shipped: Callable[..., Any], ctx: Any, *, stop_if_the_first_fails: bool) -> Any:
    del stop_if_the_first_fails
    return shipped(ctx, stop_if_the_first_fails=False)


@contextmanager
def _removal_of_running_nodes() -> Iterator[None]:
    with (
        mock.patch.object(in_use, "refuse"),
        mock.patch.object(steps, "_remove_all", partial(_goes_on, steps._remove_all)),  # noqa: SLF001
    ):
        yield


@contextmanager
def with_fault(fault: KnownFault) -> Iterator[None]:
    """The code with a fault. What first Creates make is what the right code makes."""
    open_fault = ExitStack()

    @contextmanager
    def without() -> Iterator[None]:
        open_fault.close()
        try:
            yield
        finally:
            open_fault.enter_context(fault())

    with open_fault, mock.patch.object(life, "as_shipped", without):
        open_fault.enter_context(fault())
        yield


def put_back(fault: str) -> AbstractContextManager[None]:
    """The code with a fault."""
    return with_fault(KNOWN_FAULTS[fault])


KNOWN_FAULTS: Final[dict[str, KnownFault]] = {
    "a Delete keeps the instance profile": _no_delete("instance profile"),
    "a Delete keeps the access keys' secret": _no_delete("secret castai-eks"),
    "a Delete takes policies of others along": around(
        handler, "parse_request", _takes_foreign_policies
    ),
    "a Delete empties aws-auth": instead(aws_auth, "remove", _empties_aws_auth),
    "a Delete removes the role of running nodes": _removal_of_running_nodes,
    "an Update keeps the identity of the former mode": instead(
        steps, "_remove_replaced", lambda *_: []
    ),
    "an Update keeps tags that are no longer wanted": around(
        iam_principals, "correct_tags", _keeps_dropped_tags
    ),
    "an Update keeps a policy that is no longer wanted": _no_delete("policy/IAMReadOnlyAccess"),
    "an Update of nothing changes the physical id": _changing_physical_id,
    "a failed Create leaves the secret": _no_undo("secret castai-eks"),
    "a failed Create leaves the security group": _no_undo("security group"),
    "a failed Create leaves the principal at CAST AI": _no_undo("CAST AI's principal"),
    "a failed Create forgets CAST AI's id": _forgets_what_leads_to_the_rest(),
    "a lost answer leaves a second access key": around(
        credentials, "_create_key", _creates_the_key_again
    ),
    "an entry of a former principal stays": instead(access_entries, "_is_stale", lambda *_: False),
    "the function keeps its own access": instead(
        temporary_access._Entry,  # noqa: SLF001
        "delete_surely",
        lambda _self: None,
    ),
    "a log line has the access key": around(credentials, "_store", _logs_the_key),
    "the libraries log at DEBUG": instead(lambda_runtime, "quiet_libraries", lambda: None),
}
