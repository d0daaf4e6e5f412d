"""The error tree. The type of an error, never its text, says what a caller may do.

CastaiError
├── SettingsError          an environment variable is wrong: every fault in one message
├── RetryableError         may pass: retry within the deadline, then raise it
│   ├── AwsUnavailableError        AWS throttles, fails (5xx) or does not answer
│   └── ClusterUnavailableError    the Kubernetes API throttles, fails or does not answer
└── PermanentError         stays until a person changes something
    ├── AwsRefusedError            AWS refuses the call: missing permission, bad argument
    ├── ClusterUnauthorizedError   the Kubernetes API does not accept our identity (401)
    ├── ClusterForbiddenError      RBAC does not allow it (the authorizer's 403)
    └── ClusterRefusedError        the Kubernetes API refuses the request for another reason
"""

from __future__ import annotations

import traceback
from pathlib import Path


class CastaiError(Exception):
    """Root of every error that this project raises on purpose. Its first line says what to do."""


class SettingsError(CastaiError):
    """A setting is missing or wrong. The message lists every fault and what is allowed."""


class RetryableError(CastaiError):
    """The same call may succeed later. `retry_after` is what the other side asked for, in seconds,
    or None.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PermanentError(CastaiError):
    """The same call will fail again until a person changes something."""


class AwsUnavailableError(RetryableError):
    """AWS throttled the call, answered 5xx or did not answer."""


class AwsRefusedError(PermanentError):
    """AWS refused the call. `code` is the AWS error code, for instance AccessDeniedException."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class ClusterUnavailableError(RetryableError):
    """The Kubernetes API did not answer, answered 5xx, or throttles (429).

    `unreachable`: no connection was made, so the endpoint itself may have changed.
    """

    def __init__(
        self, message: str, *, retry_after: float | None = None, unreachable: bool = False
    ) -> None:
        super().__init__(message, retry_after=retry_after)
        self.unreachable = unreachable


class ClusterUnauthorizedError(PermanentError):
    """401 for some time, with new tokens: the cluster does not know our role."""


class ClusterForbiddenError(PermanentError):
    """The authorizer's 403: the cluster knows our role, and RBAC does not allow this."""


class ClusterRefusedError(PermanentError):
    """Any other 4xx, and a 403 of an admission plugin. `code` is the HTTP status."""

    def __init__(self, message: str, *, code: int) -> None:
        super().__init__(message)
        self.code = code


def bug(error: Exception) -> PermanentError:
    """The error for an unforeseen one: its type and places, the innermost first. Not its text,
    which may hold a secret.
    """
    frames = reversed(traceback.extract_tb(error.__traceback__)[-3:])
    places = ", ".join(f"{Path(frame.filename).name}:{frame.lineno}" for frame in frames)
    return PermanentError(f"Report this as a bug: {type(error).__name__} at {places}")
