"""Days of `Custom::CastEksAgent`: as those of the onboarding, with controllers and a wait."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from lambdas.agent import handler
from lambdas.agent.handler import Dependencies
from lambdas.common.names import AGENT
from simulation.engine import Story
from simulation.resources import agent_edits
from simulation.resources.agent_edits import AGENT_EDITS
from simulation.resources.calls import Gate
from simulation.resources.days import Day, Kind, days
from simulation.resources.eks import ACCOUNT
from simulation.resources.life import run
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
    obstacles=agent_edits.obstacles,
    clear_obstacles=agent_edits.clear_obstacles,
    controllers=True,
    cleans_up_at_rollback=True,
    settles=45.0,
)


def story() -> Story[Day]:
    """The days of the agent."""
    return Story("agent", days(KIND), partial(run, KIND))
