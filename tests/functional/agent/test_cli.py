"""`castai-eks connect` and `disconnect` on a served cluster and the simulated CAST AI."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import session
from cli.main import app
from kubesim import ServedCluster
from kubesim.cluster import ADMIN_TOKEN
from lambdas.agent.read_only import NotReadOnlyError
from lambdas.common.castai import CastaiApi
from lambdas.common.eks import Token
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_objects import connect
from lambdas.common.names import AGENT
from lambdas.onboarding.context import Clients, Place
from lambdas.onboarding.session import Dependencies
from sandbox.castai_api.state import State
from tests.functional.agent.conftest import ACCOUNT, KEY, REGION, Eks, Secrets, is_available
from tests.support.fake_time import FakeTime

WRITER = """
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: castai-agent}
rules: [{apiGroups: [""], resources: [pods], verbs: [delete]}]
"""


@dataclass
class Waiting(FakeTime):
    """A FakeTime whose `sleep` also calls `then`."""

    now: float = 1_800_000_000.0
    then: Callable[[], None] = lambda: None

    def sleep(self, seconds: float) -> None:
        super().sleep(seconds)
        self.then()


@pytest.fixture
def waiting() -> Waiting:
    return Waiting()


@pytest.fixture
def run(
    eks: Eks, secrets: Secrets, castai_url: str, waiting: Waiting, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Result]:
    nothing: Any = None
    clients: Any = Clients(iam=nothing, ec2=nothing, eks=eks, secrets=secrets, functions=nothing)  # type: ignore[arg-type]
    tools = Dependencies(
        clients=clients,
        place=Place("aws", REGION, ACCOUNT),
        own_role=None,
        open_api=lambda key, url, clock, until: CastaiApi(key, url, clock=clock, deadline=until),
        open_kube=lambda cluster, _clock, until, refusals_pass_until: connect(
            cluster,
            Token(lambda: ADMIN_TOKEN),
            until=until,
            refusals_pass_until=refusals_pass_until,
        ),
        clock=waiting.clock,
    )
    monkeypatch.setattr(session, "dependencies", lambda _region: tools)

    def invoke(*arguments: str) -> Result:
        given = list(arguments)
        if given[0] == "connect":
            given += ["--api-key-secret", "castai/api-key", "-p", f"ApiUrl={castai_url}"]
        return CliRunner().invoke(app, given, catch_exceptions=False)

    return invoke


def test_connect_waits_until_castai_sees_the_agent_and_disconnect_leaves_nothing(
    run: Callable[..., Result], cluster: ServedCluster, castai: State, waiting: Waiting
) -> None:
    def report_online() -> None:
        cluster.until(is_available)
        (cluster_id,) = castai.clusters
        castai.agent(cluster_id, "online")

    waiting.then = report_online
    done = run("connect", "prod")
    assert done.exit_code == 0
    assert "CAST AI sees the agent." in done.output
    assert KEY not in done.output
    assert cluster.get("Deployment", AGENT, AGENT)
    gone = run("disconnect", "prod", "--yes")
    assert gone.exit_code == 0
    assert cluster.get("Namespace", AGENT) is None


def test_json_is_one_object_of_what_was_done(
    run: Callable[..., Result], cluster: ServedCluster, castai: State, waiting: Waiting
) -> None:
    def reported() -> None:
        cluster.until(is_available)
        castai.agent(*castai.clusters, "online")

    waiting.then = reported
    done = json.loads(run("connect", "prod", "--json").stdout)
    assert done["clusterId"] in castai.clusters
    assert "Deployment castai-agent/castai-agent" in done["changes"]["created"]
    with pytest.raises(PermanentError, match="Give --yes with --json"):
        run("disconnect", "prod", "--json")
    gone = json.loads(run("disconnect", "prod", "--json", "--yes").stdout)
    assert set(gone["changes"]["deleted"]) == set(done["changes"]["created"])


def test_connect_fails_with_the_reason_after_ready_within(
    run: Callable[..., Result], cluster: ServedCluster
) -> None:
    del cluster
    with pytest.raises(PermanentError, match=r"waited 60 s"):
        run("connect", "prod", "-p", "ReadyWithin=60")


def test_connect_creates_no_access_entry_for_the_user(run: Callable[..., Result], eks: Eks) -> None:
    with pytest.raises(PermanentError):
        run("connect", "prod", "-p", "ReadyWithin=60")
    assert eks.calls == []


def test_a_manifest_that_can_write_is_refused_before_any_apply(
    run: Callable[..., Result], cluster: ServedCluster, tmp_path: Path
) -> None:
    manifest = tmp_path / "agent.yaml"
    manifest.write_text(WRITER)
    with pytest.raises(NotReadOnlyError):
        run("connect", "prod", "--manifest", str(manifest))
    assert cluster.get("Namespace", AGENT) is None
    assert cluster.get("ClusterRole", AGENT) is None


def test_disconnect_asks_for_confirmation(run: Callable[..., Result], eks: Eks) -> None:
    assert run("disconnect", "prod").exit_code == 1
    assert eks.calls == []
