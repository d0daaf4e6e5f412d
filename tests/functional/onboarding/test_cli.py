"""`castai-eks` on the same account, cluster and CAST AI as the custom resource."""

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
from tests.functional.onboarding.conftest import API_KEY, API_KEY_SECRET, REGION, Scene
from tests.functional.onboarding.eks import ACCOUNT, refusal
from tests.functional.onboarding.rights import Rights
from tests.functional.onboarding.test_lifecycle import SPOT_ROLE

Run = Callable[..., Result]


@pytest.fixture
def run(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A command as a user with the policies that `castai-eks policy admin` prints.

    The user has access to the cluster, which no command grants.
    """
    scene.users.admits = lambda: True
    deps = scene.dependencies
    monkeypatch.setattr(session, "dependencies", lambda _region: replace(deps(), own_role=None))

    paths = ["/"]

    def invoke(command: str, *arguments: str, ok: bool = True, answer: str = "") -> Result:
        paths.extend(each[5:] for each in arguments if each.startswith("Path="))
        scene.documents = administrator(scene, arguments, paths[-1])
        given = [*command.split(), scene.eks.name, *arguments]
        result = CliRunner().invoke(app, given, input=answer, catch_exceptions=False)
        assert (result.exit_code == 0) is ok, result.output
        return result

    return invoke


def administrator(scene: Scene, arguments: Sequence[str], path: str) -> list[Document]:
    """The documents for these arguments; the path stays that of the onboarding."""
    fits = len(scene.eks.name) <= USER_CLUSTER_CHARACTERS
    documents = onboarder.administrator(
        scene.scope(path),
        modes=list(Mode) if fits else [Mode.ROLE],
        account_wide="AccountWidePolicy=true" in arguments,
        api_key_secret=API_KEY_SECRET,
    )
    return [*documents.values()]


def api(scene: Scene) -> list[str]:
    return [
        "--api-key-secret",
        API_KEY_SECRET,
        "-p",
        f"ApiUrl={scene.castai_url}",
        "-p",
        "RequireAgent=false",
    ]


@pytest.mark.parametrize("mode", ["user", "cross-account-role"])
def test_a_plan_says_what_onboard_then_does_and_writes_nothing(
    scene: Scene, run: Run, mode: str
) -> None:
    before = scene.snapshot()
    planned = run("plan", "--mode", mode, *api(scene)).stdout
    assert scene.snapshot() == before
    assert not scene.writes.done
    for thing in ("CastEKSPolicy-prod", "cast-eks-prod"):
        assert thing in planned
    assert "create" in planned
    done = run("onboard", "--mode", mode, *api(scene)).stdout
    assert scene.known.credentials
    assert "NodeRoleArn" in done
    again = run("plan", "--mode", mode, *api(scene)).stdout
    assert "create" not in again


def test_programs_get_one_json_object(scene: Scene, run: Run) -> None:
    before = scene.snapshot()
    planned = json.loads(run("plan", "--json", *api(scene)).stdout)
    assert "create" in {row["action"] for row in planned["rows"]}
    done = json.loads(run("onboard", "--json", *api(scene)).stdout)
    assert done["rows"]
    assert done["facts"]["NodeRoleArn"].startswith("arn:aws:iam::")
    status = json.loads(run("status", "--json", *api(scene)).stdout)
    assert status["facts"]["Onboarding"] == "complete"
    after = scene.snapshot()
    with pytest.raises(PermanentError, match="Give --yes or --dry-run with --json"):
        run("offboard", "--json", *api(scene))
    listed = json.loads(run("offboard", "--json", "--dry-run", *api(scene)).stdout)
    assert scene.snapshot() == after
    removed = json.loads(run("offboard", "--json", "--yes", *api(scene)).stdout)
    assert listed["rows"]
    assert removed["rows"]
    assert scene.snapshot() == before


def test_onboard_and_offboard_leave_the_account_as_it_was(scene: Scene, run: Run) -> None:
    before = scene.snapshot()
    run("onboard", *api(scene))
    after = scene.snapshot()
    run("onboard", *api(scene))
    assert scene.snapshot() == after
    shown = run("offboard", "--dry-run", *api(scene)).stdout
    assert "delete" in shown
    assert scene.snapshot() == after
    run("offboard", *api(scene), answer="n\n", ok=False)
    assert scene.snapshot() == after
    run("offboard", "--yes", *api(scene))
    assert scene.snapshot() == before


def test_offboard_shows_each_thing_once(scene: Scene, run: Run) -> None:
    gone = "IAM role cast-eks-prod-cluster-role-"

    def lines(shown: str) -> list[str]:
        return [line for line in shown.splitlines() if gone in line and "policy" not in line]

    run("onboard", "--mode", "cross-account-role", *api(scene))
    assert len(lines(run("offboard", "--yes", *api(scene)).stdout)) == 1
    run("onboard", "--mode", "cross-account-role", *api(scene))
    asked = run("offboard", *api(scene), answer="y\n").stdout
    shown, _, after = asked.partition("[y/N]")
    assert len(lines(shown)) == 1
    assert not lines(after)
    removed = sum(" delete " in line for line in shown.splitlines())
    assert f"Things removed: {removed}\n" in after


def test_offboard_shows_what_it_did_otherwise_than_planned(scene: Scene, run: Run) -> None:
    run("onboard", "-p", "AccountWidePolicy=true", *api(scene))
    user = {"UserName": "someone"}
    scene.iam.create_user(**user)
    [shared] = scene.iam.list_policies(Scope="Local")["Policies"]
    scene.writes.just_before["ec2:delete_security_group"] = lambda: scene.iam.attach_user_policy(
        **user, PolicyArn=shared["Arn"]
    )
    asked = run("offboard", "-p", "AccountWidePolicy=true", *api(scene), answer="y\n").stdout
    assert "still used by user someone" in asked.partition("[y/N]")[2]


WAYS = {
    "aws-auth": ["-p", "ClusterAccess=aws-auth", "-p", f"SpotHandlerRoleArn={SPOT_ROLE}"],
    "entries": ["-p", "ClusterAccess=access-entries", "-p", f"SpotHandlerRoleArn={SPOT_ROLE}"],
    "role": ["--mode", "cross-account-role"],
    "shared": ["-p", "AccountWidePolicy=true"],
    "shared-role": ["--mode", "cross-account-role", "-p", "AccountWidePolicy=true"],
    "path": ["-p", "ClusterAccess=aws-auth", "-p", "Path=/castai/"],
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())
def test_offboard_goes_by_what_is_there_and_not_by_repeated_options(
    scene: Scene, run: Run, way: list[str]
) -> None:
    before = scene.snapshot()
    run("onboard", *way, *api(scene))
    assert scene.snapshot() != before
    run("offboard", "--yes", "--api-key-secret", API_KEY_SECRET, "-p", f"ApiUrl={scene.castai_url}")
    assert scene.snapshot() == before
    told = [entry.what for entry in scene.castai.log if entry.method != "GET"]
    again = run(
        "offboard", "--api-key-secret", API_KEY_SECRET, "-p", f"ApiUrl={scene.castai_url}"
    ).stdout
    assert "Nothing of castai-eks is left" in again
    assert "disconnect" not in again
    since = [entry.what for entry in scene.castai.log if entry.method != "GET"][len(told) :]
    assert [what for what in since if "disconnect" in what or "removed" in what] == []


def bare(scene: Scene) -> list[str]:
    return ["--api-key-secret", API_KEY_SECRET, "-p", f"ApiUrl={scene.castai_url}"]


def test_offboard_passes_over_the_access_entries_of_others(scene: Scene, run: Run) -> None:
    team = f"arn:aws:iam::{ACCOUNT}:role/team-admins"
    scene.eks.create_access_entry(clusterName="prod", principalArn=team)
    before = scene.snapshot()
    run("onboard", *api(scene))
    run("offboard", "--yes", *bare(scene))
    assert scene.snapshot() == before


def test_offboard_of_a_cluster_whose_name_is_too_long_for_a_user(scene: Scene, run: Run) -> None:
    scene.eks.name = "c" * 60
    before = scene.snapshot()
    run("onboard", "--mode", "cross-account-role", *api(scene))
    run("offboard", "--yes", *bare(scene))
    assert scene.snapshot() == before


def _with_nothing_that_carries_the_id_but_entries(scene: Scene, *more: str) -> list[str]:
    group = scene.ec2.create_security_group(GroupName="m", Description="m", VpcId=scene.eks.vpc)
    groups = f'SecurityGroup=["{group["GroupId"]}"]'
    shared = "AccountWidePolicy=true"
    return ["--mode", "cross-account-role", "-p", shared, "-p", groups, *more, *api(scene)]


def test_offboard_without_the_api_key_takes_the_id_from_the_access_entries(
    scene: Scene, run: Run
) -> None:
    given = _with_nothing_that_carries_the_id_but_entries(scene, "-p", "Path=/castai/")
    before = scene.snapshot()
    run("onboard", *given)
    run("offboard", "--yes")
    assert scene.snapshot() == before


def test_offboard_finds_the_roles_by_their_names_where_nothing_else_carries_the_id(
    scene: Scene, run: Run
) -> None:
    path = ("-p", "ClusterAccess=aws-auth", "-p", "Path=/castai/")
    given = _with_nothing_that_carries_the_id_but_entries(scene, *path)
    before = scene.snapshot()
    run("onboard", *given)
    run("offboard", "--yes")
    assert scene.snapshot() == before
    assert "Nothing of castai-eks is left" in run("offboard", "--yes").stdout


def test_offboard_asks_for_an_id_where_it_may_not_list_roles(
    scene: Scene, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = _with_nothing_that_carries_the_id_but_entries(scene, "-p", "ClusterAccess=aws-auth")
    before = scene.snapshot()
    run("onboard", *given)
    after = scene.snapshot()
    monkeypatch.setattr(onboarder, "FINDS", ("iam:ListPolicies",))
    with pytest.raises(PermanentError, match=r"^Give --cluster-id, or allow iam:ListRoles"):
        run("offboard", "--yes")
    assert scene.snapshot() == after
    run("offboard", "--yes", "--cluster-id", scene.cluster_id)
    assert scene.snapshot() == before


@pytest.mark.parametrize("mode", ["user", "cross-account-role"])
def test_a_disconnect_that_failed_is_done_by_the_next_run(
    scene: Scene, run: Run, mode: str
) -> None:
    run("onboard", "--mode", mode, *api(scene))
    scene.castai.outage = 1_000_000
    with pytest.raises(OffboardError, match="CAST AI"):
        run("offboard", "--yes", *api(scene))
    assert scene.known.status == "ready"
    assert not {"cast-eks-prod"} & scene.snapshot()["users"].keys()  # CAST AI's access is gone
    scene.castai.outage = 0
    run("offboard", "--yes", *api(scene))
    assert scene.known.status == "deleting"
    assert "Nothing of castai-eks is left" in run("offboard", "--yes", *api(scene)).stdout


def test_a_cluster_that_a_stack_onboards_as_well_is_not_disconnected(
    scene: Scene, run: Run
) -> None:
    run("onboard", "--mode", "user", *api(scene))
    scene.create(Mode="cross-account-role", Adopt="true")
    assert scene.known.status == "ready"
    run("offboard", "--yes", *api(scene))
    assert scene.known.status == "ready"


def test_a_role_of_this_name_that_may_not_be_read_stops_nothing(scene: Scene, run: Run) -> None:
    """A cluster of the same name in another region, onboarded under a path of its own."""
    scene.iam.create_role(
        RoleName="cast-prod-eks-0a1b2c3d", Path="/team/", AssumeRolePolicyDocument="{}"
    )
    before = scene.snapshot()
    run("onboard", *api(scene))
    run("offboard", "--yes", *api(scene))
    assert scene.snapshot() == before


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
def test_the_status_goes_on_without_a_right_and_says_so(
    scene: Scene, run: Run, monkeypatch: pytest.MonkeyPatch, action: str
) -> None:
    run("onboard", *api(scene))
    check = Rights.check

    def without(rights: Rights, service: str, method: str, arguments: Any) -> None:
        if f"{service}:{method.replace('_', '')}" == action.lower():
            code = "UnauthorizedOperation" if service == "ec2" else "AccessDenied"
            raise refusal(code + "Exception" * (service == "eks"))
        check(rights, service, method, arguments)

    monkeypatch.setattr(Rights, "check", without)
    shown = " ".join(run("status").stdout.split())
    assert "Agent available" in shown or action == "eks:DescribeCluster"
    assert "Cluster EKS does not know it" not in shown
    assert f"llow {action}" in shown


def test_the_status_names_what_holds_a_policy_of_ours(scene: Scene, run: Run) -> None:
    run("onboard", *api(scene))
    complete = run("status").stdout
    policy = next(arn for arn in scene.snapshot()["policies"] if "CastEKSPolicy" in arn)
    scene.iam.create_user(UserName="x")
    scene.iam.attach_user_policy(UserName="x", PolicyArn=policy)
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
def test_a_wrong_option_is_named(
    run: Run, command: str, given: tuple[str, ...], words: str
) -> None:
    with pytest.raises(CastaiError, match=r"^Correct these properties:") as error:
        run(command, *given)
    assert words in str(error.value)


def test_offboard_registers_nothing_at_castai(scene: Scene, run: Run) -> None:
    before = scene.snapshot()
    assert "Nothing of castai-eks is left" in run("offboard", "--yes", *api(scene)).stdout
    assert scene.snapshot() == before
    assert scene.castai.clusters == {}


def test_offboard_leaves_a_shared_policy_that_another_cluster_uses(scene: Scene, run: Run) -> None:
    scene.beside("stage").create(AccountWidePolicy="true")
    before = scene.snapshot()
    run("onboard", "-p", "AccountWidePolicy=true", *api(scene))
    for _ in range(2):
        shown = run("offboard", "--yes", *api(scene)).stdout
        assert "still used by user cast-eks-stage" in " ".join(shown.split())
        assert scene.snapshot() == before
    assert "Nothing of castai-eks is left" in shown


def test_offboard_leaves_a_shared_policy_that_it_may_not_read(
    scene: Scene, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The administrator's policy of an earlier release names the cluster's own policy alone."""
    before = scene.snapshot()
    run("onboard", *api(scene))
    monkeypatch.setattr(onboarder, "_former_policy_statements", lambda _scope, **_: [])
    shown = run("offboard", "--yes", *api(scene)).stdout
    assert "Allow iam:GetPolicy" in " ".join(shown.split())
    assert scene.snapshot() == before


def test_a_mapping_that_cannot_be_removed_keeps_whom_it_maps(scene: Scene, run: Run) -> None:
    before = scene.snapshot()
    run("onboard", *WAYS["aws-auth"], *api(scene))
    refused = Answer(403, {"kind": "Status", "status": "Failure", "code": 403, "message": "no"})
    fault = scene.cluster.faults.add("PUT", "aws-auth", refused, times=math.inf)
    with pytest.raises(OffboardError) as error:
        run("offboard", "--yes", *api(scene))
    assert str(error.value).splitlines()[-1] == (
        "- not tried after that: spot handler's rights, identity, node role, policy"
    )
    assert "cast-eks-prod" in scene.snapshot()["users"]
    fault.times = 0
    run("offboard", "--yes", *api(scene))
    assert scene.snapshot() == before


def test_a_node_that_comes_meanwhile_keeps_mappings_and_whom_they_map(
    scene: Scene, run: Run
) -> None:
    before = scene.snapshot()
    run("onboard", *WAYS["aws-auth"], *api(scene))
    found = scene.snapshot()
    nodes: list[str] = []
    scene.writes.just_before["ec2:delete_security_group"] = lambda: nodes.append(scene.launch())
    with pytest.raises(OffboardError, match="Remove the nodes") as error:
        run("offboard", "--yes", *api(scene))
    first, listed, not_tried = str(error.value).splitlines()
    assert listed.removeprefix("- security group: ").startswith(first.partition("again: ")[2])
    assert not_tried.startswith("- not tried after that: hand-over, credentials, cluster access")
    left = scene.snapshot()
    assert {key: left[key] for key in ("aws-auth", "rbac")} == {
        key: found[key] for key in ("aws-auth", "rbac")
    }
    assert "cast-eks-prod" in left["users"]
    scene.terminate(nodes[0])
    run("offboard", "--yes", *api(scene))
    assert scene.snapshot() == before


def test_what_a_stack_made_is_in_the_way_and_stays(scene: Scene, run: Run) -> None:
    scene.users.admits = lambda: True
    scene.create()
    before = scene.snapshot()
    planned = run("plan", *api(scene), ok=False)
    assert planned.exit_code == 2
    assert "conflict" in planned.stdout
    with pytest.raises(InTheWayError):
        run("onboard", *api(scene))
    run("offboard", "--yes", *api(scene))
    assert scene.snapshot() == before


@pytest.mark.parametrize("mode", ["user", "cross-account-role"])
def test_what_a_stack_has_forgotten_is_removed_by_the_resource_that_the_rows_name(
    scene: Scene, run: Run, mode: str
) -> None:
    """A removal that was refused while the cluster was taken off the list: UPDATE_COMPLETE."""
    before = scene.snapshot()
    node = scene.node(scene.create(resource="Gone", Mode=mode, SpotHandlerRoleArn=SPOT_ROLE))
    with pytest.raises(InUseError):
        scene.delete(resource="Gone")
    forgotten = "castai-onboarding/Gone"
    assert f"onboarded by {forgotten}" in run("offboard", *api(scene)).stdout
    scene.users.admits = lambda: True
    with pytest.raises(InUseError, match=node):
        run("offboard", "--yes", "--resource", forgotten, *api(scene))
    scene.terminate(node)
    run("offboard", "--yes", "--resource", "castai-onboarding/Other", *api(scene))
    assert scene.snapshot() != before
    run("offboard", "--yes", "--resource", forgotten, *api(scene))
    assert scene.snapshot() == before


def test_the_status_tells_how_far_the_onboarding_is(scene: Scene, run: Run) -> None:
    scene.agent = "Install the agent"
    text = run("status", "--mode", "user", *api(scene)).stdout
    assert "things differ" in text
    assert "Install the agent" in text
    run("onboard", *api(scene))
    scene.agent = ""
    text = run("status", *api(scene)).stdout
    assert "complete" in text
    assert "available" in text


IDENTITIES = {
    "user": "IAM user cast-eks-prod",
    "cross-account-role": "IAM role cast-eks-prod-cluster-role-",
}


def _launch_node(scene: Scene) -> None:
    """A node as CAST AI adds one, which stops a removal and no status."""
    [profile] = scene.iam.list_instance_profiles()["InstanceProfiles"]
    [group] = [
        group["GroupId"]
        for group in scene.ec2.describe_security_groups()["SecurityGroups"]
        if "CastNodeSecurityGroup" in group["GroupName"]
    ]
    scene.node(
        {
            "ClusterId": scene.cluster_id,
            "InstanceProfileArn": profile["Arn"],
            "SecurityGroupId": group,
        }
    )


@pytest.mark.parametrize("mode", IDENTITIES)
def test_the_status_needs_no_option(scene: Scene, run: Run, mode: str) -> None:
    text = run("status").stdout
    assert "ACTIVE" in text
    assert "available" in text
    assert "not asked: give --api-key-secret" in text
    assert "nothing here was made by castai-eks" in text
    run("onboard", "--mode", mode, "-p", "Path=/castai/", *api(scene))
    _launch_node(scene)
    before = scene.snapshot()
    written = len(scene.writes.done)
    text = run("status").stdout
    assert mode in text
    assert "not asked: give --api-key-secret" in text
    for thing in (IDENTITIES[mode], "CastEKSPolicy-prod", "CastNodeSecurityGroup"):
        assert thing in text
    assert "delete" not in text
    assert (scene.snapshot(), len(scene.writes.done)) == (before, written)


@pytest.mark.parametrize("mode", IDENTITIES)
def test_the_status_compares_with_the_mode_and_the_path_that_are_there(
    scene: Scene, run: Run, mode: str
) -> None:
    run("onboard", "--mode", mode, "-p", "Path=/castai/", *api(scene))
    text = run("status", *api(scene)).stdout
    assert "complete" in text
    assert mode in text
    assert "cluster ready, agent" in text


def test_a_cluster_that_is_not_registered_is_not_asked_about(scene: Scene, run: Run) -> None:
    for options in ((), ("--mode", "user"), ("--mode", "cross-account-role")):
        assert "not registered" in run("status", *options, *api(scene)).stdout
    assert scene.castai.log == []


def test_the_status_knows_the_id_that_the_agent_works_under(scene: Scene, run: Run) -> None:
    eks = {"clusterName": "prod", "region": REGION, "accountId": ACCOUNT}
    cluster_id = scene.castai.register({"name": "prod", "eks": eks}).id
    scene.cluster.add_namespace("castai-agent")
    scene.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "castai-agent-metadata", "namespace": "castai-agent"},
            "data": {"CLUSTER_ID": cluster_id},
        }
    )
    assert "agent waiting-connection" in run("status", *api(scene)).stdout


