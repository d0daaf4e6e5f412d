"""What holds in every tier."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

# A busy machine is no failure: properties are about values, and speed is the benchmarks' business.
settings.register_profile(
    "project", deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
settings.load_profile("project")
