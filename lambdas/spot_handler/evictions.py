"""What the API server's answer to an eviction or a deletion means for the pod.

Pure. The answers are those of the eviction API, by body as well as by code; real ones are recorded
in tests/recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, auto

from lambdas.common.kubernetes_answers import Status, lacks_right
from lambdas.common.text import cut
from lambdas.spot_handler.node_api import Answer


class Verdict(Enum):
    """What the drain does next with the pod."""

    ACCEPTED = auto()
    """It is terminating: wait for its end."""
    GONE = auto()
    """It does not exist any more, or another pod has its name."""
    BLOCKED = auto()
    """A budget refuses: back off, later force."""
    RETRY = auto()
    """The refusal may pass: back off."""
    REFUSED = auto()
    """Refused for this pod only: back off, later force."""
    FORBIDDEN = auto()
    """RBAC does not allow it: do not repeat."""


@dataclass(frozen=True)
class EvictionAnswer:
    """A verdict, its reason, and the seconds that the server asks to wait."""

    verdict: Verdict
    reason: str
    retry_after: float | None = None
    in_doubt: bool = False
    """The request may have had its effect: its answer is lost."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "reason", cut(self.reason))


_RETRY_CODES = frozenset({401, 408, 429})
# The server, its store or a proxy gave up waiting, and the write may be done all the same.
_IN_DOUBT = frozenset({500, 502, 504})
_SERVER_FAULT = 500
_SUCCESS = range(200, 300)


def read(answer: Answer) -> EvictionAnswer:
    """The meaning of an answer to an eviction, or to a DELETE of a pod."""
    status = answer.status
    code = _code(answer)
    message = status.message or f"HTTP {code}"
    causes = {cause.reason: cause.message for cause in status.causes}
    if code in _SUCCESS:
        return EvictionAnswer(Verdict.ACCEPTED, "")
    if code == 404:  # noqa: PLR2004 - HTTP codes are their own names here
        return EvictionAnswer(Verdict.GONE, f"404 {message}")
    if code == 409:  # noqa: PLR2004
        return _conflict(status, message)
    if code == 403:  # noqa: PLR2004
        return _forbidden(causes, message)
    if "DisruptionBudget" in causes:
        # With a Retry-After the budget's status lags behind its spec: that is not its refusal.
        verdict = Verdict.BLOCKED if answer.retry_after is None else Verdict.RETRY
        return EvictionAnswer(verdict, causes["DisruptionBudget"], answer.retry_after)
    if code == 500 and "more than one PodDisruptionBudget" in message:  # noqa: PLR2004
        return EvictionAnswer(Verdict.BLOCKED, message)
    if code in _RETRY_CODES or code >= _SERVER_FAULT:
        return EvictionAnswer(
            Verdict.RETRY, f"{code} {message}", answer.retry_after, code in _IN_DOUBT
        )
    return EvictionAnswer(Verdict.REFUSED, f"{code} {message}")


def _code(answer: Answer) -> int:
    """The code that counts: a 2xx whose body is a failure is the failure that the body says."""
    if answer.code in _SUCCESS and answer.status.status == "Failure":
        return answer.status.code or _SERVER_FAULT
    return answer.code


def _conflict(status: Status, message: str) -> EvictionAnswer:
    # Our only precondition is the UID. Any other conflict means two writers at once.
    if "UID in the precondition" in status.message:
        return EvictionAnswer(Verdict.GONE, "another pod has its name")
    return EvictionAnswer(Verdict.RETRY, message)


def _forbidden(causes: dict[str, str], message: str) -> EvictionAnswer:
    if "NamespaceTerminating" in causes:
        return EvictionAnswer(Verdict.RETRY, causes["NamespaceTerminating"])
    # Webhooks, admission policies and budgets in an odd state answer 403 too, for one pod.
    return EvictionAnswer(Verdict.FORBIDDEN if lacks_right(message) else Verdict.REFUSED, message)
