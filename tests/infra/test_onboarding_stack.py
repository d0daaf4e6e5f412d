"""The onboarding's stack: custom resources, functions, roles, settings."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from msgspec import structs, to_builtins

from lambdas.common.names import OWN_ROLE_VARIABLE, STACK_ID_VARIABLE
from lambdas.common.properties import default, names
from lambdas.onboarding import steps
from lambdas.onboarding.context import Context, Place
from lambdas.onboarding.policies import functions
from lambdas.onboarding.properties import Onboarding, faults_of
from stacks.constructs.bundling import LAMBDA, Bundle
from stacks.constructs.cluster_onboarding import RESOURCE_TYPE
from stacks.settings import ONBOARD_PROPERTIES, ContextError, Settings, groups
from tests.infra.checks import acknowledged, lint_findings, text
from tests.infra.conftest import ROOT, Assembly, Stack, Synthesise
from tests.infra.policies import policy_findings

PLAIN: dict[str, Any] = {
    "castai:onboardClusters": "blue,green",
    "castai:apiKeySecret": "castai/api-key",
}
FULL: dict[str, Any] = {
    "castai:onboardClusters": ["blue", "x" * 90],
    "castai:onboardMode": "cross-account-role",
    "castai:onboardPermissions": "strict",
    "castai:onboardPermissionsBoundary": "arn:aws:iam::111122223333:policy/platform/Boundary",
    "castai:onboardProperties": {
        "Path": "/castai/",
        "KmsKey": "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d",
        "RequireAgent": "false",
    },
    "castai:onboardByCluster": {
        "blue": {
            "ClusterId": "12345678-1234-1234-1234-123456789012",
            "SecurityGroup": ["sg-0a1b2c3d"],
            "PrincipalArn": "arn:aws:iam::809060229965:user/cast-crossrole-1",
        },
        "x" * 90: {
            "ClusterId": "22345678-1234-1234-1234-123456789012",
            "PrincipalArn": "arn:aws:iam::809060229965:user/cast-crossrole-2",
        },
    },
    "castai:clusters": "blue",
    "castai:spotRoleName": "SpotRole",
    "castai:subnetIds": ["subnet-0a1b2c3d"],
    "castai:securityGroupIds": ["sg-0a1b2c3d"],
    "castai:permissionsBoundary": "platform/Boundary",
    "castai:logRetentionDays": 7,
}
NAMES = ["plain", "full"]


@pytest.fixture
def plain(synthesise: Synthesise) -> Stack:
    return synthesise(PLAIN).stack("onboarding")


@pytest.fixture
def full(synthesise: Synthesise) -> Stack:
    return synthesise(FULL).stack("onboarding")


@pytest.fixture(params=NAMES)
def assembly(request: pytest.FixtureRequest, synthesise: Synthesise) -> Assembly:
    return synthesise(PLAIN if request.param == "plain" else FULL)


def own_functions(stack: Stack) -> list[dict[str, Any]]:
    functions = stack.all("AWS::Lambda::Function").values()
    return [each for each in functions if each["Handler"].startswith("lambdas.")]


def own_roles(stack: Stack) -> list[dict[str, Any]]:
    return [role for role in stack.all("AWS::IAM::Role").values() if "RoleName" in role]


def test_without_clusters_there_is_no_onboarding_stack(synthesise: Synthesise) -> None:
    assert "castai-onboarding" not in synthesise({}).templates


class TestResource:
    def test_there_is_one_for_each_cluster(self, plain: Stack) -> None:
        resources = plain.all(RESOURCE_TYPE).values()
        assert sorted(each["ClusterName"] for each in resources) == ["blue", "green"]
        assert len({json.dumps(each["ServiceToken"]) for each in resources}) == 2

    @pytest.mark.parametrize("name", NAMES)
    def test_the_properties_in_the_template_are_valid(
        self, name: str, request: pytest.FixtureRequest
    ) -> None:
        stack: Stack = request.getfixturevalue(name)
        for resource in stack.all(RESOURCE_TYPE).values():
            deployed = json.loads(json.dumps(resource).replace('"Ref": "AWS::', '"Ref": "'))
            deployed["SpotHandlerRoleArn"] = "arn:aws:iam::111122223333:role/SpotRole"
            assert faults_of(deployed) == []

    def test_settings_become_properties_of_all_clusters_or_of_one(self, full: Stack) -> None:
        blue, long = (full.all(RESOURCE_TYPE)[each] for each in sorted(full.all(RESOURCE_TYPE)))
        assert (blue["Mode"], blue["Permissions"], blue["Path"]) == (
            "cross-account-role", "strict", "/castai/",
        )  # fmt: skip
        assert blue["SecurityGroup"] == ["sg-0a1b2c3d"]
        assert "SecurityGroup" not in long
        assert text(blue["SpotHandlerRoleArn"]).endswith(":role/SpotRole")

    def test_the_tags_of_the_app_are_in_the_properties(self, synthesise: Synthesise) -> None:
        tags = {"team": "platform", "stage": "test"}
        context = PLAIN | {
            "castai:tags": tags,
            "castai:onboardByCluster": {"blue": {"Tags": {"stage": "prod"}}},
        }
        resources = synthesise(context).stack("onboarding").all(RESOURCE_TYPE).values()
        found = {each["ClusterName"]: each["Tags"] for each in resources}
        assert found == {"blue": tags | {"stage": "prod"}, "green": tags}

    def test_every_property_can_be_set(self) -> None:
        """A property is set in the JSON or by a setting of its own."""
        fields = structs.fields(Onboarding)
        in_json = {
            each.encode_name: to_builtins(default(Onboarding, each.name))
            for each in fields
            if each.encode_name not in ONBOARD_PROPERTIES.elsewhere
        } | {"SecurityGroup": "create"}
        settings = Settings.from_context(PLAIN | {"castai:onboardProperties": in_json})
        assert in_json.items() <= settings.onboarding_properties("blue").items()
        known = {name for group in groups().values() for name in names(group)}
        assert set(ONBOARD_PROPERTIES.elsewhere.values()) <= known

    def test_the_code_version_of_a_release_is_in_the_properties(
        self, plain: Stack, synthesise: Synthesise
    ) -> None:
        """It does not depend on the target: a deploy from another machine is no update."""
        bundle = Bundle("onboarding", ROOT / "lambdas/onboarding/requirements.txt", LAMBDA)
        local = synthesise(PLAIN | {"castai:bundling": "local"}).stack("onboarding")
        for stack in (plain, local):
            versions = {each["CodeVersion"] for each in stack.all(RESOURCE_TYPE).values()}
            assert versions == {bundle.code_version()}

    def test_the_function_ends_before_cloudformations_time_out(self, plain: Stack) -> None:
        (function, *_) = own_functions(plain)
        for resource in plain.all(RESOURCE_TYPE).values():
            assert function["Timeout"] < int(resource["ServiceTimeout"]) <= 3600

    def test_there_is_no_state_machine(self, plain: Stack) -> None:
        """Only the run itself has the ledger of its writes: it has to end in one invocation."""
        assert plain.all("AWS::StepFunctions::StateMachine") == {}

    def test_outputs_are_described_and_use_existing_attributes(
        self, plain: Stack, full: Stack
    ) -> None:
        attributes = set(steps.attributes(_any_context(), steps.Results()))
        for stack in (plain, full):
            for output in stack.template["Outputs"].values():
                assert len(output["Description"]) > 10
                assert output["Value"]["Fn::GetAtt"][1] in attributes
        assert "BlueUserArn" in plain.template["Outputs"]
        assert "BlueRoleArn" in full.template["Outputs"]
        assert "BlueNextStep" not in plain.template["Outputs"]  # with an API key
        assert "BlueNextStep" in full.template["Outputs"]

    def test_resources_with_a_shared_policy_depend_on_each_other(
        self, plain: Stack, synthesise: Synthesise
    ) -> None:
        def depending_on_another(stack: Stack) -> int:
            found = {
                logical: set(resource.get("DependsOn", ()))
                for logical, resource in stack.template["Resources"].items()
                if resource["Type"] == RESOURCE_TYPE
            }
            return sum(bool(dependencies & found.keys()) for dependencies in found.values())

        assert depending_on_another(plain) == 0
        shared = PLAIN | {"castai:onboardProperties": {"AccountWidePolicy": "true"}}
        assert depending_on_another(synthesise(shared).stack("onboarding")) == 1

    def test_the_stack_depends_on_those_of_agent_and_spot_handler(
        self, synthesise: Synthesise
    ) -> None:
        assembly = synthesise(PLAIN | {"castai:agentClusters": "blue"})
        found = assembly.json("manifest.json")["artifacts"]["castai-onboarding"]["dependencies"]
        assert {"castai-agent", "castai-spot-handler"} <= set(found)


def _any_context() -> Context:
    onboarding = Onboarding(cluster_name="blue", cluster_id="12345678-1234-1234-1234-123456789012")
    nothing: Any = None
    return Context(
        onboarding=onboarding,
        place=Place("aws", "eu-central-1", "123456789012"),
        resource="",
        clients=nothing,
        api=None,
        kubernetes=nothing,
        deadline=0,
        agent_problem=lambda _: "",
    )


class TestFunction:
    def test_each_function_has_a_log_group_with_retention(self, full: Stack) -> None:
        names = {each["FunctionName"] for each in own_functions(full)}
        groups = full.all("AWS::Logs::LogGroup").values()
        logs = {g["LogGroupName"]: g["RetentionInDays"] for g in groups if "LogGroupName" in g}
        assert logs == {f"/aws/lambda/{name}": 7 for name in names}
        assert all("RetentionInDays" in group for group in groups)

    def test_the_names_fit_for_a_long_cluster_name(self, full: Stack) -> None:
        for role in own_roles(full):
            assert role["AssumeRolePolicyDocument"] == functions.lambda_trust("aws")
            assert len(text(role["RoleName"]).replace("<Region>", "ap-northeast-1")) <= 64
        assert len({f["FunctionName"] for f in own_functions(full)}) == 2

    def test_the_environment_has_role_and_stack_and_no_key(self, plain: Stack) -> None:
        for function in own_functions(plain):
            variables = function["Environment"]["Variables"]
            powertools = {"POWERTOOLS_SERVICE_NAME", "POWERTOOLS_LOG_LEVEL"}
            assert set(variables) == {OWN_ROLE_VARIABLE, STACK_ID_VARIABLE} | powertools
            assert variables[STACK_ID_VARIABLE] == {"Ref": "AWS::StackId"}

    def test_the_framework_logs_no_request(self, plain: Stack) -> None:
        framework = [
            each
            for each in plain.all("AWS::Lambda::Function").values()
            if not each["Handler"].startswith("lambdas.")
        ]
        assert len(framework) == 2
        for each in framework:
            assert each["LoggingConfig"]["ApplicationLogLevel"] == "FATAL"


class TestRole:
    def test_a_policy_names_its_own_cluster_only(self, plain: Stack) -> None:
        for policy in plain.all("AWS::IAM::ManagedPolicy").values():
            document = json.dumps(policy["PolicyDocument"])
            mine, other = ("blue", "green") if "blue" in policy["Description"] else (
                "green", "blue",
            )  # fmt: skip
            assert mine in document
            assert not re.search(rf"\b{other}\b", document)

    def test_the_size_of_a_policy_is_that_of_the_deployed_document(
        self, synthesise: Synthesise
    ) -> None:
        context = PLAIN | {
            "castai:onboardClusters": ["x" * 55],
            "castai:onboardPermissionsBoundary": "arn:aws:iam::111122223333:policy/" + "b" * 100,
            "castai:onboardProperties": {"Path": "/" + "p" * 235 + "/"},
        }
        assert synthesise(context).stack("onboarding").all("AWS::IAM::ManagedPolicy")
        with pytest.raises(ContextError, match=r"policy castai-eks-onboarding-iam has \d+"):
            Settings.from_context(
                context | {"castai:onboardProperties": {"Path": "/" + "p" * 300 + "/"}}
            )

    def test_with_a_boundary_roles_may_be_created_only_with_it(self, full: Stack) -> None:
        for policy in full.all("AWS::IAM::ManagedPolicy").values():
            for statement in policy["PolicyDocument"]["Statement"]:
                if "iam:CreateRole" in statement["Action"]:
                    bound = statement["Condition"]["ArnEquals"]["iam:PermissionsBoundary"]
                    assert bound.endswith("platform/Boundary")

    def test_the_policies_name_the_spot_handlers_role_of_the_settings(self, full: Stack) -> None:
        documents = json.dumps(full.all("AWS::IAM::ManagedPolicy"))
        assert "role/SpotRole" in documents
        assert "CastLambdaRoleForSpot" not in documents


class TestChecks:
    def test_every_finding_of_cdk_nag_is_acknowledged(self, assembly: Assembly) -> None:
        assert acknowledged(assembly)

    def test_cfn_lint_has_no_finding(self, assembly: Assembly) -> None:
        assert lint_findings(assembly.stack("onboarding").template) == []

    def test_every_policy_is_valid_in_the_service_reference(self, assembly: Assembly) -> None:
        assert policy_findings(assembly) == []

    @pytest.mark.parametrize(
        ("region", "partition"),
        [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov"), (None, None)],
    )
    def test_every_arn_has_the_partition_of_the_region(
        self, synthesise: Synthesise, region: str | None, partition: str | None
    ) -> None:
        template = json.dumps(synthesise(PLAIN, region).stack("onboarding").template)
        assert set(re.findall(r"\barn:([a-z-]+):", template)) == (
            {partition} if partition else set()
        )

    def test_no_secret_value_is_in_the_template(self, assembly: Assembly) -> None:
        template = json.dumps(assembly.stack("onboarding").template)
        assert "resolve:secretsmanager" not in template


class TestSettings:
    @pytest.mark.parametrize(
        ("context", "message"),
        [
            ({"castai:onboardClusters": "blue"}, "blue: ClusterId: give CAST AI's id"),
            (
                PLAIN | {"castai:onboardByCluster": {"red": {}}},
                "red is not one of castai:onboardClusters",
            ),
            (
                PLAIN | {"castai:onboardByCluster": {"blue": {"Mod": "user"}}},
                "blue: Mod: there is no such property; did you mean Mode?",
            ),
            (
                PLAIN
                | {
                    "castai:onboardProperties": {"AccountWidePolicy": "true"},
                    "castai:onboardByCluster": {"green": {"Permissions": "standard"}},
                },
                "green: give Permissions as for blue: they share one CastEKSPolicy",
            ),
            (PLAIN | {"castai:tags": "cast:a=b"}, "Tags: choose other keys than cast:a"),
            (
                PLAIN | {"castai:onboardProperties": {"Path": "castai"}},
                "begins and ends with a slash",
            ),
            (
                PLAIN
                | {
                    "castai:onboardProperties": {"ManageSpotLambda": "true"},
                    "castai:onboardSpotHandler": "false",
                    "castai:spotRoleName": "cast-blue-lambda-12345678",
                },
                "choose a name that does not match cast-*-lambda-????????",
            ),
            (
                PLAIN
                | {
                    "castai:onboardByCluster": {"blue": {"ManageSpotLambda": "true"}},
                    "castai:namePrefix": "cast-eu",
                },
                "blue: choose another prefix: CAST AI may change every rule named cast-*",
            ),
        ],
    )
    def test_properties_that_the_function_would_refuse_are_a_fault_of_the_settings(
        self, context: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(ContextError, match=re.escape(message)):
            Settings.from_context(context)
