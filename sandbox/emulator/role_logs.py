"""Write a function's log lines only if its role has the permissions, as on AWS.

A log group that is missing, like one that a stack has just deleted, is created only if the role
may do that.
"""

from typing import Any

import guard
from permissions import Permissions


def install(permissions: Permissions) -> None:
    """Wrap the emulator's log writer, which checks no permission."""
    functions = guard.module("ministack.services.lambda_svc")
    logs = guard.module("ministack.services.cloudwatch_logs")
    guard.value(logs, "_log_groups", object)
    write = guard.function(
        functions, "_emit_lambda_logs", "func", "request_id", "log_text", "error", "duration_ms"
    )

    def write_if_allowed(func: dict[str, Any], *rest: Any, **named: Any) -> None:
        config = func.get("config") or func
        _arn, _aws, _lambda, region, account, _function, name, *_ = config["FunctionArn"].split(":")
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}"
        group_arn = f"arn:aws:logs:{region}:{account}:log-group:{group}"
        stream_arn = f"{group_arn}:log-stream:sandbox"
        needed = [("logs:CreateLogStream", stream_arn), ("logs:PutLogEvents", stream_arn)]
        if group not in logs._log_groups:
            needed.append(("logs:CreateLogGroup", group_arn))
        if all(permissions.role_may(config, action, arn) for action, arn in needed):
            write(func, *rest, **named)

    functions._emit_lambda_logs = write_if_allowed  # type: ignore[attr-defined]
