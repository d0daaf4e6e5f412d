"""The handler's result, its errors, its log lines and its metrics."""

from __future__ import annotations

import asyncio
import json
import traceback
from dataclasses import replace
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from lambdas.common.errors import PermanentError, SettingsError
from lambdas.spot_handler import handler, interruption, report
from lambdas.spot_handler.result import Outcome, PodCounts, RemainingPod, Result
from tests.functional.spot_handler.conftest import call
from tests.support.events import EVENT_ID, spot_notice

pytestmark = pytest.mark.usefixtures("container")


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("shared_account")
def test_an_event_of_an_unknown_kind_is_ignored(capsys: pytest.CaptureFixture[str]) -> None:
    result = call(spot_notice(detail_type="EC2 Instance Rebalance Recommendation"))
    assert result["outcome"] == "ignored"
    log = next(line for line in lines(capsys) if "level" in line)
    assert (log["level"], log["outcome"]) == ("INFO", "ignored")


SECRET = "IQoJb3JpZ2luX2VjE"


class Ec2:
    """An EC2 client whose DescribeInstances raises this error."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def describe_instances(self, **_: object) -> None:
        raise self._error


def refused(message: str) -> ClientError:
    return ClientError(
        {"Error": {"Code": "SignatureDoesNotMatch", "Message": message}}, "DescribeInstances"
    )


@pytest.mark.usefixtures("shared_account")
@pytest.mark.parametrize(
    ("error", "words"),
    [
        # AWS repeats the refused request, with its session token, after a long message.
        (refused("because " * 1000 + SECRET), "ec2:DescribeInstances: SignatureDoesNotMatch"),
        (KeyError(SECRET), "Report this as a bug: KeyError at "),
    ],
    ids=["refused", "a bug"],
)
def test_a_failure_logs_its_own_message_and_not_that_of_its_cause(
    error: Exception, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deps = replace(handler.dependencies(), ec2=Ec2(error))  # type: ignore[arg-type]
    with pytest.raises(PermanentError) as caught:
        asyncio.run(handler.respond(spot_notice(), deps, remaining=147.0))
    (line,) = lines(capsys)
    assert (line["level"], line["message"]) == ("ERROR", "The drain failed")
    assert words in line["fault"]
    assert len(json.dumps(line)) < 2_000
    # Lambda logs the raised error with its causes.
    shown = "".join(traceback.format_exception(caught.value))
    assert SECRET not in json.dumps(line) + shown


@pytest.mark.usefixtures("shared_account")
@pytest.mark.parametrize("event", [None, [], "x", 1, {}, spot_notice("web-1"), spot_notice(5)])
def test_a_malformed_event_is_rejected_and_not_retried(
    capsys: pytest.CaptureFixture[str], event: object
) -> None:
    result = call(event)
    assert result["outcome"] == "rejected"
    assert result["reason"].startswith("Malformed event: ")
    log = next(line for line in lines(capsys) if "level" in line)
    assert (log["level"], log["outcome"]) == ("ERROR", "rejected")
    assert log["reason"] == result["reason"]


@pytest.mark.usefixtures("shared_account")
def test_the_result_is_json_with_every_documented_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interruption, "REGISTRATION", 0.0)  # EC2 is asked once
    result = call(spot_notice("i-0000000000000dead"))
    assert json.loads(json.dumps(result)) == result
    assert result | {"seconds": 0, "deadline": None} == {
        "outcome": "ignored",
        "reason": "EC2 does not know the instance",
        "instance": "i-0000000000000dead",
        "cluster": "",
        "node": "",
        "deadline": None,
        "seconds": 0,
        "pods": {"evicted": 0, "forced": 0, "gone": 0, "left": 0, "skipped": 0},
        "left": [],
    }


@pytest.mark.usefixtures("shared_account")
def test_wrong_settings_fail_the_invocation_and_are_all_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MODE", "evict")
    monkeypatch.setenv("CONCURRENCY", "none")
    with pytest.raises(SettingsError, match=r'MODE: .*"evict".*CONCURRENCY: .*"none"'):
        call(spot_notice())


RESULT = Result(
    Outcome.PARTIAL,
    instance="i-0123456789abc0001",
    kind="spot-interruption",
    cluster="shop",
    node="n",
    event_id=EVENT_ID,
    given=1000.0,
    deadline=1120.0,
    started=1002.0,
    ended=1050.0,
    cordoned_at=1003.0,
    pods=PodCounts(evicted=12, forced=1, left=[RemainingPod("shop/db", "blocked")]),
)
RESULT.pods.answers.update({"201": 12, "429": 9})


def test_the_outcome_is_one_log_line(capsys: pytest.CaptureFixture[str]) -> None:
    report.log(RESULT)
    (line,) = lines(capsys)
    assert line["level"] == "INFO"
    assert line["message"] == "partial in 48.0 s: 12 evicted, 1 forced, 1 left"
    for key, value in {
        "instance": "i-0123456789abc0001", "cluster": "shop", "node": "n", "event_id": EVENT_ID,
        "outcome": "partial", "left": [{"pod": "shop/db", "reason": "blocked"}],
        "deadline": "1970-01-01T00:18:40Z",
    }.items():  # fmt: skip
        assert line[key] == value


def metrics(capsys: pytest.CaptureFixture[str]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Dimension values → metric → value."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in lines(capsys):
        (directive,) = line["_aws"]["CloudWatchMetrics"]
        assert directive["Namespace"] == "CastAI/SpotHandler"
        (names,) = directive["Dimensions"]
        values = tuple(line[name] for name in sorted(names))  # cluster, code, outcome, service
        found.setdefault(values, {}).update(
            {metric["Name"]: line[metric["Name"]][0] for metric in directive["Metrics"]}
        )
    return found


def test_metrics_have_dimensions_for_cluster_and_outcome_and_for_the_service(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.measure(RESULT)
    found = metrics(capsys)
    figures = {
        "Notices": 1, "NoticeToCordon": 3, "PodsEvicted": 12, "PodsForced": 1, "PodsLeft": 1,
    }  # fmt: skip
    assert found[("spot-handler",)] == figures
    assert found[("shop", "partial", "spot-handler")] == figures
    assert found[("shop", "201", "partial", "spot-handler")] == {"EvictionAnswers": 12}
    assert found[("shop", "429", "partial", "spot-handler")] == {"EvictionAnswers": 9}


def test_notice_to_drained_is_measured_for_a_drained_node(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.measure(replace(RESULT, outcome=Outcome.DRAINED, drained_at=1050.0))
    assert metrics(capsys)[("shop", "drained", "spot-handler")]["NoticeToDrained"] == 50


def test_a_notice_without_a_cluster_is_counted_under_none(
    capsys: pytest.CaptureFixture[str],
) -> None:
    report.measure(Result(Outcome.IGNORED))
    assert metrics(capsys)[("none", "ignored", "spot-handler")] == {"Notices": 1}


@pytest.mark.usefixtures("shared_account")
def test_with_a_secret_castai_is_called_with_the_key_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    secrets = boto3.client("secretsmanager", region_name="eu-central-1")
    secrets.create_secret(Name="castai/api-key", SecretString="key-of-the-tests")
    monkeypatch.setenv("CASTAI_API_KEY_SECRET", "castai/api-key")
    monkeypatch.setenv("CASTAI_API_URL", "https://api.eu.cast.invalid")
    castai = handler.dependencies().castai
    assert castai is not None
    assert (castai.url, castai.read_key()) == ("https://api.eu.cast.invalid", "key-of-the-tests")
    assert "key-of-the-tests" not in repr(castai)


@pytest.mark.usefixtures("shared_account")
def test_without_a_secret_castai_is_not_called() -> None:
    assert handler.dependencies().castai is None
