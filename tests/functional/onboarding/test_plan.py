"""The plan of an onboarding and of its removal."""

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
from tests.functional.onboarding.conftest import API_KEY, SPOT_ROLE, OnboardingTestbed

SPOT = {"SpotHandlerRoleArn": SPOT_ROLE}
MODES = pytest.mark.parametrize("mode", ["user", "cross-account-role"])


def context(
    testbed: OnboardingTestbed, stack: ExitStack, kind: str = "Create", **changes: Any
) -> Context:
    deps = testbed.dependencies()
    until = testbed.time.now + 600
    api = stack.enter_context(CastaiApi(API_KEY, testbed.castai_url))
    kubernetes = stack.enter_context(
        KubernetesSession(existing_access, until=until, open_kube=deps.open_kube)
    )
    request = parse_request(testbed.event(kind, testbed.properties(**changes)))
    return context_of(request, deps, api, kubernetes, until=until)


def plan(testbed: OnboardingTestbed, **changes: Any) -> list[Row]:
    with ExitStack() as stack:
        return steps.plan(replace(context(testbed, stack, **changes), plan_only=True))


def changes_of(rows: list[Row]) -> list[tuple[str, Action]]:
    """The resources that change, without those of CAST AI: a plan has no ids for them."""
    return [
        (row.thing, row.action)
        for row in rows
        if row.action is not Action.KEEP and "CAST AI" not in row.thing
    ]


@MODES
def test_a_plan_shows_what_the_run_then_does_and_writes_nothing(
    testbed: OnboardingTestbed, mode: str
) -> None:
    testbed.users.admits = lambda: True
    testbed.castai.register(
        {"eks": {"accountId": "123456789012", "region": "eu-central-1", "clusterName": "prod"}}
    )
    wanted = {"Mode": mode, "ClusterId": testbed.cluster_id, **SPOT}
    before, calls = testbed.snapshot(), len(testbed.castai.log)
    planned = plan(testbed, **wanted)
    assert testbed.writes.done == []
    assert testbed.snapshot() == before
    assert {entry.method for entry in testbed.castai.log[calls:]} <= {"GET"}
    with ExitStack() as stack:
        done = steps.onboard(context(testbed, stack, **wanted)).rows
    assert changes_of(done) == changes_of(planned)
    assert changes_of(plan(testbed, **wanted)) == []


def test_a_plan_for_an_unregistered_cluster_makes_no_call_to_castai(
    testbed: OnboardingTestbed,
) -> None:
    rows = plan(testbed)
    assert rows[0].thing == "registration at CAST AI"
    assert testbed.castai.log == []


def test_a_plan_shows_a_resource_of_others_as_a_conflict(testbed: OnboardingTestbed) -> None:
    testbed.iam.create_user(UserName="cast-eks-prod")
    conflicts = [row for row in plan(testbed) if row.action is Action.CONFLICT]
    assert [(row.thing, row.detail) for row in conflicts] == [
        ("IAM user cast-eks-prod", "made by someone else")
    ]


@MODES
def test_a_planned_removal_shows_what_the_removal_then_does(
    testbed: OnboardingTestbed, mode: str
) -> None:
    testbed.users.admits = lambda: True
    testbed.create(Mode=mode, **SPOT)
    before = testbed.snapshot()
    testbed.writes.done.clear()
    with ExitStack() as stack:
        planned = steps.plan_offboard(context(testbed, stack, "Delete", Mode=mode, **SPOT))
    assert testbed.writes.done == []
    assert testbed.snapshot() == before
    with ExitStack() as stack:
        done = steps.offboard(context(testbed, stack, "Delete", Mode=mode, **SPOT))
    assert changes_of(done) == changes_of(planned)


def test_a_plan_is_refused_while_nodes_have_the_role_of_a_former_id(
    testbed: OnboardingTestbed,
) -> None:
    node = testbed.node(testbed.create())
    with pytest.raises(InUseError, match=node):
        plan(testbed, ClusterId="99999999-1234-1234-1234-123456789012")
    plan(testbed)  # the same id: the role is kept


def test_a_planned_removal_is_refused_while_nodes_run(testbed: OnboardingTestbed) -> None:
    node = testbed.node(testbed.create())
    with ExitStack() as stack, pytest.raises(InUseError, match=node):
        steps.plan_offboard(context(testbed, stack, "Delete"))
