"""`castai-eks policy`, `agent render` and the parsing of properties: no AWS account is needed."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from cli import main as command_line
from cli.onboarding import parsed
from lambdas.common.errors import PermanentError
from lambdas.onboarding.policies import (
    agent_role,
    castai_function,
    castai_identity,
    functions,
    node_role,
    onboarder,
    savings,
    spot_handler_role,
)
from lambdas.onboarding.policies.scope import FunctionScope, Mode, Permissions, Scope

ID = "1a2b3c4d-0000-4000-8000-000000000001"
WHERE = ["--region", "cn-north-1", "--account", "111122223333", "--partition", "aws-cn"]
SCOPE = Scope("aws-cn", "cn-north-1", "111122223333", "prod", ID, "vpc-1")
KNOWN = ["--cluster", "prod", *WHERE, "--cluster-id", ID, "--vpc-id", "vpc-1"]


def run(*arguments: str) -> str:
    result = CliRunner().invoke(command_line.app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def run_json(*arguments: str) -> Any:
    return json.loads(run(*arguments, "--json"))


def test_admin_prints_the_policies_of_the_chosen_mode() -> None:
    both = run_json("policy", "admin", *KNOWN)
    assert both == onboarder.administrator(SCOPE)
    named = run_json("policy", "admin", *KNOWN, "--spot-role-name", "Drain")
    assert named == onboarder.administrator(replace(SCOPE, spot_role="Drain"))
    user = run_json("policy", "admin", *KNOWN, "--mode", "user")
    assert user == onboarder.administrator(SCOPE, modes=[Mode.USER])


def test_admin_prints_role_mode_for_a_name_that_is_too_long_for_user_mode() -> None:
    documents = run_json("policy", "admin", "--cluster", "c" * 60)
    assert "CreateUser" not in json.dumps(documents)


def test_admin_for_cdk_prints_the_roles_of_the_bootstrap_stack_only() -> None:
    documents = run_json("policy", "admin", *KNOWN, "--cdk")
    assert documents == {
        "cdk-deployer": onboarder.cdk_deployer("aws-cn", "111122223333", "cn-north-1")
    }


@pytest.mark.parametrize("permissions", Permissions)
def test_cluster_prints_the_policies_of_castais_identity(permissions: Permissions) -> None:
    documents = run_json("policy", "cluster", *KNOWN, "--permissions", permissions.value)
    assert documents == {
        "CastEKSPolicy-prod": castai_identity.cast_eks_policy(
            SCOPE, permissions, manage_spot_lambda=False, boundary=None
        ),
        "CastEKSRestrictedAccess": castai_identity.restricted_access(SCOPE, permissions),
        "managed-policies": list(castai_identity.identity_managed_policies("aws-cn", permissions)),
    }


def test_cluster_in_role_mode_prints_the_trust_policy_too() -> None:
    principal = "arn:aws-cn:iam::1:user/c"
    arguments = ["--mode", "cross-account-role", "--principal", principal]
    documents = run_json("policy", "cluster", *KNOWN, *arguments)
    assert documents["trust"] == castai_identity.cross_account_trust(principal, ID)


def test_cluster_with_spot_lambda_prints_the_role_of_castais_function() -> None:
    documents = run_json("policy", "cluster", *KNOWN, "--spot-lambda")
    assert documents["role cast-prod-lambda-1a2b3c4d"] == {
        "trust": functions.lambda_trust("aws-cn"),
        "inline": castai_function.castai_function_policy(SCOPE),
    }


def test_node_and_spot_print_trust_and_managed_policies() -> None:
    assert run_json("policy", "node", "--partition", "aws-cn", "--ssm") == {
        "trust": node_role.node_trust("aws-cn"),
        "managed-policies": [*node_role.node_managed_policies("aws-cn", ssm=True, ebs_csi=False)],
    }
    ipv6 = run_json("policy", "node", *WHERE, "--ipv6")["CastEC2AssignIPv6Policy"]
    assert ipv6 == node_role.node_ipv6_policy("aws-cn", "cn-north-1", "111122223333")
    spot = run_json("policy", "spot", "--cluster", "prod", *WHERE)
    assert spot["trust"] == functions.lambda_trust("aws-cn")
    assert spot["managed-policies"] == [*spot_handler_role.spot_managed_policies("aws-cn")]
    find, keep = spot["inline"]["Statement"]
    assert (find["Action"], find["Resource"]) == (["eks:DescribeCluster"], [SCOPE.cluster_arn])
    assert keep["Action"] == ["sqs:SendMessage"]


def test_spot_prints_least_privilege_and_the_api_key_on_request() -> None:
    options = ["--least-privilege", "--api-key-secret", "castai/key"]
    spot = run_json("policy", "spot", *WHERE, *options)
    assert spot["managed-policies"] == []
    assert spot["inline"] == spot_handler_role.spot_handler(
        FunctionScope("aws-cn", "111122223333", ("cn-north-1",), "castai-spot-handler"),
        failure_queue="castai-spot-handler-failures",
        least=True,
        api_key_secret="castai/key",
    )


def test_savings_prints_the_reads_on_aws_and_in_the_cluster() -> None:
    known = ["--cluster", "prod", *WHERE]
    where = FunctionScope("aws-cn", "111122223333", ("cn-north-1",))
    documents = run_json("policy", "savings", *known)
    assert documents == {
        "castai-eks-savings": savings.reader(where, "prod"),
        "cluster-role": savings.cluster_role(),
    }
    find, read = documents["castai-eks-savings"]["Statement"]
    assert find["Resource"] == [SCOPE.cluster_arn]
    assert all(":Describe" in action or ":Get" in action for action in read["Action"])
    with_key = run_json("policy", "savings", *known, "--api-key-secret", "castai/key")
    assert with_key["castai-eks-savings"] == savings.reader(
        where, "prod", api_key_secret="castai/key"
    )


@pytest.mark.parametrize("command", ["admin", "cluster", "node", "spot", "savings"])
def test_every_command_prints_placeholders_without_options(command: str) -> None:
    text = run("policy", command)
    assert '"Version": "2012-10-17"' in text


def test_an_error_is_one_message_and_exit_status_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["castai-eks", "policy", "cluster", "--cluster", "x y"])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert ended.value.code == 1
    out, err = capsys.readouterr()
    assert not out
    assert err.startswith('Give the name of an EKS cluster, not "x y"')
    assert "Traceback" not in err


def test_the_agents_manifest_is_printed_without_the_key() -> None:
    objects = list(yaml.safe_load_all(run("agent", "render", "prod")))
    assert {each["kind"] for each in objects} >= {"Namespace", "Deployment", "ClusterRole"}
    (secret,) = [each for each in objects if each["kind"] == "Secret"]
    assert set(secret["data"].values()) == {""}


@pytest.mark.parametrize(
    ("pair", "value"),
    [
        ("Path=/castai/", {"Path": "/castai/"}),
        ('Tags={"team": "platform"}', {"Tags": {"team": "platform"}}),
        ('SecurityGroup=["sg-12345678"]', {"SecurityGroup": ["sg-12345678"]}),
        ("RotationId=a=b", {"RotationId": "a=b"}),
        ("RotationId=", {"RotationId": ""}),
    ],
)
def test_a_property_is_parsed_from_a_pair(pair: str, value: dict[str, Any]) -> None:
    assert parsed([pair]) == value


@pytest.mark.parametrize("pair", ["Path", "=x", "Tags={x"])
def test_a_property_that_is_no_pair_is_refused(pair: str) -> None:
    with pytest.raises(PermanentError, match=r"^Give"):
        parsed([pair])


def test_agent_prints_the_policy_of_all_clusters_and_that_of_one() -> None:
    where = FunctionScope("aws-cn", "111122223333", ("cn-north-1",), "castai-agent")
    assert run_json("policy", "agent", "--cluster", "prod", *WHERE, "--api-key-secret", "key") == {
        "trust": functions.lambda_trust("aws-cn"),
        "managed": agent_role.agent_function(
            where, own_role="castai-agent-cn-north-1", api_key_secret="key"
        ),
        "cluster-prod": agent_role.agent_cluster("aws-cn", "prod"),
    }


def test_onboarding_prints_the_policies_of_the_function() -> None:
    scope = replace(SCOPE, cluster_id="", vpc_id="")
    name = "castai-onboarding-prod"
    given = ("--cluster", "prod", *WHERE, "--api-key-secret", "key")
    assert run_json("policy", "onboarding", *given) == {
        "trust": functions.lambda_trust("aws-cn"),
        **onboarder.onboarding_lambda(
            scope,
            own_role_arn=scope.iam(f"role/{name}-cn-north-1"),
            function=name,
            api_key_secret="key",
        ),
    }
