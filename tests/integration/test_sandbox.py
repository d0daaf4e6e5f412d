"""`up` and `down`: idempotent, every process ends, another cluster instead of the simulated one."""

from __future__ import annotations

import ssl
from pathlib import Path

import httpx2
import pytest

from lambdas.common import eks
from sandbox import kubernetes, lifecycle
from sandbox.aws import Aws
from sandbox.errors import SandboxError
from sandbox.processes import Process
from sandbox.state import State

pytestmark = pytest.mark.long


def test_a_second_up_changes_nothing_and_down_ends_every_process(folder: Path) -> None:
    first = lifecycle.up(folder, print)
    assert lifecycle.up(folder, print) == first
    processes = first.processes()
    assert len(processes) == 3
    assert all(process.alive() for process in processes.values())
    assert lifecycle.down(folder) == list(processes)
    assert not any(process.alive() for process in processes.values())
    assert not folder.exists()
    assert lifecycle.down(folder) == []


def test_a_sandbox_with_an_ended_process_is_started_again(folder: Path) -> None:
    first = lifecycle.up(folder, print)
    assert first.kubernetes is not None
    assert isinstance(first.kubernetes.process, Process)
    first.kubernetes.process.end()
    with pytest.raises(SandboxError, match="python -m sandbox up"):
        lifecycle.running(folder)
    second = lifecycle.up(folder, print)
    assert lifecycle.running(folder) == second
    assert not any(process.alive() for process in first.processes().values())


def test_another_cluster_is_used_instead_of_the_simulated_one(folder: Path, state: State) -> None:
    """The user's cluster in this test is the one of the session's sandbox."""
    assert state.kubernetes is not None
    other = Path(state.kubernetes.kubeconfig)
    placed = lifecycle.up(folder, print, kubeconfig=other)
    assert placed.kubernetes is not None
    assert placed.kubernetes.process is None
    account = Aws(placed)
    endpoint, authority = kubernetes.server(other)
    described = account.eks.describe_cluster(name=placed.cluster)["cluster"]
    assert described["endpoint"] == endpoint
    review_config = (folder / "token-review.kubeconfig").read_text()
    assert placed.kubernetes.token_review_url in review_config
    assert _reviewed(placed, account, placed.cluster)
    assert not _reviewed(placed, account, "another")
    assert authority.startswith("-----BEGIN CERTIFICATE-----")


def _reviewed(state: State, account: Aws, cluster: str) -> bool:
    """Whether the TokenReview URL authenticates the administrator's token for that cluster."""
    assert state.kubernetes is not None
    credentials = account.session.get_credentials()
    assert credentials is not None
    token = eks.sign_token(
        credentials, region=account.region, dns_suffix="amazonaws.com", cluster=cluster
    )
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    tls = ssl.create_default_context(cafile=state.ca)
    with httpx2.Client(verify=tls, trust_env=False) as client:
        answer = client.post(state.kubernetes.token_review_url, json=review)
    return bool(answer.json()["status"].get("authenticated"))
