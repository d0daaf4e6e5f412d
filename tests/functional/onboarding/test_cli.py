"""`castai-eks` on the testbed of the custom resource."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import session
from cli.main import app
from kubesim import Answer
from lambdas.common.errors import CastaiError, PermanentError
from lambdas.onboarding.in_use import InUseError
from lambdas.onboarding.policies import onboarder
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import USER_CLUSTER_CHARACTERS, Mode
from lambdas.onboarding.steps import InTheWayError, OffboardError
from simulation.resources.eks import ACCOUNT, refusal
from tests.functional.onboarding.conftest import (
    API_KEY,
    API_KEY_SECRET,
    REGION,
    SPOT_ROLE,
    THROUGH_THE_SDK,
    OnboardingTestbed,
)
from tests.functional.onboarding.rights import Rights

Run = Callable[..., Result]


@pytest.fixture
def run(testbed: OnboardingTestbed, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command with the policies that `castai-eks policy admin` prints.

    The user has access to the cluster, because no command grants it.
    """
    testbed.users.admits = lambda: True
    deps = testbed.dependencies
    monkeypatch.setattr(session, "dependencies", lambda _region: replace(deps(), own_role=None))

    paths = ["/"]

    def invoke(command: str, *arguments: str, ok: bool = True, answer: str = "") -> Result:
        paths.extend(each[5:] for each in arguments if each.startswith("Path="))
        testbed.documents = administrator(testbed, arguments, paths[-1])
        given = [*command.split(), testbed.eks.name, *arguments]
        result = CliRunner().invoke(app, given, input=answer, catch_exceptions=False)
        assert (result.exit_code == 0) is ok, result.output
        return result

    return invoke


def administrator(
    testbed: OnboardingTestbed, arguments: Sequence[str], path: str
) -> list[Document]:
    """The administrator's policies for these arguments and the onboarding's path."""
    fits = len(testbed.eks.name) <= USER_CLUSTER_CHARACTERS
    documents = onboarder.administrator(
        testbed.scope(path),
        modes=list(Mode) if fits else [Mode.ROLE],
        account_wide="AccountWidePolicy=true" in arguments,
        api_key_secret=API_KEY_SECRET,
    )
    return [*documents.values()]


def api(testbed: OnboardingTestbed) -> list[str]:
    return [
        "--api-key-secret",
        API_KEY_SECRET,
        "-p",
        f"ApiUrl={testbed.castai_url}",
        "-p",
        "RequireAgent=false",
    ]


@pytest.mark.parametrize("mode", ["user", "cross-account-role"])
def test_plan_shows_what_onboard_then_does_and_writes_nothing(
    testbed: OnboardingTestbed, run: Run, mode: str
) -> None:
    before = testbed.snapshot()
    planned = run("plan", "--mode", mode, *api(testbed)).stdout
    assert testbed.snapshot() == before
    assert not testbed.writes.done
    for thing in ("CastEKSPolicy-prod", "cast-eks-prod"):
        assert thing in planned
    assert "create" in planned
    done = run("onboard", "--mode", mode, *api(testbed)).stdout
    assert testbed.known.credentials
    assert "NodeRoleArn" in done
    again = run("plan", "--mode", mode, *api(testbed)).stdout
    assert "create" not in again


def test_json_output_is_one_object(testbed: OnboardingTestbed, run: Run) -> None:
    before = testbed.snapshot()
    planned = json.loads(run("plan", "--json", *api(testbed)).stdout)
    assert "create" in {row["action"] for row in planned["rows"]}
    done = json.loads(run("onboard", "--json", *api(testbed)).stdout)
    assert done["rows"]
    assert done["facts"]["NodeRoleArn"].startswith("arn:aws:iam::")
    status = json.loads(run("status", "--json", *api(testbed)).stdout)
    assert status["facts"]["Onboarding"] == "complete"
    after = testbed.snapshot()
    with pytest.raises(PermanentError, match="Give --yes or --dry-run with --json"):
        run("offboard", "--json", *api(testbed))
    listed = json.loads(run("offboard", "--json", "--dry-run", *api(testbed)).stdout)
    assert testbed.snapshot() == after
    removed = json.loads(run("offboard", "--json", "--yes", *api(testbed)).stdout)
    assert listed["rows"]
    assert removed["rows"]
    assert testbed.snapshot() == before


