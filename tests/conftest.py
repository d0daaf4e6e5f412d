"""Settings for the tests of every tier."""

from __future__ import annotations

import gc
import os
import ssl
from functools import cache
from typing import Any

import httpcore2
from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings

# A synth in a test does not use the network: uv does not fetch a Python for the zips' bytecode.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

# Without time limits: a busy machine is no failure, and the benchmarks measure speed. The examples
# follow from the test's code, so that a failure is repeatable; `--hypothesis-seed=N` takes others.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    derandomize=True,
    max_examples=15,
)
# What `make long` takes.
settings.register_profile("long", settings.get_profile("project"), max_examples=100)
settings.load_profile("project")


def pytest_collection_finish() -> None:
    """Keep the modules and tests of the session out of every search for garbage.

    Python searches after 700 new objects, and a worker has a million: a fifth of the unit tier.
    """
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


# botocore reads the description of an API anew for each session, for EC2 in 0.3 s. No client
# changes it. A third of the functional tier's time was this.
_read = JSONFileLoader.load_file


@cache
def _read_once(path: str) -> Any:
    return _read(JSONFileLoader(), path)


JSONFileLoader.load_file = lambda _self, file_path: _read_once(file_path)  # type: ignore[method-assign]


# A client of httpx2 reads the file of all public authorities anew, for plain HTTP too, in 0.03 s.
_authorities = httpcore2.default_ssl_context


@cache
def _authorities_once(trust_env: bool, *_environment: str | None) -> ssl.SSLContext:
    return _authorities(_trust_env=trust_env)


def _context(*, _trust_env: bool = True) -> ssl.SSLContext:
    return _authorities_once(_trust_env, *map(os.environ.get, ("SSL_CERT_FILE", "SSL_CERT_DIR")))


httpcore2.default_ssl_context = _context
