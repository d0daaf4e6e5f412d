"""Write a function's log lines only if its role has the permissions, as on AWS.

A log group that is missing, like one that a stack has just deleted, is created only if the role
may do that.

CloudWatch Logs evaluates logs:CreateLogGroup on the ARN of a stream without a name in the group.
The policy resource `…:log-group:NAME:*` matches it, and `…:log-group:NAME` does not. AWS names this
ARN in its refusals (elastic/apm-aws-lambda#526, widdix/aws-cf-templates#308), and asks for the `:*`
in the policies of all actions but those on tags:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/iam-access-control-overview-cwl.html
"""

from collections.abc import Container
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
        wanted = needed(config, logs._log_groups)
        if all(permissions.role_may(config, action, arn) for action, arn in wanted):
            write(func, *rest, **named)

    functions._emit_lambda_logs = write_if_allowed  # type: ignore[attr-defined]


def needed(config: dict[str, Any], groups: Container[str]) -> list[tuple[str, str]]:
    """Return the actions, with their resources, that writing the function's log takes.

    groups: the names of the log groups that exist.
    """
    _arn, _aws, _lambda, region, account, _function, name, *_ = config["FunctionArn"].split(":")
    group = (config.get("LoggingConfig") or {}).get("LogGroup") or f"/aws/lambda/{name}"
    streams = f"arn:aws:logs:{region}:{account}:log-group:{group}:log-stream:"
    stream = f"{streams}sandbox"
    actions = [("logs:CreateLogStream", stream), ("logs:PutLogEvents", stream)]
    return actions if group in groups else [*actions, ("logs:CreateLogGroup", streams)]
