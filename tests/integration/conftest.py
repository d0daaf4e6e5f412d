"""The sandbox, started once in a session: emulator, simulated cluster, a stack by `cdk deploy`.

Every test drains nodes of its own, and may run alone and in any order.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
from lightkube import Client

from sandbox import aws, kubernetes, lifecycle
from sandbox.aws import Aws
from sandbox.cdk import Cdk
from sandbox.state import API_KEY_SECRET, CastAi, State
from tests.integration.pool import Pool

LEAST_PRIVILEGE = {"castai:rolePolicies": "least-privilege"}
ALARM_EMAIL = {"castai:alarmEmail": "operations@example.com"}
# Every function logs at DEBUG, where a secret would be logged.
DEBUG_LOG = {"castai:logLevel": "DEBUG"}
SIGNED = ("k8s-aws-v1.", "X-Amz-Signature", "AWS4-HMAC-SHA256")


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> Iterator[None]:
    """Remove AWS settings from the environment, and restore it for other tiers of the run."""
    before = dict(os.environ)
    aws.isolate()
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[State]:
    """A running sandbox with the demo's workloads."""
    folder = tmp_path_factory.mktemp("sandbox")
    yield lifecycle.up(folder, print)
    lifecycle.down(folder)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder for another sandbox, which ends with the test."""
    yield tmp_path / "sandbox"
    lifecycle.down(tmp_path / "sandbox")


@pytest.fixture(scope="session")
def account(state: State) -> Aws:
    """The sandbox's AWS account, as the administrator."""
    return Aws(state)


@pytest.fixture(scope="session")
def admin(state: State) -> Iterator[Client]:
    """The sandbox's cluster, as the administrator."""
    with kubernetes.administrator(state) as client:
        yield client


@pytest.fixture
def castai(state: State) -> CastAi:
    """The sandbox's simulated CAST AI."""
    assert state.castai is not None
    return state.castai


def castai_log(castai: CastAi) -> dict[str, Any]:
    """The state and the calls of the simulated CAST AI."""
    log: dict[str, Any] = httpx2.get(f"{castai.url}/_sandbox/log").json()
    return log


@pytest.fixture(scope="session")
def stack(state: State, account: Aws) -> Cdk:
    """The spot handler, deployed with the least-privilege policies and with alarms by e-mail."""
    cdk = Cdk(account, Path(state.folder), name="least-privilege")
    assert state.castai is not None
    castai = {"castai:apiKeySecret": API_KEY_SECRET, "castai:apiUrl": state.castai.url}
    settings = {**castai, **LEAST_PRIVILEGE, **DEBUG_LOG, **ALARM_EMAIL}
    cdk.synth({"castai:clusters": state.cluster, **settings})
    cdk.bootstrap()
    cdk.deploy()
    return cdk


def assert_no_secret_is_logged(account: Aws, function: str, *secrets: str) -> None:
    """Search the log of a function for keys, tokens and signatures. The log must not be empty."""
    pages = account.logs.get_paginator("filter_log_events").paginate(
        logGroupName=f"/aws/lambda/{function}"
    )
    lines = [event["message"] for page in pages for event in page["events"]]
    assert any('"level":"INFO"' in line for line in lines)
    key = account.secrets.get_secret_value(SecretId=API_KEY_SECRET)["SecretString"]
    for forbidden in (key, *secrets, *SIGNED):
        assert [line[:200] for line in lines if forbidden in line] == []


@pytest.fixture
def pool(
    state: State, account: Aws, admin: Client, stack: Cdk, request: pytest.FixtureRequest
) -> Pool:
    """Nodes for one test, on which only the test's pods run."""
    del stack  # deployed before a notice is given
    return Pool(state, account, admin, request.node.name)


@contextmanager
def faulty(account: Aws, faults: Iterable[tuple[str, str, str]]) -> Iterator[None]:
    """Let the next call of each operation fail once, and check that each was called."""
    for service, operation, code in faults:
        account.fail(service, operation, code)
    yield
    assert account.faults_left() == []
