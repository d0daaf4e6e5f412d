"""Settings, names and rights of a run, and the plan that it prints."""

from __future__ import annotations

import pytest

from acceptance import plan, rights
from acceptance.scope import PREFIX, Scope
from lambdas.onboarding.policies.document import MANAGED_LIMIT, size
from sandbox.demo.timeline import Timeline
from stacks.settings import Settings
from tests.support.iam_reference import faults, over_named, wide_actions
from tests.unit.sandbox.objects import NODE, pod

ONLY_SPOT = Scope("prod", "i-1")
WITH_KEY = Scope("prod", "i-1", api_key_secret="castai/api-key")


@pytest.mark.parametrize("scope", [ONLY_SPOT, WITH_KEY])
def test_the_app_accepts_the_settings_whatever_is_in_cdk_json(scope: Scope) -> None:
    theirs = {
        "castai:namePrefix": "castai",
        "castai:clusters": ["prod", "stage"],
        "castai:spotRole": "import",
        "castai:alarmTopicArn": "arn:aws:sns:eu-west-1:111122223333:pager",
        "castai:onboardClusters": ["prod"],
        "castai:onboardByCluster": {"prod": {"ClusterId": "00000000-0000-4000-8000-000000000000"}},
        "castai:agentClusters": ["prod"],
        "castai:apiKeySecret": "castai/api-key",
    }
    settings = Settings.from_context({**theirs, **scope.settings})
    assert settings.app.name_prefix == PREFIX
    assert settings.spot_handler.clusters == ("prod",)
    assert settings.spot_handler.spot_role_name == scope.spot_handler
    assert settings.spot_handler.drill_sources == (scope.source,)
    assert settings.spot_handler.alarm_topic_arn is None
    connected = ("prod",) if scope.api_key_secret else ()
    assert settings.onboarding.onboard_clusters == connected
    assert settings.agent.agent_clusters == connected
    assert settings.castai.api_key_secret == scope.api_key_secret


def test_a_setting_of_the_user_replaces_that_of_the_run() -> None:
    scope = Scope("prod", "i-1", chosen={"castai:mode": "dry-run"})
    assert scope.settings["castai:mode"] == "dry-run"
    assert scope.expected == "dry_run"
    assert not list(scope.faults())


@pytest.mark.parametrize(
    ("chosen", "advice"),
    [({"castai:mode": "dry_run"}, "dry-run"), ({"castai:namePrefix": "castai"}, "--prefix")],
)
def test_a_setting_that_the_run_cannot_have_is_refused(chosen: dict[str, str], advice: str) -> None:
    (fault,) = Scope("prod", "i-1", chosen=chosen).faults()
    assert advice in fault


@pytest.mark.parametrize(
    ("name", "spot", "key"),
    [
        ("castai-acceptance-spot-handler", True, True),
        ("/aws/lambda/castai-acceptance-agent", True, True),
        ("castai-spot-handler", False, False),
        ("cast-eks-prod-cluster-role-1", False, True),
        ("CastEKSPolicy-prod", False, True),
        ("cast-eks-stage-cluster-role-1", False, False),
    ],
)
def test_names_that_only_the_run_can_have_made(name: str, spot: bool, key: bool) -> None:
    assert (ONLY_SPOT.ours(name), WITH_KEY.ours(name)) == (spot, key)


def test_the_rights_name_the_run_s_own_resources() -> None:
    policy = rights.policy(ONLY_SPOT, partition="aws-cn", region="cn-north-1", account="1" * 12)
    open_to_all = {
        statement["Sid"] for statement in policy["Statement"] if statement["Resource"] == "*"
    }
    assert open_to_all == {"Instance", "Inventory"}
    arns = [s["Resource"] for s in policy["Statement"] if s["Resource"] != "*"]
    assert all(arn.startswith("arn:aws-cn:") for arn in arns)


@pytest.mark.parametrize("scope", [ONLY_SPOT, WITH_KEY])
def test_the_rights_are_valid_in_the_service_reference(scope: Scope) -> None:
    policy = rights.policy(scope, partition="aws", region="eu-west-1", account="1" * 12)
    for statement in policy["Statement"]:
        assert faults(statement) == ()
        assert not over_named(statement)
        # The inventory reads all alarms.
        assert wide_actions(statement) <= {"cloudwatch:DescribeAlarms"}
    assert size(policy) < MANAGED_LIMIT


def test_the_plan_names_pods_that_come_back_nowhere() -> None:
    timeline = Timeline(NODE)
    timeline.pod_changed(pod("web-1", owner="web"), 0)
    timeline.pod_changed(pod("shell"), 0)
    timeline.pod_changed(pod("agent", owner="agent", owner_kind="DaemonSet"), 0)
    rows = dict(plan.pods(timeline, "drained"))
    assert rows["   shop/shell"] == "NO CONTROLLER RE-CREATES IT"
    assert rows["   shop/web-1"] == ""
    assert "end for good" in rows["1 of them"]
    assert dict(plan.pods(timeline, "dry_run")) == {"2 pods": "stay where they are"}


def test_a_long_list_of_pods_is_cut() -> None:
    timeline = Timeline(NODE)
    for number in range(40):
        timeline.pod_changed(pod(f"web-{number}", owner="web"), 0)
    rows = dict(plan.pods(timeline, "drained"))
    assert rows["   and 28 more"] == ""