@THROUGH_THE_SDK
def test_onboard_and_offboard_leave_the_account_as_it_was(
    testbed: OnboardingTestbed, run: Run
) -> None:
    before = testbed.snapshot()
    run("onboard", *api(testbed))
    after = testbed.snapshot()
    run("onboard", *api(testbed))
    assert testbed.snapshot() == after
    shown = run("offboard", "--dry-run", *api(testbed)).stdout
    assert "delete" in shown
    assert testbed.snapshot() == after
    run("offboard", *api(testbed), answer="n\n", ok=False)
    assert testbed.snapshot() == after
    run("offboard", "--yes", *api(testbed))
    assert testbed.snapshot() == before


def test_offboard_shows_each_resource_once(testbed: OnboardingTestbed, run: Run) -> None:
    role = "IAM role cast-eks-prod-cluster-role-"

    def lines(shown: str) -> list[str]:
        return [line for line in shown.splitlines() if role in line and "policy" not in line]

    run("onboard", "--mode", "cross-account-role", *api(testbed))
    assert len(lines(run("offboard", "--yes", *api(testbed)).stdout)) == 1
    run("onboard", "--mode", "cross-account-role", *api(testbed))
    asked = run("offboard", *api(testbed), answer="y\n").stdout
    shown, _, after = asked.partition("[y/N]")
    assert len(lines(shown)) == 1
    assert not lines(after)
    removed = sum(" delete " in line for line in shown.splitlines())
    assert f"Things removed: {removed}\n" in after


def test_offboard_shows_what_differs_from_its_plan(testbed: OnboardingTestbed, run: Run) -> None:
    run("onboard", "-p", "AccountWidePolicy=true", *api(testbed))
    user = {"UserName": "other"}
    testbed.iam.create_user(**user)
    [shared] = testbed.iam.list_policies(Scope="Local")["Policies"]
    testbed.writes.just_before["ec2:delete_security_group"] = lambda: (
        testbed.iam.attach_user_policy(**user, PolicyArn=shared["Arn"])
    )
    asked = run("offboard", "-p", "AccountWidePolicy=true", *api(testbed), answer="y\n").stdout
    assert "still used by user other" in asked.partition("[y/N]")[2]


OPTIONS = {
    "aws-auth": ["-p", "ClusterAccess=aws-auth", "-p", f"SpotHandlerRoleArn={SPOT_ROLE}"],
    "entries": ["-p", "ClusterAccess=access-entries", "-p", f"SpotHandlerRoleArn={SPOT_ROLE}"],
    "role": ["--mode", "cross-account-role"],
    "shared": ["-p", "AccountWidePolicy=true"],
    "shared-role": ["--mode", "cross-account-role", "-p", "AccountWidePolicy=true"],
    "path": ["-p", "ClusterAccess=aws-auth", "-p", "Path=/castai/"],
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS.keys())
def test_offboard_removes_what_exists_without_repeated_options(
    testbed: OnboardingTestbed, run: Run, options: list[str]
) -> None:
    before = testbed.snapshot()
    run("onboard", *options, *api(testbed))
    assert testbed.snapshot() != before
    run(
        "offboard",
        "--yes",
        "--api-key-secret",
        API_KEY_SECRET,
        "-p",
        f"ApiUrl={testbed.castai_url}",
    )
    assert testbed.snapshot() == before
    writes = [entry.what for entry in testbed.castai.log if entry.method != "GET"]
    again = run(
        "offboard", "--api-key-secret", API_KEY_SECRET, "-p", f"ApiUrl={testbed.castai_url}"
    ).stdout
    assert "Nothing of castai-eks is left" in again
    assert "disconnect" not in again
    since = [entry.what for entry in testbed.castai.log if entry.method != "GET"][len(writes) :]
    assert [what for what in since if "disconnect" in what or "removed" in what] == []


def api_without_agent_option(testbed: OnboardingTestbed) -> list[str]:
    return ["--api-key-secret", API_KEY_SECRET, "-p", f"ApiUrl={testbed.castai_url}"]


