"""Write a function's log lines only if its role has the permission, as on AWS."""

from typing import Any

import guard
from permissions import Permissions


def install(permissions: Permissions) -> None:
    """Wrap the emulator's log writer, which checks no permission."""
    functions = guard.module("ministack.services.lambda_svc")
    write = guard.function(
        functions, "_emit_lambda_logs", "func", "request_id", "log_text", "error", "duration_ms"
    )

    def write_if_allowed(func: dict[str, Any], *rest: Any, **named: Any) -> None:
        config = func.get("config") or func
        _arn, _aws, _lambda, region, account, _function, name, *_ = config["FunctionArn"].split(":")
        group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}"
        stream = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:sandbox"
        if all(
            permissions.role_may(config, action, stream)
            for action in ("logs:CreateLogStream", "logs:PutLogEvents")
        ):
            write(func, *rest, **named)

    functions._emit_lambda_logs = write_if_allowed  # type: ignore[attr-defined]
