"""State of the simulated CAST AI: clusters, their credentials, and a log of every call.

Data and transitions, no network. Received secrets are stored only as fingerprints, so that no page,
log or dump can contain one.
"""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

CASTAI_ACCOUNT = "809060229965"  # CAST AI's own AWS account
_IDS = uuid.UUID("5f0c1f5e-6d0a-4c53-9d1e-2f7f6f1f3a11")  # namespace of the generated ids
_EVENT_TYPES = ("interrupted", "rebalanceRecommendation")


class Refusal(Exception):  # noqa: N818 - a response, not an error of the simulation
    """A response other than 200: its status code and its message."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def fingerprint(secret: str) -> str:
    """Return a short hash, which shows whether two secrets are equal and is useless as a secret."""
    return "sha256:" + hashlib.sha256(secret.encode()).hexdigest()[:12]


@dataclass
class Cluster:
    """An external cluster of the API, its credentials and its events."""

    id: str
    name: str
    region: str
    account: str
    status: str = "connecting"
    agent_status: str = "waiting-connection"
    principal: str = ""
    credentials: dict[str, str] = field(default_factory=dict)
    refusals: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)
    disconnecting: int = 0
    """Number of reads until the cluster is disconnected."""


@dataclass(frozen=True)
class Entry:
    """A received call and the status of its response."""

    time: float
    """Epoch seconds."""
    method: str
    path: str
    status: int
    what: str
    body: Any


@dataclass
class State:
    """The whole state."""

    api_key: str = field(repr=False)
    propagation: int = 1
    """How often new credentials are refused before they are accepted.

    On AWS a new role or key is not usable everywhere at once. Until it is, CAST AI answers 400.
    """
    disconnect_reads: int = 1
    """How often a cluster is read as disconnecting before it is disconnected."""
    outage: int = 0
    """Number of next calls that get a 503."""
    now: Callable[[], float] = time.time
    clusters: dict[str, Cluster] = field(default_factory=dict)
    log: list[Entry] = field(default_factory=list)
    deleted: int = 0

    def register(self, body: dict[str, Any]) -> Cluster:
        """Find the cluster by account, region and name, or create it."""
        eks = body.get("eks")
        if not isinstance(eks, dict):
            raise Refusal(400, "eks: must be set")
        values = []
        for key in ("accountId", "region", "clusterName"):
            value = eks.get(key)
            if not isinstance(value, str) or not value:
                raise Refusal(400, f"eks.{key}: must be a non-empty string")
            values.append(value)
        account, region, name = values
        for cluster in self.clusters.values():
            if (cluster.account, cluster.region, cluster.name) == (account, region, name):
                return cluster
        cluster_id = str(uuid.uuid5(_IDS, f"{account}/{region}/{name}/{self.deleted}"))
        cluster = Cluster(cluster_id, name, region, account)
        self.clusters[cluster_id] = cluster
        return cluster

    def cluster(self, cluster_id: str) -> Cluster:
        """Return the cluster. Raises Refusal (404) if there is none."""
        try:
            return self.clusters[cluster_id]
        except KeyError:
            raise Refusal(404, f"cluster {cluster_id} not found") from None

    def read(self, cluster_id: str) -> Cluster:
        """Return the cluster. Each read counts towards the end of a disconnect."""
        cluster = self.cluster(cluster_id)
        if cluster.disconnecting:
            cluster.disconnecting -= 1
            if not cluster.disconnecting:
                cluster.agent_status = "disconnected"
        return cluster

    def hand_over(self, cluster_id: str, body: dict[str, Any]) -> Cluster:
        """Store a role ARN or an access key. Raises Refusal until IAM has propagated."""
        cluster = self.cluster(cluster_id)
        given = _credentials(cluster, body)
        if cluster.credentials.get("fingerprint") == given["fingerprint"]:
            return cluster
        if cluster.refusals < self.propagation:
            cluster.refusals += 1
            raise Refusal(400, "credentials are not valid: AccessDenied or InvalidClientTokenId")
        cluster.refusals = 0
        cluster.credentials = given
        cluster.status = "ready"
        return cluster

    def event(self, cluster_id: str, body: dict[str, Any]) -> None:
        """Store an interruption or a rebalance recommendation of a node."""
        cluster = self.cluster(cluster_id)
        if body.get("event_type") not in _EVENT_TYPES:
            raise Refusal(400, f"event_type: must be one of {', '.join(_EVENT_TYPES)}")
        if not isinstance(body.get("provider_id"), str) or not body["provider_id"]:
            raise Refusal(400, "provider_id: must be a non-empty string")
        if not isinstance(body.get("node_id"), str):
            raise Refusal(400, "node_id: must be a string")
        cluster.events.append({**body, "time": self.now()})

    def principal(self, cluster_id: str, *, create: bool) -> str:
        """Return the ARN of the user in CAST AI's account that assumes this cluster's role."""
        cluster = self.cluster(cluster_id)
        if not cluster.principal and not create:
            raise Refusal(404, f"assume role principal of cluster {cluster_id} not found")
        user = f"user/cast-crossrole-{cluster_id}"
        cluster.principal = f"arn:{_partition(cluster.region)}:iam::{CASTAI_ACCOUNT}:{user}"
        return cluster.principal

    def remove_principal(self, cluster_id: str) -> None:
        """Remove that user."""
        self.cluster(cluster_id).principal = ""

    def agent(self, cluster_id: str, status: str) -> Cluster:
        """Set the agent's status: it reports, or it has stopped reporting."""
        cluster = self.cluster(cluster_id)
        cluster.agent_status = status
        return cluster

    def savings(self, cluster_id: str) -> Cluster:
        """Return the cluster. Raises Refusal (404) until its agent has reported: CAST AI's estimate
        is of what the agent sees.
        """
        cluster = self.cluster(cluster_id)
        if cluster.agent_status == "waiting-connection":
            raise Refusal(404, f"no savings estimate of cluster {cluster_id}")
        return cluster

    def disconnect(self, cluster_id: str) -> Cluster:
        """Start the disconnect. With an agent online it ends after `disconnect_reads` reads."""
        cluster = self.cluster(cluster_id)
        cluster.credentials = {}
        if cluster.agent_status == "disconnected":
            return cluster
        cluster.status = "deleting"
        if cluster.agent_status == "online" and self.disconnect_reads:
            cluster.agent_status = "disconnecting"
            cluster.disconnecting = self.disconnect_reads
        else:
            cluster.agent_status = "disconnected"
        return cluster

    def delete(self, cluster_id: str) -> None:
        """Delete a disconnected cluster. The next registration gives another id."""
        cluster = self.read(cluster_id)
        if cluster.agent_status != "disconnected":
            raise Refusal(400, f"cluster must be disconnected first, is {cluster.agent_status}")
        del self.clusters[cluster_id]
        self.deleted += 1

    def record(self, method: str, path: str, status: int, what: str, body: object) -> None:
        """Add a call to the log, with fingerprints instead of secrets."""
        self.log.append(Entry(self.now(), method, path, status, what, redacted(body)))

    def shown(self) -> dict[str, Any]:
        """Return clusters and calls as plain data."""
        return {
            "clusters": [asdict(cluster) for cluster in self.clusters.values()],
            "calls": [asdict(entry) for entry in self.log],
        }


