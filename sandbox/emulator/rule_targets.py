"""EventBridge → Lambda as AWS delivers it.

The emulator calls the function directly: without the asynchronous queue, the function's resource
policy and the target's dead-letter queue. A stack without the permission would pass its tests.
"""

import contextvars
import json
import logging
from typing import Any

import guard
from asynchronous import AsyncInvocations
from authorization import Check
from permissions import Permissions

logger = logging.getLogger("sandbox.rule_targets")

# The emulator passes only the ARN to its Lambda delivery. Here are the target and its rule.
_delivering: contextvars.ContextVar[tuple[dict[str, Any], dict[str, Any]]] = contextvars.ContextVar(
    "delivering"
)


class RuleTargets:
    """Delivers to Lambda targets. The emulator delivers to all others."""

    def __init__(self, invocations: AsyncInvocations, permissions: Permissions) -> None:
        self._events = guard.module("ministack.services.eventbridge")
        self._lambda = guard.module("ministack.services.lambda_svc")
        self._sqs = guard.module("ministack.services.sqs")
        guard.function(self._events, "_dispatch_to_lambda", "arn", "payload")
        guard.function(self._events, "_dispatch_to_sqs", "spec", "payload")
        guard.function(self._events, "_rule_arn", "rule_name", "bus_name")
        guard.function(self._sqs, "queue_policy_allows", "queue_arn", "service", "source_arn")
        guard.function(self._lambda, "_get_func_record_for_ref", "function_ref")
        self._invoke_target = guard.function(
            self._events, "_invoke_target", "target", "event", "rule", "view"
        )
        self._invocations = invocations
        self._permissions = permissions

    def install(self) -> None:
        """Patch the emulator's delivery, which does not pass the target on."""
        self._events._invoke_target = self._invoke_with_context  # type: ignore[attr-defined]
        self._events._dispatch_to_lambda = self._to_lambda  # type: ignore[attr-defined]

    def _invoke_with_context(
        self, target: dict[str, Any], event: Any, rule: dict[str, Any], view: Any = None
    ) -> None:
        before = _delivering.set((target, rule))
        try:
            self._invoke_target(target, event, rule, view)
        finally:
            _delivering.reset(before)

    def _to_lambda(self, arn: str, payload: str) -> None:
        target, rule = _delivering.get()
        rule_arn = self._events._rule_arn(rule["Name"], rule.get("EventBusName", "default"))
        function, _config, _name = self._lambda._get_func_record_for_ref(arn)
        if function is None:
            self._dead_letter(target, rule_arn, payload, "NO_RESOURCE")
        elif not self._permissions.service_may(
            "events.amazonaws.com",
            function.get("policy"),
            Check("lambda:InvokeFunction", arn),
            rule_arn,
        ):
            self._dead_letter(target, rule_arn, payload, "NO_PERMISSIONS")
        else:
            self._invocations.accept(arn, json.loads(payload))

    def _dead_letter(
        self, target: dict[str, Any], rule_arn: str, payload: str, reason: str
    ) -> None:
        queue = (target.get("DeadLetterConfig") or {}).get("Arn")
        logger.error("%s cannot invoke %s: %s", rule_arn, target.get("Arn"), reason)
        if not queue:
            return
        if not self._sqs.queue_policy_allows(
            queue, "events.amazonaws.com", rule_arn, rule_arn.split(":")[4]
        ):
            logger.error("%s: its queue policy does not let events.amazonaws.com send", queue)
            return
        arn = guard.module("ministack.core.arn")
        self._events._dispatch_to_sqs(arn.parse_arn(queue), payload)
