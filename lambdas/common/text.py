"""Text from outside: a server's words, an event's fields."""

from __future__ import annotations

LIMIT = 200  # characters. A log line of CloudWatch holds 256 KB, a node up to 250 pods
# characters. A refusal of AWS names caller, action and resource before the reason; one of an
# admission webhook lists what it wants.
REFUSAL_LIMIT = 800


def cut(text: object, limit: int = LIMIT) -> str:
    """At most `limit` characters of text from outside, in one line.

    It ends after a sentence where one ends in the second half, else after a word.
    """
    line = " ".join(str(text)[: 2 * limit].split())
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    for end, more in ((head.rfind(". ") + 1, ""), (head.rfind(" "), "…")):
        if end > limit // 2:
            return head[:end] + more
    return head + "…"
