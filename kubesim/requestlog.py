"""The requests to the API server, recorded for assertions, benchmarks and the demo."""

from __future__ import annotations

import re
from collections import Counter, deque
from dataclasses import dataclass, field

KEPT = 200_000
"""Number of requests. The oldest are dropped first."""


@dataclass
class Exchange:
    """One request and its result."""

    method: str
    path: str
    query: str
    user_agent: str
    started_at: float
    """Seconds since 1970, by the cluster's clock."""
    user: str = ""
    verb: str = ""
    """The API verb: get, list, watch, create, update, patch, delete, deletecollection."""
    resource: str = ""
    """Includes the subresource: `pods/eviction`."""
    status: int = 0
    """0: no answer, or no answer yet."""
    sent_bytes: int = 0
    ended_at: float | None = None


@dataclass
class RequestLog:
    """The requests in order of arrival."""

    entries: deque[Exchange] = field(default_factory=lambda: deque(maxlen=KEPT))

    def clear(self) -> None:
        self.entries.clear()

    def find(
        self, method: str = "*", path: str = "", *, status: int | None = None
    ) -> list[Exchange]:
        """The requests of a method (`*`: any) whose path matches a regular expression."""
        pattern = re.compile(path)
        return [
            entry
            for entry in self.entries
            if method in ("*", entry.method)
            and pattern.search(entry.path)
            and status in (None, entry.status)
        ]

    def by_verb(self) -> Counter[str]:
        """Requests by verb and resource: `{"create pods/eviction": 110, "list pods": 2}`."""
        return Counter(f"{entry.verb} {entry.resource}" for entry in self.entries if entry.verb)
