"""Create, Update and Delete as CloudFormation sends them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from kubesim import Hook
from lambdas.common import aws, retry, temporary_access
from lambdas.common.errors import CastaiError
from lambdas.common.names import FORMER_IDS_TAG
from lambdas.common.temporary_access import TEMPORARY_TAG
from lambdas.onboarding import handler, session
from lambdas.onboarding.in_use import InUseError
from lambdas.onboarding.steps import UNDO_TIME, InTheWayError, OffboardError, StepFailedError
from tests.functional.onboarding.conftest import (
    API_KEY,
    API_KEY_SECRET,
    OWN_ROLE,
    REMAINING,
    Scene,
    Time,
)
from tests.functional.onboarding.eks import ACCOUNT, Entry, refusal

LONGEST_DELAY = retry.DEFAULT.delays[-1]  # s between two tries
TIME_TO_ANSWER = 10.0  # s that CloudFormation's answer may take after all else
ROLE = {"Mode": "cross-account-role"}
SPOT_ROLE = f"arn:aws:iam::{ACCOUNT}:role/CastLambdaRoleForSpot"
ID = "12345678-1234-1234-1234-123456789012"
TRUST = '{"Version":"2012-10-17","Statement":[]}'
POLICY = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "ec2:RunInstances", "Resource": "*"}],
    }
)
PRINCIPAL = f"arn:aws:iam::{ACCOUNT}:user/castai"
SHARED = f"arn:aws:iam::{ACCOUNT}:policy/CastEKSPolicy"
MODES = pytest.mark.parametrize("mode", [{}, ROLE], ids=["user", "role"])


def arn_of(name: str) -> str:
    return f"arn:aws:iam::aws:policy/{name}Access"


class TestCreate:
    def test_user_mode_makes_what_castai_expects(self, scene: Scene) -> None:
        data = scene.create()
        id8 = scene.id8
        assert data == {
            "Mode": "user",
            "ClusterId": scene.cluster_id,
            "UserArn": f"arn:aws:iam::{ACCOUNT}:user/cast-eks-prod",
            "RoleArn": "",
            "PolicyArn": f"arn:aws:iam::{ACCOUNT}:policy/CastEKSPolicy-prod",
            "NodeRoleArn": f"arn:aws:iam::{ACCOUNT}:role/cast-prod-eks-{id8}",
            "InstanceProfileArn": f"arn:aws:iam::{ACCOUNT}:instance-profile/cast-prod-eks-{id8}",
            "SecurityGroupId": data["SecurityGroupId"],
            "CredentialsSecretArn": data["CredentialsSecretArn"],
            "AccessMethod": "access-entries",
            "NextStep": "",
        }
        found = scene.snapshot()
        attached, inline, _, keys = found["users"]["cast-eks-prod"]
        assert attached == [
            data["PolicyArn"], arn_of("AmazonEC2ReadOnly"), arn_of("IAMReadOnly"),
        ]  # fmt: skip
        assert set(inline) == {"CastEKSRestrictedAccess"}
        assert keys == [scene.known.credentials["accessKeyId"]]
        assert scene.stored_key()["accessKeyId"] == keys[0]
        assert found["profiles"][f"cast-prod-eks-{id8}"][0] == [f"cast-prod-eks-{id8}"]
        kinds = {arn: (e[0], e[2]) for arn, e in found["entries"].items()}
        assert kinds == {
            data["NodeRoleArn"]: ("EC2_LINUX", ()),
            data["UserArn"]: (
                "STANDARD",
                ("arn:aws:eks::aws:cluster-access-policy/AmazonEKSClusterAdminPolicy",),
            ),
        }
        rules, _, tags = found["groups"]["cast-prod-cluster/CastNodeSecurityGroup"]
        assert [p["GroupId"] for p in rules[0]["UserIdGroupPairs"]] == [data["SecurityGroupId"]]
        assert tags["cast:cluster-id"] == scene.cluster_id

    def test_role_mode_trusts_castais_principal_and_gives_it_no_access_inside(
        self, scene: Scene
    ) -> None:
        data = scene.create(**ROLE)
        name = f"cast-eks-prod-cluster-role-{scene.id8}"
        assert data["RoleArn"].endswith(f":role/{name}")
        trust, *_ = scene.snapshot()["roles"][name]
        (statement,) = trust["Statement"]
        assert statement["Principal"]["AWS"].endswith(f"user/cast-crossrole-{scene.cluster_id}")
        assert statement["Condition"]["StringEquals"]["sts:ExternalId"] == scene.cluster_id
        assert set(scene.eks.entries) == {data["NodeRoleArn"]}
        assert scene.known.credentials["role"] == data["RoleArn"]
        assert data["CredentialsSecretArn"] == ""

    def test_the_physical_id_is_that_of_the_cluster(self, scene: Scene) -> None:
        answer = scene.send(scene.event("Create", scene.properties()))
        assert answer["PhysicalResourceId"] == f"castai-eks/{ACCOUNT}/eu-central-1/prod"

    @MODES
    def test_twice_is_once(self, scene: Scene, mode: dict[str, Any]) -> None:
        first = scene.create(**mode)
        before, scene.writes.done = scene.snapshot(), []
        assert scene.create(**mode) == first
        assert scene.writes.done == []
        assert scene.snapshot() == before

    def test_what_exists_is_listed_whole_and_nothing_is_made(self, scene: Scene) -> None:
        scene.iam.create_user(UserName="cast-eks-prod")
        scene.secrets.create_secret(Name="castai-eks/prod/credentials", SecretString="{}")
        before = scene.snapshot()
        scene.writes.done.clear()
        with pytest.raises(InTheWayError) as error:
            scene.create()
        assert str(error.value).splitlines() == [
            "Remove what is in the way, or set Adopt to take it over:",
            "- IAM user cast-eks-prod: made by someone else",
            "- secret castai-eks/prod/credentials: made by someone else",
        ]
        assert scene.writes.done == []
        assert scene.snapshot() == before

    @pytest.mark.parametrize("reason", ["status", "missing"])
    def test_a_cluster_that_is_not_there_yet(self, scene: Scene, reason: str) -> None:
        scene.eks.status, scene.eks.exists = "CREATING", reason == "status"
        with pytest.raises(StepFailedError, match=r"Wait until|Create cluster prod"):
            scene.create()

    def test_the_agent_has_to_run(self, scene: Scene) -> None:
        before = scene.snapshot()
        scene.agent = "there is no Deployment"
        with pytest.raises(StepFailedError, match=r"Connect the cluster first.*no Deployment"):
            scene.create(RequireAgent="true")
        assert scene.snapshot() == before

    def test_without_the_api_key_the_outputs_say_what_to_paste(self, scene: Scene) -> None:
        wanted = {"ApiKeySecret": None, "ClusterId": ID}
        data = scene.create(**wanted)
        assert "Paste accessKeyId and secretAccessKey" in data["NextStep"]
        assert scene.castai.log == []
        scene.delete(**wanted)
        with pytest.raises(CastaiError, match="PrincipalArn"):
            scene.create(**wanted, **ROLE)

    def test_existing_security_groups_are_used_and_not_touched(self, scene: Scene) -> None:
        group = scene.ec2.create_security_group(GroupName="mine", Description="-")["GroupId"]
        before = scene.snapshot()
        assert scene.create(SecurityGroup=[group])["SecurityGroupId"] == group
        scene.delete(SecurityGroup=[group])
        assert scene.snapshot() == before
        with pytest.raises(InTheWayError, match="sg-12345678: is not in the cluster's VPC"):
            scene.create(SecurityGroup=["sg-12345678"])

    def test_iam_that_has_not_heard_yet_is_waited_for(self, scene: Scene) -> None:
        """CAST AI answers 400 and API servers 401 for a while. The run waits."""
        scene.castai.propagation = 5
        scene.users.refusals = 3
        scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert 0 < scene.time.slept < 120

    def test_an_api_that_never_accepts_ends_in_time_with_the_account_as_it_was(
        self, scene: Scene
    ) -> None:
        before, start = scene.snapshot(), scene.time.now
        scene.castai.propagation = 10_000
        with pytest.raises(StepFailedError, match=r"step hand-over; everything .* undone"):
            scene.create()
        assert scene.time.now - start < 600
        assert scene.snapshot() == before

    def test_a_key_that_castai_refuses_is_explained(self, scene: Scene) -> None:
        scene.secrets.put_secret_value(SecretId=API_KEY_SECRET, SecretString="another-key")
        with pytest.raises(StepFailedError, match="valid CAST AI API key"):
            scene.create()

    def test_nodes_of_an_ipv6_cluster_may_assign_its_addresses(self, scene: Scene) -> None:
        before = scene.snapshot()
        data = scene.create()
        name = data["NodeRoleArn"].rpartition("/")[2]
        assert scene.snapshot()["roles"][name][2] == {}
        scene.delete()
        scene.eks.ip_family = "ipv6"
        scene.create()
        inline = scene.snapshot()["roles"][name][2]
        (statement, *_) = inline["CastEC2AssignIPv6Policy"]["Statement"]
        assert "ec2:AssignIpv6Addresses" in statement["Action"]
        scene.delete()
        assert scene.snapshot() == before

    def test_castais_own_function_has_a_role_of_its_own_and_only_on_request(
        self, scene: Scene
    ) -> None:
        scene.create()
        name = f"cast-prod-lambda-{scene.id8}"
        assert name not in scene.snapshot()["roles"]
        scene.update({}, ManageSpotLambda="true", SpotHandlerRoleArn=SPOT_ROLE)
        found = scene.snapshot()
        trust, attached, inline, *_ = found["roles"][name]
        assert trust["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}
        assert attached == []
        (rights,) = inline.values()
        assert rights["Statement"][0]["Action"] == ["ec2:DescribeInstances"]
        (policy,) = found["policies"].values()
        passed = next(s for s in policy[0]["Statement"] if s["Sid"] == "PassRoleLambda")
        assert passed["Resource"] == [f"arn:aws:iam::{ACCOUNT}:role/{name}"]
        scene.update({"ManageSpotLambda": "true"})
        assert name not in scene.snapshot()["roles"]

    def test_castai_gets_no_function_that_runs_as_another_role(self, scene: Scene) -> None:
        """CAST AI's script made one under the spot handler's role: its code needs no PassRole."""
        scene.functions.roles["cast-ai-ec2-events-handler"] = SPOT_ROLE
        before = scene.snapshot()
        for adopt in ("false", "true"):
            with pytest.raises(InTheWayError, match="delete the function, or set ManageSpotLamb"):
                scene.create(ManageSpotLambda="true", Adopt=adopt)
        assert scene.snapshot() == before
        scene.create()
        with pytest.raises(InTheWayError, match=SPOT_ROLE):
            scene.update({}, ManageSpotLambda="true")
        another = f"arn:aws:iam::{ACCOUNT}:role/cast-stage-lambda-0a1b2c3d"
        scene.functions.roles["cast-ai-ec2-events-handler"] = another
        scene.update({}, ManageSpotLambda="true")

    def test_paths_tags_and_boundary(self, scene: Scene) -> None:
        boundary = scene.iam.create_policy(PolicyName="Boundary", PolicyDocument=POLICY)["Policy"]
        before = scene.snapshot()
        wanted = {
            "Path": "/castai/",
            "Tags": {"team": "platform"},
            "PermissionsBoundary": boundary["Arn"],
            "SsmOnNodes": "true",
            "EbsCsiOnNodes": "true",
        }
        data = scene.create(**ROLE, **wanted)
        assert ":role/castai/cast-eks-prod" in data["RoleArn"]
        role = scene.iam.get_role(RoleName=data["NodeRoleArn"].rpartition("/")[2])["Role"]
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary["Arn"]
        assert {"Key": "team", "Value": "platform"} in role["Tags"]
        attached = scene.snapshot()["roles"][role["RoleName"]][1]
        assert "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy" in attached
        with pytest.raises(StepFailedError, match=r"^Set Path back to /castai/: IAM cannot move"):
            scene.update({**ROLE, **wanted}, **{**ROLE, **wanted, "Path": "/other/"})
        scene.delete(**ROLE, **wanted)
        assert scene.snapshot() == before


class TestUpdate:
    @pytest.mark.parametrize(("old", "new"), [({}, ROLE), (ROLE, {})], ids=["to-role", "to-user"])
    def test_a_switched_mode_hands_the_new_identity_over_before_the_old_one_goes(
        self, scene: Scene, old: dict[str, Any], new: dict[str, Any]
    ) -> None:
        clean = scene.snapshot()
        scene.create(**old)
        data = scene.update(old, **new)
        given = scene.known.credentials
        assert given.get("role", "") == data["RoleArn"]
        found = scene.snapshot()
        assert ("cast-eks-prod" in found["users"]) is (new == {})
        assert (f"cast-eks-prod-cluster-role-{scene.id8}" in found["roles"]) is (new == ROLE)
        assert ("castai-eks/prod/credentials" in found["secrets"]) is (new == {})
        assert (f"arn:aws:iam::{ACCOUNT}:user/cast-eks-prod" in found["entries"]) is (new == {})
        assert bool(scene.known.principal) is (new == ROLE)
        assert [call for call in scene.castai.log if call.path.endswith("disconnect")] == []
        scene.delete(**new)
        assert scene.snapshot() == clean

    def test_rotation_makes_one_new_key_and_removes_the_old_one(self, scene: Scene) -> None:
        scene.create()
        (old,) = scene.keys("cast-eks-prod")
        scene.update({}, RotationId="2")
        (new,) = scene.keys("cast-eks-prod")
        assert new != old
        assert scene.stored_key()["accessKeyId"] == new == scene.known.credentials["accessKeyId"]
        scene.update({"RotationId": "2"}, RotationId="2")
        assert scene.keys("cast-eks-prod") == [new]

    def test_a_group_that_was_replaced_and_is_in_use_keeps_no_old_key(self, scene: Scene) -> None:
        data = scene.create()
        scene.node(data)
        (old,) = scene.keys("cast-eks-prod")
        mine = scene.ec2.create_security_group(GroupName="mine", Description="-")["GroupId"]
        scene.update({}, SecurityGroup=[mine], RotationId="2")
        assert old not in scene.keys("cast-eks-prod")
        groups = scene.ec2.describe_security_groups(GroupIds=[data["SecurityGroupId"]])
        assert len(groups["SecurityGroups"]) == 1

    def test_without_the_api_the_old_key_works_until_the_rotation_after(self, scene: Scene) -> None:
        wanted = {"ApiKeySecret": None, "ClusterId": ID}
        scene.create(**wanted)
        (first,) = scene.keys("cast-eks-prod")
        scene.update(wanted, **wanted, RotationId="2")
        assert first in scene.keys("cast-eks-prod")
        scene.update({**wanted, "RotationId": "2"}, **wanted, RotationId="3")
        assert first not in scene.keys("cast-eks-prod")
        assert len(scene.keys("cast-eks-prod")) == 2

    def test_a_third_key_is_refused_before_anything_is_made(self, scene: Scene) -> None:
        scene.create()
        scene.secrets.put_secret_value(SecretId="castai-eks/prod/credentials", SecretString="{}")
        scene.iam.create_access_key(UserName="cast-eks-prod")
        before = scene.snapshot()
        with pytest.raises(InTheWayError, match="delete the unused one"):
            scene.update({})
        assert scene.snapshot() == before

    def test_a_policy_gets_a_version_only_where_its_meaning_differs(self, scene: Scene) -> None:
        arn = scene.create()["PolicyArn"]
        for number in range(8):
            scene.update({}, ManageSpotLambda=str(bool(number % 2)).lower())
            versions = scene.iam.list_policy_versions(PolicyArn=arn)["Versions"]
            assert len(versions) <= 5
            assert [v["IsDefaultVersion"] for v in versions].count(True) == 1
        newest = scene.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        scene.update({}, ManageSpotLambda="true")
        assert scene.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == newest

    def test_fewer_rights_and_tags_are_taken_back(self, scene: Scene) -> None:
        old = {"Tags": {"team": "a", "cost": "1"}, "SsmOnNodes": "true"}
        scene.create(**old)
        scene.update(old, Tags={"team": "b"}, Permissions="strict")
        attached, _, tags, _ = scene.snapshot()["users"]["cast-eks-prod"]
        assert arn_of("IAMReadOnly") not in attached
        assert tags["team"] == "b"
        assert "cost" not in tags
        node = scene.snapshot()["roles"][f"cast-prod-eks-{scene.id8}"]
        assert "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore" not in node[1]

    def test_a_new_id_at_castai_gives_a_new_node_role_and_removes_the_old(
        self, scene: Scene
    ) -> None:
        old = {"ClusterId": ID, "ApiKeySecret": None}
        scene.create(**old)
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        assert scene.update(old, **new)["NodeRoleArn"].endswith("-99999999")
        found = scene.snapshot()
        assert [name for name in found["roles"] if name.endswith("12345678")] == []
        assert [name for name in found["profiles"] if name.endswith("12345678")] == []

    @pytest.mark.parametrize(
        "mode", [{}, {**ROLE, "PrincipalArn": PRINCIPAL}], ids=["user", "role"]
    )
    @pytest.mark.parametrize("by", ["update", "delete"])
    def test_a_former_id_is_remembered_until_nothing_carries_it(
        self, scene: Scene, by: str, mode: dict[str, Any]
    ) -> None:
        clean = scene.snapshot()
        old = {"ClusterId": ID, "ApiKeySecret": None, **mode}
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        former = scene.create(**old)
        role = former["NodeRoleArn"].rpartition("/")[2]
        foreign = {"RoleName": role, "PolicyArn": arn_of("IAMReadOnly")}
        scene.iam.attach_role_policy(**foreign)
        current = scene.update(old, **new)["NodeRoleArn"].rpartition("/")[2]
        assert role in scene.snapshot()["roles"]
        with pytest.raises(OffboardError, match=f"from IAM role {role}"):
            scene.delete(**new)
        assert current in scene.snapshot()["roles"]
        scene.update(new, **new, RotationId="2")
        held = {"InstanceProfileName": "mine", "RoleName": role}
        profile = scene.iam.create_instance_profile(InstanceProfileName="mine")["InstanceProfile"]
        scene.iam.add_role_to_instance_profile(**held)
        node = scene.launch(profile["Arn"], _other_group(scene))
        for refused in (lambda: scene.delete(**new), lambda: scene.update(new, **new)):
            with pytest.raises(InUseError, match=node):
                refused()
        scene.terminate(node)
        scene.ec2.delete_security_group(GroupName="mine")
        scene.iam.remove_role_from_instance_profile(**held)
        scene.iam.delete_instance_profile(InstanceProfileName="mine")
        scene.iam.detach_role_policy(**foreign)
        if by == "update":
            scene.update(new, **new)
            found = scene.snapshot()["roles"]
            assert role not in found
            assert FORMER_IDS_TAG not in found[current][3]
        scene.delete(**new)
        assert scene.snapshot() == clean

    def test_a_removal_that_fails_elsewhere_keeps_what_remembers_a_former_id(
        self, scene: Scene
    ) -> None:
        clean = scene.snapshot()
        old = {"ClusterId": ID, "ApiKeySecret": None, "PrincipalArn": PRINCIPAL, **ROLE}
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        former = scene.create(**old)["RoleArn"].rpartition("/")[2]
        managed = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
        foreign = {"RoleName": former, "PolicyArn": managed}
        scene.iam.attach_role_policy(**foreign)
        current = scene.update(old, **new)["NodeRoleArn"].rpartition("/")[2]
        with pytest.raises(OffboardError, match=f"from IAM role {former}"):
            scene.delete(**new)
        assert current in scene.snapshot()["roles"]
        scene.iam.detach_role_policy(**foreign)
        scene.delete(**new)
        assert scene.snapshot() == clean

    def test_another_cluster_is_a_replacement(self, scene: Scene) -> None:
        """CloudFormation sees the new physical id and deletes the old cluster's things itself."""
        scene.create()
        other = scene.beside("stage")
        event = other.event(
            "Update",
            other.properties(),
            OldResourceProperties=scene.properties(),
            PhysicalResourceId=f"castai-eks/{ACCOUNT}/eu-central-1/prod",
        )
        assert other.send(event)["PhysicalResourceId"].endswith("/stage")
        assert set(scene.snapshot()["users"]) == {"cast-eks-prod", "cast-eks-stage"}
        scene.delete()
        assert set(scene.snapshot()["users"]) == {"cast-eks-stage"}

    def test_old_properties_of_another_release_are_read_as_far_as_they_go(
        self, scene: Scene
    ) -> None:
        scene.create(**ROLE)
        old = {**ROLE, "SchemaVersion": "0", "Gone": "x", "Permissions": "everything"}
        scene.update(old, SchemaVersion="0", Gone="x")  # the rollback of an upgrade
        assert f"cast-eks-prod-cluster-role-{scene.id8}" not in scene.snapshot()["roles"]


