"""How long to wait before the next try. Delays are tuples of seconds; the last one repeats."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import TypeVar

from lambdas.common.clock import Clock
from lambdas.common.errors import RetryableError

T = TypeVar("T")

# s. A notice gives 120 s in all: start fast, and never wait so long that a try is lost.
DELAYS = (0.1, 0.2, 0.4, 0.8, 1.6, 3.0)
SPREAD = 0.5  # the least part of a delay that is waited
# s. Servers like to say "Retry-After: 10"; ten seconds are 8 % of the notice.
LONGEST_RETRY_AFTER = 3.0


def delay(attempt: int, *, retry_after: float | None = None) -> float:
    """Seconds to wait after try `attempt` (from 0), or what the server asks for, up to a cap.

    A random part spreads the functions of one storm: together they would come back together.
    """
    own = DELAYS[min(attempt, len(DELAYS) - 1)]
    part = random.uniform(SPREAD, 1)  # noqa: S311 - no secret
    asked = 0.0 if retry_after is None else min(retry_after, LONGEST_RETRY_AFTER)
    return own * part if asked <= own * part else asked + own * (1 - part)


def call(action: Callable[[], T], *, until: float, clock: Clock) -> T:
    """Call `action` until it answers or `until` (epoch seconds) leaves no time for another try.

    Raises whatever `action` raises; a RetryableError only once the time is used up.
    """
    attempt = 0
    while True:
        try:
            return action()
        except RetryableError as error:
            wait = delay(attempt, retry_after=error.retry_after)
            if clock.now() + wait >= until:
                raise
            clock.sleep(wait)
            attempt += 1
