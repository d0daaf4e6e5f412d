"""The sandbox's AWS account: sessions, environment, and the emulator's control API."""

from __future__ import annotations

import json
import os
import re
import ssl
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

import boto3
from boto3.session import Session
from botocore.config import Config

from sandbox.errors import SandboxError
from sandbox.state import Emulator, State

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client
    from mypy_boto3_eks import EKSClient
    from mypy_boto3_events import EventBridgeClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_lambda import LambdaClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_secretsmanager import SecretsManagerClient
    from mypy_boto3_sqs import SQSClient

SPOT_NOTICE = "EC2 Spot Instance Interruption Warning"
API_TIMEOUT = 30.0  # s, of the control API
# No profile, no credentials file, no metadata service: the SDK uses only what it is given.
NO_ACCOUNT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def isolate() -> None:
    """Remove this shell's AWS settings, so that no request reaches a real account."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(NO_ACCOUNT)
    # This shell's proxy cannot reach this machine's loopback addresses.
    direct = [os.environ.get("NO_PROXY", ""), "localhost", "127.0.0.1"]
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = ",".join(filter(None, direct))


def sdk_environment(state: State) -> dict[str, str]:
    """Return the administrator's environment. Raises SandboxError if there is none yet."""
    if state.emulator is None or state.administrator is None:
        raise SandboxError("Start the sandbox first: python -m sandbox up")
    return {
        "AWS_ENDPOINT_URL": state.emulator.endpoint,
        "AWS_ACCESS_KEY_ID": state.administrator.access_key,
        "AWS_SECRET_ACCESS_KEY": state.administrator.secret_key,
        "AWS_REGION": state.region,
        "AWS_DEFAULT_REGION": state.region,
        "AWS_CA_BUNDLE": state.ca,
        "NODE_EXTRA_CA_CERTS": state.ca,
    }


