"""The root logger that a Python function starts with, as Lambda's runtime sets it up.

The runtime adds a handler to the root logger and, for the log format JSON, sets it to the
function's ApplicationLogLevel. It does both before it imports the function. The emulator does
neither.
Source: aws-lambda-python-runtime-interface-client, awslambdaric/bootstrap.py, _setup_logging.
"""

from typing import Any

import guard

SET_UP = """
import logging, os, sys
logging.getLogger().addHandler(logging.StreamHandler(sys.stderr))
if os.environ.get("AWS_LAMBDA_LOG_LEVEL"):
    logging.getLogger().setLevel(os.environ["AWS_LAMBDA_LOG_LEVEL"])
"""


def install() -> None:
    """Set each function's level in its environment, and set up the root logger before imports."""
    runtime = guard.module("ministack.core.lambda_runtime")
    credentials = guard.function(runtime, "execution_credentials", "config")
    script = guard.value(runtime, "_PYTHON_WORKER_SCRIPT", str)

    def with_level(config: dict[str, Any]) -> dict[str, str]:
        logging = config.get("LoggingConfig") or {}
        if logging.get("LogFormat") != "JSON":
            return dict(credentials(config))
        level = logging.get("ApplicationLogLevel", "INFO")
        return {**credentials(config), "AWS_LAMBDA_LOG_LEVEL": level}

    runtime.execution_credentials = with_level  # type: ignore[attr-defined]
    runtime._PYTHON_WORKER_SCRIPT = SET_UP + script  # type: ignore[attr-defined]
