"""The agent's stack by real deploys: connected, changed, removed, and what a failure says."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest
from lightkube import ApiError, Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

from sandbox import demo
from sandbox.aws import Aws
from sandbox.castai_api.server import running
from sandbox.castai_api.state import State as Castai
from sandbox.cdk import Cdk
from sandbox.errors import SandboxError
from sandbox.state import State

KEY = "castai-key-of-the-integration-tests"
SECRET = "castai/api-key"
NAME = "castai-agent"
LOOK = 0.2  # s between looks of the agent that is played


@pytest.fixture(scope="module")
def castai(account: Aws) -> Iterator[tuple[Castai, str]]:
    """CAST AI, simulated, and the API key in Secrets Manager."""
    secrets = account.session.client("secretsmanager", **account.client_options())
    secrets.create_secret(Name=SECRET, SecretString=KEY)
    simulated = Castai(KEY)
    with running(simulated) as url:
        yield simulated, url
    secrets.delete_secret(SecretId=SECRET, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def reporting(castai: tuple[Castai, str], admin: Client) -> Iterator[None]:
    """Plays the agent's part: reports once its Deployment is available."""
    simulated, _ = castai
    end = Event()

    def report() -> None:
        while not end.wait(LOOK):
            deployment = _found(admin, Deployment, NAME, namespace=NAME)
            if deployment and deployment.status and deployment.status.availableReplicas:
                for cluster_id in list(simulated.clusters):
                    simulated.agent(cluster_id, "online")

    thread = Thread(target=report, daemon=True)
    thread.start()
    yield
    end.set()
    thread.join()


def _found(admin: Client, kind: Any, name: str, **where: str) -> Any:
    try:
        return admin.get(kind, name, **where)
    except ApiError as error:
        if error.status.code == 404:
            return None
        raise


def cdk_of(state: State, account: Aws, url: str, **more: str) -> Cdk:
    cdk = Cdk(account, Path(state.folder), name="agent")
    context = {
        "castai:agentClusters": state.cluster,
        "castai:apiKeySecret": SECRET,
        "castai:apiUrl": url,
        **{f"castai:{key}": value for key, value in more.items()},
    }
    cdk.synth(context)
    return cdk


@pytest.mark.usefixtures("stack", "reporting")
def test_connect_change_and_disconnect(
    state: State, account: Aws, admin: Client, castai: tuple[Castai, str]
) -> None:
    simulated, url = castai
    cdk = cdk_of(state, account, url)
    cdk.deploy("castai-agent")
    try:
        outputs = cdk.outputs()
        (cluster_id,) = simulated.clusters
        assert outputs[f"{state.cluster.capitalize()}ClusterId"] == cluster_id
        assert admin.get(Deployment, NAME, namespace=NAME).status.readyReplicas == 1
        entries = account.eks.list_access_entries(clusterName=state.cluster)["accessEntries"]
        assert [each for each in entries if NAME in each] == []
        cdk_of(state, account, url, agentReplicas="2").deploy("castai-agent")
        assert admin.get(Deployment, NAME, namespace=NAME).spec.replicas == 2
        shown = json.dumps(simulated.shown()) + (Path(state.folder) / "cdk.log").read_text()
        assert KEY not in shown
    finally:
        cdk.destroy("castai-agent")
    for kind, name in ((Namespace, NAME), (ClusterRole, NAME), (ClusterRoleBinding, NAME)):
        assert _found(admin, kind, name) is None
    assert [each for each in demo.leftovers(account) if "agent" in each.lower()] == []


@pytest.mark.usefixtures("stack")
def test_a_wrong_key_fails_the_deployment_with_what_to_do_and_leaves_nothing(
    state: State, account: Aws, admin: Client, castai: tuple[Castai, str]
) -> None:
    simulated, url = castai
    simulated.api_key = "another"
    cdk = cdk_of(state, account, url, namePrefix="wrong")
    try:
        with pytest.raises(SandboxError, match="Give a valid CAST AI API key"):
            cdk.deploy("wrong-agent")
        assert _found(admin, Namespace, NAME) is None
    finally:
        simulated.api_key = KEY
        cdk.destroy("wrong-agent")
