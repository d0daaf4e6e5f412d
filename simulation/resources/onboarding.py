"""Days of `Custom::CastEksOnboarding`.

A day has one or two custom resources, and requests, faults and edits of others in any order. It
ends with the removal of all resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from lambdas.onboarding import handler
from lambdas.onboarding.context import Clients
from lambdas.onboarding.context import Place as Region
from lambdas.onboarding.session import Dependencies
from simulation.engine import Story
from simulation.resources import edits
from simulation.resources.calls import Gate
from simulation.resources.days import Day, Kind, days
from simulation.resources.edits import EDITS
from simulation.resources.eks import ACCOUNT
from simulation.resources.life import run
from simulation.resources.requests import Function, Resource
from simulation.resources.world import API_KEY_SECRET, API_URL, OWN_ROLE, Place, World

SECONDS: Final = 600.0  # the function's time-out: stacks/constructs/cluster_onboarding.py
SPOT_ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/CastLambdaRoleForSpot"
PROPERTIES: Final[Mapping[str, Mapping[str, Any]]] = {
    "user": {"Mode": "user"},
    "role": {"Mode": "cross-account-role"},
    "full": {"Permissions": "full"},
    "strict": {"Permissions": "strict"},
    "by entries or aws-auth": {"ClusterAccess": "auto"},
    "by aws-auth": {"ClusterAccess": "aws-auth"},
    "no access": {"ClusterAccess": "none"},
    "a tag": {"Tags": {"team": "platform"}},
    "another tag": {"Tags": {"team": "data", "stage": "1"}},
    "no tags": {"Tags": {}},
    "session manager": {"SsmOnNodes": "true"},
    "no session manager": {"SsmOnNodes": "false"},
    "spot handler": {"SpotHandlerRoleArn": SPOT_ROLE},
    "no spot handler": {"SpotHandlerRoleArn": None},
    "CAST AI's function": {"ManageSpotLambda": "true"},
    "a new key": {"RotationId": "2"},
    "a path": {"Path": "/castai/"},
    "the shared policy": {"AccountWidePolicy": "true"},
    "another cluster": {"ClusterName": "shop"},
    "new code": {"CodeVersion": "2"},
}
"""The changes of properties. The next one is a row."""


def _base(place: Place) -> dict[str, Any]:
    return {
        "ServiceToken": "arn:aws:lambda:eu-central-1:123456789012:function:framework",
        "SchemaVersion": "1",
        "CodeVersion": "1",
        "ClusterName": place.name,
        "ApiUrl": API_URL,
        "ApiKeySecret": API_KEY_SECRET,
        "RequireAgent": "false",
        "Mode": "user",
    }


def _function(world: World, resource: Resource) -> Function:
    """The function of a resource's region."""
    region = resource.stack.split(":")[3]
    gate = Gate(world.loop.jump)
    deps = Dependencies(
        clients=Clients(
            iam=world.gated("iam", region, gate),
            ec2=world.gated("ec2", region, gate),
            eks=world.gated("eks", region, gate),
            secrets=world.gated("secretsmanager", region, gate),
            functions=world.gated("lambda", region, gate),
        ),
        place=Region("aws", region, ACCOUNT),
        own_role=OWN_ROLE,
        open_api=world.open_api(gate),
        open_kube=world.open_kube(gate),
        clock=world.clock,
    )
    return Function(
        lambda request, seconds: handler.respond(request, deps, remaining=seconds),
        gate,
        world.clock,
        SECONDS,
    )


KIND: Final = Kind(
    base=_base,
    changes=PROPERTIES,
    edits=EDITS,
    function=_function,
    obstacles=edits.obstacles,
    clear_obstacles=edits.clear_obstacles,
    physical_id=f"castai-eks/{ACCOUNT}/{{region}}/(prod|shop)",
)


def story() -> Story[Day]:
    """The days of the onboarding."""
    return Story("onboarding", days(KIND), partial(run, KIND))
