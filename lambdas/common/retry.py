"""Retry with backoff until a deadline: the one loop, for synchronous and asynchronous calls."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from lambdas.common.clock import Clock
from lambdas.common.errors import CastaiError, RetryableError

T = TypeVar("T")

SPREAD = 0.5  # the least part of a delay that is waited


@dataclass(frozen=True)
class Backoff:
    """How long to wait between attempts."""

    delays: tuple[float, ...]
    """Seconds; the last one repeats."""
    longest_retry_after: float
    """Seconds: a longer Retry-After is cut to this."""


# A notice has 120 s in all: the first retry comes early, and waits are short. Ten seconds of
# "Retry-After: 10", a usual value, would be 8 % of them.
DEFAULT = Backoff(delays=(0.1, 0.2, 0.4, 0.8, 1.6, 3.0), longest_retry_after=3.0)
# For a web API, where the time of a call is longer.
SLOW = Backoff(delays=(0.5, 1.0, 2.0, 4.0, 8.0), longest_retry_after=15.0)


def seconds_of(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for; None without a number (or with a date)."""
    try:
        return max(0.0, float(header)) if header else None
    except ValueError:
        return None


def never(_: Exception) -> bool:
    """Retry every RetryableError."""
    return False


def delay(attempt: int, *, retry_after: float | None = None, backoff: Backoff = DEFAULT) -> float:
    """Seconds to wait after attempt `attempt` (from 0), or what the server asks for, up to a cap.

    A random part spreads the functions of one storm, which would retry at the same moment
    otherwise.
    """
    own = backoff.delays[min(attempt, len(backoff.delays) - 1)]
    part = random.uniform(SPREAD, 1)  # noqa: S311 - no secret
    asked = 0.0 if retry_after is None else min(retry_after, backoff.longest_retry_after)
    return own * part if asked <= own * part else asked + own * (1 - part)


def wait_after(
    error: CastaiError,
    attempt: int,
    *,
    until: float,
    clock: Clock,
    backoff: Backoff = DEFAULT,
) -> float:
    """Seconds to wait before the next attempt; raises `error` where `until` (epoch seconds) leaves
    no time for one.
    """
    wait = delay(attempt, retry_after=getattr(error, "retry_after", None), backoff=backoff)
    if clock.now() + wait >= until:
        raise error
    return wait


def call(action: Callable[[], T], *, until: float, clock: Clock, backoff: Backoff = DEFAULT) -> T:
    """Call `action` until it answers or `until` (epoch seconds) leaves no time for another attempt.

    Raises whatever `action` raises; a RetryableError only when the time is used up.
    """
    attempt = 0
    while True:
        try:
            return action()
        except RetryableError as error:
            clock.sleep(wait_after(error, attempt, until=until, clock=clock, backoff=backoff))
            attempt += 1


async def call_async(
    action: Callable[[], Awaitable[T]],
    *,
    until: float,
    clock: Clock,
    unless: Callable[[RetryableError], bool] = never,
) -> T:
    """As `call`, on the event loop's clock. `unless` names errors that are raised at once."""
    attempt = 0
    while True:
        try:
            return await action()
        except RetryableError as error:
            if unless(error):
                raise
            await asyncio.sleep(wait_after(error, attempt, until=until, clock=clock))
            attempt += 1
