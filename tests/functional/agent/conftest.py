"""The agent's function on a served cluster, the simulated CAST AI and a fake of EKS."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import boto3
import pytest

from kubesim import ServedCluster
from kubesim.cluster import ADMIN_TOKEN
from lambdas.agent.handler import Dependencies
from lambdas.agent.manifest import ClusterRef, Object, render
from lambdas.agent.properties import parse
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM
from lambdas.common.eks import Cluster, Token
from lambdas.common.kubernetes_objects import Kube, connect
from lambdas.common.names import AGENT
from sandbox.castai_api.state import State
from simulation.resources.eks import ACCOUNT, Entry, FakeEks, refusal
from tests.functional.conftest import CastaiServer

KEY = "castai-key-for-tests"
REGION = "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/agent-function"
CLUSTER = ClusterRef(account=ACCOUNT, region=REGION, name="prod")
OWNER = "stack/Agent"
AGENT_KINDS = (
    "Namespace", "ResourceQuota", "ServiceAccount", "Secret", "ConfigMap", "ClusterRole",
    "ClusterRoleBinding", "Role", "RoleBinding", "PodDisruptionBudget", "Deployment",
)  # fmt: skip


def of_the_agent(cluster: ServedCluster) -> set[str]:
    """The kinds and names of the agent's objects and of all that is in its namespace."""
    return {
        f"{kind} {each['metadata']['name']}"
        for kind in AGENT_KINDS
        for each in cluster.list(kind)
        if AGENT in (each["metadata"]["name"], each["metadata"].get("namespace"))
        and (kind, each["metadata"]["name"]) != ("ServiceAccount", "default")
        and each["metadata"]["name"] != "kube-root-ca.crt"
    }


def is_available(cluster: Any) -> bool:
    deployment = cluster.get("Deployment", AGENT, AGENT)
    return bool(deployment and deployment["status"].get("availableReplicas"))


@pytest.fixture
def cluster() -> Iterator[ServedCluster]:
    with ServedCluster() as served:
        served.add_node("node-1")
        yield served


@pytest.fixture
def kube(cluster: ServedCluster) -> Iterator[Kube]:
    with kube_of(cluster) as client:
        yield client


def kube_of(cluster: ServedCluster, token: str = ADMIN_TOKEN, **options: Any) -> Kube:
    here = Cluster(name="prod", endpoint=cluster.endpoint, ca_pem=cluster.ca_pem, region=REGION)
    return connect(here, Token(lambda: token), **options)


@pytest.fixture
def castai() -> State:
    return State(KEY)


@pytest.fixture
def castai_url(castai: State, castai_server: CastaiServer) -> str:
    return castai_server.serve(castai)


def objects(key: str = KEY, **properties: Any) -> list[Object]:
    agent = parse({"ClusterName": "prod", "ApiKeySecret": "castai/api-key", **properties})
    return render(agent, CLUSTER, key)


@cache
def _eks_meta() -> Any:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client("eks", region_name=REGION, **keys).meta


class Eks:
    """A client of the fake EKS that records the writes and fails where a test wants it."""

    def __init__(self, fake: FakeEks) -> None:
        self.fake = fake
        self.calls: list[str] = []
        """The writes: the verb, or the name of the policy that is associated."""
        self.throttled: dict[str, int] = {}
        """By operation: how many further calls get a ThrottlingException."""
        self.unknown_rights = 0
        """How many further calls are denied: a new policy is not effective in EKS at once."""
        self.unknown_principal = 0
        """How many further CreateAccessEntry are refused: the role was created shortly before."""
        self.denied: set[str] = set()
        """Operations that are not allowed."""

    @property
    def meta(self) -> Any:
        """The SDK's names of EKS's operations."""
        return _eks_meta()

    @property
    def entries(self) -> dict[str, Entry]:
        return self.fake.entries

    def __getattr__(self, name: str) -> Any:
        method = getattr(self.fake, name)

        def call(**arguments: Any) -> Any:
            self._limit(self.meta.method_to_api_mapping[name])
            if not name.startswith(("describe_", "list_")):
                policy = arguments.get("policyArn", "")
                self.calls.append(policy.rpartition("/")[2] or name.partition("_")[0])
            return method(**arguments)

        call.__name__ = name
        call.__self__ = self  # type: ignore[attr-defined]
        return call

    def _limit(self, operation: str) -> None:
        if self.unknown_rights:
            self.unknown_rights -= 1
            raise refusal("AccessDeniedException")
        if self.unknown_principal and operation == "CreateAccessEntry":
            self.unknown_principal -= 1
            raise refusal("InvalidParameterException", "invalid principal")
        if operation in self.denied:
            raise refusal("AccessDeniedException")
        if self.throttled.get(operation, 0):
            self.throttled[operation] -= 1
            raise refusal("ThrottlingException")


@dataclass
class Secrets:
    """One secret."""

    text: str = KEY
    throttled: int = 0

    def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803
        if self.throttled:
            self.throttled -= 1
            raise refusal("ThrottlingException")
        if SecretId != "castai/api-key":
            raise refusal("ResourceNotFoundException")
        return {"SecretString": self.text}


@pytest.fixture
def eks(cluster: ServedCluster) -> Eks:
    fake = FakeEks("prod", region=REGION, vpc="vpc-1")
    fake.mode, fake.endpoint, fake.ca_pem = "API", cluster.endpoint, cluster.ca_pem
    return Eks(fake)


@pytest.fixture
def secrets() -> Secrets:
    return Secrets(json.dumps({"api-key": KEY}))


@pytest.fixture
def deps(eks: Any, secrets: Any) -> Dependencies:
    return Dependencies(
        eks=eks,
        secrets=secrets,
        region=REGION,
        own_role=ROLE,
        open_kube=lambda cluster, clock, until, refusals_pass_until: connect(
            cluster,
            Token(lambda: ADMIN_TOKEN),
            clock=clock,
            until=until,
            refusals_pass_until=refusals_pass_until,
        ),
        open_api=lambda key, url, clock, until: CastaiApi(key, url, clock=clock, deadline=until),
        clock=SYSTEM,
    )
