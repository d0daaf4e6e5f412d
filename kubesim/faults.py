"""Faults that are injected: for which requests, which action, how often.

`kubesim.answers` has the answers that kube-apiserver gives because of its configuration or load.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal

How = Literal["reset", "end", "gone"]


@dataclass(frozen=True)
class Request:
    """The request that a fault or a hook gets."""

    method: str
    path: str
    query: dict[str, str]
    user_agent: str
    body: bytes


@dataclass(frozen=True)
class Answer:
    """Answer without handling the request, and before the check of its token.

    `body`: an object, or a text (text/plain). Without a body: a Status of that code.
    """

    status: int
    body: dict[str, Any] | str | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delay:
    """Handle the request after this many seconds; infinite: never answer."""

    seconds: float = math.inf


@dataclass(frozen=True)
class LateAnswer:
    """Handle the request now and answer after this many seconds: the answer is out of date."""

    seconds: float


@dataclass(frozen=True)
class OldList:
    """Answer a list with the state before the last `changes` changes of its resource.

    A watch may have shown these changes already.
    """

    changes: int = 1


@dataclass(frozen=True)
class Reset:
    """Cut the connection before the request is handled."""


@dataclass(frozen=True)
class DropAnswer:
    """Handle the request, then cut the connection without an answer."""


@dataclass(frozen=True)
class BreakWatch:
    """Break a watch after `after_events` events.

    `how`: `reset` cuts the connection, `end` ends the stream without an error, `gone` ends it with
    an ERROR event with code 410.
    """

    after_events: int = 0
    how: How = "reset"


@dataclass(frozen=True)
class Down:
    """Take the server down at this request, for this many seconds.

    Open connections are cut, new connections are refused.
    """

    seconds: float


@dataclass(frozen=True)
class Hook:
    """Call a function (plain or async) before the request is handled, to change the state."""

    function: Callable[[Request], Awaitable[None] | None]


Action = Answer | Delay | LateAnswer | OldList | Reset | DropAnswer | BreakWatch | Down | Hook


@dataclass
class Fault:
    """An action for requests that match; see `Faults.add`."""

    method: str
    path: re.Pattern[str]
    action: Action
    times: float
    skip: int
    seconds: float
    every: int = 1
    hits: int = 0
    _matched: int = 0
    _end: float = math.inf

    def applies_to(self, request: Request) -> bool:
        """Return whether the action applies to this request, and count it."""
        if self.times <= 0 or self.method not in ("*", request.method):
            return False
        if not self.path.search(request.path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self._matched += 1
        if self._matched % self.every:
            return False
        now = asyncio.get_running_loop().time()
        if self.hits == 0:
            self._end = now + self.seconds
        elif now >= self._end:
            return False
        self.times -= 1
        self.hits += 1
        return True


@dataclass
class WatchBreaks:
    """Break all watches of a resource at every `every`-th change of it."""

    plural: str
    every: int
    how: How
    times: float
    changes: int = 0

    def applies_to(self, plural: str) -> bool:
        """Return whether the watches break at this change of a resource, and count it."""
        if self.times <= 0 or plural != self.plural:
            return False
        self.changes += 1
        if self.changes % self.every:
            return False
        self.times -= 1
        return True


class Faults:
    """The faults of one cluster. All that match a request apply to it, in the order of `add`."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._watch_breaks: list[WatchBreaks] = []
        self._down_until = -math.inf
        self._on_down: list[Callable[[], None]] = []
        self._on_up: list[Callable[[], None]] = []

    def add(
        self,
        method: str,
        path: str,
        action: Action,
        *,
        times: float | None = None,
        skip: int = 0,
        every: int = 1,
        seconds: float = math.inf,
    ) -> Fault:
        """Apply `action` to the next `times` requests that match, after the first `skip` of them.

        `method`: `*` matches any method. `path`: a regular expression to search for in the path.
        `every`: apply it only to each `every`-th of these requests. `seconds`: apply it in so many
        seconds from the first of these requests on. `times`: 1, or with `seconds` or `every` any
        number.
        """
        if times is None:
            times = 1 if math.isinf(seconds) and every == 1 else math.inf
        fault = Fault(method, re.compile(path), action, times, skip, seconds, every)
        self._faults.append(fault)
        return fault

    def break_watches(
        self, plural: str, *, every: int, how: How = "end", times: float = math.inf
    ) -> WatchBreaks:
        """Break all watches of a resource (`pods`) at every `every`-th change of it, `times` times.

        A busy kube-apiserver does so: it closes every watch of the resource at once.
        """
        fault = WatchBreaks(plural, every, how, times)
        self._watch_breaks.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()
        self._watch_breaks.clear()

    def watch_breaks(self, plural: str) -> list[WatchBreaks]:
        """Return the faults that break the watches of a resource at this change of it."""
        return [fault for fault in self._watch_breaks if fault.applies_to(plural)]

    def matching(self, request: Request) -> list[Action]:
        return [fault.action for fault in self._faults if fault.applies_to(request)]

    def down_for(self, seconds: float) -> None:
        """Take the server down now, for this many seconds."""
        loop = asyncio.get_running_loop()
        self._down_until = loop.time() + seconds
        for listener in self._on_down:
            listener()
        if seconds < math.inf:
            loop.call_later(seconds, self._up)

    def is_down(self) -> bool:
        """Whether connections are refused."""
        return asyncio.get_running_loop().time() < self._down_until

    def listen(self, on_down: Callable[[], None], on_up: Callable[[], None]) -> None:
        """Call `on_down` when the server goes down and `on_up` when it is up again."""
        self._on_down.append(on_down)
        self._on_up.append(on_up)

    def _up(self) -> None:
        if not self.is_down():
            for listener in self._on_up:
                listener()
