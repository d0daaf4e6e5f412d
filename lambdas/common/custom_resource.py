"""What the functions of both custom resources do around a request of CloudFormation.

The Provider framework of the CDK invokes the function, and answers CloudFormation on every path:
the function returns its attributes or raises.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache

from aws_lambda_powertools import Logger

from lambdas.common.errors import CastaiError, PermanentError, SettingsError, bug
from lambdas.common.names import OWN_ROLE_VARIABLE, STACK_ID_VARIABLE
from lambdas.common.text import cut, cut_lines, masked


class ForeignRequestError(PermanentError):
    """The request is of another stack, or of no stack."""


class RequestFailedError(CastaiError):
    """The error that CloudFormation shows: what failed, and what could not be undone."""


@cache
def logger() -> Logger:
    """The function's logger. Requests and attributes are never logged."""
    return Logger()


@contextmanager
def answered_errors() -> Iterator[None]:
    """Raise every error as a RequestFailedError, without its cause.

    Lambda logs a cause, which may quote a server at length or hold a secret.
    """
    try:
        yield
    except CastaiError as error:
        raise _failure(error) from None
    except Exception as error:  # noqa: BLE001 - its text may hold anything
        raise _failure(bug(error)) from None


def _failure(error: CastaiError) -> RequestFailedError:
    """Log the error with its notes, and cut it to the length that CloudFormation takes."""
    reason = "\n".join([str(error), *getattr(error, "__notes__", ())])
    logger().error("The request failed", extra={"reason": reason})
    return RequestFailedError(cut_lines(reason))


def check_stack(event: object) -> None:
    """Refuse a request that is not of the function's own stack.

    An identity that may invoke functions can send any event. The id of a stack is not guessable:
    it ends with a UUID.

    Raises ForeignRequestError, or SettingsError where the environment has no stack id.
    """
    own = _variable(STACK_ID_VARIABLE, "the id of this function's stack")
    given = event.get("StackId", "") if isinstance(event, Mapping) else ""
    if given != own:
        raise ForeignRequestError(
            "Call this function through its own CloudFormation stack: the request names "
            f"{cut(masked(str(given))) or 'none'}"
        )


def own_role() -> str:
    """The ARN of the function's role. Raises SettingsError where the environment has none."""
    return _variable(OWN_ROLE_VARIABLE, "the ARN of this function's role")


def _variable(name: str, meaning: str) -> str:
    value = os.environ.get(name, "")
    if not value:
        raise SettingsError(f"Set {name} to {meaning}")
    return value
