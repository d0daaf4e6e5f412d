"""When the agent counts as connected: available in the cluster, and seen by CAST AI."""

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
    """Whether the agent is connected, and the sentence that says why not."""

    ready: bool
    sentence: str
    agent_status: str = ""
    """The agent's status at CAST AI; empty before CAST AI was asked."""


def look(kube: Kube, api: CastaiApi, cluster_id: str) -> Readiness:
    """Check the cluster first, then ask CAST AI.

    An API that does not answer means "not ready yet". Raises the cluster's errors
    and CAST AI's permanent ones.
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
