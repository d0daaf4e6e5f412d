"""The clock, injected wherever time matters, so that no test sleeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Clock:
    """Wall time in epoch seconds, and a way to let it pass.

    `sleep` blocks and is for synchronous code. Asynchronous code waits with asyncio's own timers:
    its tests run on an event loop with virtual time, and give a `now` that follows that loop.
    """

    now: Callable[[], float] = time.time
    sleep: Callable[[float], None] = time.sleep


SYSTEM = Clock()
