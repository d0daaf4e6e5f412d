"""Watches: the changes of one resource as a stream of events, filtered by selectors."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

from kubesim.errors import ApiError, expired
from kubesim.faults import BreakWatch
from kubesim.resources import Obj, Resource
from kubesim.store import Change, Store

BOOKMARK_SECONDS = 60.0
"""Between two bookmarks of a watch without events, about as in kube-apiserver."""

DEFAULT_TIMEOUT_SECONDS = 1_800.0
"""Timeout of a watch without timeoutSeconds. kube-apiserver: 30 to 60 minutes."""

Event = dict[str, Any]


class WatchBroken(Exception):  # noqa: N818 - not an error: a test requested it
    """The connection of this watch must be cut now."""


class Watch:
    """One client's watch. It subscribes to the store when it is created."""

    def __init__(
        self,
        store: Store,
        resource: Resource,
        *,
        matches: Callable[[Obj], bool],
        since: int | None,
        timeout: float | None,
        bookmarks: bool,
        render: Callable[[Obj], Obj],
        fault: BreakWatch | None = None,
    ) -> None:
        """`since` None: start with an ADDED event for each existing object.

        Raises ApiError (410: the history starts after `since`).
        """
        self._store = store
        self.resource = resource
        self._matches = matches
        self._bookmarks = bookmarks
        self._render = render
        self._fault = fault
        self._timeout = DEFAULT_TIMEOUT_SECONDS if timeout is None else timeout
        self._pending: deque[Event] = deque()
        self._wake = asyncio.Event()
        self._seen = store.version
        self._break: BreakWatch | None = None
        if since is None:
            for obj in store.objects(resource):
                if matches(obj):
                    self._pending.append({"type": "ADDED", "object": render(obj)})
        else:
            for change in store.since(resource, since):
                self._take(change)
        self._unsubscribe = store.subscribe(self._on_change)

    def break_now(self, how: BreakWatch) -> None:
        """Break this watch at once."""
        self._break = how
        self._wake.set()

    async def events(self) -> AsyncIterator[Event]:
        """Yield the events until the timeout, and a last bookmark at the timeout.

        Raises WatchBroken (a fault cuts the connection).
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        sent = 0
        try:
            while True:
                while self._pending and self._break is None:
                    if self._fault is not None and sent >= self._fault.after_events:
                        break
                    sent += 1
                    yield self._pending.popleft()
                broken = self._broken(sent)
                if broken is not None:
                    if broken.how == "reset":
                        raise WatchBroken
                    if broken.how == "gone":
                        yield error_event(expired("The resourceVersion for the provided watch is"
                                                  " too old."))  # fmt: skip
                    return
                if loop.time() >= end:
                    return
                woken = await self._woken(min(end, loop.time() + BOOKMARK_SECONDS))
                if self._bookmarks and not woken:
                    yield self._bookmark()
        finally:
            self.close()

    def close(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
            self._unsubscribe = None  # type: ignore[assignment]  # closed once only

    def _broken(self, sent: int) -> BreakWatch | None:
        if self._break is not None:
            return self._break
        if self._fault is not None and sent >= self._fault.after_events:
            return self._fault
        return None

    async def _woken(self, until: float) -> bool:
        if self._pending:
            return True
        self._wake.clear()
        try:
            async with asyncio.timeout_at(until):
                await self._wake.wait()
        except TimeoutError:
            return False
        return True

    def _on_change(self, change: Change) -> None:
        self._seen = change.version
        if change.resource is self.resource:
            self._take(change)
            if self._pending:
                self._wake.set()

    def _take(self, change: Change) -> None:
        """Queue the event for a change.

        An object that no longer matches is DELETED. An object that matches from now on is ADDED.
        """
        now = change.kind != "DELETED" and self._matches(change.new)
        before = change.old is not None and self._matches(change.old)
        if not now and not before:
            return
        if now:
            kind = "MODIFIED" if before else "ADDED"
            shown = change.new
        else:
            kind = "DELETED"
            shown = change.new if change.kind == "DELETED" else _left(change)
        self._pending.append({"type": kind, "object": self._render(shown)})

    def _bookmark(self) -> Event:
        bookmark = {
            "kind": self.resource.kind,
            "apiVersion": self.resource.api_version,
            "metadata": {"resourceVersion": str(self._store.version), "creationTimestamp": None},
        }
        return {"type": "BOOKMARK", "object": bookmark}


def error_event(error: ApiError) -> Event:
    """The event that ends a watch with an error."""
    return {"type": "ERROR", "object": error.body()}


def _left(change: Change) -> Obj:
    """The last state of the object that matched, with the version of the change."""
    old = change.old or change.new
    version = change.new["metadata"]["resourceVersion"]
    return {**old, "metadata": {**old["metadata"], "resourceVersion": version}}
