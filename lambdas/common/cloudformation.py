"""A request of CloudFormation, as the CDK's Provider framework passes it to a function. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any

from lambdas.common.errors import PermanentError

Event = Mapping[str, Any]


class RequestType(StrEnum):
    """The kinds of request."""

    CREATE = "Create"
    UPDATE = "Update"
    DELETE = "Delete"


class MalformedRequestError(PermanentError):
    """The event is not a request of CloudFormation."""


def owner(event: Event) -> str:
    """Which resource of which stack makes the request: `<stack>/<logical id>`.

    Raises MalformedRequestError where the event names neither.
    """
    stack, resource = _field(event, "StackId"), _field(event, "LogicalResourceId")
    # The ARN of a stack: arn:…:stack/<name>/<uuid>
    name = stack.split("/")[1] if stack.count("/") > 1 else stack
    return f"{name}/{resource}"


def request_type(event: Event) -> RequestType:
    """What CloudFormation requests. Raises MalformedRequestError."""
    try:
        return RequestType(_field(event, "RequestType"))
    except ValueError as error:
        raise _malformed("RequestType") from error


def resource_properties(event: Event) -> Mapping[str, Any]:
    """The properties of the resource. Raises MalformedRequestError."""
    given = event.get("ResourceProperties")
    if not isinstance(given, Mapping):
        raise _malformed("ResourceProperties")
    return given


def _field(event: Event, name: str) -> str:
    value = event.get(name)
    if not isinstance(value, str):
        raise _malformed(name)
    return value


def _malformed(name: str) -> MalformedRequestError:
    return MalformedRequestError(
        f"Call this function through CloudFormation: the request has no usable {name}"
    )
