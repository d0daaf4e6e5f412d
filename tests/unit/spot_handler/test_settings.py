from __future__ import annotations

import pytest

from lambdas.common.errors import SettingsError
from lambdas.spot_handler.settings import Environment, Mode, OnDeadline


def test_an_empty_environment_gives_the_defaults() -> None:
    assert Environment.from_env({}) == Environment()
    assert Environment.from_env({"MODE": " ", "CLUSTERS": ""}) == Environment()


def test_every_setting_is_read() -> None:
    settings = Environment.from_env(
        {
            "MODE": "dry-run",
            "ON_DEADLINE": "leave",
            "CONCURRENCY": "7",
            "MARGIN_SECONDS": "2.5",
            "CLUSTERS": "blue, green,,",
            "DRILL_SOURCES": "platform.drill",
            "LOG_LEVEL": "debug",
        }
    )
    assert settings.mode is Mode.DRY_RUN
    assert settings.on_deadline is OnDeadline.LEAVE
    assert (settings.concurrency, settings.margin) == (7, 2.5)
    assert settings.clusters == {"blue", "green"}
    assert settings.log_level == "DEBUG"


def test_one_error_names_every_fault_with_the_allowed_values() -> None:
    with pytest.raises(SettingsError) as caught:
        Environment.from_env(
            {
                "MODE": "evict",
                "ON_DEADLINE": "panic",
                "CONCURRENCY": "0",
                "MARGIN_SECONDS": "nan",
                "LOG_LEVEL": "loud",
            }
        )
    message = str(caught.value)
    for part in (
        'MODE: give drain, cordon or dry-run, not "evict"',
        'ON_DEADLINE: give force or leave, not "panic"',
        'CONCURRENCY: give a whole number from 1 to 500, not "0"',
        'MARGIN_SECONDS: give a number from 0 to 60, not "nan"',
        'LOG_LEVEL: give DEBUG, INFO, WARNING or ERROR, not "loud"',
    ):
        assert part in message


@pytest.mark.parametrize(
    ("name", "value"),
    [("CONCURRENCY", "501"), ("CONCURRENCY", "many"), ("MARGIN_SECONDS", "61"),
     ("MARGIN_SECONDS", "-1"), ("MARGIN_SECONDS", "inf")],
)  # fmt: skip
def test_a_number_outside_its_limits_is_a_fault(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        Environment.from_env({name: value})