class TestDelete:
    @MODES
    def test_the_account_is_as_it_was(self, scene: Scene, mode: dict[str, Any]) -> None:
        before = scene.snapshot()
        wanted = {**mode, "SpotHandlerRoleArn": SPOT_ROLE, "ManageSpotLambda": "true"}
        scene.create(**wanted)
        scene.delete(**wanted)
        assert scene.snapshot() == before
        assert scene.known.credentials == {}
        scene.delete(**wanted)  # again, with nothing left
        assert scene.snapshot() == before

    def test_what_is_gone_already_is_no_error(self, scene: Scene) -> None:
        before = scene.snapshot()
        scene.create()
        scene.secrets.delete_secret(
            SecretId="castai-eks/prod/credentials", ForceDeleteWithoutRecovery=True
        )
        name = f"cast-prod-eks-{scene.id8}"
        scene.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
        scene.iam.delete_instance_profile(InstanceProfileName=name)
        scene.castai.clusters.clear()
        scene.delete()
        assert scene.snapshot() == before

    @MODES
    def test_a_cluster_that_is_gone_has_taken_its_entries_along(
        self, scene: Scene, mode: dict[str, Any]
    ) -> None:
        before = scene.snapshot()
        wanted = {**mode, "SpotHandlerRoleArn": SPOT_ROLE, "ManageSpotLambda": "true"}
        scene.create(**wanted)
        scene.eks.exists = False
        scene.eks.entries.clear()
        scene.delete(**wanted)
        found = scene.snapshot()
        assert {**found, "rbac": before["rbac"]} == before

    def test_the_id_is_remembered_where_castai_and_its_key_are_gone(self, scene: Scene) -> None:
        before = scene.snapshot()
        scene.create(**ROLE)
        scene.castai.clusters.clear()
        scene.secrets.delete_secret(SecretId=API_KEY_SECRET, ForceDeleteWithoutRecovery=True)
        scene.delete(**ROLE)
        del before["secrets"][API_KEY_SECRET]
        assert scene.snapshot() == before

    def test_policies_that_others_attached_keep_the_role_unless_told(self, scene: Scene) -> None:
        before = scene.snapshot()
        data = scene.create()
        name = data["NodeRoleArn"].rpartition("/")[2]
        scene.iam.attach_role_policy(RoleName=name, PolicyArn=arn_of("IAMReadOnly"))
        with pytest.raises(OffboardError, match=r"Detach arn:.*IAMReadOnlyAccess from IAM role"):
            scene.delete()
        assert "cast-eks-prod" not in scene.snapshot()["users"]  # the rest is gone
        scene.delete(DetachForeignPolicies="true")
        assert scene.snapshot() == before

    def test_nodes_that_run_stop_a_removal_before_its_first_write(self, scene: Scene) -> None:
        before = scene.snapshot()
        data = scene.create()
        node = scene.node(data)
        onboarded = scene.snapshot()
        with pytest.raises(InUseError, match="Remove the nodes that CAST AI added first") as error:
            scene.delete()
        assert node in str(error.value)
        assert scene.snapshot() == onboarded
        scene.terminate(node)
        scene.delete()
        assert scene.snapshot() == before

    @pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped"])
    def test_an_instance_that_may_run_again_stops_a_removal(self, scene: Scene, state: str) -> None:
        data = scene.create()
        node = scene.launch(data["InstanceProfileArn"], _other_group(scene))
        scene.set_state(node, state)
        with pytest.raises(InUseError, match=node):
            scene.delete()
        scene.terminate(node)
        scene.delete()

    def test_an_instance_that_has_the_node_role_by_another_profile_stops_a_removal(
        self, scene: Scene
    ) -> None:
        data = scene.create()
        profile = scene.iam.create_instance_profile(InstanceProfileName="mine")["InstanceProfile"]
        role = data["NodeRoleArn"].rpartition("/")[2]
        scene.iam.add_role_to_instance_profile(InstanceProfileName="mine", RoleName=role)
        node = scene.launch(profile["Arn"], _other_group(scene))
        onboarded = scene.snapshot()
        with pytest.raises(InUseError, match=node):
            scene.delete()
        assert scene.snapshot() == onboarded

    def test_a_network_interface_stops_a_removal_too(self, scene: Scene) -> None:
        data = scene.create()
        subnet = scene.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        made = scene.ec2.create_network_interface(
            SubnetId=subnet, Groups=[data["SecurityGroupId"]]
        )["NetworkInterface"]["NetworkInterfaceId"]
        onboarded = scene.snapshot()
        with pytest.raises(InUseError, match=made):
            scene.delete()
        assert scene.snapshot() == onboarded
        scene.ec2.delete_network_interface(NetworkInterfaceId=made)
        scene.delete()

    @pytest.mark.parametrize("direction", ["ingress", "egress"])
    def test_a_security_group_whose_rule_names_ours_stops_a_removal(
        self, scene: Scene, direction: str
    ) -> None:
        before = scene.snapshot()
        group = scene.create()["SecurityGroupId"]
        database = scene.ec2.create_security_group(GroupName="database", Description="-")["GroupId"]
        rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
        authorize = getattr(scene.ec2, f"authorize_security_group_{direction}")
        authorize(GroupId=database, IpPermissions=rule)
        onboarded = scene.snapshot()
        scene.writes.done.clear()
        with pytest.raises(InUseError) as error:
            scene.delete()
        assert str(error.value) == (
            "Remove the rules first that name the nodes' security group in other security groups. "
            f"Nothing was changed. In use by 1 other security group: {database}"
        )
        assert scene.writes.done == []
        assert scene.snapshot() == onboarded
        scene.ec2.delete_security_group(GroupId=database)
        scene.delete()
        assert scene.snapshot() == before

    def test_a_new_id_at_castai_waits_for_the_nodes_of_the_old(self, scene: Scene) -> None:
        old = {"ClusterId": ID, "ApiKeySecret": None}
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        node = scene.node(scene.create(**old))
        onboarded = scene.snapshot()
        with pytest.raises(InUseError, match=node):
            scene.update(old, **new)
        assert scene.snapshot() == onboarded
        scene.terminate(node)
        scene.update(old, **new)

    def test_a_security_group_that_is_taken_meanwhile_says_so(self, scene: Scene) -> None:
        before = scene.snapshot()
        data = scene.create()
        nodes: list[str] = []
        scene.writes.just_before["ec2:delete_security_group"] = lambda: nodes.append(
            scene.node(data)
        )
        onboarded = scene.snapshot()
        with pytest.raises(OffboardError, match=r"Remove the nodes .*, first: security group"):
            scene.delete()
        assert scene.snapshot() == onboarded
        assert scene.known.status == "ready"
        scene.terminate(nodes[0])
        scene.delete()
        assert scene.snapshot() == before

    def test_retain_leaves_everything(self, scene: Scene) -> None:
        scene.create()
        before = scene.snapshot()
        scene.delete(RetainOnDelete="true")
        assert scene.snapshot() == before
        scene.create(resource="Prod")  # the stack comes back: its own things, still
        assert scene.snapshot() == before

    def test_properties_that_cannot_be_read_stop_no_removal(self, scene: Scene) -> None:
        before = scene.snapshot()
        scene.create()
        scene.delete(Permissions="everything", Tags="none", Typo="1")
        assert scene.snapshot() == before


