"""Answers of kube-apiserver that follow from its configuration, its load or another client.

They are for faults: `cluster.faults.add("POST", "pods/web/eviction", answers.server_busy())`. The
bodies are those in tests/recorded, or those of Kubernetes' source where no answer is recorded.
"""

from __future__ import annotations

from typing import Any

from kubesim import errors, eviction
from kubesim.errors import ApiError
from kubesim.faults import Answer
from kubesim.resources import BUDGETS, find


def of(error: ApiError) -> Answer:
    """The answer for an error of the API."""
    retry = {} if error.retry_after is None else {"retry-after": str(error.retry_after)}
    return Answer(error.code, error.body(), retry)


def server_busy() -> Answer:
    """429 of priority and fairness: a text, no Status. No budget refused the request."""
    return Answer(429, "Too many requests, please try again later.\n", {"retry-after": "1"})


def unauthorized() -> Answer:
    """401: the token is not accepted, or the webhook that authenticates it fails."""
    return of(errors.unauthorized())


def denied_by_policy(kind: str, name: str, why: str, *, policy: str = "no-eviction") -> Answer:
    """403 of a ValidatingAdmissionPolicy, whose binding has the same name. No right is missing."""
    words = f"ValidatingAdmissionPolicy '{policy}' with binding '{policy}' denied request: {why}"
    error = errors.forbidden(find(kind), name, words)
    error.details["causes"] = [{"message": words}]
    return of(error)


def denied_by_webhook(webhook: str, why: str) -> Answer:
    """403 of a validating webhook that names no other code."""
    return of(
        ApiError(403, "Forbidden", f'admission webhook "{webhook}" denied the request: {why}')
    )


def webhook_failed(webhook: str, why: str) -> Answer:
    """500: an admission webhook with the failure policy Fail does not answer.

    `why`: Go's error, such as `Post "https://…": context deadline exceeded`.
    """
    words = f'failed calling webhook "{webhook}": failed to call webhook: {why}'
    details = {"causes": [{"message": words}]}
    message = f"Internal error occurred: {words}"
    return of(ApiError(500, "InternalError", message, details=details))


def timed_out() -> Answer:
    """504: the request took longer than the server's limit, such as in a slow webhook."""
    words = "request did not complete within requested timeout - context deadline exceeded"
    body: dict[str, Any] = ApiError(504, "Timeout", f"Timeout: {words}").body()
    return Answer(504, {**body, "details": {}})


def budget_negative(name: str) -> Answer:
    """403 for an eviction: the status of its budget allows less than no disruption."""
    return of(eviction.negative(name))


def budget_full(name: str) -> Answer:
    """403 for an eviction: its budget has 2,000 evictions that are not confirmed."""
    return of(eviction.too_many_unconfirmed(name))


def budget_gone(name: str) -> Answer:
    """404 for an eviction: its budget was deleted between the server's list and its update."""
    return of(errors.not_found(BUDGETS, name))


def budget_modified(name: str) -> Answer:
    """409 for an eviction: others changed its budget at each of the server's 20 attempts."""
    return of(errors.modified(BUDGETS, name))
