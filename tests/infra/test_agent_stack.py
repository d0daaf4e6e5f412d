"""The agent's stack: custom resources, function, role."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from lambdas.agent.properties import faults_of
from lambdas.common.names import OWN_ROLE_VARIABLE, STACK_ID_VARIABLE
from lambdas.onboarding.policies import functions
from stacks.agent_stack import RESOURCE_TYPE
from tests.infra.checks import acknowledged, lint_findings, text
from tests.infra.conftest import Assembly, Stack, Synthesise, without_assets
from tests.infra.policies import policy_findings

SECRET = "castai/api-key"
PLAIN: dict[str, Any] = {
    "castai:agentClusters": "blue,green",
    "castai:apiKeySecret": SECRET,
}
FULL: dict[str, Any] = {
    "castai:agentClusters": ["blue"],
    "castai:apiKeySecret": "arn:aws:secretsmanager:eu-central-1:111122223333:secret:key-AbCdEf",
    "castai:apiKeyKmsKey": "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d",
    "castai:apiUrl": "https://api.eu.cast.ai",
    "castai:agentReplicas": 2,
    "castai:agentRegistry": "registry.example/mirror",
    "castai:agentKeyVersion": "2",
    "castai:agentProperties": {
        "Tolerations": [{"key": "dedicated", "operator": "Exists"}],
        "NodeSelector": {"pool": "system"},
        "HttpsProxy": "http://proxy:3128",
        "ReadyWithin": 900,
    },
    "castai:subnetIds": ["subnet-0a1b2c3d"],
    "castai:securityGroupIds": ["sg-0a1b2c3d"],
    "castai:permissionsBoundary": "platform/Boundary",
}


@pytest.fixture
def plain(synthesise: Synthesise) -> Stack:
    return synthesise(PLAIN).stack("agent")


@pytest.fixture
def full(synthesise: Synthesise) -> Stack:
    return synthesise(FULL).stack("agent")


@pytest.fixture(params=["plain", "full"])
def assembly(request: pytest.FixtureRequest, synthesise: Synthesise) -> Assembly:
    return synthesise(PLAIN if request.param == "plain" else FULL)


def own_role(stack: Stack) -> dict[str, Any]:
    """The role of our function; the Provider framework has its own."""
    (role,) = [role for role in stack.all("AWS::IAM::Role").values() if "RoleName" in role]
    assert role["AssumeRolePolicyDocument"] == functions.lambda_trust("aws")
    return role


def statements(stack: Stack) -> dict[str, dict[str, Any]]:
    """By Sid, the statements of the policy for all clusters."""
    (attached,) = own_role(stack)["ManagedPolicyArns"]
    policy = stack.all("AWS::IAM::ManagedPolicy")[attached["Ref"]]
    return {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"]}


def rights(stack: Stack) -> dict[str, dict[str, Any]]:
    """The resources that are policies of one cluster, by the cluster's name."""
    found: dict[str, dict[str, Any]] = {}
    for logical, resource in stack.template["Resources"].items():
        name = resource["Properties"].get("PolicyName", "")
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith("cluster-"):
            found[name.removeprefix("cluster-")] = {"id": logical, **resource}
    return found


def test_without_clusters_there_is_no_agent_stack(synthesise: Synthesise) -> None:
    assert "castai-agent" not in synthesise({}).templates


class TestResource:
    def test_there_is_one_for_each_cluster(self, plain: Stack) -> None:
        resources = plain.all(RESOURCE_TYPE).values()
        assert sorted(each["ClusterName"] for each in resources) == ["blue", "green"]

    @pytest.mark.parametrize("name", ["plain", "full"])
    def test_the_properties_in_the_template_are_valid(
        self, name: str, request: pytest.FixtureRequest
    ) -> None:
        stack: Stack = request.getfixturevalue(name)
        for resource in stack.all(RESOURCE_TYPE).values():
            assert faults_of(resource) == []

    def test_settings_become_properties(self, full: Stack) -> None:
        resource = full.one(RESOURCE_TYPE)
        assert resource["Replicas"] == 2
        assert resource["Tolerations"] == [{"key": "dedicated", "operator": "Exists"}]
        assert resource["HttpsProxy"] == "http://proxy:3128"
        assert resource["KeyVersion"] == "2"
        assert resource["ApiUrl"] == "https://api.eu.cast.ai"
        assert re.fullmatch("[0-9a-f]{16}", resource["CodeVersion"])

    def test_our_time_out_ends_before_the_frameworks_and_cloudformations(self, full: Stack) -> None:
        """The first one to end has to be ours, because its error says why."""
        resource = full.one(RESOURCE_TYPE)
        machine = text(full.one("AWS::StepFunctions::StateMachine")["DefinitionString"])
        interval, attempts = (
            int(re.search(rf'"{name}":(\d+)', machine)[1])  # type: ignore[index]
            for name in ("IntervalSeconds", "MaxAttempts")
        )
        assert resource["ReadyWithin"] < interval * attempts < int(resource["ServiceTimeout"])
        assert int(resource["ServiceTimeout"]) <= 3600

    def test_outputs_are_described(self, plain: Stack) -> None:
        outputs = plain.template["Outputs"]
        assert set(outputs) == {
            "BlueClusterId", "BlueAgentImage", "BlueSavings",
            "GreenClusterId", "GreenAgentImage", "GreenSavings",
        }  # fmt: skip
        assert outputs["BlueSavings"]["Value"] == {
            "Fn::Join": ["", ["castai-eks savings blue --region ", {"Ref": "AWS::Region"}]]
        }
        assert all(len(each["Description"]) > 10 for each in outputs.values())


