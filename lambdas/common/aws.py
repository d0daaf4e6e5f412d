"""AWS: one session and one client per service and container, and its errors as ours."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any, NoReturn

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError
from botocore.exceptions import ConnectionError as NoConnectionError

from lambdas.common.errors import AwsRefusedError, AwsUnavailableError
from lambdas.common.text import REFUSAL_LIMIT, cut

if TYPE_CHECKING:
    import boto3.session

# One attempt per call, with short time-outs: the caller retries until its deadline.
CONFIG = Config(
    connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 1, "mode": "standard"}
)

# The EC2 API reference's list of throttling errors, and the SDK's own.
_THROTTLED = frozenset(
    {
        "BandwidthLimitExceeded",
        "EC2ThrottledException",
        "LimitExceededException",
        "PriorRequestNotComplete",
        "ProvisionedThroughputExceededException",
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "ThrottledException",
        "Throttling",
        "ThrottlingException",
        "TooManyRequestsException",
    }
)
_SERVER_FAULT = 500


@cache
def session() -> boto3.session.Session:
    """The container's session: credentials, region and endpoints by the SDK's standard settings."""
    import boto3.session  # noqa: PLC0415 - not in the spot handler's cold start

    return boto3.session.Session(
        botocore_session=botocore.session.Session(), region_name=region_of_the_function()
    )


def region_of_the_function() -> str | None:
    return os.environ.get("AWS_REGION") or None


def region(of: boto3.session.Session | botocore.session.Session) -> str:
    """The region of a session. Raises AwsRefusedError where none is set."""
    name = _core(of).get_config_variable("region")
    if not name:
        raise AwsRefusedError("Set AWS_REGION: no region is configured", code="NoRegion")
    return str(name)


def dns_suffix(of: boto3.session.Session | botocore.session.Session, region_name: str) -> str:
    """The DNS suffix of a region's partition: amazonaws.com, amazonaws.com.cn, …

    Source: the partitions that the SDK itself resolves endpoints by.
    """
    import re  # noqa: PLC0415 - botocore has imported it already; only this function needs it

    loader = _core(of).get_component("data_loader")
    partitions: list[dict[str, Any]] = loader.load_data("partitions")["partitions"]
    for partition in partitions:
        if region_name in partition["regions"] or re.match(partition["regionRegex"], region_name):
            return str(partition["outputs"]["dnsSuffix"])
    return str(partitions[0]["outputs"]["dnsSuffix"])


def _core(of: boto3.session.Session | botocore.session.Session) -> botocore.session.Session:
    """The botocore session of a boto3 session, which has no public attribute for it."""
    if isinstance(of, botocore.session.Session):
        return of
    core: botocore.session.Session = of._session  # noqa: SLF001
    return core


@contextmanager
def translated_errors(what: str) -> Iterator[None]:
    """Turn the SDK's errors into ours. `what` is the call as IAM names it: "ec2:DescribeInstances".

    Raises AwsUnavailableError for throttling, 5xx and a missing answer, AwsRefusedError for the
    rest.
    """
    try:
        yield
    except ClientError as error:
        _raise(what, error)
    except (HTTPClientError, NoConnectionError) as error:  # time-outs, refused, broken
        raise AwsUnavailableError(f"Try again: {what}: AWS did not answer: {cut(error)}") from error
    except BotoCoreError as error:  # no credentials, no region, a parameter that the model refuses
        raise AwsRefusedError(
            f"Correct the credentials, the region or the arguments: {what}: {cut(error)}",
            code=type(error).__name__,
        ) from error


def _raise(what: str, error: ClientError) -> NoReturn:
    code = error.response.get("Error", {}).get("Code", "")
    message = cut(error.response.get("Error", {}).get("Message", ""), REFUSAL_LIMIT)
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED or status >= _SERVER_FAULT:
        raise AwsUnavailableError(f"Try again: {what}: {code}: {message}") from error
    advice = "Correct what AWS names, or try again: "
    if code in {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}:
        advice = f"Allow {what} to this identity. "
    raise AwsRefusedError(f"{advice}{what}: {code}: {message}", code=code) from error
