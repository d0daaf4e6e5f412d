"""Asynchronous calls, tried again until a deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from lambdas.common import retry
from lambdas.common.clock import Clock
from lambdas.common.errors import RetryableError

T = TypeVar("T")


def never(_: Exception) -> bool:
    """Always worth another try."""
    return False


async def retried(
    action: Callable[[], Awaitable[T]],
    *,
    until: float,
    clock: Clock,
    unless: Callable[[RetryableError], bool] = never,
) -> T:
    """Await `action` until it answers; a RetryableError rises once `until` (epoch seconds) leaves
    no time for another try, or at once where `unless` says so. Every other error rises at once.
    """
    attempt = 0
    while True:
        try:
            return await action()
        except RetryableError as error:
            wait = retry.delay(attempt, retry_after=error.retry_after)
            if unless(error) or clock.now() + wait >= until:
                raise
            await asyncio.sleep(wait)
            attempt += 1
