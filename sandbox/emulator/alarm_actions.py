"""CloudWatch publishes to an alarm's topics only where the topic's policy lets it.

The emulator publishes in any case. The alarm's history shows each action, as on AWS: there alone is
a refusal seen.
CloudWatch cannot use SNS's own key, either.
Sources: SNS developer guide, "Example cases for Amazon SNS access control"; CloudWatch API
reference, DescribeAlarmHistory.
"""

import json
import time
from typing import Any

import guard
from authorization import Check
from permissions import Permissions

_FIELDS = {
    "ALARM": "AlarmActions",
    "OK": "OKActions",
    "INSUFFICIENT_DATA": "InsufficientDataActions",
}


class AlarmActions:
    """Filters the topics of an alarm by their policies."""

    def __init__(self, permissions: Permissions) -> None:
        self._permissions = permissions
        self._cloudwatch = guard.module("ministack.services.cloudwatch")
        self._sns = guard.module("ministack.services.sns")
        self._dispatch = guard.function(
            self._cloudwatch,
            "_dispatch_alarm_actions",
            *("alarm", "old_state", "new_state", "reason"),
        )
        guard.function(self._cloudwatch, "_is_sns_action_arn", "action")
        guard.function(self._cloudwatch, "_history_entries")
        guard.function(self._cloudwatch, "_ts_iso", "epoch")
        guard.function(self._sns, "topic_policy_for_arn", "topic_arn")
        guard.function(self._sns, "_topic_by_arn_any_scope", "topic_arn")

    def install(self) -> None:
        """Patch the emulator's CloudWatch."""
        self._cloudwatch._dispatch_alarm_actions = self._allowed  # type: ignore[attr-defined]

    def _allowed(self, alarm: dict[str, Any], old_state: str, new_state: str, reason: str) -> None:
        field = _FIELDS.get(new_state, "")
        actions = alarm.get(field) or []
        if actions and alarm.get("ActionsEnabled", True):
            topics = [each for each in actions if self._cloudwatch._is_sns_action_arn(each)]
            errors = {topic: self._error(alarm, topic) for topic in topics}
            for topic, error in errors.items():
                self._record(alarm, topic, error)
            alarm = {**alarm, field: [each for each in actions if not errors.get(each)]}
        self._dispatch(alarm, old_state, new_state, reason)

    def _error(self, alarm: dict[str, Any], topic: str) -> str:
        """Return why CloudWatch may not publish to the topic; empty if it may."""
        source = alarm["AlarmArn"]
        found = self._sns._topic_by_arn_any_scope(topic) or {}
        if found.get("attributes", {}).get("KmsMasterKeyId", "").endswith("alias/aws/sns"):
            return "null (Service: AWSKMS; Status Code: 400; Error Code: AccessDeniedException)"
        policy, _owner = self._sns.topic_policy_for_arn(topic) or ("", "")
        if self._permissions.service_may(
            "cloudwatch.amazonaws.com", policy, Check("sns:Publish", topic), source
        ):
            return ""
        return (
            f"Resource: {source} is not authorized to perform: SNS:Publish on resource: {topic} "
            "because no resource-based policy allows the SNS:Publish action"
        )

    def _record(self, alarm: dict[str, Any], topic: str, error: str) -> None:
        summary = f"Successfully executed action {topic}"
        if error:
            summary = f'Failed to execute action {topic}. Received error: "{error}"'
        data = {
            "actionState": "Failed" if error else "Succeeded",
            "notificationResource": topic,
            "error": error or None,
        }
        self._cloudwatch._history_entries().append(
            {
                "AlarmName": alarm["AlarmName"],
                "AlarmType": "CompositeAlarm" if "AlarmRule" in alarm else "MetricAlarm",
                "Timestamp": self._cloudwatch._ts_iso(time.time()),
                "HistoryItemType": "Action",
                "HistorySummary": summary,
                "HistoryData": json.dumps(data),
            }
        )