def _other_group(scene: Scene) -> str:
    made = scene.ec2.create_security_group(GroupName="mine", Description="-")
    return str(made["GroupId"])


class _Proxy:
    """A client with some methods replaced."""

    def __init__(self, client: Any, **methods: Any) -> None:
        self._client, self._methods = client, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._client, name)


class TestPrincipalsOfTheSameName:
    """EKS binds an access entry to the unique id of its principal, not to its ARN."""

    def test_a_node_role_that_was_made_anew_gets_an_entry_of_its_own(self, scene: Scene) -> None:
        role = scene.create()["NodeRoleArn"]
        _delete_node_role(scene, role)
        scene.update({}, RotationId="2")
        assert scene.eks.knows(role)
        before = scene.snapshot()
        scene.update({"RotationId": "2"}, RotationId="2")
        assert scene.snapshot() == before

    def test_so_does_the_user(self, scene: Scene) -> None:
        user = scene.create()["UserArn"]
        _delete_user(scene, "cast-eks-prod")
        scene.time.sleep(HOUR)
        scene.update({}, RotationId="2")
        assert scene.eks.knows(user)
        assert scene.eks.entries[user].policies

    @pytest.mark.parametrize("made", ["by us", "by others"])
    def test_so_does_the_spot_handlers_role_unless_others_made_its_entry(
        self, scene: Scene, made: str
    ) -> None:
        wanted = {"SpotHandlerRoleArn": SPOT_ROLE}
        scene.iam.create_role(RoleName="CastLambdaRoleForSpot", AssumeRolePolicyDocument=TRUST)
        if made == "by others":
            groups = ["castai:spot-handler"]
            scene.eks.create_access_entry(
                clusterName="prod", principalArn=SPOT_ROLE, kubernetesGroups=groups
            )
        scene.create(**wanted)
        scene.iam.delete_role(RoleName="CastLambdaRoleForSpot")
        scene.time.sleep(HOUR)
        scene.iam.create_role(RoleName="CastLambdaRoleForSpot", AssumeRolePolicyDocument=TRUST)
        if made == "by others":
            with pytest.raises(InTheWayError, match="of a former principal"):
                scene.update(wanted, **wanted, RotationId="2")
            return
        scene.update(wanted, **wanted, RotationId="2")
        assert scene.eks.knows(SPOT_ROLE)

    def test_a_run_that_was_killed_before_the_entry_is_finished_by_the_next(
        self, scene: Scene
    ) -> None:
        role = scene.create()["NodeRoleArn"]
        _delete_node_role(scene, role)

        def kill() -> None:
            raise KeyboardInterrupt

        scene.writes.just_before["eks:delete_access_entry"] = kill
        with pytest.raises(KeyboardInterrupt):
            scene.update({}, RotationId="2")
        scene.update({}, RotationId="2")
        assert scene.eks.knows(role)

    def test_a_failure_after_it_gives_the_former_entry_back(self, scene: Scene) -> None:
        """With its groups and its policy, whatever it is worth."""
        user = scene.create()["UserArn"]
        _delete_user(scene, "cast-eks-prod")
        scene.time.sleep(HOUR)
        scene.iam.create_user(
            UserName="cast-eks-prod",
            Tags=[{"Key": "castai-eks:cluster", "Value": scene.eks.arn}],
        )
        scene.eks.entries[user].groups = ["viewers"]
        before = scene.snapshot()["entries"]
        scene.castai.propagation = 10_000
        with pytest.raises(StepFailedError, match="everything that this run did was undone"):
            scene.update({}, RotationId="2")
        assert scene.snapshot()["entries"] == before

    def test_an_entry_of_the_second_in_which_its_principal_was_made_is_kept(
        self, scene: Scene
    ) -> None:
        """IAM cuts its dates to whole seconds, EKS does not."""
        role = scene.create()["NodeRoleArn"]
        scene.eks.entries[role].created += 0.5
        scene.writes.done.clear()
        scene.update({})
        assert scene.writes.done == []

    def test_an_entry_that_others_made_for_a_former_role_is_in_the_way(self, scene: Scene) -> None:
        role = scene.create()["NodeRoleArn"]
        scene.delete()
        scene.eks.create_access_entry(clusterName="prod", principalArn=role, type="EC2_LINUX")
        with pytest.raises(InTheWayError, match="access entry of"):
            scene.create()

    def test_what_a_killed_run_left_of_our_own_entry_is_replaced(self, scene: Scene) -> None:
        former = Entry(OWN_ROLE, "STANDARD", [], {TEMPORARY_TAG: "true"}, "AROAFORMER")
        scene.eks.entries[OWN_ROLE] = former
        scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert OWN_ROLE not in scene.eks.entries