def test_offboard_keeps_the_access_entries_of_others(testbed: OnboardingTestbed, run: Run) -> None:
    team = f"arn:aws:iam::{ACCOUNT}:role/team-admins"
    testbed.eks.create_access_entry(clusterName="prod", principalArn=team)
    before = testbed.snapshot()
    run("onboard", *api(testbed))
    run("offboard", "--yes", *api_without_agent_option(testbed))
    assert testbed.snapshot() == before


def test_offboard_of_a_cluster_whose_name_is_too_long_for_a_user(
    testbed: OnboardingTestbed, run: Run
) -> None:
    testbed.eks.name = "c" * 60
    before = testbed.snapshot()
    run("onboard", "--mode", "cross-account-role", *api(testbed))
    run("offboard", "--yes", *api_without_agent_option(testbed))
    assert testbed.snapshot() == before


def _options_whose_resources_have_no_tag_with_the_id(
    testbed: OnboardingTestbed, *more: str
) -> list[str]:
    group = testbed.ec2.create_security_group(GroupName="m", Description="m", VpcId=testbed.eks.vpc)
    groups = f'SecurityGroup=["{group["GroupId"]}"]'
    shared = "AccountWidePolicy=true"
    return ["--mode", "cross-account-role", "-p", shared, "-p", groups, *more, *api(testbed)]


def test_offboard_without_the_api_key_takes_the_id_from_the_access_entries(
    testbed: OnboardingTestbed, run: Run
) -> None:
    given = _options_whose_resources_have_no_tag_with_the_id(testbed, "-p", "Path=/castai/")
    before = testbed.snapshot()
    run("onboard", *given)
    run("offboard", "--yes")
    assert testbed.snapshot() == before


def test_offboard_finds_the_id_in_the_names_of_the_roles(
    testbed: OnboardingTestbed, run: Run
) -> None:
    path = ("-p", "ClusterAccess=aws-auth", "-p", "Path=/castai/")
    given = _options_whose_resources_have_no_tag_with_the_id(testbed, *path)
    before = testbed.snapshot()
    run("onboard", *given)
    run("offboard", "--yes")
    assert testbed.snapshot() == before
    assert "Nothing of castai-eks is left" in run("offboard", "--yes").stdout


