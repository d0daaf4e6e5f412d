"""Lambda's asynchronous invocation: queue, retries, age limit, on-failure destination.

The emulator starts a thread for each event, counts throttling as a failed attempt, and sends
failure records without a check by IAM. Here a bounded pool runs events in order, throttled events
wait as on AWS, and the failure record is sent with the function's own role.
Behaviour: AWS Lambda developer guide, "How Lambda handles errors and retries with asynchronous
invocation" and "Capturing records of Lambda asynchronous invocations".
"""

import dataclasses
import json
import logging
import os
import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import boto3

import guard

DEFAULT_RETRIES = 2
DEFAULT_MAX_AGE = 21_600  # s: six hours
THROTTLE_PAUSE = 1.0  # s between tries while the function has no free concurrency
KEPT = 500  # deliveries kept for the control API

logger = logging.getLogger("sandbox.asynchronous")


@dataclasses.dataclass
class Delivery:
    """The asynchronous invocation of a function with an event."""

    function: str
    event: Any
    accepted: float
    request: str = dataclasses.field(default_factory=lambda: str(uuid.uuid4()))
    attempts: int = 0
    state: str = "queued"
    """Queued, running, succeeded, failed, expired or discarded."""
    result: Any = None

    def as_json(self) -> dict[str, Any]:
        """Return what the control API shows: of the payloads, only the function's result."""
        event_id = self.event.get("id", "") if isinstance(self.event, dict) else ""
        return {
            "function": self.function.split(":")[6],
            "event": event_id,
            "accepted": self.accepted,
            "attempts": self.attempts,
            "state": self.state,
            "result": self.result,
        }


