"""The results of the load's cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

HANDLER = "handler, warm"


@dataclass(frozen=True)
class Outcome:
    """What the drains of a peer did to the pods, as the cluster's process saw it."""

    peer: str
    pods: int
    """On the drained nodes, at the notices."""
    ended: int
    """Pods that began to terminate, wherever: some moved more than once, others were rolled."""
    left: int
    """Pods on the drained nodes at the end."""
    lost: int
    short: int
    """Pods that were given less than their own grace."""
    broken: int
    """Evictions and deletions beyond a budget."""
    failed: int
    """Drains with another outcome than drained; processes that failed."""
    down: float
    """The longest time without a ready pod, of the Deployments of several pods. Seconds."""
    single_down: float | None
    """The same of those of one pod; None: there are none."""
    requests: int
    refused: int
    """Answers 429, by budgets included."""
    seconds: float | None
    """From the notices until the last pod was gone; None: none was."""

    @property
    def harm(self) -> int:
        return self.left + self.lost + self.short + self.broken


@dataclass(frozen=True)
class Case:
    """One case of the load, and a row for each peer."""

    title: str
    text: str
    rows: Sequence[Outcome]


@dataclass(frozen=True)
class Soak:
    """Notices again and again in one container."""

    where: str
    seconds: float
    notices: int
    pods: int
    harm: int
    """Pods that were left, lost, or given less than their grace; budgets broken."""
    undrained: int
    requests: int
    memory: tuple[float, float, float]
    """Resident memory in MB: after a tenth, a half and all of the notices."""
    descriptors: tuple[int, int, int]
    """Open file descriptors, at the same moments."""
    objects: tuple[int, int, int] | None = None
    """Objects that the garbage collector knows, at the same moments; None: not known."""