HOUR = 3600.0  # s


def _delete_node_role(scene: Scene, arn: str) -> None:
    """By hand, an hour before what comes next."""
    name = arn.rpartition("/")[2]
    scene.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    for policy in scene.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        scene.iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    scene.iam.delete_role(RoleName=name)
    scene.time.sleep(HOUR)


def _delete_user(scene: Scene, name: str) -> None:
    for key in scene.keys(name):
        scene.iam.delete_access_key(UserName=name, AccessKeyId=key)
    for policy in scene.iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
        scene.iam.detach_user_policy(UserName=name, PolicyArn=policy["PolicyArn"])
    for policy in scene.iam.list_user_policies(UserName=name)["PolicyNames"]:
        scene.iam.delete_user_policy(UserName=name, PolicyName=policy)
    scene.iam.delete_user(UserName=name)


class TestEventualConsistency:
    """AWS refuses for a moment what it will accept."""

    @pytest.mark.parametrize(
        "call", ["delete_role", "delete_user", "delete_policy", "delete_instance_profile"]
    )
    def test_iam_has_not_heard_yet_that_something_was_detached(
        self, scene: Scene, call: str
    ) -> None:
        before = scene.snapshot()
        scene.create()
        real = scene.iam
        scene.iam = _Proxy(real, **{call: refusing(getattr(real, call), "DeleteConflict", 3)})
        scene.delete()
        scene.iam = real
        assert scene.snapshot() == before
        assert scene.time.slept > 0

    def test_a_secret_that_was_just_deleted_still_takes_its_name(self, scene: Scene) -> None:
        real = scene.secrets
        create = refusing(real.create_secret, "InvalidRequestException", 5)
        scene.secrets = _Proxy(real, create_secret=create)
        scene.create()
        assert scene.stored_key()["accessKeyId"]
        assert scene.time.slept > 0


