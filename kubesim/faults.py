"""Faults as data: what goes wrong with which requests, and how often."""

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
    """What a fault or a hook sees of a request."""

    method: str
    path: str
    query: dict[str, str]
    user_agent: str
    body: bytes


@dataclass(frozen=True)
class Answer:
    """Answer so, without handling the request. Without a body: a Status of that code."""

    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Delay:
    """Handle the request after so many seconds; infinite: never answer."""

    seconds: float = math.inf


@dataclass(frozen=True)
class LateAnswer:
    """Handle the request now and answer after so many seconds: the answer tells of the past."""

    seconds: float


@dataclass(frozen=True)
class Reset:
    """Cut the connection before the request is handled."""


@dataclass(frozen=True)
class DropAnswer:
    """Handle the request, then cut the connection: the client cannot know."""


@dataclass(frozen=True)
class BreakWatch:
    """Let a watch through for `after_events` events, then break it.

    reset: the connection is cut; end: the server ends the stream properly; gone: an ERROR event
    with code 410 ends it.
    """

    after_events: int = 0
    how: How = "reset"


@dataclass(frozen=True)
class Down:
    """The server goes down for so many seconds with this request: open connections are cut, new
    ones refused."""

    seconds: float


@dataclass(frozen=True)
class Hook:
    """Call a function (plain or async) before the request is handled, to change the state."""

    function: Callable[[Request], Awaitable[None] | None]


Action = Answer | Delay | LateAnswer | Reset | DropAnswer | BreakWatch | Down | Hook


@dataclass
class Fault:
    """One entry: requests that match get the action, `times` times, after `skip` that do not."""

    method: str
    path: re.Pattern[str]
    action: Action
    times: float = 1
    skip: int = 0
    hits: int = 0

    def takes(self, request: Request) -> bool:
        """Whether this request gets the action; counts."""
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
    """The faults of one cluster. All that match a request act on it, in order of their addition."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._down_until = -math.inf
        self._on_down: list[Callable[[], None]] = []
        self._on_up: list[Callable[[], None]] = []

    def add(
        self, method: str, path: str, action: Action, *, times: float = 1, skip: int = 0
    ) -> Fault:
        """Let the next `times` requests of this method (`*`: any) whose path the regular
        expression `path` finds get `action`, after the first `skip` of them."""
        fault = Fault(method, re.compile(path), action, times, skip)
        self._faults.append(fault)
        return fault

    def clear(self) -> None:
        self._faults.clear()

    def matching(self, request: Request) -> list[Action]:
        return [fault.action for fault in self._faults if fault.takes(request)]

    def down_for(self, seconds: float) -> None:
        """Take the server down for so many seconds, now."""
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
        """Be told when the server goes down and comes up."""
        self._on_down.append(on_down)
        self._on_up.append(on_up)

    def _up(self) -> None:
        if not self.is_down():
            for listener in self._on_up:
                listener()