def test_offboard_requires_an_id_where_it_may_not_list_roles(
    testbed: OnboardingTestbed, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _options_whose_resources_have_no_tag_with_the_id(
        testbed, "-p", "ClusterAccess=aws-auth"
    )
    before = testbed.snapshot()
    run("onboard", *given)
    after = testbed.snapshot()
    monkeypatch.setattr(onboarder, "FINDS", ("iam:ListPolicies",))
    with pytest.raises(PermanentError, match=r"^Give --cluster-id, or allow iam:ListRoles"):
        run("offboard", "--yes")
    assert testbed.snapshot() == after
    run("offboard", "--yes", "--cluster-id", testbed.cluster_id)
    assert testbed.snapshot() == before


@pytest.mark.parametrize("mode", ["user", "cross-account-role"])
def test_a_failed_disconnect_is_done_by_the_next_run(
    testbed: OnboardingTestbed, run: Run, mode: str
) -> None:
    run("onboard", "--mode", mode, *api(testbed))
    testbed.castai.outage = 1_000_000
    with pytest.raises(OffboardError, match="CAST AI"):
        run("offboard", "--yes", *api(testbed))
    assert testbed.known.status == "ready"
    assert not {"cast-eks-prod"} & testbed.snapshot()["users"].keys()  # CAST AI has no access
    testbed.castai.outage = 0
    run("offboard", "--yes", *api(testbed))
    assert testbed.known.status == "deleting"
    assert "Nothing of castai-eks is left" in run("offboard", "--yes", *api(testbed)).stdout


def test_offboard_does_not_disconnect_a_cluster_that_a_stack_onboards_too(
    testbed: OnboardingTestbed, run: Run
) -> None:
    run("onboard", "--mode", "user", *api(testbed))
    testbed.create(Mode="cross-account-role", Adopt="true")
    assert testbed.known.status == "ready"
    run("offboard", "--yes", *api(testbed))
    assert testbed.known.status == "ready"


def test_a_role_of_this_name_that_may_not_be_read_is_no_error(
    testbed: OnboardingTestbed, run: Run
) -> None:
    """The role is of a cluster of this name in another region, onboarded under another path."""
    testbed.iam.create_role(
        RoleName="cast-prod-eks-0a1b2c3d", Path="/team/", AssumeRolePolicyDocument="{}"
    )
    before = testbed.snapshot()
    run("onboard", *api(testbed))
    run("offboard", "--yes", *api(testbed))
    assert testbed.snapshot() == before


@pytest.mark.parametrize(
    "action",
    [
        "eks:DescribeCluster",
        "iam:GetPolicy",
        "iam:GetUser",
        "iam:GetRole",
        "iam:ListRoles",
        "ec2:DescribeSecurityGroups",
        "eks:ListAccessEntries",
        "eks:DescribeAccessEntry",
    ],
)
def test_status_without_a_permission_names_it_and_shows_the_rest(
    testbed: OnboardingTestbed, run: Run, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    run("onboard", *api(testbed))
    check = Rights.check

    def without(rights: Rights, service: str, method: str, arguments: Any) -> None:
        if f"{service}:{method.replace('_', '')}" == action.lower():
            code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
            raise refusal(code + "Exception" * (service == "eks"))
        check(rights, service, method, arguments)

    monkeypatch.setattr(Rights, "check", without)
    shown = " ".join(run("status").stdout.split())
    assert "Agent available" in shown or action == "eks:DescribeCluster"
    assert "Cluster does not exist" not in shown
    assert f"llow {action}" in shown


def test_status_names_a_user_who_has_our_policy_attached(
    testbed: OnboardingTestbed, run: Run
) -> None:
    run("onboard", *api(testbed))
    complete = run("status").stdout
    policy = next(arn for arn in testbed.snapshot()["policies"] if "CastEKSPolicy" in arn)
    testbed.iam.create_user(UserName="x")
    testbed.iam.attach_user_policy(UserName="x", PolicyArn=policy)
    shown = " ".join(run("status").stdout.split())
    assert "from user x first" in shown
    assert "could not be read" not in shown
    assert "made by castai-eks" in complete


@pytest.mark.parametrize("command", ["status", "offboard"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("-p", "Pth=/x/"), "Pth: there is no such property; did you mean Path?"),
        (("--cluster-id", "f310167e"), "Give CAST AI's id of the cluster as a UUID"),
        (("-p", "DetachForeignPolices=true"), "did you mean DetachForeignPolicies?"),
    ],
)
def test_a_wrong_option_is_refused_with_its_name(
    run: Run, command: str, given: tuple[str, ...], words: str
) -> None:
    with pytest.raises(CastaiError, match=r"^Correct these properties:") as error:
        run(command, *given)
    assert words in str(error.value)


def test_offboard_registers_nothing_at_castai(testbed: OnboardingTestbed, run: Run) -> None:
    before = testbed.snapshot()
    assert "Nothing of castai-eks is left" in run("offboard", "--yes", *api(testbed)).stdout
    assert testbed.snapshot() == before
    assert testbed.castai.clusters == {}


def test_offboard_leaves_a_shared_policy_that_another_cluster_uses(
    testbed: OnboardingTestbed, run: Run
) -> None:
    testbed.other_cluster("stage").create(AccountWidePolicy="true")
    before = testbed.snapshot()
    run("onboard", "-p", "AccountWidePolicy=true", *api(testbed))
    for _ in range(2):
        shown = run("offboard", "--yes", *api(testbed)).stdout
        assert "still used by user cast-eks-stage" in " ".join(shown.split())
        assert testbed.snapshot() == before
    assert "Nothing of castai-eks is left" in shown


def test_offboard_leaves_a_shared_policy_that_it_may_not_read(
    testbed: OnboardingTestbed, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator's policy of an earlier release names the cluster's own policy alone."""
    before = testbed.snapshot()
    run("onboard", *api(testbed))
    monkeypatch.setattr(onboarder, "_former_policy_statements", lambda _scope, **_: [])
    shown = run("offboard", "--yes", *api(testbed)).stdout
    assert "Allow iam:GetPolicy" in " ".join(shown.split())
    assert testbed.snapshot() == before


def test_offboard_keeps_the_user_whose_mapping_cannot_be_removed(
    testbed: OnboardingTestbed, run: Run
) -> None:
    before = testbed.snapshot()
    run("onboard", *OPTIONS["aws-auth"], *api(testbed))
    refused = Answer(403, {"kind": "Status", "status": "Failure", "code": 403, "message": "no"})
    fault = testbed.cluster.faults.add("PUT", "aws-auth", refused, times=math.inf)
    with pytest.raises(OffboardError) as error:
        run("offboard", "--yes", *api(testbed))
    assert str(error.value).splitlines()[-1] == (
        "- not tried after that: spot handler's rights, identity, node role, policy"
    )
    assert "cast-eks-prod" in testbed.snapshot()["users"]
    fault.times = 0
    run("offboard", "--yes", *api(testbed))
    assert testbed.snapshot() == before


def test_offboard_keeps_user_and_mappings_when_a_node_is_launched_during_it(
    testbed: OnboardingTestbed, run: Run
) -> None:
    before = testbed.snapshot()
    run("onboard", *OPTIONS["aws-auth"], *api(testbed))
    found = testbed.snapshot()
    nodes: list[str] = []
    testbed.writes.just_before["ec2:delete_security_group"] = lambda: nodes.append(testbed.launch())
    with pytest.raises(OffboardError, match="Remove the nodes") as error:
        run("offboard", "--yes", *api(testbed))
    first, listed, not_tried = str(error.value).splitlines()
    assert listed.removeprefix("- security group: ").startswith(first.partition("again: ")[2])
    assert not_tried.startswith("- not tried after that: hand-over, credentials, cluster access")
    left = testbed.snapshot()
    assert {key: left[key] for key in ("aws-auth", "rbac")} == {
        key: found[key] for key in ("aws-auth", "rbac")
    }
    assert "cast-eks-prod" in left["users"]
    testbed.terminate(nodes[0])
    run("offboard", "--yes", *api(testbed))
    assert testbed.snapshot() == before


def test_resources_of_a_stack_are_a_conflict_and_are_not_removed(
    testbed: OnboardingTestbed, run: Run
) -> None:
    testbed.users.admits = lambda: True
    testbed.create()
    before = testbed.snapshot()
    planned = run("plan", *api(testbed), ok=False)
    assert planned.exit_code == 2
    assert "conflict" in planned.stdout
    with pytest.raises(InTheWayError):
        run("onboard", *api(testbed))
    run("offboard", "--yes", *api(testbed))
    assert testbed.snapshot() == before


@pytest.mark.parametrize("mode", ["user", "cross-account-role"])
def test_offboard_with_resource_removes_what_a_stack_no_longer_lists(
    testbed: OnboardingTestbed, run: Run, mode: str
) -> None:
    """The stack's update removed the cluster; its Delete was refused, with UPDATE_COMPLETE."""
    before = testbed.snapshot()
    node = testbed.node(testbed.create(resource="Gone", Mode=mode, SpotHandlerRoleArn=SPOT_ROLE))
    with pytest.raises(InUseError):
        testbed.delete(resource="Gone")
    owner = "castai-onboarding/Gone"
    assert f"onboarded by {owner}" in run("offboard", *api(testbed)).stdout
    testbed.users.admits = lambda: True
    with pytest.raises(InUseError, match=node):
        run("offboard", "--yes", "--resource", owner, *api(testbed))
    testbed.terminate(node)
    run("offboard", "--yes", "--resource", "castai-onboarding/Other", *api(testbed))
    assert testbed.snapshot() != before
    run("offboard", "--yes", "--resource", owner, *api(testbed))
    assert testbed.snapshot() == before


def test_status_says_whether_the_onboarding_is_complete(
    testbed: OnboardingTestbed, run: Run
) -> None:
    testbed.agent = "Install the agent"
    text = run("status", "--mode", "user", *api(testbed)).stdout
    assert "things differ" in text
    assert "Install the agent" in text
    run("onboard", *api(testbed))
    testbed.agent = ""
    text = run("status", *api(testbed)).stdout
    assert "complete" in text
    assert "available" in text


IDENTITIES = {
    "user": "IAM user cast-eks-prod",
    "cross-account-role": "IAM role cast-eks-prod-cluster-role-",
}


def _launch_node(testbed: OnboardingTestbed) -> None:
    """Launch a node as CAST AI does. It stops a removal, but not the status."""
    [profile] = testbed.iam.list_instance_profiles()["InstanceProfiles"]
    [group] = [
        group["GroupId"]
        for group in testbed.ec2.describe_security_groups()["SecurityGroups"]
        if "CastNodeSecurityGroup" in group["GroupName"]
    ]
    testbed.node(
        {
            "ClusterId": testbed.cluster_id,
            "InstanceProfileArn": profile["Arn"],
            "SecurityGroupId": group,
        }
    )


@pytest.mark.parametrize("mode", IDENTITIES)
def test_status_needs_no_option_and_writes_nothing(
    testbed: OnboardingTestbed, run: Run, mode: str
) -> None:
    text = run("status").stdout
    assert "ACTIVE" in text
    assert "available" in text
    assert "not asked: give --api-key-secret" in text
    assert "nothing here was made by castai-eks" in text
    run("onboard", "--mode", mode, "-p", "Path=/castai/", *api(testbed))
    _launch_node(testbed)
    before = testbed.snapshot()
    written = len(testbed.writes.done)
    text = run("status").stdout
    assert mode in text
    assert "not asked: give --api-key-secret" in text
    for thing in (IDENTITIES[mode], "CastEKSPolicy-prod", "CastNodeSecurityGroup"):
        assert thing in text
    assert "delete" not in text
    assert (testbed.snapshot(), len(testbed.writes.done)) == (before, written)


@pytest.mark.parametrize("mode", IDENTITIES)
def test_status_takes_mode_and_path_from_the_resources(
    testbed: OnboardingTestbed, run: Run, mode: str
) -> None:
    run("onboard", "--mode", mode, "-p", "Path=/castai/", *api(testbed))
    text = run("status", *api(testbed)).stdout
    assert "complete" in text
    assert mode in text
    assert "cluster ready, agent" in text


def test_status_of_a_cluster_that_is_not_registered_makes_no_call_to_castai(
    testbed: OnboardingTestbed, run: Run
) -> None:
    for options in ((), ("--mode", "user"), ("--mode", "cross-account-role")):
        assert "not registered" in run("status", *options, *api(testbed)).stdout
    assert testbed.castai.log == []


def test_status_takes_the_id_from_the_agents_config_map(
    testbed: OnboardingTestbed, run: Run
) -> None:
    eks = {"clusterName": "prod", "region": REGION, "accountId": ACCOUNT}
    cluster_id = testbed.castai.register({"name": "prod", "eks": eks}).id
    testbed.cluster.add_namespace("castai-agent")
    testbed.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "castai-agent-metadata", "namespace": "castai-agent"},
            "data": {"CLUSTER_ID": cluster_id},
        }
    )
    assert "agent waiting-connection" in run("status", *api(testbed)).stdout


