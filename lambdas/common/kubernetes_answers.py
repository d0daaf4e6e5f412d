"""What an answer of the Kubernetes API means: one table for both clients.

The clients are the drain's (spot_handler/node_api.py) and that for objects
(common/kubernetes_objects.py).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from httpx2 import codes

from lambdas.common import retry
from lambdas.common.errors import (
    CastaiError,
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    ClusterUnavailableError,
)
from lambdas.common.text import LIMIT, NOT_JSON, cut

if TYPE_CHECKING:
    import httpx2


class Status(msgspec.Struct, frozen=True):
    """The fields of a Kubernetes Status that the clients read."""

    class Cause(msgspec.Struct, frozen=True):
        reason: str = ""
        message: str = ""
        field: str = ""

    class Details(msgspec.Struct, frozen=True, rename="camel"):
        causes: tuple[Status.Cause, ...] | None = None
        retry_after_seconds: float | None = None

    kind: str = ""
    status: Any = None
    """"Success" or "Failure"; an object where the body is no Status."""
    message: str = ""
    reason: str = ""
    code: int = 0
    details: Details | None = None

    @property
    def causes(self) -> tuple[Cause, ...]:
        return (self.details.causes or ()) if self.details else ()


_status = msgspec.json.Decoder(Status)


@dataclass(frozen=True)
class Rules:
    """What differs between the clients."""

    unauthorized: str
    """Beginning of a 401's error: what a person can do."""
    forbidden: str
    """Beginning of the error where RBAC refuses."""
    retried: frozenset[int]
    """4xx codes after which the same request may succeed."""
    limit: int = LIMIT
    """Characters of the server's own message that are quoted."""


def status_of(response: httpx2.Response) -> Status:
    """The Status in the body; a Status of the text where the body is none (a proxy's page)."""
    try:
        return _status.decode(response.content)
    except NOT_JSON:
        return Status(message=response.content.decode(errors="replace"))


def retry_after(response: httpx2.Response, status: Status) -> float | None:
    """Seconds that the server asks to wait; None without a number (or with a date)."""
    asked = retry.seconds_of(response.headers.get("retry-after"))
    if asked is not None:
        return asked
    return status.details.retry_after_seconds if status.details else None


def is_missing(response: httpx2.Response) -> bool:
    """Whether the API server says that there is no such object. Any other 404 is a proxy's."""
    return response.status_code == codes.NOT_FOUND and status_of(response).reason == "NotFound"


# The text of kube-apiserver's authorizer (responsewriters.Forbidden). An admission plugin's refusal
# has the plugin's own text in this place.
_AUTHORIZER = re.compile(r'forbidden: User ".*" cannot ')


def lacks_right(message: str) -> bool:
    """Whether a 403 is RBAC's, and not an admission plugin's."""
    return _AUTHORIZER.search(message) is not None


def error_of(what: str, response: httpx2.Response, rules: Rules) -> CastaiError:
    """The error that an answer without success stands for. `what` names the request."""
    code, status = response.status_code, status_of(response)
    message = cut(status.message, rules.limit) or codes.get_reason_phrase(code) or "no message"
    said = f"{what}: {code} {message}"
    of_a_proxy = code == codes.NOT_FOUND and not is_missing(response)
    if of_a_proxy or code in rules.retried or code >= codes.INTERNAL_SERVER_ERROR:
        return ClusterUnavailableError(
            f"Try again: {said}", retry_after=retry_after(response, status)
        )
    if code == codes.UNAUTHORIZED:
        return ClusterUnauthorizedError(f"{rules.unauthorized}: {said}")
    if code == codes.FORBIDDEN and lacks_right(status.message):
        return ClusterForbiddenError(f"{rules.forbidden}: {said}")
    return ClusterRefusedError(f"Change what refuses this request: {said}", code=code)
