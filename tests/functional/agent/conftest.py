"""The agent's function on a served cluster, the simulated CAST AI and a fake of EKS."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from kubesim import ServedCluster
from kubesim.cluster import ADMIN_TOKEN
from lambdas.agent.handler import Dependencies
from lambdas.agent.manifest import Object, Place, render
from lambdas.agent.properties import parse
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM
from lambdas.common.eks import Cluster, Token
from lambdas.common.kubernetes_objects import Kube, connect
from lambdas.common.names import AGENT
from sandbox.castai_api.server import running
from sandbox.castai_api.state import State

KEY = "castai-key-for-tests"
ACCOUNT = "123456789012"
REGION = "eu-central-1"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/agent-function"
PLACE = Place(account=ACCOUNT, region=REGION, cluster="prod")
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
def castai_url(castai: State) -> Iterator[str]:
    with running(castai) as url:
        yield url


def objects(key: str = KEY, **properties: Any) -> list[Object]:
    agent = parse({"ClusterName": "prod", "ApiKeySecret": "castai/api-key", **properties})
    return render(agent, PLACE, key)


def _refusal(code: str, operation: str) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "refused by the fake"}}, operation)


@cache
def _eks_meta() -> Any:
    keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
    return boto3.client("eks", region_name=REGION, **keys).meta


@dataclass
class Eks:
    """A fake of EKS: DescribeCluster and access entries, which moto does not have."""

    cluster: ServedCluster | None
    mode: str = "API"
    entries: dict[str, dict[str, Any]] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    throttled: dict[str, int] = field(default_factory=dict)
    """By operation: how many further calls get a ThrottlingException."""
    unknown_rights: int = 0
    """How many further calls are denied: a new policy is not effective in EKS at once."""
    denied: set[str] = field(default_factory=set)
    """Operations that are not allowed."""

    @property
    def meta(self) -> Any:
        """The SDK's names of EKS's operations."""
        return _eks_meta()

    def _limit(self, operation: str) -> None:
        if self.unknown_rights:
            self.unknown_rights -= 1
            raise _refusal("AccessDeniedException", operation)
        if operation in self.denied:
            raise _refusal("AccessDeniedException", operation)
        if self.throttled.get(operation, 0):
            self.throttled[operation] -= 1
            raise _refusal("ThrottlingException", operation)

    def describe_cluster(self, name: str) -> dict[str, Any]:
        self._limit("DescribeCluster")
        if self.cluster is None:
            raise _refusal("ResourceNotFoundException", "DescribeCluster")
        return {
            "cluster": {
                "name": name,
                "arn": f"arn:aws:eks:{REGION}:{ACCOUNT}:cluster/{name}",
                "status": "ACTIVE",
                "endpoint": self.cluster.endpoint,
                "certificateAuthority": {
                    "data": base64.b64encode(self.cluster.ca_pem.encode()).decode()
                },
                "accessConfig": {"authenticationMode": self.mode},
            }
        }

    def describe_access_entry(self, clusterName: str, principalArn: str) -> dict[str, Any]:  # noqa: ARG002, N803
        self._limit("DescribeAccessEntry")
        if principalArn not in self.entries:
            raise _refusal("ResourceNotFoundException", "DescribeAccessEntry")
        return {"accessEntry": self.entries[principalArn]}

    def create_access_entry(self, principalArn: str, **entry: Any) -> None:  # noqa: N803
        self._limit("CreateAccessEntry")
        self.calls.append("create")
        if principalArn in self.entries:
            raise _refusal("ResourceInUseException", "CreateAccessEntry")
        self.entries[principalArn] = entry

    def associate_access_policy(self, principalArn: str, policyArn: str, **scope: Any) -> None:  # noqa: N803
        self._limit("AssociateAccessPolicy")
        self.calls.append(policyArn.rpartition("/")[2])
        self.entries[principalArn]["scope"] = scope["accessScope"]

    def delete_access_entry(self, clusterName: str, principalArn: str) -> None:  # noqa: ARG002, N803
        self._limit("DeleteAccessEntry")
        self.calls.append("delete")
        if self.entries.pop(principalArn, None) is None:
            raise _refusal("ResourceNotFoundException", "DeleteAccessEntry")


@dataclass
class Secrets:
    """One secret."""

    text: str = KEY
    throttled: int = 0

    def get_secret_value(self, SecretId: str) -> dict[str, str]:  # noqa: N803
        if self.throttled:
            self.throttled -= 1
            raise _refusal("ThrottlingException", "GetSecretValue")
        if SecretId != "castai/api-key":
            raise _refusal("ResourceNotFoundException", "GetSecretValue")
        return {"SecretString": self.text}


@pytest.fixture
def eks(cluster: ServedCluster) -> Eks:
    return Eks(cluster)


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
