"""Days of `Custom::CastEksAgent`: as those of the onboarding, with controllers and a wait."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from lambdas.agent import handler
from lambdas.agent.handler import Dependencies
from lambdas.common.names import AGENT
from simulation.engine import Story
from simulation.resources.calls import Gate
from simulation.resources.edits import EDITS, Edit
from simulation.resources.eks import ACCOUNT
from simulation.resources.facts import FOREIGN
from simulation.resources.life import Day, Kind, days, run
from simulation.resources.requests import Event, Function, Resource
from simulation.resources.world import API_KEY_SECRET, API_URL, OWN_ROLE, Place, World

SECONDS: Final = 300.0  # the function's time-out: stacks/agent_stack.py
POLL_SECONDS: Final = 15.0  # stacks/constructs/custom_resource.py: QUERY_INTERVAL
PROPERTIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "a new key": {"KeyVersion": "2"},
    "two agents": {"Replicas": "2"},
    "one agent": {"Replicas": "1"},
    "a given size": {"Autoscaler": "false", "Requests": {"cpu": "100m", "memory": "1Gi"}},
    "sized by nodes": {"Autoscaler": "true", "Requests": None},
    "a proxy": {"HttpsProxy": "http://proxy.invalid:3128"},
    "no proxy": {"HttpsProxy": None},
    "no node fits": {"NodeSelector": {"disk": "none"}, "ReadyWithin": "60"},
    "any node": {"NodeSelector": None, "ReadyWithin": None},
    "another cluster": {"ClusterName": "shop"},
    "new code": {"CodeVersion": "2"},
}
"""The changes of properties. The next one is a row."""


def _deletes(kind: str, namespace: str) -> Callable[[World, Place], None]:
    def delete(world: World, place: Place) -> None:
        cluster = world.kubernetes[place]
        for obj in cluster.list(kind, namespace):
            if AGENT in obj["metadata"]["name"]:
                world.act(partial(cluster.delete, kind, obj["metadata"]["name"], namespace))
        world.sleep(60)

    return delete


def _labels(kind: str, namespace: str) -> Callable[[World, Place], None]:
    def label(world: World, place: Place) -> None:
        cluster = world.kubernetes[place]
        for obj in cluster.list(kind, namespace):
            metadata = obj["metadata"]
            if AGENT in metadata["name"]:
                labels = {**(metadata.get("labels") or {}), FOREIGN: "cost"}
                changed = {**obj, "metadata": {**metadata, "labels": labels}}
                world.act(partial(cluster.set, changed))

    return label


AGENT_EDITS: Final = {
    "maps a role in aws-auth": EDITS["maps a role in aws-auth"],
    "gives a role access": EDITS["gives a role access"],
    "labels the Deployment": Edit(_labels("Deployment", AGENT)),
    "labels the ClusterRole": Edit(_labels("ClusterRole", "")),
    "deletes the Deployment": Edit(_deletes("Deployment", AGENT), drifts=True),
    "deletes the Secret": Edit(_deletes("Secret", AGENT), drifts=True),
    "deletes the ClusterRole": Edit(_deletes("ClusterRole", ""), drifts=True),
    "deletes the namespace": Edit(_deletes("Namespace", ""), drifts=True),
}
"""The kinds of edits. The next kind is a row."""


def _base(place: Place) -> dict[str, Any]:
    return {
        "ServiceToken": "arn:aws:lambda:eu-central-1:123456789012:function:framework",
        "CodeVersion": "1",
        "ClusterName": place.name,
        "ApiUrl": API_URL,
        "ApiKeySecret": API_KEY_SECRET,
    }


def _function(world: World, resource: Resource) -> Function:
    """The function of a resource's region."""
    region = resource.stack.split(":")[3]
    gate = Gate(world.loop.jump)
    deps = Dependencies(
        eks=world.gated("eks", region, gate),
        secrets=world.gated("secretsmanager", region, gate),
        region=region,
        own_role=OWN_ROLE,
        open_kube=world.open_kube(gate),
        open_api=world.open_api(gate),
        clock=world.clock,
    )

    def waits(_request: Event, _answer: dict[str, Any]) -> bool:
        world.sleep(POLL_SECONDS)
        _report(world)
        return True

    return Function(
        lambda request, seconds: handler.respond(request, deps, remaining=seconds),
        gate,
        world.clock,
        SECONDS,
        waits,
    )


def _report(world: World) -> None:
    """Agents that run report to CAST AI."""
    for known in world.castai.clusters.values():
        cluster = world.kubernetes[Place(known.region, known.name)]
        deployment = cluster.get("Deployment", AGENT, AGENT) or {}
        if deployment.get("status", {}).get("availableReplicas"):
            world.castai.agent(known.id, "online")


KIND: Final = Kind(
    base=_base,
    changes=PROPERTIES,
    edits=AGENT_EDITS,
    function=_function,
    physical_id=f"{AGENT}:{ACCOUNT}:{{region}}:(prod|shop)",
    controllers=True,
    settles=45.0,
)


def story() -> Story[Day]:
    """The days of the agent."""
    return Story("agent", days(KIND), partial(run, KIND))
