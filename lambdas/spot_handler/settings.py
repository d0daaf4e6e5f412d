"""The function's settings: environment variables, read once, every fault named in one error.

The annotations are shared with the CDK settings, which write these variables.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Final

from msgspec import Meta, Struct, field

from lambdas.common import properties
from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.errors import SettingsError


class Mode(StrEnum):
    """How far the handler goes: drain; cordon only; or plan and write nothing."""

    DRAIN = "drain"
    CORDON = "cordon"
    DRY_RUN = "dry-run"


class OnDeadline(StrEnum):
    """What happens to a pod that a budget still blocks when its grace would no longer fit."""

    FORCE = "force"
    LEAVE = "leave"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


CONCURRENCY_LIMIT: Final = 500  # connections; a Lambda has 1,024 file descriptors
MARGIN_LIMIT: Final = 60  # s; half the notice


ModeSetting = Annotated[
    Mode, Meta(description="How far to go: drain, cordon only, or plan without any write.")
]
OnDeadlineSetting = Annotated[
    OnDeadline,
    Meta(
        description="What to do with a pod that a PodDisruptionBudget still blocks when its grace "
        "period would no longer fit: delete it in spite of the budget, or leave and report it."
    ),
]
Concurrency = Annotated[
    int,
    Meta(ge=1, le=CONCURRENCY_LIMIT, description="Evictions in flight at a time, for each node."),
]
Margin = Annotated[
    float,
    Meta(ge=0, le=MARGIN_LIMIT, description="Seconds kept free before the instance is terminated."),
]
LogLevelSetting = Annotated[
    LogLevel,
    Meta(description="Least severity that a function logs. Libraries log warnings and errors."),
]


class Environment(Struct, frozen=True, kw_only=True, rename="upper"):
    """What a platform team may choose. A field's encoded name is its environment variable."""

    mode: ModeSetting = Mode.DRAIN
    on_deadline: OnDeadlineSetting = OnDeadline.FORCE
    concurrency: Concurrency = 50
    margin: Margin = field(name="MARGIN_SECONDS", default=5.0)
    clusters: frozenset[str] = frozenset()
    """Names of the clusters whose nodes are drained; empty: all of the account and region."""
    drill_sources: frozenset[str] = frozenset()
    """Event sources beside `aws.ec2` whose events are handled like those of EC2."""
    log_level: Annotated[LogLevelSetting, Meta(extra={"before": str.upper})] = LogLevel.INFO
    api_key_secret: str = field(name="CASTAI_API_KEY_SECRET", default="")
    """Secrets Manager name or ARN of CAST AI's API key; empty: CAST AI gets no report."""
    api_url: Annotated[str, Meta(extra={"check": checked_url})] = field(
        name="CASTAI_API_URL", default=DEFAULT_URL
    )

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Environment:
        """Read the function's environment variables.

        An unset or empty variable means its default. Raises SettingsError with every fault.
        """
        given = {name: text for name, text in environment.items() if text.strip()}
        values, faults = properties.read(cls, given, text=True)
        if faults:
            said = "; ".join(str(fault) for fault in faults)
            raise SettingsError(f"Correct the function's environment: {said}")
        return cls(**values)
