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
from sandbox.state import State
from tests.integration.pool import Pool

LEAST_PRIVILEGE = {"castai:rolePolicies": "least-privilege"}


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
    cdk.synth({"castai:clusters": state.cluster, **LEAST_PRIVILEGE})
    cdk.bootstrap()
    cdk.deploy()
    return cdk


@pytest.fixture
def pool(
    state: State, account: Aws, admin: Client, stack: Cdk, request: pytest.FixtureRequest
) -> Pool:
    """Nodes for one test, on which nothing runs but what the test puts there."""
    del stack  # deployed before a notice is given
    return Pool(state, account, admin, request.node.name)
