"""Lambda's context object."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class LambdaContext:
    """The part of Lambda's context that the handlers use."""

    remaining: int = 600_000  # ms

    def get_remaining_time_in_millis(self) -> int:
        return self.remaining