def redacted(body: object) -> object:
    """Return a request body with a fingerprint instead of the access key in `credentials`."""
    if not isinstance(body, dict) or "credentials" not in body:
        return body
    return {**body, "credentials": fingerprint(str(body["credentials"]))}


def api_cluster(cluster: Cluster) -> dict[str, Any]:
    """Return the cluster in the API's format."""
    return {
        "id": cluster.id,
        "name": cluster.name,
        "organizationId": str(uuid.uuid5(_IDS, "organization")),
        "status": cluster.status,
        "agentStatus": cluster.agent_status,
        "providerType": "eks",
        "eks": {
            "clusterName": cluster.name,
            "region": cluster.region,
            "accountId": cluster.account,
            "assumeRoleArn": cluster.credentials.get("role", ""),
        },
    }


def api_savings(cluster: Cluster, updated: str) -> dict[str, Any]:
    """Return a savings estimate in the API's format, with figures of the sandbox's own.

    They are the same for every cluster: CAST AI says how it counts nowhere, so that figures which
    seem to be computed would be invented. A month has 730 hours, as in CAST AI's answers.
    """
    before = 1.0  # USD per hour
    return {
        "clusterId": cluster.id,
        "recommendations": {
            name: {
                "hourly": _prices(before, after, 1),
                "monthly": _prices(before, after, 730),
                "savingsPercentage": f"{100 * (before - after) / before:.2f}",
            }
            for name, after in (("Layman", 0.75), ("SpotInstances", 0.5), ("SpotOnly", 0.3))
        },
        "currentConfiguration": {
            "totalPrice": {"hourly": f"{before:.4f}", "monthly": f"{before * 730:.4f}"}
        },
        "isRebalancingRecommended": True,
        "lastUpdatedAt": updated,
    }


def _prices(before: float, after: float, hours: int) -> dict[str, str]:
    return {"priceBefore": f"{before * hours:.4f}", "priceAfter": f"{after * hours:.4f}"}


def _partition(region: str) -> str:
    """Return the AWS partition of a region, for the principal's ARN."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _credentials(cluster: Cluster, body: dict[str, Any]) -> dict[str, str]:
    """Return the body's credentials without secret. Raises Refusal (400) if it has none."""
    eks = body.get("eks")
    if isinstance(eks, dict) and isinstance(eks.get("assumeRoleArn"), str):
        if not cluster.principal:
            raise Refusal(400, "assume role principal must be created before the role is set")
        arn = eks["assumeRoleArn"]
        return {"kind": "role", "role": arn, "fingerprint": fingerprint(arn)}
    try:
        key = json.loads(body["credentials"])
        key_id, secret = key["accessKeyId"], key["secretAccessKey"]
    except (KeyError, TypeError, ValueError):
        raise Refusal(
            400, "set eks.assumeRoleArn, or credentials as a JSON string with both key fields"
        ) from None
    return {"kind": "key", "accessKeyId": key_id, "fingerprint": fingerprint(f"{key_id}{secret}")}
