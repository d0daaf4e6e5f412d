"""Errors of the API, with kube-apiserver's messages.

Each function builds an `ApiError`. The Status bodies are those in tests/recorded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from kubesim.resources import Resource


class Cause(NamedTuple):
    """One cause of an error: reason (`FieldValueInvalid`), message, path of the field."""

    reason: str
    message: str
    field: str = ""

    def body(self) -> dict[str, str]:
        body = {"reason": self.reason, "message": self.message}
        return {**body, "field": self.field} if self.field else body


class ApiError(Exception):
    """A request that the API server refuses: HTTP code, reason, message and details."""

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        causes: Sequence[Cause] = (),
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = dict(details or {})
        if causes:
            self.details["causes"] = [cause.body() for cause in causes]
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The Status object of the answer."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.details:
            body["details"] = self.details
        return {**body, "code": self.code}


def about(resource: Resource, name: str = "", *, kind: str = "") -> dict[str, Any]:
    """The details of an answer about a resource."""
    details = {"name": name} if name else {}
    if resource.group:
        details["group"] = resource.group
    return {**details, "kind": kind or resource.plural}


def not_found(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" not found'
    return ApiError(404, "NotFound", message, details=about(resource, name))


def no_such_path() -> ApiError:
    return ApiError(404, "NotFound", "the server could not find the requested resource", details={})


def already_exists(resource: Resource, name: str) -> ApiError:
    message = f'{resource.qualified} "{name}" already exists'
    return ApiError(409, "AlreadyExists", message, details=about(resource, name))


def conflict(resource: Resource, name: str, why: str, *, kind: str = "") -> ApiError:
    subject = resource.qualified_kind if kind else resource.qualified
    message = f'Operation cannot be fulfilled on {subject} "{name}": {why}'
    return ApiError(409, "Conflict", message, details=about(resource, name, kind=kind))


def modified(resource: Resource, name: str) -> ApiError:
    return conflict(
        resource,
        name,
        "the object has been modified; please apply your changes to the latest version"
        " and try again",
    )


def uid_mismatch(resource: Resource, name: str, asked: str, found: str) -> ApiError:
    why = (
        f"the UID in the precondition ({asked}) does not match the UID in record ({found})."
        " The object might have been deleted and then recreated"
    )
    return conflict(resource, name, why, kind=resource.kind)


def version_mismatch(resource: Resource, name: str, asked: str, found: str) -> ApiError:
    why = (
        f"the ResourceVersion in the precondition ({asked}) does not match the ResourceVersion"
        f" in record ({found}). The object might have been modified"
    )
    return conflict(resource, name, why, kind=resource.kind)


def forbidden(resource: Resource, name: str, why: str, *, causes: Sequence[Cause] = ()) -> ApiError:
    subject = f'{resource.qualified} "{name}"' if name else resource.qualified
    return ApiError(
        403,
        "Forbidden",
        f"{subject} is forbidden: {why}",
        details=about(resource, name),
        causes=causes,
    )


def namespace_terminating(resource: Resource, name: str, namespace: str) -> ApiError:
    cause = Cause(
        "NamespaceTerminating", f"namespace {namespace} is being terminated", "metadata.namespace"
    )
    why = f"unable to create new content in namespace {namespace} because it is being terminated"
    return forbidden(resource, name, why, causes=[cause])


def invalid(resource: Resource, name: str, causes: Sequence[Cause]) -> ApiError:
    """422: the message lists each different cause once, the details list all causes."""
    faults = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    listed = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    return ApiError(
        422,
        "Invalid",
        f'{resource.qualified_kind} "{name}" is invalid: {listed}',
        details=about(resource, name, kind=resource.kind),
        causes=causes,
    )


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def name_mismatch(given: object, name: str) -> ApiError:
    return bad_request(
        f"the name of the object ({given}) does not match the name on the URL ({name})"
    )


def unauthorized() -> ApiError:
    return ApiError(401, "Unauthorized", "Unauthorized")


def expired(message: str) -> ApiError:
    return ApiError(410, "Expired", message)


def too_old(asked: int, oldest: int) -> ApiError:
    return expired(f"too old resource version: {asked} ({oldest})")


def too_many_requests(message: str, cause: Cause, *, retry_after: int | None = None) -> ApiError:
    return ApiError(429, "TooManyRequests", message, causes=[cause], retry_after=retry_after)


def unsupported_media_type(accepted: Sequence[str]) -> ApiError:
    message = (
        "the body of the request was in an unknown format - accepted media types include: "
        + ", ".join(accepted)
    )
    return ApiError(415, "UnsupportedMediaType", message)


def method_not_allowed() -> ApiError:
    message = "the server does not allow this method on the requested resource"
    return ApiError(405, "MethodNotAllowed", message, details={})
