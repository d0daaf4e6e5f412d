"""AWS for the function of a day: the SDK as it is, with answers in place of the network."""

from __future__ import annotations

import base64
import io
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs

import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ReadTimeoutError

from lambdas.spot_handler import lean_sdk
from simulation.drain.events import REGION

SECRET_KEY = "simulated-secret-access-key"  # noqa: S105 - looked for in every log line
SESSION_TOKEN = "simulated-session-token"  # noqa: S105
CERTIFICATE = "-----BEGIN CERTIFICATE-----\nsimulated\n-----END CERTIFICATE-----\n"
ENDPOINT = "https://cluster.invalid"

_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "simulated",
    "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    "AWS_SESSION_TOKEN": SESSION_TOKEN,
    "AWS_REGION": REGION,
    "AWS_DEFAULT_REGION": REGION,
}
_ERROR = (
    "<Response><Errors><Error><Code>{code}</Code><Message>by a fault</Message></Error></Errors>"
    "<RequestID>0</RequestID></Response>"
)

Answers = Callable[[str, str], tuple[int, bytes]]
"""The name of a call and its argument (instance id or cluster) to a status and a body.

Raises TimeoutError (AWS does not answer)."""


class Aws:
    """The SDK's session, shared by all days of this process. `answers` is the day's AWS."""

    def __init__(self) -> None:
        self.answers: Answers | None = None
        self.session: botocore.session.Session = lean_sdk.session.__wrapped__()
        self.session.register("before-send", self._answer)
        self.ec2: Any = None

    def _answer(self, **given: Any) -> Any:
        request: AWSPreparedRequest = given["request"]
        assert self.answers is not None  # noqa: S101 - no call outside a day
        if ".eks." in request.url or "/clusters/" in request.url:
            call, argument = "DescribeCluster", request.url.rpartition("/")[2]
        else:
            body = request.body.decode() if isinstance(request.body, bytes) else str(request.body)
            call, argument = "DescribeInstances", parse_qs(body)["InstanceId.1"][0]
        try:
            status, content = self.answers(call, argument)
        except TimeoutError:
            raise ReadTimeoutError(endpoint_url=request.url) from None
        raw = _Raw(content)
        return AWSResponse(request.url, status, HTTPHeaders(), raw)


class _Raw(io.BytesIO):
    """The body as urllib3 streams it."""

    def stream(self, **_: object) -> Iterator[bytes]:
        yield self.read()


def cluster_json(name: str) -> bytes:
    """The answer of DescribeCluster."""
    certificate = base64.b64encode(CERTIFICATE.encode()).decode()
    found = {
        "name": name,
        "status": "ACTIVE",
        "endpoint": ENDPOINT,
        "certificateAuthority": {"data": certificate},
    }
    return json.dumps({"cluster": found}).encode()


def error(call: str, code: str) -> bytes:
    """The body of an error, in the protocol of the call's service."""
    if call == "DescribeCluster":
        return json.dumps({"__type": code, "message": "by a fault"}).encode()
    return _ERROR.format(code=code).encode()


@contextmanager
def environment() -> Iterator[None]:
    """The function's credentials and region."""
    before = {name: os.environ.get(name) for name in _ENVIRONMENT}
    os.environ.update(_ENVIRONMENT)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
