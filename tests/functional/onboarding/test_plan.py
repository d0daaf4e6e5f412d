"""A plan writes nothing and shows what the run then does."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import pytest

from lambdas.common.castai import CastaiApi
from lambdas.common.kubernetes_session import KubernetesSession, existing_access
from lambdas.onboarding import steps
from lambdas.onboarding.context import Context
from lambdas.onboarding.in_use import InUseError
from lambdas.onboarding.ledger import Action, Row
from lambdas.onboarding.properties import parse_request
from lambdas.onboarding.session import context_of
from tests.functional.onboarding.conftest import API_KEY, Scene

SPOT = {"SpotHandlerRoleArn": "arn:aws:iam::123456789012:role/CastLambdaRoleForSpot"}
MODES = pytest.mark.parametrize("mode", ["user", "cross-account-role"])


def context(scene: Scene, ways_out: ExitStack, kind: str = "Create", **changes: Any) -> Context:
    deps = scene.dependencies()
    until = scene.time.now + 600
    api = ways_out.enter_context(CastaiApi(API_KEY, scene.castai_url))
    kubernetes = ways_out.enter_context(
        KubernetesSession(existing_access, until=until, open_kube=deps.open_kube)
    )
    request = parse_request(scene.event(kind, scene.properties(**changes)))
    return context_of(request, deps, api, kubernetes, until=until)


def plan(scene: Scene, **changes: Any) -> list[Row]:
    with ExitStack() as ways_out:
        return steps.plan(replace(context(scene, ways_out, **changes), plan_only=True))


def changes_of(rows: list[Row]) -> list[tuple[str, Action]]:
    """What changes, without ids that a plan does not know."""
    return [
        (row.thing, row.action)
        for row in rows
        if row.action is not Action.KEEP and "CAST AI" not in row.thing
    ]


@MODES
def test_a_plan_says_what_the_run_then_does(scene: Scene, mode: str) -> None:
    scene.users.admits = lambda: True
    scene.castai.register(
        {"eks": {"accountId": "123456789012", "region": "eu-central-1", "clusterName": "prod"}}
    )
    wanted = {"Mode": mode, "ClusterId": scene.cluster_id, **SPOT}
    before, calls = scene.snapshot(), len(scene.castai.log)
    planned = plan(scene, **wanted)
    assert scene.writes.done == []
    assert scene.snapshot() == before
    assert {entry.method for entry in scene.castai.log[calls:]} <= {"GET"}
    with ExitStack() as ways_out:
        done = steps.onboard(context(scene, ways_out, **wanted)).rows
    assert changes_of(done) == changes_of(planned)
    assert changes_of(plan(scene, **wanted)) == []


def test_a_plan_for_a_cluster_that_castai_does_not_know_registers_nothing(scene: Scene) -> None:
    rows = plan(scene)
    assert rows[0].thing == "registration at CAST AI"
    assert scene.castai.log == []


def test_a_plan_names_what_is_in_the_way(scene: Scene) -> None:
    scene.iam.create_user(UserName="cast-eks-prod")
    conflicts = [row for row in plan(scene) if row.action is Action.CONFLICT]
    assert [(row.thing, row.detail) for row in conflicts] == [
        ("IAM user cast-eks-prod", "made by someone else")
    ]


@MODES
def test_a_planned_removal_is_the_one_that_is_done(scene: Scene, mode: str) -> None:
    scene.users.admits = lambda: True
    scene.create(Mode=mode, **SPOT)
    before = scene.snapshot()
    scene.writes.done.clear()
    with ExitStack() as ways_out:
        planned = steps.plan_offboard(context(scene, ways_out, "Delete", Mode=mode, **SPOT))
    assert scene.writes.done == []
    assert scene.snapshot() == before
    with ExitStack() as ways_out:
        done = steps.offboard(context(scene, ways_out, "Delete", Mode=mode, **SPOT))
    assert changes_of(done) == changes_of(planned)


def test_a_plan_refuses_as_the_run_does_while_nodes_have_the_role_of_a_former_id(
    scene: Scene,
) -> None:
    node = scene.node(scene.create())
    with pytest.raises(InUseError, match=node):
        plan(scene, ClusterId="99999999-1234-1234-1234-123456789012")
    plan(scene)  # the id stays, and so does the role


def test_a_planned_removal_refuses_as_the_removal_does_while_nodes_run(scene: Scene) -> None:
    node = scene.node(scene.create())
    with ExitStack() as ways_out, pytest.raises(InUseError, match=node):
        steps.plan_offboard(context(scene, ways_out, "Delete"))
