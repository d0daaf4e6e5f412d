"""Faults that are injected: for which requests, which action, how often."""

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
    """Answer without handling the request. Without a body: a Status of that code."""

    status: int
    body: dict[str, Any] | None = None
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


Action = Answer | Delay | LateAnswer | Reset | DropAnswer | BreakWatch | Down | Hook


@dataclass
class Fault:
    """An action for the next `times` requests that match, after the first `skip` of them."""

    method: str
    path: re.Pattern[str]
    action: Action
    times: float = 1
    skip: int = 0
    hits: int = 0

    def applies_to(self, request: Request) -> bool:
        """Return whether the action applies to this request, and count it."""
        if self.times <= 0 or self.method not in ("*", request.method):
            return False
        if not self.path.search(request.path):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.hits += 1
        return True


class Faults:
    """The faults of one cluster. All that match a request apply to it, in the order of `add`."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._down_until = -math.inf
        self._on_down: list[Callable[[], None]] = []
        self._on_up: list[Callable[[], None]] = []

    def add(
        self, method: str, path: str, action: Action, *, times: float = 1, skip: int = 0
    ) -> Fault:
        """Apply `action` to the next `times` requests that match, after the first `skip` of them.

        `method`: `*` matches any method. `path`: a regular expression to search for in the path.
        """
        fault = Fault(method, re.compile(path), action, times, skip)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()

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