class AsyncInvocations:
    """Replaces the emulator's ``invoke_async_with_retry``."""

    def __init__(self, workers: int, retry_pause: float, endpoint: str) -> None:
        self._lambda = guard.module("ministack.services.lambda_svc")
        self._responses = guard.module("ministack.core.responses")
        self._runtime = guard.module("ministack.core.lambda_runtime")
        guard.function(self._lambda, "invoke_async_with_retry", "func", "event")
        guard.function(self._lambda, "_get_func_record_for_ref", "function_ref")
        guard.function(self._lambda, "_get_base_func_record_for_ref", "function_ref")
        guard.function(self._lambda, "_execution_record_for_config", "func", "config")
        guard.function(self._lambda, "_execute_function_with_config_scope", "func", "event")
        guard.function(self._lambda, "_event_invoke_config", "func", "qualifier")
        guard.function(self._runtime, "execution_credentials", "config")
        guard.function(self._responses, "request_scope", "account_id", "region")
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="asynchronous")
        self._retry_pause = retry_pause
        self._endpoint = endpoint
        self._deliveries: list[Delivery] = []
        self._lock = threading.Lock()
        self._closed = False

    def install(self) -> None:
        """Patch the emulator: all its asynchronous invocations use this class."""
        self._lambda.invoke_async_with_retry = self._accept_record  # type: ignore[attr-defined]

    def accept(self, function_arn: str, event: Any) -> None:
        """Queue the event and return at once, as AWS does with a 202."""
        delivery = Delivery(function_arn, event, time.time())
        with self._lock:
            self._deliveries = [*self._deliveries[1 - KEPT :], delivery]
        self._pool.submit(self._attempt, delivery)

    def deliveries(self) -> list[dict[str, Any]]:
        """The last deliveries, oldest first."""
        with self._lock:
            return [delivery.as_json() for delivery in self._deliveries]

    def close(self) -> None:
        """Accept no more events, and do not wait for those that run."""
        self._closed = True
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _accept_record(self, func: dict[str, Any], event: Any) -> None:
        self.accept((func.get("config") or func)["FunctionArn"], event)

    def _attempt(self, delivery: Delivery) -> None:
        try:
            self._run(delivery)
        except Exception:
            delivery.state = "discarded"
            logger.exception("asynchronous invocation of %s", delivery.function)

    def _run(self, delivery: Delivery) -> None:
        record, config = self._function(delivery.function)
        if record is None or config is None:
            delivery.state = "discarded"
            return
        settings = self._invoke_config(delivery.function)
        oldest = delivery.accepted + int(settings.get("MaximumEventAgeInSeconds", DEFAULT_MAX_AGE))
        if time.time() > oldest:
            self._give_up(delivery, config, settings, "EventAgeExceeded")
            return
        delivery.state = "running"
        execution = self._lambda._execution_record_for_config(record, config)
        answer = self._lambda._execute_function_with_config_scope(execution, delivery.event)
        delivery.result = answer.get("body")
        if answer.get("throttle"):
            delivery.state = "queued"
            self._later(THROTTLE_PAUSE, delivery)
            return
        delivery.attempts += 1
        if not answer.get("error"):
            delivery.state = "succeeded"
            return
        if delivery.attempts > int(settings.get("MaximumRetryAttempts", DEFAULT_RETRIES)):
            self._give_up(delivery, config, settings, "RetriesExhausted")
            return
        pause = self._retry_pause * delivery.attempts  # AWS: one minute, then two
        if time.time() + pause > oldest:
            self._give_up(delivery, config, settings, "EventAgeExceeded")
            return
        delivery.state = "queued"
        self._later(pause, delivery)

    def _function(self, arn: str) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
        """Look the function up for each attempt: it may have been changed or deleted."""
        _arn, _aws, _lambda, region, account, *_rest = arn.split(":")
        with self._responses.request_scope(account, region):
            record, config, _name = self._lambda._get_func_record_for_ref(arn)
        return record, config

    def _invoke_config(self, arn: str) -> dict[str, Any]:
        """Return the invoked alias's settings, else the function's.

        CDK sets the function's with the qualifier $LATEST, other tools without a qualifier.
        """
        _arn, _aws, _lambda, region, account, _function, _name, *qualifier = arn.split(":")
        with self._responses.request_scope(account, region):
            record, _config, _name = self._lambda._get_base_func_record_for_ref(arn)
        for name in qualifier or ("$LATEST", None):
            if found := self._lambda._event_invoke_config(record or {}, name):
                return dict(found)
        return {}

    def _later(self, seconds: float, delivery: Delivery) -> None:
        def submit() -> None:
            if not self._closed:
                self._pool.submit(self._attempt, delivery)

        timer = threading.Timer(seconds, submit)
        timer.daemon = True
        timer.start()

    def _give_up(
        self,
        delivery: Delivery,
        config: dict[str, Any],
        settings: dict[str, Any],
        condition: str,
    ) -> None:
        destination = settings.get("DestinationConfig", {}).get("OnFailure", {}).get("Destination")
        dead_letters = (config.get("DeadLetterConfig") or {}).get("TargetArn")
        try:
            if destination:
                self._send(config, destination, json.dumps(_record(delivery, config, condition)))
            if dead_letters:
                self._send(config, dead_letters, json.dumps(delivery.event))
        except Exception:
            # AWS only counts DestinationDeliveryFailures. Here the error is logged, too.
            logger.exception("%s: the failed event reached no destination", delivery.function)
        delivery.state = "failed" if condition == "RetriesExhausted" else "expired"

    def _send(self, config: dict[str, Any], target: str, body: str) -> None:
        """Send with the function's own role, so that a missing permission is an error."""
        keys = self._runtime.execution_credentials(config)
        _arn, _aws, service, region, account, name = target.split(":", 5)
        session = boto3.Session(
            keys["AWS_ACCESS_KEY_ID"],
            keys["AWS_SECRET_ACCESS_KEY"],
            keys["AWS_SESSION_TOKEN"],
            region_name=region,
        )
        client = session.client(
            service, endpoint_url=self._endpoint, verify=os.environ["AWS_CA_BUNDLE"]
        )
        if service == "sqs":
            client.send_message(QueueUrl=f"{self._endpoint}/{account}/{name}", MessageBody=body)
        elif service == "sns":
            client.publish(TopicArn=target, Message=body)
        else:
            raise NotImplementedError(f"on-failure destination {target}")


def _record(delivery: Delivery, config: dict[str, Any], condition: str) -> dict[str, Any]:
    """Return the invocation record that a destination receives."""
    context: dict[str, Any] = {"statusCode": 200, "executedVersion": "$LATEST"}
    if delivery.attempts:
        context["functionError"] = "Unhandled"
    return {
        "version": "1.0",
        "timestamp": datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "requestContext": {
            "requestId": delivery.request,
            "functionArn": f"{config['FunctionArn']}:$LATEST",
            "condition": condition,
            "approximateInvokeCount": delivery.attempts,
        },
        "requestPayload": delivery.event,
        "responseContext": context,
        "responsePayload": delivery.result,
    }
