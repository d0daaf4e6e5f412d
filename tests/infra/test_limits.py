"""Many clusters in one account: limits of CloudFormation and IAM, and faults of the settings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lambdas.onboarding.policies import agent_role
from lambdas.onboarding.policies.document import size
from stacks.settings import MOST_ONBOARD_CLUSTERS, ContextError, Settings
from tests.infra.conftest import ROOT, Stack, Synthesise

KEY = {"castai:apiKeySecret": "castai/" + "s" * 80}
VPC = {"castai:subnetIds": "subnet-0a1b2c3d", "castai:securityGroupIds": "sg-0a1b2c3d"}
REGION = "ap-northeast-1"  # no region's name is longer
GOVERNMENT = "us-gov-west-1"  # no partition's name is longer
MODES = ["user", "cross-account-role"]
# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/cloudformation-limits.html
RESOURCES, OUTPUTS, TEMPLATE = 500, 200, 1_000_000
# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
ENVIRONMENT = 4_096
# https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html
INLINE, MANAGED, TRUST, ATTACHED = 10_240, 6_144, 2_048, 10


def clusters(number: int) -> list[str]:
    """Names as long as EKS allows."""
    return [f"{each:03}-" + "x" * 96 for each in range(number)]


def characters(document: Any) -> int:
    """The characters of a document as IAM counts them: without white space."""
    return len(re.sub(r"\s", "", json.dumps(document, separators=(",", ":"))))


def inline(stack: Stack, role: str) -> int:
    """Characters of all inline policies of a role."""
    own = stack.all("AWS::IAM::Role")[role].get("Policies", ())
    others = [
        each for each in stack.all("AWS::IAM::Policy").values() if {"Ref": role} in each["Roles"]
    ]
    return sum(characters(each["PolicyDocument"]) for each in [*own, *others])


def fits(stack: Stack) -> None:
    assert len(stack.template["Resources"]) <= RESOURCES
    assert len(stack.template.get("Outputs", {})) <= OUTPUTS
    assert len(json.dumps(stack.template, indent=1)) <= TEMPLATE
    for logical, role in stack.all("AWS::IAM::Role").items():
        assert inline(stack, logical) <= INLINE
        assert characters(role["AssumeRolePolicyDocument"]) <= TRUST
        assert len(role.get("ManagedPolicyArns", ())) <= ATTACHED
    for policy in stack.all("AWS::IAM::ManagedPolicy").values():
        assert characters(policy["PolicyDocument"]) <= MANAGED


# The length of the names, and how many clusters fit.
AGENTS = [(20, 27), (30, 26), (100, 18)]
LISTED = [(20, 107), (30, 95), (100, 29)]


@pytest.mark.parametrize(("length", "most"), AGENTS)
def test_the_agents_stack_with_the_most_clusters_is_within_the_limits(
    synthesise: Synthesise, length: int, most: int
) -> None:
    """An update that replaces a cluster needs space for one more."""
    names = [name[:length] for name in clusters(most)]
    settings = {"castai:agentClusters": names, "castai:namePrefix": "p" * 32, **KEY, **VPC}
    stack = synthesise(settings, GOVERNMENT).stack("agent")
    fits(stack)
    (role,) = (name for name, each in stack.all("AWS::IAM::Role").items() if "RoleName" in each)
    further = size(agent_role.agent_cluster("aws-us-gov", "x" * 100))
    assert inline(stack, role) + further <= INLINE


@pytest.mark.parametrize(("length", "most"), AGENTS)
def test_more_agents_than_fit_are_a_fault_of_the_settings(length: int, most: int) -> None:
    names = [name[:length] for name in clusters(most + 1)]
    Settings.from_context({"castai:agentClusters": names[:-1], **KEY})
    said = rf"castai:agentClusters: one stack has room for the first {most} of these {most + 1} "
    with pytest.raises(ContextError, match=said):
        Settings.from_context({"castai:agentClusters": names, **KEY})


@pytest.mark.parametrize("mode", MODES)
def test_the_onboardings_stack_with_the_most_clusters_is_within_the_limits(
    synthesise: Synthesise, mode: str
) -> None:
    """Without an API key there is one more output for each cluster."""
    names = [name[:40] for name in clusters(25)]
    own = {
        name: {
            "ClusterId": "12345678-1234-1234-1234-123456789012",
            "PrincipalArn": "arn:aws:iam::809060229965:user/cast-crossrole-1",
        }
        for name in names
    }
    settings = {
        "castai:clusters": names,
        "castai:onboardClusters": names,
        "castai:onboardMode": mode,
        "castai:onboardByCluster": own,
    }
    assembly = synthesise(settings, REGION)
    fits(assembly.stack("onboarding"))
    fits(assembly.stack("spot-handler"))


@pytest.mark.parametrize(("length", "most"), LISTED)
def test_the_spot_handlers_stack_with_the_most_listed_clusters_is_within_the_limits(
    synthesise: Synthesise, length: int, most: int
) -> None:
    names = [name[:length] for name in clusters(most)]
    settings = {
        "castai:clusters": names,
        "castai:rolePolicies": "least-privilege",
        "castai:namePrefix": "p" * 32,
        "castai:tracing": True,
        "castai:mode": "dry-run",
        **KEY,
        **VPC,
    }
    stack = synthesise(settings, GOVERNMENT).stack("spot-handler")
    fits(stack)
    for function in stack.all("AWS::Lambda::Function").values():
        variables = function["Environment"]["Variables"]
        assert sum(len(name) + len(str(value)) for name, value in variables.items()) <= ENVIRONMENT
    with pytest.raises(ContextError, match=rf"castai:clusters: .* the first {most} of these"):
        Settings.from_context(settings | {"castai:clusters": [*names, "z" * length]})


def test_the_documents_name_how_many_clusters_fit() -> None:
    said = " ".join((ROOT / "docs" / "operations.md").read_text().split())
    for length, most in [*AGENTS, *LISTED]:
        assert f"{most} with names of {length} characters" in said


def test_more_clusters_than_fit_are_a_fault_of_the_settings() -> None:
    most = MOST_ONBOARD_CLUSTERS
    names = [f"c{number}" for number in range(most + 1)]
    Settings.from_context({"castai:onboardClusters": names[:-1], **KEY})
    said = f"castai:onboardClusters: one stack has room for the first {most} of these {most + 1} "
    with pytest.raises(ContextError, match=said):
        Settings.from_context({"castai:onboardClusters": names, **KEY})


@pytest.mark.parametrize("key", ["agentClusters", "onboardClusters", "clusters"])
@pytest.mark.parametrize(
    "names", [["prod-1", "prod1"], ["eu-west", "eu_west"], ["a-bc", "ab-c"], ["Prod", "prod"]]
)
def test_names_with_the_same_logical_id_are_a_fault_of_the_settings(
    key: str, names: list[str]
) -> None:
    with pytest.raises(ContextError, match=f"{names[0]} and {names[1]} differ in hyphens"):
        Settings.from_context({f"castai:{key}": names, **KEY})


def test_the_logical_ids_of_simple_names_do_not_change(synthesise: Synthesise) -> None:
    """For another logical id CloudFormation creates a new resource and deletes the old one."""
    names = ["blue", "eu-west_1"]
    settings = {f"castai:{key}": names for key in ("clusters", "agentClusters", "onboardClusters")}
    assembly = synthesise({**settings, **KEY})
    agent, spot, onboarding = map(assembly.stack, ("agent", "spot-handler", "onboarding"))
    assert set(agent.all("Custom::CastEksAgent")) == {"Agentblue", "Agenteuwest1"}
    assert set(spot.all("AWS::EKS::AccessEntry")) == {"Accessblue", "Accesseuwest1"}
    found = {each[:-8] for each in onboarding.all("Custom::CastEksOnboarding")}
    assert found == {"Clusterblue", "Clustereuwest1"}
    assert {"BlueClusterId", "EuWest1ClusterId"} <= set(onboarding.template["Outputs"])
