"""The one way in which the sandbox and its tests wait: look again until a deadline."""

import time
from collections.abc import Callable
from typing import TypeVar

from sandbox.errors import SandboxError

Found = TypeVar("Found")

INTERVAL = 0.05  # s between two looks: short beside a network answer, long beside a context switch


def until(
    look: Callable[[], Found | None],
    what: str,
    *,
    timeout: float,
    interval: float = INTERVAL,
) -> Found:
    """The first truthy answer of ``look``, asked every ``interval`` seconds.

    Raises SandboxError when ``timeout`` seconds pass without one.
    """
    deadline = time.monotonic() + timeout
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() >= deadline:
            raise SandboxError(f"Look into the logs: {what} did not happen in {timeout:g} s")
        time.sleep(interval)
