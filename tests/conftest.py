"""Settings for the tests of every tier."""

from __future__ import annotations

import os
from functools import cache
from typing import Any

from botocore.loaders import JSONFileLoader
from hypothesis import HealthCheck, settings

# A synth in a test does not use the network: uv does not fetch a Python for the zips' bytecode.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

# Without time limits: a busy machine is no failure, and the benchmarks measure speed.
settings.register_profile(
    "project",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
    max_examples=25,
)
# What `make long` takes.
settings.register_profile("long", settings.get_profile("project"), max_examples=100)
settings.load_profile("project")

# botocore reads the description of an API anew for each session, for EC2 in 0.3 s. No client
# changes it. A third of the functional tier's time was this.
_read = JSONFileLoader.load_file


@cache
def _read_once(path: str) -> Any:
    return _read(JSONFileLoader(), path)


JSONFileLoader.load_file = lambda _self, file_path: _read_once(file_path)  # type: ignore[method-assign]
