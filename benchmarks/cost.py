"""What the function costs, and how much memory to give it: arithmetic on what was measured.

List prices of AWS Lambda, arm64, first tier, eu-central-1 and us-east-1 alike, as published at
https://aws.amazon.com/lambda/pricing/ and known to us in 2025. Logs and metrics are not in it.
"""

from __future__ import annotations

from dataclasses import dataclass

DOLLARS_PER_GB_SECOND = 0.0000133334
DOLLARS_PER_REQUEST = 0.20 / 1_000_000
# Memory that comes with one whole processor; less memory, less of it.
# https://docs.aws.amazon.com/lambda/latest/dg/configuration-memory.html
MB_PER_PROCESSOR = 1769
CHOICES = (256, 512, 1024, 1769)  # MB
WAITS = (30.0, 110.0)  # s that pods take to end: the default grace, and nearly all of the notice
INTERRUPTIONS = 1000


@dataclass(frozen=True)
class Choice:
    """One size of the function.

    seconds: of processor-bound work, from a cold start to the last eviction accepted.
    dollars: for INTERRUPTIONS, by seconds that the pods take to end.
    """

    memory_mb: int
    seconds: float
    dollars: dict[float, float]


def choices(*, cold_seconds: float, drain_processor_seconds: float) -> list[Choice]:
    """The sizes. cold_seconds, drain_processor_seconds: of one whole processor."""
    found = []
    for memory in CHOICES:
        work = (cold_seconds + drain_processor_seconds) / min(1.0, memory / MB_PER_PROCESSOR)
        found.append(Choice(memory, work, {wait: dollars(memory, work + wait) for wait in WAITS}))
    return found


def dollars(memory_mb: int, seconds: float) -> float:
    """For INTERRUPTIONS of so many seconds each."""
    return INTERRUPTIONS * (
        memory_mb / 1024 * seconds * DOLLARS_PER_GB_SECOND + DOLLARS_PER_REQUEST
    )
