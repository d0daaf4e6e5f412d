"""Input of the sandbox: options, environment, state file and kubeconfig."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandbox import aws, cdk, kubernetes, wait
from sandbox.errors import SandboxError
from sandbox.processes import Process
from sandbox.state import Administrator, Emulator, Node, State

STATE = State(
    folder="/nowhere",
    ca="/nowhere/ca.pem",
    emulator=Emulator(Process(1, 1.0), "https://localhost:1", "token", "root"),
    administrator=Administrator("AKIA", "secret"),
    nodes=(Node("i-0aa", "ip-1", "eu-central-1b", spot=True),),
)


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """A shell that is logged in to a real account, behind a proxy."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_PROFILE", "production")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "real")
    monkeypatch.setenv("NO_PROXY", "intranet")
    monkeypatch.setenv("no_proxy", "intranet")
    for name in aws.NO_ACCOUNT:
        monkeypatch.setenv(name, "x")  # so that the test's end undoes what isolate sets


@pytest.mark.usefixtures("shell")
def test_isolate_removes_the_shells_aws_settings() -> None:
    aws.isolate()
    assert {name for name in os.environ if name.startswith("AWS_")} == set(aws.NO_ACCOUNT)
    assert os.environ["NO_PROXY"] == "intranet,localhost,127.0.0.1"


@pytest.mark.usefixtures("shell")
def test_cdk_gets_the_sandboxs_credentials_and_no_other(tmp_path: Path) -> None:
    environment = cdk.environment_from(aws.sdk_environment(STATE), tmp_path)
    assert "AWS_PROFILE" not in environment
    assert "AWS_SESSION_TOKEN" not in environment
    assert environment["AWS_ACCESS_KEY_ID"] == "AKIA"
    assert environment["AWS_ENDPOINT_URL"] == "https://localhost:1"
    assert environment["CDK_HOME"].startswith(str(tmp_path))


def test_a_time_is_a_moment_or_seconds_ago() -> None:
    assert aws.moment("2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert aws.moment("2026-01-31T12:00:00").tzinfo == UTC
    before = datetime.now(UTC) - timedelta(seconds=90)
    assert before <= aws.moment("90s") <= datetime.now(UTC) - timedelta(seconds=90)


@pytest.mark.parametrize("text", ["", "yesterday", "s", "-5s", "12"])
def test_the_error_for_a_wrong_time_shows_the_format(text: str) -> None:
    with pytest.raises(SandboxError, match="90s"):
        aws.moment(text)


def test_a_notice_has_the_format_of_ec2() -> None:
    given = datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert aws.spot_notice("i-0aa", given=given, state=STATE) == {
        "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "time": "2026-01-31T12:00:00+00:00",
        "resources": ["arn:aws:ec2:eu-central-1b:instance/i-0aa"],
        "detail": {"instance-id": "i-0aa", "instance-action": "terminate"},
    }


def test_state_survives_a_round_trip_and_is_private(tmp_path: Path) -> None:
    state = State(folder=str(tmp_path), nodes=STATE.nodes, emulator=STATE.emulator)
    state.save()
    assert State.load(tmp_path) == state
    assert (tmp_path / "state.json").stat().st_mode & 0o077 == 0


def test_no_state_is_no_sandbox(tmp_path: Path) -> None:
    assert State.load(tmp_path) is None


def test_the_error_for_a_state_of_another_version_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "state.json").write_text('{"pid": 1}')
    with pytest.raises(SandboxError, match=r"Remove .*state\.json"):
        State.load(tmp_path)


KUBECONFIG = """
apiVersion: v1
kind: Config
current-context: it
contexts: [{name: it, context: {cluster: it, user: me}}]
users: [{name: me, user: {token: secret}}]
clusters: [{name: it, cluster: {server: "https://127.0.0.1:6443", %s}}]
"""


@pytest.mark.parametrize(
    "authority",
    [
        pytest.param("certificate-authority: ca.pem", id="file beside the kubeconfig"),
        pytest.param("certificate-authority-data: UEVN", id="data"),
    ],
)
def test_another_clusters_endpoint_is_read_from_its_kubeconfig(
    tmp_path: Path, authority: str
) -> None:
    (tmp_path / "ca.pem").write_text("PEM")
    (tmp_path / "config").write_text(KUBECONFIG % authority)
    assert kubernetes.server(tmp_path / "config") == ("https://127.0.0.1:6443", "PEM")


def test_a_kubeconfig_without_authority_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config").write_text(KUBECONFIG % "insecure-skip-tls-verify: true")
    with pytest.raises(SandboxError, match="certificate-authority"):
        kubernetes.server(tmp_path / "config")


def test_until_returns_the_first_truthy_result() -> None:
    answers = iter(["", "", "found"])
    assert wait.until(lambda: next(answers), "it", timeout=5, interval=0) == "found"


def test_until_fails_after_the_timeout() -> None:
    with pytest.raises(SandboxError, match="waited 0 s for a pod"):
        wait.until(lambda: None, "a pod", timeout=0, interval=0)
