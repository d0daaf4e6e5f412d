"""AWS: one session and one client per service and container, and our own errors for theirs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import boto3.session
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from lambdas.common.errors import AwsRefusedError, AwsUnavailableError

# One try per call, soon given up: the caller knows its deadline and retries by it.
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
def session(models: Path | None = None) -> boto3.session.Session:
    """The container's session: credentials, region and endpoints by the SDK's standard settings.

    models: a folder of service models that come before the SDK's own (its data_path setting).
    """
    core = botocore.session.Session()
    if models is not None:
        core.set_config_variable("data_path", str(models))
    return boto3.session.Session(
        botocore_session=core, region_name=os.environ.get("AWS_REGION") or None
    )


def region(of: boto3.session.Session) -> str:
    """The region of a session. Raises AwsRefusedError where none is set."""
    name = of.region_name
    if not name:
        raise AwsRefusedError("Set AWS_REGION: no region is configured", code="NoRegion")
    return name


def dns_suffix(of: boto3.session.Session, region_name: str) -> str:
    """The DNS suffix of a region's partition: amazonaws.com, amazonaws.com.cn, …

    Source: the partitions that the SDK itself resolves endpoints by.
    """
    # boto3 has no public door to its partition data; botocore's loader is the documented one.
    import re  # noqa: PLC0415 - botocore has imported it already; only this function needs it

    loader = of._session.get_component("data_loader")  # noqa: SLF001
    partitions: list[dict[str, Any]] = loader.load_data("partitions")["partitions"]
    for partition in partitions:
        if region_name in partition["regions"] or re.match(partition["regionRegex"], region_name):
            return str(partition["outputs"]["dnsSuffix"])
    return str(partitions[0]["outputs"]["dnsSuffix"])


@contextmanager
def explained(what: str) -> Iterator[None]:
    """Turn the SDK's errors into ours. `what` is the call as IAM names it: "ec2:DescribeInstances".

    Raises AwsUnavailableError for throttling, 5xx and silence, AwsRefusedError for the rest.
    """
    try:
        yield
    except ClientError as error:
        _raise(what, error)
    except HTTPClientError as error:  # time-outs, refused and broken connections
        raise AwsUnavailableError(f"{what}: AWS did not answer: {error}") from error
    except BotoCoreError as error:  # no credentials, no region, a parameter that the model refuses
        raise AwsRefusedError(f"{what}: {error}", code=type(error).__name__) from error


def _raise(what: str, error: ClientError) -> NoReturn:
    code = error.response.get("Error", {}).get("Code", "")
    message = error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _THROTTLED or status >= _SERVER_FAULT:
        raise AwsUnavailableError(f"{what}: {code}: {message}") from error
    advice = ""
    if code in {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException"}:
        advice = f"Allow {what} to this function's role. "
    raise AwsRefusedError(f"{advice}{what}: {code}: {message}", code=code) from error