class Aws:
    """A running emulator, with the administrator's credentials."""

    def __init__(self, state: State) -> None:
        if state.emulator is None:
            raise SandboxError("Start the sandbox first: python -m sandbox up")
        self._state = state
        self._emulator: Emulator = state.emulator
        self._tls = ssl.create_default_context(cafile=state.ca)

    @property
    def account(self) -> str:
        return self._state.account

    @property
    def region(self) -> str:
        return self._state.region

    def environment(self) -> dict[str, str]:
        """Return the environment with which AWS SDKs, CDK CLI and AWS CLI use the sandbox."""
        return sdk_environment(self._state)

    def iam_as_root(self) -> IAMClient:
        """Return IAM of the root user, which is needed only to create the administrator."""
        root = boto3.Session(self.account, self._emulator.root_secret, region_name=self.region)
        return root.client("iam", **self.client_options())

    @cached_property
    def session(self) -> Session:
        """A session of the administrator."""
        environment = self.environment()
        return Session(
            environment["AWS_ACCESS_KEY_ID"],
            environment["AWS_SECRET_ACCESS_KEY"],
            region_name=self.region,
        )

    def client(self, service: str) -> Any:  # noqa: ANN401 - boto3's clients are dynamic
        """Return the administrator's client of a service that has no property here."""
        return self.session.client(service, **self.client_options())  # type: ignore[call-overload] # by name

    @cached_property
    def ec2(self) -> EC2Client:
        return self.session.client("ec2", **self.client_options())

    @cached_property
    def eks(self) -> EKSClient:
        return self.session.client("eks", **self.client_options())

    @cached_property
    def iam(self) -> IAMClient:
        return self.session.client("iam", **self.client_options())

    @cached_property
    def sqs(self) -> SQSClient:
        return self.session.client("sqs", **self.client_options())

    @cached_property
    def secrets(self) -> SecretsManagerClient:
        return self.session.client("secretsmanager", **self.client_options())

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        return self.session.client("logs", **self.client_options())

    @cached_property
    def events(self) -> EventBridgeClient:
        return self.session.client("events", **self.client_options())

    @cached_property
    def functions(self) -> LambdaClient:
        return self.session.client("lambda", **self.client_options())

    def client_options(self) -> dict[str, Any]:
        """Return the options with which a boto3 client reaches the sandbox."""
        return {
            "endpoint_url": self._emulator.endpoint,
            "verify": self._state.ca,
            "config": Config(retries={"total_max_attempts": 3, "mode": "standard"}),
        }

    # The control API: sandbox/emulator/control_api.py

    def publish(self, event: dict[str, Any]) -> str:
        """Publish an event of an AWS service on the default event bus. Returns the event's id."""
        return str(self._control("POST", "events", event)["id"])

    def token_review_url(self, cluster: str) -> str:
        """Return the URL of the TokenReview webhook for the cluster's EKS tokens."""
        return str(self._control("GET", f"clusters/{cluster}")["token_review_url"])

    def place_cluster(self, cluster: str, endpoint: str, certificate_authority: str) -> None:
        """Set the endpoint and the CA (PEM) that DescribeCluster returns."""
        place = {"endpoint": endpoint, "certificate_authority": certificate_authority}
        self._control("PUT", f"clusters/{cluster}", place)

    def share_vpc(self, vpc: str, owner: str) -> None:
        """Let another account own the VPC and share its subnets with this one."""
        self._control("PUT", f"vpcs/{vpc}", {"owner": owner})

    def fail(
        self, service: str, operation: str, code: str = "", *, message: str = "", times: int = 1
    ) -> None:
        """Let the next calls of an operation fail with this error, and change nothing.

        service: as in an ARN. code: the service's throttling by default.
        """
        fault = {"service": service, "operation": operation, "code": code}
        self._control("POST", "faults", {**fault, "message": message, "times": times})

    def faults_left(self) -> list[dict[str, Any]]:
        """Return the faults that no call has met yet."""
        left: list[dict[str, Any]] = self._control("GET", "faults")["faults"]
        return left

    def clear_faults(self) -> None:
        """Forget the faults that no call has met yet."""
        self._control("DELETE", "faults")

    def deliveries(self, event: str = "") -> list[dict[str, Any]]:
        """Return asynchronous invocations, oldest first: all, or those of one event."""
        found: list[dict[str, Any]] = self._control("GET", "deliveries")["deliveries"]
        return [delivery for delivery in found if event in ("", delivery["event"])]

    def workers(self) -> list[dict[str, Any]]:
        """Return the processes that run functions: function, pid, busy."""
        found: list[dict[str, Any]] = self._control("GET", "workers")["workers"]
        return found

    def _control(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        request = urllib.request.Request(  # noqa: S310 - our own https endpoint
            f"{self._emulator.endpoint}/_sandbox/{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"X-Sandbox-Token": self._emulator.token},
        )
        try:
            with urllib.request.urlopen(request, context=self._tls, timeout=API_TIMEOUT) as answer:  # noqa: S310
                found: dict[str, Any] = json.load(answer)
                return found
        except urllib.error.HTTPError as error:
            raise SandboxError(f"{method} {path}: {error.read().decode()}") from error
        except OSError as error:
            raise SandboxError(
                f"Start the sandbox again (python -m sandbox up): the emulator does not answer at "
                f"{self._emulator.endpoint}: {error}"
            ) from error


def spot_notice(
    instance: str, *, action: str = "terminate", given: datetime | None = None, state: State
) -> dict[str, Any]:
    """Return the event that EC2 sends two minutes before it interrupts the instance.

    given: time of the notice, now by default.
    """
    zone = next((node.zone for node in state.nodes if node.instance == instance), state.region)
    return {
        "source": "aws.ec2",
        "detail-type": SPOT_NOTICE,
        "time": (given or datetime.now(UTC)).isoformat(),
        # In this event the instance's ARN has the zone instead of region and account.
        "resources": [f"arn:aws:ec2:{zone}:instance/{instance}"],
        "detail": {"instance-id": instance, "instance-action": action},
    }


def moment(text: str) -> datetime:
    """Parse `--time`: RFC 3339, or seconds ago as in `90s`. Raises SandboxError otherwise."""
    try:
        if seconds := re.fullmatch(r"(\d+(\.\d+)?)s", text):
            return datetime.now(UTC) - timedelta(seconds=float(seconds.group(1)))
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise SandboxError(
            f"Give --time as 2026-01-31T12:00:00Z or as seconds ago, 90s: {error}"
        ) from error
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