def refusing(call: Callable[..., Any], code: str, times: int) -> Callable[..., Any]:
    """The call, refused so many times first."""
    refusals = iter([refusal(code)] * times)

    def refused(**arguments: Any) -> Any:
        for error in refusals:
            raise error
        return call(**arguments)

    return refused


class TestThrottling:
    """The SDK's own retries are off: a call that is throttled is made again by us."""

    def test_of_the_api_key(self, scene: Scene) -> None:
        answers = iter([refusal("ThrottlingException")] * 3)

        def read(**arguments: Any) -> Any:
            for error in answers:
                raise error
            return scene.secrets.get_secret_value(**arguments)

        deps = scene.dependencies()
        secrets: Any = _Proxy(deps.clients.secrets, get_secret_value=read)
        deps = replace(deps, clients=replace(deps.clients, secrets=secrets))
        event = scene.event("Create", scene.properties())
        assert handler.respond(event, deps, remaining=REMAINING)["Data"]["Mode"] == "user"
        assert scene.time.slept > 0

    @pytest.mark.usefixtures("scene")
    def test_of_the_question_who_we_are(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(session, "SYSTEM", Time().clock)
        throttled = [AWSResponse("https://sts.invalid", 400, {}, None)] * 3
        for each in throttled:
            each._content = b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>"

        def answer(**_: Any) -> AWSResponse | None:
            return throttled.pop() if throttled else None

        emitter = aws.session().events
        emitter.register_first("before-send.sts.GetCallerIdentity", answer)  # type: ignore[attr-defined]
        assert session.dependencies_of(OWN_ROLE).place.account == ACCOUNT
        assert throttled == []


class TestNeighbours:
    @MODES
    def test_two_clusters_in_one_account(self, scene: Scene, mode: dict[str, Any]) -> None:
        empty = scene.snapshot()
        stage = scene.beside("stage")
        scene.create(**mode)
        only_prod = scene.snapshot()
        stage.create(resource="Stage", **mode)
        stage.delete(resource="Stage", **mode)
        assert scene.snapshot() == only_prod
        scene.delete(**mode)
        assert scene.snapshot() == empty

    def test_clusters_whose_names_are_cut_to_the_same_are_told_apart(self, scene: Scene) -> None:
        one, two = (scene.beside("x" * 45 + end) for end in ("-blue", "-green"))
        one.create(resource="One", **ROLE)
        before = scene.snapshot()
        two.create(resource="Two", **ROLE)
        two.delete(resource="Two", **ROLE)
        assert scene.snapshot() == before

    def test_one_name_in_two_regions_is_a_conflict_and_not_a_take_over(self, scene: Scene) -> None:
        scene.create()
        before = scene.snapshot()
        twin = scene.beside("prod", region="eu-west-1")
        with pytest.raises(InTheWayError, match="belongs to arn:aws:eks:eu-central-1"):
            twin.create(resource="Twin")
        twin.delete(resource="Twin")
        assert scene.snapshot() == before

    def test_a_twin_that_was_refused_leaves_the_shared_policy_to_the_user_of_its_name(
        self, scene: Scene
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        scene.create(**wanted)
        before = scene.snapshot()
        scene.beside("prod", region="eu-west-1").delete(resource="Twin", **wanted)
        assert scene.snapshot() == before

    def test_the_same_cluster_twice_is_refused_and_the_refused_takes_nothing(
        self, scene: Scene
    ) -> None:
        scene.create()
        before = scene.snapshot()
        with pytest.raises(InTheWayError, match="onboarded by castai-onboarding/Prod"):
            scene.create(resource="Again")
        scene.delete(resource="Again")
        assert scene.snapshot() == before
        assert scene.known.status == "ready"

    def test_a_renamed_resource_adopts_and_the_old_ones_delete_takes_nothing(
        self, scene: Scene
    ) -> None:
        empty = scene.snapshot()
        scene.create(resource="Old")
        scene.create(resource="New", Adopt="true")
        before = scene.snapshot()
        scene.delete(resource="Old")
        assert scene.snapshot() == before
        scene.delete(resource="New")
        assert scene.snapshot() == empty

    def test_the_account_wide_policy_stays_while_another_cluster_uses_it(
        self, scene: Scene
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        empty = scene.snapshot()
        stage = scene.beside("stage")
        scene.create(**wanted)
        stage.create(resource="Stage", **wanted)
        scene.delete(**wanted)
        arn = f"arn:aws:iam::{ACCOUNT}:policy/CastEKSPolicy"
        assert arn in scene.snapshot()["policies"]
        stage.delete(resource="Stage", **wanted)
        assert scene.snapshot() == empty

    @MODES
    def test_a_policy_of_its_own_takes_the_place_of_the_shared_one(
        self, scene: Scene, mode: dict[str, Any]
    ) -> None:
        before = scene.snapshot()
        shared = {**mode, "AccountWidePolicy": "true"}
        scene.create(**shared)
        scene.update(shared, **mode)
        assert SHARED not in scene.snapshot()["policies"]
        scene.delete(**mode)
        assert scene.snapshot() == before

    def test_a_delete_looks_again_for_the_shared_policy(self, scene: Scene) -> None:
        """A clean-up after an Update fails without failing the Update."""
        before = scene.snapshot()
        scene.create(AccountWidePolicy="true")
        real = scene.iam.delete_policy
        scene.iam = _Proxy(scene.iam, delete_policy=refusing(real, "ServiceFailure", 1))
        scene.update({"AccountWidePolicy": "true"})
        assert SHARED in scene.snapshot()["policies"]
        scene.delete()
        assert scene.snapshot() == before

    def test_an_update_does_not_look_for_a_shared_policy_that_another_run_may_be_making(
        self, scene: Scene
    ) -> None:
        scene.create()
        scene.beside("stage").iam.create_policy(
            PolicyName="CastEKSPolicy",
            PolicyDocument=POLICY,
            Tags=[{"Key": "castai-eks:cluster", "Value": "account-wide"}],
        )
        scene.update({}, RotationId="2")
        assert SHARED in scene.snapshot()["policies"]

    def test_a_shared_policy_that_another_run_makes_first_is_used(self, scene: Scene) -> None:
        wanted = {"AccountWidePolicy": "true"}
        stage = scene.beside("stage")
        scene.writes.just_before["iam:create_policy"] = lambda: stage.create(resource="S", **wanted)
        scene.create(**wanted)
        scene.delete(**wanted)
        assert SHARED in scene.snapshot()["policies"]
        stage.delete(resource="S", **wanted)
        assert SHARED not in scene.snapshot()["policies"]

    @pytest.mark.parametrize("write", ["iam:create_policy", "iam:create_user"])
    def test_an_undone_run_leaves_the_shared_policy_to_whoever_uses_it_by_then(
        self, scene: Scene, write: str
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        stage = scene.beside("stage")

        def meanwhile() -> None:
            stage.create(resource="S", **wanted)
            scene.castai.propagation = 10_000  # our own hand-over fails

        scene.writes.just_before[write] = meanwhile
        with pytest.raises(CastaiError):
            scene.create(**wanted)
        assert SHARED in scene.snapshot()["policies"]

    def test_a_cluster_joins_a_shared_policy_as_it_is_or_is_refused(self, scene: Scene) -> None:
        wanted = {"AccountWidePolicy": "true"}
        other = {**wanted, "Permissions": "standard"}
        stage = scene.beside("stage")
        scene.create(**wanted)
        before = scene.snapshot()
        with pytest.raises(CastaiError, match=r"Permissions=full.*the same for every cluster"):
            stage.create(resource="Stage", **other)
        assert scene.snapshot() == before
        stage.create(resource="Stage", **wanted)
        scene.update(wanted, **other)  # one of them changes it for all
        document, tags = scene.snapshot()["policies"][SHARED]
        assert "CreateNodeRole" not in json.dumps(document)
        with pytest.raises(CastaiError, match=r"Permissions=standard.*the same for every cluster"):
            stage.update(wanted, resource="Stage", **wanted, RotationId="2")
        stage.update(wanted, resource="Stage", **other)
        assert scene.snapshot()["policies"][SHARED] == (document, tags)

    def test_a_script_made_account_is_adopted(self, scene: Scene) -> None:
        """As CAST AI's script leaves it: user with a key of its own, roles, group, no owner."""
        iam = scene.iam
        cluster_id = scene.castai.register(
            {"eks": {"accountId": ACCOUNT, "region": "eu-central-1", "clusterName": "prod"}}
        ).id
        node = f"cast-prod-eks-{cluster_id[:8]}"
        iam.create_user(UserName="cast-eks-prod")
        script_key = iam.create_access_key(UserName="cast-eks-prod")["AccessKey"]["AccessKeyId"]
        iam.create_role(RoleName=node, AssumeRolePolicyDocument=TRUST)
        iam.create_instance_profile(InstanceProfileName=node)
        iam.add_role_to_instance_profile(InstanceProfileName=node, RoleName=node)
        name = "cast-prod-cluster/CastNodeSecurityGroup"
        tags = [{"Key": "cast:cluster-id", "Value": cluster_id}]
        scene.ec2.create_security_group(
            GroupName=name,
            Description="-",
            VpcId=scene.eks.vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )
        iam.create_policy(PolicyName="CastEKSPolicy", PolicyDocument=POLICY)
        with pytest.raises(InTheWayError) as error:
            scene.create(AccountWidePolicy="true")
        assert len(str(error.value).splitlines()) == 6
        before = scene.snapshot()
        scene.castai.propagation = 10_000
        with pytest.raises(StepFailedError):
            scene.create(AccountWidePolicy="true", Adopt="true")
        assert scene.snapshot() == before
        scene.castai.propagation = 1
        scene.create(AccountWidePolicy="true", Adopt="true")
        assert script_key not in scene.keys("cast-eks-prod")
        assert len(scene.keys("cast-eks-prod")) == 1
        scene.delete(AccountWidePolicy="true")
        assert set(scene.snapshot()["users"]) == set()
        assert set(scene.snapshot()["policies"]) == set()


def test_a_new_release_corrects_the_policy_and_leaves_the_key(scene: Scene) -> None:
    """`cdk deploy` after an upgrade changes CodeVersion and nothing else."""
    data = scene.create(CodeVersion="0123456789abcdef")
    current, key = scene.snapshot(), scene.stored_key()
    wide = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}
    older = json.dumps({"Version": "2012-10-17", "Statement": [wide]})
    scene.iam.create_policy_version(
        PolicyArn=data["PolicyArn"], PolicyDocument=older, SetAsDefault=True
    )
    assert scene.snapshot()["policies"] != current["policies"]
    scene.update({"CodeVersion": "0123456789abcdef"}, CodeVersion="fedcba9876543210")
    assert scene.snapshot() == current
    assert scene.stored_key() == key


class TestClusterAccess:
    def test_aws_auth_clusters_get_their_entries_and_lose_only_them(self, scene: Scene) -> None:
        scene.eks.mode = "CONFIG_MAP"
        scene.users.admits = lambda: True  # mapped by hand, as documented
        before = scene.snapshot()
        data = scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert data["AccessMethod"] == "aws-auth"
        found = scene.snapshot()["aws-auth"]
        assert "cast-eks-prod" in found["mapUsers"]
        assert "castai:spot-handler" in found["mapRoles"]
        assert OWN_ROLE not in scene.eks.entries
        scene.delete(SpotHandlerRoleArn=SPOT_ROLE)
        assert scene.snapshot() == before  # the ConfigMap that we made went, too

    def test_someone_who_writes_in_between_loses_nothing(self, scene: Scene) -> None:
        scene.eks.mode = "CONFIG_MAP"
        scene.users.admits = lambda: True
        config_map: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "aws-auth", "namespace": "kube-system"},
            "data": {"mapAccounts": "- '1'\n"},
        }
        scene.cluster.create(config_map)

        def write(_request: object) -> None:
            now = scene.cluster._running().get("ConfigMap", "aws-auth", "kube-system")
            assert now is not None
            scene.cluster._running().set({**now, "data": {**now["data"], "mapAccounts": "- '2'\n"}})

        scene.cluster.faults.add("PUT", "configmaps/aws-auth", Hook(write), skip=1)
        scene.create()
        data = scene.snapshot()["aws-auth"]
        assert data["mapAccounts"] == "- '2'\n"
        assert "cast-eks-prod" in data["mapUsers"]

    def test_a_map_that_cannot_be_parsed_is_left_with_the_entry_to_add(self, scene: Scene) -> None:
        scene.eks.mode = "CONFIG_MAP"
        scene.users.admits = lambda: True
        scene.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "aws-auth", "namespace": "kube-system"},
                "data": {"mapRoles": "{[}"},
            }
        )
        before = scene.snapshot()
        with pytest.raises(InTheWayError, match=r"(?s)by hand.*rolearn: arn:aws:iam"):
            scene.create()
        assert scene.snapshot() == before

    def test_a_lambda_that_the_cluster_does_not_know_says_so(self, scene: Scene) -> None:
        scene.eks.mode = "CONFIG_MAP"
        scene.users.admits = lambda: False
        with pytest.raises(StepFailedError, match=r"access to the cluster.*aws-auth"):
            scene.create()

    @pytest.mark.parametrize(
        ("mode", "access", "words"),
        [
            ("CONFIG_MAP", "access-entries", "Set ClusterAccess to aws-auth"),
            ("API", "aws-auth", "Set ClusterAccess to access-entries"),
        ],
    )
    def test_a_way_that_the_cluster_does_not_have_is_refused(
        self, scene: Scene, mode: str, access: str, words: str
    ) -> None:
        scene.eks.mode = mode
        before = scene.snapshot()
        with pytest.raises(StepFailedError, match=words):
            scene.create(ClusterAccess=access)
        assert scene.snapshot() == before

    def test_none_touches_nothing_inside(self, scene: Scene) -> None:
        assert scene.create(ClusterAccess="none")["AccessMethod"] == "none"
        assert scene.eks.entries == {}

    def test_our_own_access_is_taken_only_where_needed_and_never_stays(self, scene: Scene) -> None:
        scene.create()
        created = [w for w in scene.writes.done if w == "eks:create_access_entry"]
        assert len(created) == 2  # node role and user: nothing inside the cluster was needed
        scene.update({}, SpotHandlerRoleArn=SPOT_ROLE)
        assert OWN_ROLE not in scene.eks.entries
        assert scene.snapshot()["rbac"]["ClusterRole"]

    def test_our_own_access_goes_before_the_time_out_also_where_eks_throttles_at_the_deadline(
        self, scene: Scene
    ) -> None:
        """Undo has used its time up, and EKS answers shortly before one call's patience ends."""
        start = scene.time.now
        deadline = start + REMAINING - handler.RESERVE
        throttled = (
            deadline - UNDO_TIME,
            deadline + temporary_access.CALL_PATIENCE - 2 * LONGEST_DELAY,
        )
        scene.eks.is_throttled = lambda: throttled[0] <= scene.time.now < throttled[1]
        scene.castai.propagation = 10_000

        def slow() -> None:
            scene.time.now = throttled[0]

        scene.writes.just_before["secretsmanager:create_secret"] = slow
        with pytest.raises(StepFailedError):
            scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert OWN_ROLE not in scene.eks.entries
        assert throttled[1] <= scene.time.now < start + REMAINING - TIME_TO_ANSWER

    def test_an_access_entry_that_someone_made_for_us_stays(self, scene: Scene) -> None:
        scene.eks.create_access_entry(clusterName="prod", principalArn=OWN_ROLE)
        scene.eks.entries[OWN_ROLE].policies.append("admin")
        scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        scene.delete(SpotHandlerRoleArn=SPOT_ROLE)
        assert set(scene.eks.entries) == {OWN_ROLE}

    def test_the_entry_of_the_spot_handlers_own_stack_is_used_and_stays(self, scene: Scene) -> None:
        scene.eks.create_access_entry(
            clusterName="prod", principalArn=SPOT_ROLE, kubernetesGroups=["castai:spot-handler"]
        )
        before = scene.snapshot()
        scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        scene.delete(SpotHandlerRoleArn=SPOT_ROLE)
        assert scene.snapshot() == before

    def test_an_entry_that_is_the_spot_handlers_stacks_is_neither_made_nor_removed(
        self, scene: Scene
    ) -> None:
        theirs = {"SpotHandlerRoleArn": SPOT_ROLE, "SpotHandlerEntry": "false"}
        scene.create(**theirs)
        assert SPOT_ROLE not in scene.eks.entries
        assert scene.snapshot()["rbac"]["ClusterRole"]
        scene.eks.create_access_entry(clusterName="prod", principalArn=SPOT_ROLE)
        scene.update(theirs, **theirs)
        scene.delete(**theirs)
        assert set(scene.eks.entries) == {SPOT_ROLE}

    def test_an_entry_is_let_go_when_the_spot_handlers_stack_is_to_make_it(
        self, scene: Scene
    ) -> None:
        ours = {"SpotHandlerRoleArn": SPOT_ROLE}
        scene.create(**ours)
        scene.update(ours, **ours, SpotHandlerEntry="false")
        assert SPOT_ROLE not in scene.eks.entries
        assert scene.snapshot()["rbac"]["ClusterRole"]
        scene.update({**ours, "SpotHandlerEntry": "false"}, **ours)
        assert SPOT_ROLE in scene.eks.entries

    def test_a_cluster_role_of_someone_else_is_in_the_way(self, scene: Scene) -> None:
        scene.cluster.create(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "castai-spot-handler"},
                "rules": [],
            }
        )
        with pytest.raises(InTheWayError, match="ClusterRole castai-spot-handler"):
            scene.create(SpotHandlerRoleArn=SPOT_ROLE)
        scene.create(SpotHandlerRoleArn=SPOT_ROLE, Adopt="true")
        assert scene.snapshot()["rbac"]["ClusterRole"]


