"""The agent's stack by `cdk deploy`: connect, change, disconnect, and a failed deployment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lightkube import ApiError, Client
from lightkube.resources.apps_v1 import Deployment
from lightkube.resources.core_v1 import Namespace
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

from kubesim.certificates import Certificates
from sandbox import account as accounts
from sandbox import cluster_process, kubernetes
from sandbox.aws import Aws
from sandbox.castai_api.reporter import reporting
from sandbox.cdk import Cdk
from sandbox.demo import inventory
from sandbox.errors import SandboxError
from sandbox.state import API_KEY_SECRET, CastAi, Node, State
from tests.integration.conftest import DEBUG_LOG, assert_no_secret_is_logged, castai_log, faulty

NAME = "castai-agent"
SECOND = "second"
# Errors that AWS gives for a moment. The agent's function tries again.
FOR_A_MOMENT = (
    ("eks", "DescribeCluster", ""),
    ("eks", "CreateAccessEntry", "InvalidParameterException"),
    ("eks", "CreateAccessEntry", ""),
    ("eks", "AssociateAccessPolicy", ""),
    ("eks", "DeleteAccessEntry", ""),
)


@pytest.fixture
def second(state: State, account: Aws, tmp_path: Path) -> Iterator[Client]:
    """A second cluster of the account, as its administrator, with simulated agent reports."""
    first = account.eks.describe_cluster(name=state.cluster)["cluster"]
    accounts.create_cluster(account, SECOND, first["resourcesVpcConfig"]["subnetIds"])
    certificates = Certificates.ensure(state.path / "tls")
    started = cluster_process.start(tmp_path, certificates, account.token_review_url(SECOND))
    assert started.process is not None
    try:
        kubeconfig = Path(started.kubeconfig)
        account.place_cluster(SECOND, *kubernetes.server(kubeconfig))
        with kubernetes.connect(kubeconfig) as client, reporting(client):
            node = Node(f"i-{SECOND}", f"{SECOND}-1", f"{state.region}a", spot=False)
            kubernetes.join(client, [node])
            yield client
    finally:
        started.process.end()
        account.eks.delete_cluster(name=SECOND)


def found(admin: Client, kind: Any, name: str) -> Any:
    try:
        return admin.get(kind, name)
    except ApiError as error:
        if error.status.code == 404:
            return None
        raise


def cdk_of(state: State, account: Aws, castai: CastAi, **more: str) -> Cdk:
    cdk = Cdk(account, Path(state.folder), name="agent")
    context = {
        "castai:agentClusters": state.cluster,
        "castai:apiKeySecret": API_KEY_SECRET,
        "castai:apiUrl": castai.url,
        **DEBUG_LOG,
        **{f"castai:{key}": value for key, value in more.items()},
    }
    cdk.synth(context)
    return cdk


@pytest.mark.long  # three deployments: about two and a half minutes
@pytest.mark.usefixtures("stack")
def test_the_agent_is_connected_changed_and_disconnected(
    state: State, account: Aws, admin: Client, second: Client, castai: CastAi
) -> None:
    """The change also removes the second cluster from the list."""
    cdk = cdk_of(state, account, castai, agentClusters=f"{SECOND},{state.cluster}")
    with faulty(account, FOR_A_MOMENT):
        cdk.deploy("castai-agent")
    try:
        assert found(second, Namespace, NAME) is not None
        (cluster,) = [c for c in castai_log(castai)["clusters"] if c["name"] == state.cluster]
        assert cdk.outputs()[f"{state.cluster.capitalize()}ClusterId"] == cluster["id"]
        assert cluster["agent_status"] == "online"
        deployment = admin.get(Deployment, NAME, namespace=NAME)
        assert deployment.status is not None
        assert deployment.status.readyReplicas == 1
        entries = account.eks.list_access_entries(clusterName=state.cluster)["accessEntries"]
        assert [each for each in entries if NAME in each] == []
        assert_no_secret_is_logged(account, "castai-agent")
        cdk_of(state, account, castai, agentReplicas="2").deploy("castai-agent")
        deployment = admin.get(Deployment, NAME, namespace=NAME)
        assert deployment.spec is not None
        assert deployment.spec.replicas == 2
        for kind in (Namespace, ClusterRole, ClusterRoleBinding):
            assert found(second, kind, NAME) is None
        entries = account.eks.list_access_entries(clusterName=SECOND)["accessEntries"]
        assert [each for each in entries if NAME in each] == []
    finally:
        cdk.destroy("castai-agent")
    for kind in (Namespace, ClusterRole, ClusterRoleBinding):
        assert found(admin, kind, NAME) is None
    found_after = inventory.account(account, state.cluster)
    assert [name for _kind, name in found_after if "agent" in name.lower()] == []
    key = account.session.client("secretsmanager", **account.client_options()).get_secret_value(
        SecretId=API_KEY_SECRET
    )["SecretString"]
    folder = Path(state.folder)
    places = [json.dumps(castai_log(castai)), *(log.read_text() for log in folder.glob("*.log"))]
    places += [file.read_text() for file in folder.rglob("*.template.json")]
    places += [
        str(event["message"])
        for group in account.logs.describe_log_groups()["logGroups"]
        for event in account.logs.filter_log_events(logGroupName=group["logGroupName"])["events"]
    ]
    assert all(key not in text for text in places)


@pytest.mark.usefixtures("stack")
def test_a_wrong_key_fails_the_deployment_with_what_to_do_and_leaves_no_namespace(
    state: State, account: Aws, admin: Client, castai: CastAi
) -> None:
    secrets = account.session.client("secretsmanager", **account.client_options())
    secrets.create_secret(Name="castai/wrong", SecretString="not-the-key")
    cdk = cdk_of(state, account, castai, namePrefix="wrong", apiKeySecret="castai/wrong")
    try:
        with (
            faulty(account, [("secretsmanager", "GetSecretValue", "")]),
            pytest.raises(SandboxError, match="Give a valid CAST AI API key"),
        ):
            cdk.deploy("wrong-agent")
        assert found(admin, Namespace, NAME) is None
    finally:
        cdk.destroy("wrong-agent")
        secrets.delete_secret(SecretId="castai/wrong", ForceDeleteWithoutRecovery=True)
