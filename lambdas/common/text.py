"""Text from outside: a server's words, an event's fields."""

from __future__ import annotations

LIMIT = 200  # characters. A log line of CloudWatch holds 256 KB, a node up to 250 pods


def cut(text: object) -> str:
    """At most LIMIT characters of text from outside, in one line."""
    line = " ".join(str(text)[: 2 * LIMIT].split())
    return line if len(line) <= LIMIT else line[: LIMIT - 1] + "…"
