"""The agent's stack: what the template says where it matters."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from cfnlint.api import ManualArgs, lint

from lambdas.agent.properties import faults_of
from lambdas.common.names import OWN_ROLE_VARIABLE
from lambdas.common.own_stack import STACK_ID
from stacks.agent_stack import RESOURCE_TYPE
from tests.infra.conftest import Assembly, Stack, Synthesise, without_assets
from tests.infra.test_checks import ACCEPTED, REGIONS

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
    """The role of our function; the framework has its own."""
    (role,) = [role for role in stack.all("AWS::IAM::Role").values() if "RoleName" in role]
    return role


def statements(stack: Stack) -> dict[str, dict[str, Any]]:
    """Of the policy that is the same for all clusters."""
    (attached,) = own_role(stack)["ManagedPolicyArns"]
    policy = stack.all("AWS::IAM::ManagedPolicy")[attached["Ref"]]
    return {each["Sid"]: each for each in policy["PolicyDocument"]["Statement"]}


def rights(stack: Stack) -> dict[str, dict[str, Any]]:
    """The whole resources that are policies of clusters, by the cluster's name."""
    found: dict[str, dict[str, Any]] = {}
    for logical, resource in stack.template["Resources"].items():
        name = resource["Properties"].get("PolicyName", "")
        if resource["Type"] == "AWS::IAM::Policy" and name.startswith("cluster-"):
            found[name.removeprefix("cluster-")] = {"id": logical, **resource}
    return found


def text(value: Any) -> str:
    """A value of a template with its joins and references written out."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join(text(part) for part in value["Fn::Join"][1])
    if isinstance(value, dict) and "Ref" in value:
        return f"<{value['Ref'].removeprefix('AWS::')}>"
    return str(value)


def test_there_is_none_without_clusters(synthesise: Synthesise) -> None:
    assert "castai-agent" not in synthesise({}).templates


class TestResource:
    def test_one_for_each_cluster(self, plain: Stack) -> None:
        resources = plain.all(RESOURCE_TYPE).values()
        assert sorted(each["ClusterName"] for each in resources) == ["blue", "green"]

    @pytest.mark.parametrize("name", ["plain", "full"])
    def test_the_function_takes_what_the_template_gives(
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

    def test_time_outs_nest(self, full: Stack) -> None:
        """Ours ends first and says why, then the framework's, then CloudFormation's."""
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
            "BlueClusterId", "BlueAgentImage", "GreenClusterId", "GreenAgentImage",
        }  # fmt: skip
        assert all(len(each["Description"]) > 10 for each in outputs.values())


class TestFunction:
    def test_is_told_its_own_role(self, plain: Stack) -> None:
        (function,) = [
            each
            for each in plain.all("AWS::Lambda::Function").values()
            if each["Handler"] == "lambdas.agent.handler.lambda_handler"
        ]
        assert OWN_ROLE_VARIABLE in function["Environment"]["Variables"]
        assert function["Environment"]["Variables"][STACK_ID] == {"Ref": "AWS::StackId"}
        assert "VpcConfig" not in function

    def test_reaches_private_endpoints_through_the_vpc(self, full: Stack) -> None:
        (function,) = [
            each for each in full.all("AWS::Lambda::Function").values() if "VpcConfig" in each
        ]
        assert function["VpcConfig"]["SubnetIds"] == ["subnet-0a1b2c3d"]
        assert statements(full)["AttachToVpc"]["Resource"] == "*"


class TestRole:
    def test_it_gives_access_to_itself_alone(self, plain: Stack) -> None:
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

    def test_it_gives_itself_two_policies_and_no_other(self, plain: Stack) -> None:
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

    def test_a_clusters_rights_go_after_its_custom_resource(self, plain: Stack) -> None:
        """CloudFormation deletes in the reverse order of dependencies, also while it cleans up."""
        found = rights(plain)
        for resource in plain.template["Resources"].values():
            if resource["Type"] == RESOURCE_TYPE:
                cluster = resource["Properties"]["ClusterName"]
                assert resource["DependsOn"] == [found[cluster]["id"]]

    @pytest.mark.parametrize("removed", ["blue", "green", "red"])
    def test_a_cluster_that_leaves_the_list_changes_nothing_of_the_others(
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

    def test_it_reads_the_one_secret(self, plain: Stack, full: Stack) -> None:
        resource = text(statements(plain)["ReadApiKey"]["Resource"])
        assert resource.endswith(f":secret:{SECRET}-??????")
        assert "DecryptApiKey" not in statements(plain)
        assert statements(full)["ReadApiKey"]["Resource"] == FULL["castai:apiKeySecret"]
        assert statements(full)["DecryptApiKey"]["Resource"] == FULL["castai:apiKeyKmsKey"]

    def test_it_writes_its_own_log(self, plain: Stack) -> None:
        assert text(statements(plain)["WriteOwnLog"]["Resource"]).endswith(
            ":log-group:/aws/lambda/castai-agent:*"
        )

    def test_every_role_has_the_boundary(self, full: Stack) -> None:
        for role in full.all("AWS::IAM::Role").values():
            assert text(role["PermissionsBoundary"]).endswith(":policy/platform/Boundary")


def test_cdk_nag_finds_nothing_but_what_is_acknowledged(assembly: Assembly) -> None:
    report = assembly.json("validation-report.json")
    (nag,) = (r for r in report["pluginReports"] if r["pluginName"] == "AwsSolutions")
    assert nag["conclusion"] == "success"
    assert all(len(found["reason"]) > 20 for found in nag["suppressedViolations"])


def test_cfn_lint_has_nothing_to_say(assembly: Assembly) -> None:
    template = json.dumps(assembly.templates["castai-agent"])
    matches = lint(template, config=ManualArgs(regions=REGIONS))
    assert [str(match) for match in matches if match.rule.id not in ACCEPTED] == []


def test_no_partition_is_written_down(plain: Stack) -> None:
    assert not re.search(r"arn:aws[:-]", json.dumps(plain.template))
