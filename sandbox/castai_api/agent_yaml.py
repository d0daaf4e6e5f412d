"""The manifest of `/v1/agent.yaml`: the agent for any EKS cluster, with the API key.

As in CAST AI's manifest, no cluster is named: the agent reads it from instance metadata.
"""

from __future__ import annotations

from lambdas.agent.lifecycle import to_yaml
from lambdas.agent.manifest import ClusterRef, Object, render
from lambdas.agent.properties import Agent

_IDENTITY = ("EKS_ACCOUNT_ID", "EKS_REGION", "EKS_CLUSTER_NAME")


def agent_yaml(api_key: str) -> str:
    """Return YAML for `kubectl apply`."""
    agent = Agent(cluster_name="any", api_key_secret="none")  # noqa: S106 - no secret is read
    objects = render(agent, ClusterRef("", "", ""), api_key)
    for each in objects:
        if each["kind"] == "Deployment":
            _remove_identity(each)
    return to_yaml(objects)


def _remove_identity(deployment: Object) -> None:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [each for each in container["env"] if each["name"] not in _IDENTITY]
