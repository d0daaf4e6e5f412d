"""The manifest that CAST AI's API hands out: the agent for any EKS cluster, the key rendered in.

The real one does not know the cluster: the agent finds out by the instance metadata service.
"""

from __future__ import annotations

from lambdas.agent.lifecycle import to_yaml
from lambdas.agent.manifest import Object, Place, render
from lambdas.agent.properties import Agent

_IDENTITY = ("EKS_ACCOUNT_ID", "EKS_REGION", "EKS_CLUSTER_NAME")


def agent_yaml(api_key: str) -> str:
    """YAML, ready for `kubectl apply`."""
    wish = Agent(cluster_name="any", api_key_secret="none")  # noqa: S106 - nothing is read
    objects = render(wish, Place("", "", ""), api_key)
    for each in objects:
        if each["kind"] == "Deployment":
            _forget_cluster(each)
    return to_yaml(objects)


def _forget_cluster(deployment: Object) -> None:
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    container["env"] = [each for each in container["env"] if each["name"] not in _IDENTITY]
