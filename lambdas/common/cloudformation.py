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
    stack, resource = text(event, "StackId"), text(event, "LogicalResourceId")
    # The ARN of a stack: arn:…:stack/<name>/<uuid>
    name = stack.split("/")[1] if stack.count("/") > 1 else stack
    return f"{name}/{resource}"


def request_type(event: Event) -> RequestType:
    """What CloudFormation requests. Raises MalformedRequestError."""
    try:
        return RequestType(text(event, "RequestType"))
    except ValueError as error:
        raise malformed("RequestType") from error


def resource_properties(event: Event) -> Mapping[str, Any]:
    """The properties of the resource. Raises MalformedRequestError."""
    given = event.get("ResourceProperties")
    if not isinstance(given, Mapping):
        raise malformed("ResourceProperties")
    return given


def text(event: Event, name: str) -> str:
    """A field that is text. Raises MalformedRequestError."""
    value = event.get(name)
    if not isinstance(value, str):
        raise malformed(name)
    return value


def malformed(name: str) -> MalformedRequestError:
    """The error for a field that is missing, or cannot be used."""
    return MalformedRequestError(
        f"Call this function through CloudFormation: the request has no usable {name}"
    )