def test_status_says_what_it_could_not_read(testbed: OnboardingTestbed, run: Run) -> None:
    run("onboard", "-p", "ClusterAccess=aws-auth", *api(testbed))
    refused = Answer(403, {"kind": "Status", "status": "Failure", "code": 403, "message": "no"})
    testbed.cluster.faults.add("GET", "aws-auth", refused, times=math.inf)
    text = run("status").stdout
    assert "could not be read" in text
    for thing in ("IAM user cast-eks-prod", "CastEKSPolicy-prod"):
        assert thing in text


def test_status_of_a_deleted_cluster_lists_what_is_left(
    testbed: OnboardingTestbed, run: Run
) -> None:
    run("onboard", *api(testbed))
    testbed.eks.exists = False
    text = run("status").stdout
    assert "does not exist in eu-central-1" in text
    assert "IAM user cast-eks-prod" in text


def test_the_key_is_shown_by_credentials_show_only(testbed: OnboardingTestbed, run: Run) -> None:
    outputs = [
        run("plan", *api(testbed)),
        run("onboard", *api(testbed)),
        run("status", *api(testbed)),
    ]
    key = testbed.stored_key()
    for result in outputs:
        assert API_KEY not in result.output
        assert key["secretAccessKey"] not in result.output
    refused = run("credentials show", answer="n\n", ok=False)
    assert key["secretAccessKey"] not in refused.output
    assert json.loads(run("credentials show", "--yes").stdout) == key
