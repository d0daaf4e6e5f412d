"""A clock for tests that do not wait."""

from __future__ import annotations

from dataclasses import dataclass, field

from lambdas.common.clock import Clock


@dataclass
class FakeTime:
    """Time that passes only in `sleep`, or where a test sets `now`."""

    now: float = 0.0
    slept: list[float] = field(default_factory=list)
    """The seconds of each sleep."""

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, sleep=self.sleep)