class TestFunction:
    def test_it_has_its_role_and_its_stack_in_the_environment(self, plain: Stack) -> None:
        (function,) = [
            each
            for each in plain.all("AWS::Lambda::Function").values()
            if each["Handler"] == "lambdas.agent.handler.lambda_handler"
        ]
        assert OWN_ROLE_VARIABLE in function["Environment"]["Variables"]
        assert function["Environment"]["Variables"][STACK_ID_VARIABLE] == {"Ref": "AWS::StackId"}
        assert "VpcConfig" not in function

    def test_it_is_in_the_vpc_of_the_settings(self, full: Stack) -> None:
        (function,) = [
            each for each in full.all("AWS::Lambda::Function").values() if "VpcConfig" in each
        ]
        assert function["VpcConfig"]["SubnetIds"] == ["subnet-0a1b2c3d"]
        assert statements(full)["AttachToVpc"]["Resource"] == "*"


class TestRole:
    def test_it_may_create_an_access_entry_for_itself_only(self, plain: Stack) -> None:
        found = statements(plain)
        role = "castai-agent-<Region>"
        principal = found["CreateOwnEntryOnly"]["Condition"]["ArnNotEquals"]["eks:principalArn"]
        assert found["CreateOwnEntryOnly"]["Effect"] == "Deny"
        assert text(principal) == f"arn:<Partition>:iam::<AccountId>:role/{role}"
        assert text(own_role(plain)["RoleName"]) == role
        assert found["OwnEntryOnly"]["Effect"] == "Deny"
        assert text(found["OwnEntryOnly"]["NotResource"]) == (
            f"arn:<Partition>:eks:<Region>:<AccountId>:access-entry/*/role/<AccountId>/{role}/*"
        )

    def test_it_may_associate_two_access_policies_only(self, plain: Stack) -> None:
        found = statements(plain)["TwoAccessPoliciesOnly"]
        assert found["Effect"] == "Deny"
        given = found["Condition"]["ArnNotEquals"]["eks:policyArn"]
        assert [text(each).rpartition("/")[2] for each in given] == [
            "AmazonEKSClusterAdminPolicy",
            "AmazonEKSViewPolicy",
        ]

    def test_it_has_a_policy_for_each_cluster(self, plain: Stack) -> None:
        found = rights(plain)
        assert set(found) == {"blue", "green"}
        (logical,) = (
            name for name, role in plain.all("AWS::IAM::Role").items() if "RoleName" in role
        )
        for cluster, policy in found.items():
            assert policy["Properties"]["Roles"] == [{"Ref": logical}]
            (statement,) = policy["Properties"]["PolicyDocument"]["Statement"]
            assert {text(each) for each in statement["Resource"]} == {
                f"arn:<Partition>:eks:*:*:cluster/{cluster}",
                f"arn:<Partition>:eks:*:*:access-entry/{cluster}/*",
            }

    def test_the_policy_of_a_cluster_is_deleted_after_its_custom_resource(
        self, plain: Stack
    ) -> None:
        """CloudFormation deletes in the reverse order of dependencies, in a clean-up too."""
        found = rights(plain)
        for resource in plain.template["Resources"].values():
            if resource["Type"] == RESOURCE_TYPE:
                cluster = resource["Properties"]["ClusterName"]
                assert resource["DependsOn"] == [found[cluster]["id"]]

    @pytest.mark.parametrize("removed", ["blue", "green", "red"])
    def test_removing_a_cluster_from_the_list_changes_no_other_resource(
        self, synthesise: Synthesise, removed: str
    ) -> None:
        names = ["blue", "green", "red"]
        before, after = (
            synthesise(PLAIN | {"castai:agentClusters": chosen}).stack("agent")
            for chosen in (names, [name for name in names if name != removed])
        )
        gone = rights(before).pop(removed)["id"]
        left = {
            logical: resource
            for logical, resource in before.template["Resources"].items()
            if logical not in {gone, f"Agent{removed}"}
        }
        assert without_assets(after.template["Resources"]) == without_assets(left)

    def test_it_may_read_the_secret_of_the_api_key_only(self, plain: Stack, full: Stack) -> None:
        resource = text(statements(plain)["ReadApiKey"]["Resource"])
        assert resource.endswith(f":secret:{SECRET}-??????")
        assert "DecryptApiKey" not in statements(plain)
        assert statements(full)["ReadApiKey"]["Resource"] == FULL["castai:apiKeySecret"]
        assert statements(full)["DecryptApiKey"]["Resource"] == FULL["castai:apiKeyKmsKey"]

    def test_it_may_write_its_own_log_only(self, plain: Stack) -> None:
        assert text(statements(plain)["WriteOwnLog"]["Resource"]).endswith(
            ":log-group:/aws/lambda/castai-agent:*"
        )

    def test_every_role_has_the_permissions_boundary(self, full: Stack) -> None:
        for role in full.all("AWS::IAM::Role").values():
            assert text(role["PermissionsBoundary"]).endswith(":policy/platform/Boundary")


def test_every_finding_of_cdk_nag_is_acknowledged(assembly: Assembly) -> None:
    assert acknowledged(assembly)


def test_cfn_lint_has_no_finding(assembly: Assembly) -> None:
    assert lint_findings(assembly.templates["castai-agent"]) == []


def test_every_policy_is_valid_in_the_service_reference(assembly: Assembly) -> None:
    assert policy_findings(assembly) == []


def test_the_template_has_no_literal_partition(plain: Stack) -> None:
    assert not re.search(r"arn:aws[:-]", json.dumps(plain.template))
