"""What holds in every tier."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A test of a synth is none of the network: where there is no Python for the zips' bytecode, uv is
# not to fetch one.
os.environ.setdefault("UV_PYTHON_DOWNLOADS", "never")

# A busy machine is no failure: properties are about values, and speed is the benchmarks' business.
settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("project")
