"""Whether the agent is connected: available in the cluster, and online at CAST AI."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from lambdas.common import agent_status
from lambdas.common.castai import CastaiApi
from lambdas.common.errors import RetryableError
from lambdas.common.kubernetes_objects import Kube

ONLINE: Final = "online"


@dataclass(frozen=True)
class Readiness:
    """Whether the agent is connected, and a sentence with the reason."""

    ready: bool
    sentence: str
    agent_status: str = ""
    """The agent's status at CAST AI; empty if it was not read."""


def look(kube: Kube, api: CastaiApi, cluster_id: str) -> Readiness:
    """Check the agent in the cluster first, then its status at CAST AI.

    If CAST AI's API does not answer, the agent is not ready yet. Raises the errors of the
    Kubernetes API and the permanent errors of CAST AI's API.
    """
    agent = agent_status.check(kube)
    if not agent.available:
        return Readiness(ready=False, sentence=agent.sentence)
    try:
        seen = api.get(cluster_id).agent_status
    except RetryableError as error:
        return Readiness(ready=False, sentence=str(error))
    if seen == ONLINE:
        return Readiness(ready=True, sentence="CAST AI sees the agent.", agent_status=seen)
    return Readiness(
        ready=False,
        sentence="Check that pods reach the API's URL (NAT, proxy, network policy, custom CA): the "
        f"agent is available but CAST AI sees it as {seen}.",
        agent_status=seen,
    )
