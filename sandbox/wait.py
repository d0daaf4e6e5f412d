"""Wait by polling, for the sandbox and its tests."""

import time
from collections.abc import Callable
from typing import TypeVar

from sandbox.errors import SandboxError

Found = TypeVar("Found")

INTERVAL = 0.05  # s between two polls: shorter than a request takes, longer than a context switch


def until(
    poll: Callable[[], Found | None],
    what: str,
    *,
    timeout: float,
    interval: float = INTERVAL,
) -> Found:
    """Call ``poll`` every ``interval`` seconds until its result is truthy, and return that.

    Raises SandboxError after ``timeout`` seconds.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = poll()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise SandboxError(f"Check the logs: waited {timeout:g} s for {what}")
        time.sleep(interval)
