"""The function's settings: environment variables, read once, every fault named in one error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from lambdas.common.errors import SettingsError

T = TypeVar("T")


class Mode(StrEnum):
    """How far to go: drain; cordon only; or read, plan and write nothing."""

    DRAIN = "drain"
    CORDON = "cordon"
    DRY_RUN = "dry-run"


class OnDeadline(StrEnum):
    """What becomes of a pod that its budget still blocks when its grace would no longer fit."""

    FORCE = "force"
    LEAVE = "leave"


class LogLevel(StrEnum):
    DEBUG = "DEBUG"
    INFO = "INFO"
    WARNING = "WARNING"
    ERROR = "ERROR"


CONCURRENCY_LIMIT = 500  # connections; a Lambda has 1,024 file descriptors
MARGIN_LIMIT = 60.0  # s; half the notice


@dataclass(frozen=True)
class Settings:
    """What a platform team may choose.

    concurrency: evictions in flight. margin: seconds kept free before the deadline.
    clusters: names of the clusters that are ours; empty: all of the account and region.
    drill_sources: sources of events beside aws.ec2 that are handled as if they were EC2's.
    api_key_secret: Secrets Manager name or ARN of CAST AI's API key; empty: CAST AI is not told.
    """

    mode: Mode = Mode.DRAIN
    on_deadline: OnDeadline = OnDeadline.FORCE
    concurrency: int = 50
    margin: float = 5.0
    clusters: frozenset[str] = frozenset()
    drill_sources: frozenset[str] = frozenset()
    log_level: LogLevel = LogLevel.INFO
    api_key_secret: str = ""
    api_url: str = "https://api.cast.ai"

    @classmethod
    def from_env(cls, environment: Mapping[str, str]) -> Settings:
        """Read MODE, ON_DEADLINE, CONCURRENCY, MARGIN_SECONDS, CLUSTERS, DRILL_SOURCES,
        LOG_LEVEL, CASTAI_API_KEY_SECRET and CASTAI_API_URL.

        An unset or empty variable means its default. Raises SettingsError with every fault.
        """
        faults: list[str] = []

        def read(name: str, parse: Callable[[str], T], default: T, allowed: str) -> T:
            text = environment.get(name, "").strip()
            if not text:
                return default
            try:
                return parse(text)
            except ValueError:
                faults.append(f"{name}={text!r}: expected {allowed}")
                return default

        settings = cls(
            mode=read("MODE", Mode, cls.mode, _one_of(Mode)),
            on_deadline=read("ON_DEADLINE", OnDeadline, cls.on_deadline, _one_of(OnDeadline)),
            concurrency=read(
                "CONCURRENCY",
                _concurrency,
                cls.concurrency,
                f"a whole number from 1 to {CONCURRENCY_LIMIT}",
            ),
            margin=read(
                "MARGIN_SECONDS", _margin, cls.margin, f"seconds from 0 to {MARGIN_LIMIT:g}"
            ),
            clusters=_names(environment.get("CLUSTERS", "")),
            drill_sources=_names(environment.get("DRILL_SOURCES", "")),
            log_level=read(
                "LOG_LEVEL", lambda text: LogLevel(text.upper()), cls.log_level, _one_of(LogLevel)
            ),
            api_key_secret=environment.get("CASTAI_API_KEY_SECRET", "").strip(),
            api_url=read("CASTAI_API_URL", _url, cls.api_url, f"a URL like {cls.api_url}"),
        )
        if faults:
            raise SettingsError("Correct the function's environment: " + "; ".join(faults))
        return settings


def _names(text: str) -> frozenset[str]:
    return frozenset(name.strip() for name in text.split(",") if name.strip())


def _one_of(choices: type[StrEnum]) -> str:
    return "one of " + ", ".join(choices)


def _url(text: str) -> str:
    if not text.startswith(("https://", "http://")):
        raise ValueError(text)
    return text


def _concurrency(text: str) -> int:
    number = int(text)
    if not 1 <= number <= CONCURRENCY_LIMIT:
        raise ValueError(text)
    return number


def _margin(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and 0 <= number <= MARGIN_LIMIT):
        raise ValueError(text)
    return number
