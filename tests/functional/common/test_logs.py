"""In a function the loggers of libraries have at least WARNING, whatever level Lambda sets."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from lambdas.common.logs import LIBRARIES

# As in Lambda's runtime: the root logger's handler and level, then the import of the handler.
SHOW = """
import importlib, json, logging, sys
root = logging.getLogger()
root.addHandler(logging.StreamHandler())
root.setLevel(sys.argv[2])
importlib.import_module(sys.argv[1])
print(json.dumps({name: logging.getLogger(name).getEffectiveLevel() for name in sys.argv[3:]}))
"""
LOGGERS = ("", *LIBRARIES, "botocore.parsers", "botocore.auth", "httpcore2.http11", "asyncio")


@pytest.mark.parametrize("package", ["spot_handler", "onboarding", "agent"])
@pytest.mark.parametrize(
    ("given", "least"), [("DEBUG", "WARNING"), ("INFO", "WARNING"), ("ERROR", "ERROR")]
)
def test_loggers_of_libraries_have_at_least_warning(package: str, given: str, least: str) -> None:
    handler = f"lambdas.{package}.handler"
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        (sys.executable, "-c", SHOW, handler, given, *LOGGERS),
        capture_output=True,
        text=True,
        check=True,
    )
    levels = json.loads(done.stdout)
    number = {"WARNING": 30, "ERROR": 40}[least]
    assert levels == dict.fromkeys(LOGGERS, number)
