"""Settings for the tests of every tier."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A synth in a test does not use the network: uv does not fetch a Python for the zips' bytecode.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

# Without time limits: a busy machine is no failure, and the benchmarks measure speed.
settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("project")
