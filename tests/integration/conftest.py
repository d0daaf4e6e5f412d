"""The sandbox, started once: the emulator, the simulated cluster, the stack by a real cdk deploy.

Every test drains nodes of its own and may run alone, in any order.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from lightkube import Client

from sandbox import aws, kubernetes, lifecycle
from sandbox.aws import Aws
from sandbox.cdk import Cdk
from sandbox.state import API_KEY_SECRET, State
from tests.integration.pool import Pool

LEAST_PRIVILEGE = {"castai:rolePolicies": "least-privilege"}
# Every function logs as much as it can: what must not be logged would be there.
LOUD = {"castai:logLevel": "DEBUG"}
SIGNED = ("k8s-aws-v1.", "X-Amz-Signature", "AWS4-HMAC-SHA256")


@pytest.fixture(scope="session", autouse=True)
def _isolated() -> Iterator[None]:
    """No real AWS account in reach; other tiers of the same run get their environment back."""
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


@pytest.fixture(scope="session")
def account(state: State) -> Aws:
    """Its AWS account, as the administrator."""
    return Aws(state)


@pytest.fixture(scope="session")
def admin(state: State) -> Iterator[Client]:
    """Its cluster, as the administrator."""
    with kubernetes.administrator(state) as client:
        yield client


@pytest.fixture(scope="session")
def stack(state: State, account: Aws) -> Cdk:
    """The spot handler, deployed with the least that it needs."""
    cdk = Cdk(account, Path(state.folder), name="least-privilege")
    assert state.castai is not None
    castai = {"castai:apiKeySecret": API_KEY_SECRET, "castai:apiUrl": state.castai.url}
    cdk.synth({"castai:clusters": state.cluster, **castai, **LEAST_PRIVILEGE, **LOUD})
    cdk.bootstrap()
    cdk.deploy()
    return cdk


def assert_no_secret_is_logged(account: Aws, function: str, *secrets: str) -> None:
    """Search a function's whole log for keys, tokens and signatures. It has to log something."""
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
    """Nodes for one test, on which nothing runs but what the test puts there."""
    del stack  # deployed before a notice is given
    return Pool(state, account, admin, request.node.name)
