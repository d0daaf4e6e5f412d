"""Errors of the API, with kube-apiserver's messages.

Each function builds an `ApiError`. The Status bodies are those in tests/recorded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from kubesim.resources import Json, Resource


class Cause(NamedTuple):
    """One cause of an error: reason (`FieldValueInvalid`), message, path of the field."""

    reason: str
    message: str
    field: str = ""

    def body(self) -> dict[str, str]:
        body = {"reason": self.reason, "message": self.message}
        return {**body, "field": self.field} if self.field else body


def required(field: str, why: str = "") -> Cause:
    return Cause("FieldValueRequired", f"Required value: {why}" if why else "Required value", field)


def invalid_value(field: str, value: Json, why: str) -> Cause:
    return Cause("FieldValueInvalid", f"Invalid value: {_compact(value)}: {why}", field)


def invalid_values(field: str, value: Json, messages: Iterable[str]) -> list[Cause]:
    """One cause for each message; none: the value is valid."""
    return [invalid_value(field, value, message) for message in messages]


def immutable(field: str, value: Json) -> Cause:
    return invalid_value(field, value, "field is immutable")


def not_supported(field: str, value: Json, supported: Iterable[str]) -> Cause:
    listed = ", ".join(f'"{each}"' for each in supported)
    message = f"Unsupported value: {_compact(value)}: supported values: {listed}"
    return Cause("FieldValueNotSupported", message, field)


def forbidden_field(field: str, why: str) -> Cause:
    return Cause("FieldValueForbidden", f"Forbidden: {why}", field)


def duplicate(field: str, value: Json) -> Cause:
    return Cause("FieldValueDuplicate", f"Duplicate value: {_compact(value)}", field)


def too_long(field: str, limit: int) -> Cause:
    return Cause("FieldValueTooLong", f"Too long: may not be more than {limit} bytes", field)


def _compact(value: Json) -> str:
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


class ApiError(Exception):
    """A request that the API server refuses: HTTP code, reason, message and details.

    `page`: the answer is the message as plain text, not a Status.
    """

    def __init__(
        self,
        code: int,
        reason: str,
        message: str,
        *,
        details: dict[str, Any] | None = None,
        causes: Sequence[Cause] = (),
        retry_after: int | None = None,
        page: bool = False,
    ) -> None:
        super().__init__(message)
        self.page = page
        self.code = code
        self.reason = reason
        self.message = message
        self.has_details = details is not None or bool(causes) or retry_after is not None
        self.details = dict(details or {})
        if causes:
            self.details["causes"] = [cause.body() for cause in causes]
        if retry_after is not None:
            self.details["retryAfterSeconds"] = retry_after
        self.retry_after = retry_after

    def body(self) -> dict[str, Any]:
        """The Status object."""
        body: dict[str, Any] = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            body["reason"] = self.reason
        if self.has_details:
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


def no_such_page() -> ApiError:
    """404 as text: the path is of no API, or of a group that is not served."""
    return ApiError(404, "NotFound", "404 page not found\n", page=True)


def already_exists(resource: Resource, name: str, *, terminating: bool = False) -> ApiError:
    message = f'{resource.qualified} "{name}" already exists'
    if terminating:
        message = f"object is being deleted: {message}"
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
    """422: the object is invalid."""
    return _invalid(
        f'{resource.qualified_kind} "{name}"', about(resource, name, kind=resource.kind), causes
    )


def invalid_options(kind: str, causes: Sequence[Cause]) -> ApiError:
    """422: the options of a request (`ListOptions`) are invalid."""
    details = {"group": "meta.k8s.io", "kind": kind}
    return _invalid(f'{kind}.meta.k8s.io ""', details, causes)


def invalid_patch(patched: Json, why: str) -> ApiError:
    """422: the patched object cannot be decoded."""
    return _invalid(' ""', {}, [invalid_value("patch", patched, why)])


def _invalid(subject: str, details: dict[str, Any], causes: Sequence[Cause]) -> ApiError:
    """The message lists each different cause once, the details list all causes."""
    faults = list(dict.fromkeys(f"{cause.field}: {cause.message}" for cause in causes))
    listed = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
    message = f"{subject} is invalid: {listed}"
    return ApiError(422, "Invalid", message, details=details, causes=causes)


def bad_request(message: str) -> ApiError:
    return ApiError(400, "BadRequest", message)


def wrong_name(given: str, name: str) -> ApiError:
    return bad_request(
        f"the name of the object ({given}) does not match the name on the URL ({name})"
    )


def internal(message: str) -> ApiError:
    """500 without a reason, as for an error that kube-apiserver does not classify."""
    return ApiError(500, "", message)


def version_too_large(asked: int, current: int) -> ApiError:
    message = f"Too large resource version: {asked}, current: {current}"
    cause = Cause("ResourceVersionTooLarge", "Too large resource version")
    return ApiError(504, "Timeout", f"Timeout: {message}", causes=[cause], retry_after=1)


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
