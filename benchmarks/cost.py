"""The function's cost by memory size, computed from what was measured.

List prices of AWS Lambda, arm64, first tier, the same in eu-central-1 and us-east-1, as of 2026:
https://aws.amazon.com/lambda/pricing/. Logs and metrics are not included.
"""

from __future__ import annotations

from dataclasses import dataclass

DOLLARS_PER_GB_SECOND = 0.0000133334
DOLLARS_PER_REQUEST = 0.20 / 1_000_000
# Memory with which a function has one processor. Less memory has less of it in proportion.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_PER_PROCESSOR = 1769
CHOICES = (256, 512, 1024, 1769)  # MB
WAITS = (30.0, 110.0)  # s that pods take to end: the default grace, and nearly all of the notice
INTERRUPTIONS = 1000


@dataclass(frozen=True)
class Choice:
    """A memory size of the function."""

    memory_mb: int
    seconds: float
    """Processor-bound work, from a cold start to the last eviction accepted."""
    dollars: dict[float, float]
    """Cost of INTERRUPTIONS, by seconds that the pods take to end."""


def choices(*, cold_seconds: float, drain_processor_seconds: float) -> list[Choice]:
    """Return the sizes. cold_seconds, drain_processor_seconds: with one whole processor."""
    found = []
    for memory in CHOICES:
        work = (cold_seconds + drain_processor_seconds) / min(1.0, memory / MB_PER_PROCESSOR)
        found.append(Choice(memory, work, {wait: dollars(memory, work + wait) for wait in WAITS}))
    return found


def dollars(memory_mb: int, seconds: float) -> float:
    """Return the cost of INTERRUPTIONS that take `seconds` each."""
    return INTERRUPTIONS * (
        memory_mb / 1024 * seconds * DOLLARS_PER_GB_SECOND + DOLLARS_PER_REQUEST
    )