def test_the_functions_role_covers_every_call(scene: Scene) -> None:
    """`Scene.send` decides each call by the documents, as it does in every test here."""
    tags: dict[str, Any] = {"Tags": {"a": "b"}}
    tags["ManageSpotLambda"] = "true"
    scene.create(SpotHandlerRoleArn=SPOT_ROLE, **tags)
    scene.update(tags, RotationId="2", ManageSpotLambda="false", KmsKey="alias/mine")
    scene.update({}, **ROLE, SsmOnNodes="true")
    scene.update(ROLE, ClusterAccess="aws-auth")
    scene.delete(ClusterAccess="aws-auth")
    assert len(scene.writes.actions) > 40
    scene.documents = [{"Version": "2012-10-17", "Statement": []}]
    with pytest.raises(CastaiError, match="Allow secretsmanager:GetSecretValue"):
        handler.respond(
            scene.event("Create", scene.properties()), scene.dependencies(), remaining=REMAINING
        )


def test_the_key_is_in_no_log_answer_error_or_tag(
    scene: Scene, capfd: pytest.CaptureFixture[str]
) -> None:
    said: list[str] = []
    secrets: list[str] = []
    said.append(json.dumps(scene.create()))
    secrets.append(scene.stored_key()["secretAccessKey"])
    said.append(json.dumps(scene.update({}, RotationId="2")))
    secrets.append(scene.stored_key()["secretAccessKey"])
    scene.castai.propagation = 10_000
    with pytest.raises(CastaiError) as error:
        scene.update({"RotationId": "2"}, RotationId="3")
    said += [str(error.value), repr(error.value), repr(error.value.__cause__)]
    said.append(json.dumps(scene.castai.shown()))
    snapshot = scene.snapshot()
    said.append(json.dumps({k: v for k, v in snapshot.items() if k != "secrets"}, default=str))
    said.append(json.dumps(scene.delete()))
    out, err = capfd.readouterr()
    said += [out, err]
    assert len(set(secrets)) == 2
    for secret in (*secrets, API_KEY, "signature=secret"):
        assert [text for text in said if secret in text] == []
