"""Text from outside, cut: a server's message, a field of an event, a property."""

from __future__ import annotations

import json
import re
from typing import Final

# What msgspec raises for JSON from outside: also where it is not UTF-8, or nested too deeply.
NOT_JSON: Final = (ValueError, RecursionError)
LIMIT = 200  # characters. A log line of CloudWatch holds 256 KB, a node up to 250 pods
# characters. A refusal of AWS names caller, action and resource before the reason; one of an
# admission webhook lists what it wants.
REFUSAL_LIMIT = 800
# bytes. CloudFormation takes an answer of 4 KiB; the Provider framework adds its own
REASON_LIMIT = 1000


def cut(text: object, limit: int = LIMIT) -> str:
    """At most `limit` characters of text from outside, in one line.

    It ends after a sentence where one ends in the second half, else after a word.
    """
    # JSON may have half of a surrogate pair, which no encoding takes.
    line = " ".join(str(text)[: 2 * limit].encode(errors="replace").decode().split())
    if len(line) <= limit:
        return line
    head = line[: limit - 1]
    for end, more in ((head.rfind(". ") + 1, ""), (head.rfind(" "), "…")):
        if end > limit // 2:
            return head[:end] + more
    return head + "…"


def cut_front(text: object, limit: int = LIMIT) -> str:
    """At most `limit` characters of the end of text from outside, in one line.

    It begins with a word where one begins in the first half.
    """
    line = " ".join(str(text).split())
    if len(line) <= limit:
        return line
    tail = line[1 - limit :]
    start = tail.find(" ") + 1
    return "…" + (tail[start:] if start <= limit // 2 else tail)


def cut_lines(text: str, limit: int = REASON_LIMIT) -> str:
    """At most `limit` bytes of a message with several lines, in whole lines.

    The first line without room is cut as by `cut` where LIMIT bytes or more are left.
    """
    kept: list[str] = []
    room = limit
    lines = text.splitlines()
    for number, line in enumerate(lines):
        size = len(line.encode())
        mark = 0 if number == len(lines) - 1 else len("\n…".encode())
        if size + mark > room:
            # "…" has 3 bytes, and takes the place of a character with 1 byte or more.
            fitting = len(line.encode()[: min(room, size) - 2].decode(errors="ignore"))
            kept.append(cut(line, fitting) if room >= LIMIT else "…")
            break
        kept.append(line)
        room -= size + 1
    return "\n".join(kept)


_SHOWN: Final = re.compile(r"[\w .:/=+@,*-]{0,60}")
_PASSWORD: Final = re.compile(r"://[^/]*@")
# An access key has 40 characters of this form, CAST AI's key 64. In an ARN, a URL, a UUID and most
# names another character comes earlier.
_KEY: Final = re.compile(r"[A-Za-z0-9/+=]{32,}")
_LIST_SHOWN: Final = 5  # entries, which fit a line


def shown(value: object) -> str:
    """A value for an error. It may hold anything, also a key by mistake: only its kind and length
    are shown where it is long, or could be a secret.
    """
    if isinstance(value, bool | int | float | None):
        return cut(json.dumps(value))
    if isinstance(value, str) and _SHOWN.fullmatch(value) and not _secret(value):
        return f'"{value}"'
    if isinstance(value, list | tuple) and len(value) <= _LIST_SHOWN:
        return f"[{', '.join(shown(item) for item in value)}]"
    kinds: dict[type, str] = {str: "text", dict: "a map", list: "a list"}
    kind = kinds.get(type(value), "a value")
    return f"{kind} of length {len(value)}" if hasattr(value, "__len__") else kind


def masked(text: str) -> str:
    """Another tool's sentence, without what could be a key in it."""
    return _PASSWORD.sub("://***@", _KEY.sub("***", text))


def _secret(text: str) -> bool:
    return bool(_PASSWORD.search(text) or _KEY.search(text))