def test_the_status_says_what_it_could_not_read(scene: Scene, run: Run) -> None:
    run("onboard", "-p", "ClusterAccess=aws-auth", *api(scene))
    refused = Answer(403, {"kind": "Status", "status": "Failure", "code": 403, "message": "no"})
    scene.cluster.faults.add("GET", "aws-auth", refused, times=math.inf)
    text = run("status").stdout
    assert "could not be read" in text
    for thing in ("IAM user cast-eks-prod", "CastEKSPolicy-prod"):
        assert thing in text


def test_the_status_of_a_cluster_that_is_gone_lists_what_is_left(scene: Scene, run: Run) -> None:
    run("onboard", *api(scene))
    scene.eks.exists = False
    text = run("status").stdout
    assert "EKS does not know it" in text
    assert "IAM user cast-eks-prod" in text


def test_the_key_is_shown_only_when_asked_for(scene: Scene, run: Run) -> None:
    outputs = [run("plan", *api(scene)), run("onboard", *api(scene)), run("status", *api(scene))]
    key = scene.stored_key()
    for result in outputs:
        assert API_KEY not in result.output
        assert key["secretAccessKey"] not in result.output
    refused = run("credentials show", answer="n\n", ok=False)
    assert key["secretAccessKey"] not in refused.output
    assert json.loads(run("credentials show", "--yes").stdout) == key
