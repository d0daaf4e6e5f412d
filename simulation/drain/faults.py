"""The faults of a day, as data: a kind of fault is a row.

Each answer is one that a real API server, a proxy before it, or AWS gives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from kubesim import answers
from kubesim.faults import (
    Action,
    Answer,
    BreakWatch,
    Delay,
    Down,
    DropAnswer,
    LateAnswer,
    OldList,
    Reset,
)

TARGETS: dict[str, tuple[str, str]] = {
    "evict": ("POST", r"/eviction$"),
    "delete": ("DELETE", r"/pods/"),
    "list": ("GET", r"^/api/v1/pods$"),
    "patch": ("PATCH", r"^/api/v1/nodes/"),
    "node": ("GET", r"^/api/v1/nodes/"),
    "nodes": ("GET", r"^/api/v1/nodes$"),
    "event": ("POST", r"/events$"),
    "any": ("*", r""),
}
"""Kinds of requests: a method, and a regular expression of the path."""

SLOW = 4.0  # s: less than the handler's time-out for a request
WHY = "by a rule of the platform team, whose words are many. " * 100


@dataclass(frozen=True)
class Row:
    """A kind of fault of the API server."""

    action: Callable[[], Action]
    targets: tuple[str, ...] = ()
    """Where it can happen; empty: everywhere."""
    refuses: bool = True
    """The request has no effect, or its answer says so."""


_POD_WRITES = ("evict", "delete")

FAULTS: dict[str, Row] = {
    "busy": Row(answers.server_busy),
    "unauthorized": Row(answers.unauthorized),
    "policy": Row(lambda: answers.denied_by_policy("Pod", "any", WHY), (*_POD_WRITES, "patch")),
    "webhook denies": Row(
        lambda: answers.denied_by_webhook("guard.example.com", WHY), (*_POD_WRITES, "patch")
    ),
    "webhook fails": Row(
        lambda: answers.webhook_failed("guard.example.com", f"context deadline exceeded: {WHY}"),
        (*_POD_WRITES, "patch", "event"),
    ),
    "budget negative": Row(lambda: answers.budget_negative("budget"), ("evict",)),
    "budget full": Row(lambda: answers.budget_full("budget"), ("evict",)),
    "budget gone": Row(lambda: answers.budget_gone("budget"), ("evict",)),
    "budget modified": Row(lambda: answers.budget_modified("budget"), ("evict",)),
    "no route": Row(lambda: Answer(404, "404 page not found\n"), ("evict", "delete", "patch")),
    "timed out": Row(answers.timed_out),
    "bad gateway": Row(lambda: Answer(502, "<html>bad gateway</html>")),
    "server error": Row(lambda: Answer(500)),
    "half answer": Row(lambda: Answer(200, '{"kind":"PodList","apiVer'), ("list", "node", "nodes")),
    "reset": Row(Reset),
    "answer lost": Row(DropAnswer, refuses=False),
    "slow": Row(lambda: Delay(SLOW), refuses=False),
    "silent": Row(Delay),
    "late answer": Row(lambda: LateAnswer(SLOW), refuses=False),
    "old list": Row(lambda: OldList(2), ("list",), refuses=False),
    "watch ends": Row(lambda: BreakWatch(1, "end"), ("list",), refuses=False),
    "watch breaks": Row(lambda: BreakWatch(0, "reset"), ("list",), refuses=False),
    "watch too old": Row(lambda: BreakWatch(1, "gone"), ("list",), refuses=False),
    "down": Row(lambda: Down(3.0)),
}


@dataclass(frozen=True)
class AwsRow:
    """A kind of fault of AWS: an error, no answer in so many seconds, or an answer without a
    result.
    """

    status: int = 0
    code: str = ""
    silent: float = 0.0
    calls: tuple[str, ...] = ("DescribeInstances", "DescribeCluster")
    """Where it can happen."""


AWS_FAULTS: dict[str, AwsRow] = {
    "throttled": AwsRow(503, "RequestLimitExceeded"),
    "server error": AwsRow(500, "InternalError"),
    "unavailable": AwsRow(503, "Unavailable"),
    "silent": AwsRow(silent=10.0),
    "refused": AwsRow(403, "UnauthorizedOperation"),
    "not known": AwsRow(400, "InvalidInstanceID.NotFound", calls=("DescribeInstances",)),
    "not shown": AwsRow(200, calls=("DescribeInstances",)),
}
