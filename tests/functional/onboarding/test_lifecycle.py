"""The onboarding's custom resource: Create, Update and Delete as CloudFormation sends them."""

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
from simulation.resources.eks import ACCOUNT, Entry, refusal
from tests.functional.onboarding.conftest import (
    API_KEY,
    API_KEY_SECRET,
    OWN_ROLE,
    REMAINING,
    SPOT_ROLE,
    THROUGH_THE_SDK,
    Fault,
    OnboardingTestbed,
)
from tests.support.fake_time import FakeTime

LONGEST_DELAY = retry.DEFAULT.delays[-1]  # s between two tries
TIME_TO_ANSWER = 10.0  # s that are left for the answer to CloudFormation
ROLE = {"Mode": "cross-account-role"}
ID = "12345678-1234-1234-1234-123456789012"
TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "ecs.amazonaws.com"},
                "Action": "sts:AssumeRole",
            }
        ],
    }
)
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
    @THROUGH_THE_SDK
    def test_user_mode_creates_the_resources_that_castai_expects(
        self, testbed: OnboardingTestbed
    ) -> None:
        data = testbed.create()
        id8 = testbed.id8
        assert data == {
            "Mode": "user",
            "ClusterId": testbed.cluster_id,
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
        found = testbed.snapshot()
        attached, inline, _, keys = found["users"]["cast-eks-prod"]
        assert attached == [
            data["PolicyArn"], arn_of("AmazonEC2ReadOnly"), arn_of("IAMReadOnly"),
        ]  # fmt: skip
        assert set(inline) == {"CastEKSRestrictedAccess"}
        assert keys == [testbed.known.credentials["accessKeyId"]]
        assert testbed.stored_key()["accessKeyId"] == keys[0]
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
        assert tags["cast:cluster-id"] == testbed.cluster_id

    def test_role_mode_trusts_castais_principal_and_gives_it_no_access_entry(
        self, testbed: OnboardingTestbed
    ) -> None:
        data = testbed.create(**ROLE)
        name = f"cast-eks-prod-cluster-role-{testbed.id8}"
        assert data["RoleArn"].endswith(f":role/{name}")
        trust, *_ = testbed.snapshot()["roles"][name]
        (statement,) = trust["Statement"]
        assert statement["Principal"]["AWS"].endswith(f"user/cast-crossrole-{testbed.cluster_id}")
        assert statement["Condition"]["StringEquals"]["sts:ExternalId"] == testbed.cluster_id
        assert set(testbed.eks.entries) == {data["NodeRoleArn"]}
        assert testbed.known.credentials["role"] == data["RoleArn"]
        assert data["CredentialsSecretArn"] == ""

    def test_the_physical_id_names_account_region_and_cluster(
        self, testbed: OnboardingTestbed
    ) -> None:
        answer = testbed.send(testbed.event("Create", testbed.properties()))
        assert answer["PhysicalResourceId"] == f"castai-eks/{ACCOUNT}/eu-central-1/prod"

    @MODES
    def test_a_second_create_changes_nothing(
        self, testbed: OnboardingTestbed, mode: dict[str, Any]
    ) -> None:
        first = testbed.create(**mode)
        before, testbed.writes.done = testbed.snapshot(), []
        assert testbed.create(**mode) == first
        assert testbed.writes.done == []
        assert testbed.snapshot() == before

    def test_all_existing_resources_are_listed_and_nothing_is_created(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.iam.create_user(UserName="cast-eks-prod")
        testbed.secrets.create_secret(Name="castai-eks/prod/credentials", SecretString="{}")
        before = testbed.snapshot()
        testbed.writes.done.clear()
        with pytest.raises(InTheWayError) as error:
            testbed.create()
        assert str(error.value).splitlines() == [
            "Remove what is in the way, or set Adopt to take it over:",
            "- IAM user cast-eks-prod: made by someone else",
            "- secret castai-eks/prod/credentials: made by someone else",
        ]
        assert testbed.writes.done == []
        assert testbed.snapshot() == before

    @pytest.mark.parametrize("reason", ["status", "missing"])
    def test_a_cluster_that_is_missing_or_not_active_is_refused(
        self, testbed: OnboardingTestbed, reason: str
    ) -> None:
        testbed.eks.status, testbed.eks.exists = "CREATING", reason == "status"
        with pytest.raises(StepFailedError, match=r"Wait until|Create cluster prod"):
            testbed.create()

    def test_a_cluster_without_a_running_agent_is_refused(self, testbed: OnboardingTestbed) -> None:
        before = testbed.snapshot()
        testbed.agent = "there is no Deployment"
        with pytest.raises(StepFailedError, match=r"Connect the cluster first.*no Deployment"):
            testbed.create(RequireAgent="true")
        assert testbed.snapshot() == before

    def test_without_the_api_key_the_outputs_say_what_to_paste(
        self, testbed: OnboardingTestbed
    ) -> None:
        wanted = {"ApiKeySecret": None, "ClusterId": ID}
        data = testbed.create(**wanted)
        assert "Paste accessKeyId and secretAccessKey" in data["NextStep"]
        assert testbed.castai.log == []
        testbed.delete(**wanted)
        with pytest.raises(CastaiError, match="PrincipalArn"):
            testbed.create(**wanted, **ROLE)

    def test_existing_security_groups_are_used_and_not_touched(
        self, testbed: OnboardingTestbed
    ) -> None:
        group = testbed.ec2.create_security_group(GroupName="mine", Description="-")["GroupId"]
        before = testbed.snapshot()
        assert testbed.create(SecurityGroup=[group])["SecurityGroupId"] == group
        testbed.delete(SecurityGroup=[group])
        assert testbed.snapshot() == before
        with pytest.raises(InTheWayError, match="sg-12345678: is not in the cluster's VPC"):
            testbed.create(SecurityGroup=["sg-12345678"])

    def test_calls_are_retried_until_new_iam_resources_are_effective(
        self, testbed: OnboardingTestbed
    ) -> None:
        """CAST AI answers 400 and API servers answer 401 for some time. The run retries."""
        testbed.castai.propagation = 5
        testbed.users.refusals = 3
        testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert 0 < sum(testbed.time.slept) < 120

    def test_a_handover_that_never_succeeds_is_undone_before_the_time_out(
        self, testbed: OnboardingTestbed
    ) -> None:
        before, start = testbed.snapshot(), testbed.time.now
        testbed.castai.propagation = 10_000
        with pytest.raises(StepFailedError, match=r"step hand-over; everything .* undone"):
            testbed.create()
        assert testbed.time.now - start < 600
        assert testbed.snapshot() == before

    def test_a_failed_create_removes_the_principal_that_castai_made_for_it(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        testbed.delete()
        testbed.castai.propagation = 10_000
        with pytest.raises(StepFailedError, match=r"everything .* undone"):
            testbed.create(**ROLE)
        assert testbed.known.principal == ""

    def test_a_new_access_key_whose_answer_was_lost_is_deleted(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        before = testbed.keys("cast-eks-prod")
        testbed.writes.done.clear()
        testbed.writes.fault = Fault(0, "Timeout", after=True)
        testbed.update({}, RotationId="2")
        assert testbed.writes.done[0] == "iam:create_access_key"
        assert testbed.keys("cast-eks-prod") == [testbed.stored_key()["accessKeyId"]] != before

    def test_a_key_that_castai_refuses_is_refused_with_what_to_do(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.secrets.put_secret_value(SecretId=API_KEY_SECRET, SecretString="another-key")
        with pytest.raises(StepFailedError, match="valid CAST AI API key"):
            testbed.create()

    def test_the_node_role_of_an_ipv6_cluster_may_assign_ipv6_addresses(
        self, testbed: OnboardingTestbed
    ) -> None:
        before = testbed.snapshot()
        data = testbed.create()
        name = data["NodeRoleArn"].rpartition("/")[2]
        assert testbed.snapshot()["roles"][name][2] == {}
        testbed.delete()
        testbed.eks.ip_family = "ipv6"
        testbed.create()
        inline = testbed.snapshot()["roles"][name][2]
        (statement, *_) = inline["CastEC2AssignIPv6Policy"]["Statement"]
        assert "ec2:AssignIpv6Addresses" in statement["Action"]
        testbed.delete()
        assert testbed.snapshot() == before

    def test_the_role_of_castais_function_exists_only_with_manage_spot_lambda(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        name = f"cast-prod-lambda-{testbed.id8}"
        assert name not in testbed.snapshot()["roles"]
        testbed.update({}, ManageSpotLambda="true", SpotHandlerRoleArn=SPOT_ROLE)
        found = testbed.snapshot()
        trust, attached, inline, *_ = found["roles"][name]
        assert trust["Statement"][0]["Principal"] == {"Service": "lambda.amazonaws.com"}
        assert attached == []
        (rights,) = inline.values()
        assert rights["Statement"][0]["Action"] == ["ec2:DescribeInstances"]
        (policy,) = found["policies"].values()
        passed = next(s for s in policy[0]["Statement"] if s["Sid"] == "PassRoleLambda")
        assert passed["Resource"] == [f"arn:aws:iam::{ACCOUNT}:role/{name}"]
        testbed.update({"ManageSpotLambda": "true"})
        assert name not in testbed.snapshot()["roles"]

    def test_a_function_that_runs_as_another_role_is_refused(
        self, testbed: OnboardingTestbed
    ) -> None:
        """CAST AI's script makes one with the spot handler's role; its code can be changed then."""
        testbed.functions.roles["cast-ai-ec2-events-handler"] = SPOT_ROLE
        before = testbed.snapshot()
        for adopt in ("false", "true"):
            with pytest.raises(InTheWayError, match="delete the function, or set ManageSpotLamb"):
                testbed.create(ManageSpotLambda="true", Adopt=adopt)
        assert testbed.snapshot() == before
        testbed.create()
        with pytest.raises(InTheWayError, match=SPOT_ROLE):
            testbed.update({}, ManageSpotLambda="true")
        another = f"arn:aws:iam::{ACCOUNT}:role/cast-stage-lambda-0a1b2c3d"
        testbed.functions.roles["cast-ai-ec2-events-handler"] = another
        testbed.update({}, ManageSpotLambda="true")

    @THROUGH_THE_SDK
    def test_path_tags_and_boundary_are_those_of_the_properties(
        self, testbed: OnboardingTestbed
    ) -> None:
        boundary = testbed.iam.create_policy(PolicyName="Boundary", PolicyDocument=POLICY)["Policy"]
        before = testbed.snapshot()
        wanted = {
            "Path": "/castai/",
            "Tags": {"team": "platform"},
            "PermissionsBoundary": boundary["Arn"],
            "SsmOnNodes": "true",
            "EbsCsiOnNodes": "true",
        }
        data = testbed.create(**ROLE, **wanted)
        assert ":role/castai/cast-eks-prod" in data["RoleArn"]
        role = testbed.iam.get_role(RoleName=data["NodeRoleArn"].rpartition("/")[2])["Role"]
        assert role["PermissionsBoundary"]["PermissionsBoundaryArn"] == boundary["Arn"]
        assert {"Key": "team", "Value": "platform"} in role["Tags"]
        attached = testbed.snapshot()["roles"][role["RoleName"]][1]
        assert "arn:aws:iam::aws:policy/service-role/AmazonEBSCSIDriverPolicy" in attached
        with pytest.raises(StepFailedError, match=r"^Set Path back to /castai/: IAM cannot move"):
            testbed.update({**ROLE, **wanted}, **{**ROLE, **wanted, "Path": "/other/"})
        testbed.delete(**ROLE, **wanted)
        assert testbed.snapshot() == before


class TestUpdate:
    @pytest.mark.parametrize(("old", "new"), [({}, ROLE), (ROLE, {})], ids=["to-role", "to-user"])
    def test_another_mode_hands_over_the_new_identity_and_removes_the_old_one(
        self, testbed: OnboardingTestbed, old: dict[str, Any], new: dict[str, Any]
    ) -> None:
        clean = testbed.snapshot()
        testbed.create(**old)
        data = testbed.update(old, **new)
        given = testbed.known.credentials
        assert given.get("role", "") == data["RoleArn"]
        found = testbed.snapshot()
        assert ("cast-eks-prod" in found["users"]) is (new == {})
        assert (f"cast-eks-prod-cluster-role-{testbed.id8}" in found["roles"]) is (new == ROLE)
        assert ("castai-eks/prod/credentials" in found["secrets"]) is (new == {})
        assert (f"arn:aws:iam::{ACCOUNT}:user/cast-eks-prod" in found["entries"]) is (new == {})
        assert bool(testbed.known.principal) is (new == ROLE)
        assert [call for call in testbed.castai.log if call.path.endswith("disconnect")] == []
        testbed.delete(**new)
        assert testbed.snapshot() == clean

    def test_a_new_rotation_id_creates_one_key_and_deletes_the_old_one(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        (old,) = testbed.keys("cast-eks-prod")
        testbed.update({}, RotationId="2")
        (new,) = testbed.keys("cast-eks-prod")
        assert new != old
        assert (
            testbed.stored_key()["accessKeyId"] == new == testbed.known.credentials["accessKeyId"]
        )
        testbed.update({"RotationId": "2"}, RotationId="2")
        assert testbed.keys("cast-eks-prod") == [new]

    def test_the_old_key_is_deleted_where_the_old_security_group_is_in_use(
        self, testbed: OnboardingTestbed
    ) -> None:
        data = testbed.create()
        testbed.node(data)
        (old,) = testbed.keys("cast-eks-prod")
        mine = testbed.ec2.create_security_group(GroupName="mine", Description="-")["GroupId"]
        testbed.update({}, SecurityGroup=[mine], RotationId="2")
        assert old not in testbed.keys("cast-eks-prod")
        groups = testbed.ec2.describe_security_groups(GroupIds=[data["SecurityGroupId"]])
        assert len(groups["SecurityGroups"]) == 1

    def test_without_the_api_key_the_old_key_is_kept_until_the_next_rotation(
        self, testbed: OnboardingTestbed
    ) -> None:
        wanted = {"ApiKeySecret": None, "ClusterId": ID}
        testbed.create(**wanted)
        (first,) = testbed.keys("cast-eks-prod")
        testbed.update(wanted, **wanted, RotationId="2")
        assert first in testbed.keys("cast-eks-prod")
        testbed.update({**wanted, "RotationId": "2"}, **wanted, RotationId="3")
        assert first not in testbed.keys("cast-eks-prod")
        assert len(testbed.keys("cast-eks-prod")) == 2

    def test_a_third_access_key_is_refused_before_any_write(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        testbed.secrets.put_secret_value(SecretId="castai-eks/prod/credentials", SecretString="{}")
        testbed.iam.create_access_key(UserName="cast-eks-prod")
        before = testbed.snapshot()
        with pytest.raises(InTheWayError, match="delete the unused one"):
            testbed.update({})
        assert testbed.snapshot() == before

    def test_a_policy_gets_a_version_only_for_another_meaning(
        self, testbed: OnboardingTestbed
    ) -> None:
        arn = testbed.create()["PolicyArn"]
        for number in range(8):
            testbed.update({}, ManageSpotLambda=str(bool(number % 2)).lower())
            versions = testbed.iam.list_policy_versions(PolicyArn=arn)["Versions"]
            assert len(versions) <= 5
            assert [v["IsDefaultVersion"] for v in versions].count(True) == 1
        newest = testbed.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        testbed.update({}, ManageSpotLambda="true")
        assert testbed.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == newest

    @THROUGH_THE_SDK
    def test_policies_and_tags_that_new_properties_leave_out_are_removed(
        self, testbed: OnboardingTestbed
    ) -> None:
        old = {"Tags": {"team": "a", "cost": "1"}, "SsmOnNodes": "true"}
        testbed.create(**old)
        testbed.update(old, Tags={"team": "b"}, Permissions="strict")
        attached, _, tags, _ = testbed.snapshot()["users"]["cast-eks-prod"]
        assert arn_of("IAMReadOnly") not in attached
        assert tags["team"] == "b"
        assert "cost" not in tags
        node = testbed.snapshot()["roles"][f"cast-prod-eks-{testbed.id8}"]
        assert "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore" not in node[1]

    def test_a_new_cluster_id_creates_a_node_role_and_deletes_the_old_one(
        self, testbed: OnboardingTestbed
    ) -> None:
        old = {"ClusterId": ID, "ApiKeySecret": None}
        testbed.create(**old)
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        assert testbed.update(old, **new)["NodeRoleArn"].endswith("-99999999")
        found = testbed.snapshot()
        assert [name for name in found["roles"] if name.endswith("12345678")] == []
        assert [name for name in found["profiles"] if name.endswith("12345678")] == []

    @pytest.mark.parametrize(
        "mode", [{}, {**ROLE, "PrincipalArn": PRINCIPAL}], ids=["user", "role"]
    )
    @pytest.mark.parametrize("by", ["update", "delete"])
    def test_a_former_id_stays_in_the_tag_until_its_resources_are_gone(
        self, testbed: OnboardingTestbed, by: str, mode: dict[str, Any]
    ) -> None:
        clean = testbed.snapshot()
        old = {"ClusterId": ID, "ApiKeySecret": None, **mode}
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        former = testbed.create(**old)
        role = former["NodeRoleArn"].rpartition("/")[2]
        foreign = {"RoleName": role, "PolicyArn": arn_of("IAMReadOnly")}
        testbed.iam.attach_role_policy(**foreign)
        current = testbed.update(old, **new)["NodeRoleArn"].rpartition("/")[2]
        assert role in testbed.snapshot()["roles"]
        with pytest.raises(OffboardError, match=f"from IAM role {role}"):
            testbed.delete(**new)
        assert current in testbed.snapshot()["roles"]
        testbed.update(new, **new, RotationId="2")
        held = {"InstanceProfileName": "mine", "RoleName": role}
        profile = testbed.iam.create_instance_profile(InstanceProfileName="mine")["InstanceProfile"]
        testbed.iam.add_role_to_instance_profile(**held)
        node = testbed.launch(profile["Arn"], _other_group(testbed))
        for refused in (lambda: testbed.delete(**new), lambda: testbed.update(new, **new)):
            with pytest.raises(InUseError, match=node):
                refused()
        testbed.terminate(node)
        testbed.ec2.delete_security_group(GroupName="mine")
        testbed.iam.remove_role_from_instance_profile(**held)
        testbed.iam.delete_instance_profile(InstanceProfileName="mine")
        testbed.iam.detach_role_policy(**foreign)
        if by == "update":
            testbed.update(new, **new)
            found = testbed.snapshot()["roles"]
            assert role not in found
            assert FORMER_IDS_TAG not in found[current][3]
        testbed.delete(**new)
        assert testbed.snapshot() == clean

    def test_a_failed_removal_keeps_the_node_role_whose_tag_has_a_former_id(
        self, testbed: OnboardingTestbed
    ) -> None:
        clean = testbed.snapshot()
        old = {"ClusterId": ID, "ApiKeySecret": None, "PrincipalArn": PRINCIPAL, **ROLE}
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        former = testbed.create(**old)["RoleArn"].rpartition("/")[2]
        managed = "arn:aws:iam::aws:policy/AmazonSSMManagedInstanceCore"
        foreign = {"RoleName": former, "PolicyArn": managed}
        testbed.iam.attach_role_policy(**foreign)
        current = testbed.update(old, **new)["NodeRoleArn"].rpartition("/")[2]
        with pytest.raises(OffboardError, match=f"from IAM role {former}"):
            testbed.delete(**new)
        assert current in testbed.snapshot()["roles"]
        testbed.iam.detach_role_policy(**foreign)
        testbed.delete(**new)
        assert testbed.snapshot() == clean

    def test_another_cluster_name_gives_another_physical_id(
        self, testbed: OnboardingTestbed
    ) -> None:
        """For another physical id CloudFormation sends a Delete for the old cluster."""
        testbed.create()
        other = testbed.other_cluster("stage")
        event = other.event(
            "Update",
            other.properties(),
            OldResourceProperties=testbed.properties(),
            PhysicalResourceId=f"castai-eks/{ACCOUNT}/eu-central-1/prod",
        )
        assert other.send(event)["PhysicalResourceId"].endswith("/stage")
        assert set(testbed.snapshot()["users"]) == {"cast-eks-prod", "cast-eks-stage"}
        testbed.delete()
        assert set(testbed.snapshot()["users"]) == {"cast-eks-stage"}

    def test_unknown_old_properties_of_another_release_are_ignored(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create(**ROLE)
        old = {**ROLE, "SchemaVersion": "0", "Gone": "x", "Permissions": "everything"}
        testbed.update(old, SchemaVersion="0", Gone="x")  # the rollback of an upgrade
        assert f"cast-eks-prod-cluster-role-{testbed.id8}" not in testbed.snapshot()["roles"]


class TestDelete:
    @THROUGH_THE_SDK
    @MODES
    def test_delete_leaves_the_account_as_it_was_before_create(
        self, testbed: OnboardingTestbed, mode: dict[str, Any]
    ) -> None:
        before = testbed.snapshot()
        wanted = {**mode, "SpotHandlerRoleArn": SPOT_ROLE, "ManageSpotLambda": "true"}
        testbed.create(**wanted)
        testbed.delete(**wanted)
        assert testbed.snapshot() == before
        assert testbed.known.credentials == {}
        testbed.delete(**wanted)  # with nothing left to delete
        assert testbed.snapshot() == before

    def test_resources_that_are_gone_already_are_no_error(self, testbed: OnboardingTestbed) -> None:
        before = testbed.snapshot()
        testbed.create()
        testbed.secrets.delete_secret(
            SecretId="castai-eks/prod/credentials", ForceDeleteWithoutRecovery=True
        )
        name = f"cast-prod-eks-{testbed.id8}"
        testbed.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
        testbed.iam.delete_instance_profile(InstanceProfileName=name)
        testbed.castai.clusters.clear()
        testbed.delete()
        assert testbed.snapshot() == before

    @MODES
    def test_delete_succeeds_where_the_cluster_is_gone(
        self, testbed: OnboardingTestbed, mode: dict[str, Any]
    ) -> None:
        before = testbed.snapshot()
        wanted = {**mode, "SpotHandlerRoleArn": SPOT_ROLE, "ManageSpotLambda": "true"}
        testbed.create(**wanted)
        testbed.eks.exists = False
        testbed.eks.entries.clear()
        testbed.delete(**wanted)
        found = testbed.snapshot()
        assert {**found, "rbac": before["rbac"]} == before

    def test_delete_finds_the_cluster_id_without_castai_and_its_key(
        self, testbed: OnboardingTestbed
    ) -> None:
        before = testbed.snapshot()
        testbed.create(**ROLE)
        testbed.castai.clusters.clear()
        testbed.secrets.delete_secret(SecretId=API_KEY_SECRET, ForceDeleteWithoutRecovery=True)
        testbed.delete(**ROLE)
        del before["secrets"][API_KEY_SECRET]
        assert testbed.snapshot() == before

    def test_a_role_with_policies_of_others_is_kept_without_detach_foreign_policies(
        self, testbed: OnboardingTestbed
    ) -> None:
        before = testbed.snapshot()
        data = testbed.create()
        name = data["NodeRoleArn"].rpartition("/")[2]
        testbed.iam.attach_role_policy(RoleName=name, PolicyArn=arn_of("IAMReadOnly"))
        with pytest.raises(OffboardError, match=r"Detach arn:.*IAMReadOnlyAccess from IAM role"):
            testbed.delete()
        assert "cast-eks-prod" not in testbed.snapshot()["users"]  # the other steps are removed
        testbed.delete(DetachForeignPolicies="true")
        assert testbed.snapshot() == before

    @THROUGH_THE_SDK
    def test_running_nodes_stop_a_removal_before_its_first_write(
        self, testbed: OnboardingTestbed
    ) -> None:
        before = testbed.snapshot()
        data = testbed.create()
        node = testbed.node(data)
        onboarded = testbed.snapshot()
        with pytest.raises(InUseError, match="Remove the nodes that CAST AI added first") as error:
            testbed.delete()
        assert node in str(error.value)
        assert testbed.snapshot() == onboarded
        testbed.terminate(node)
        testbed.delete()
        assert testbed.snapshot() == before

    @pytest.mark.parametrize("state", ["pending", "running", "stopping", "stopped"])
    def test_an_instance_that_may_run_again_stops_a_removal(
        self, testbed: OnboardingTestbed, state: str
    ) -> None:
        data = testbed.create()
        node = testbed.launch(data["InstanceProfileArn"], _other_group(testbed))
        testbed.set_state(node, state)
        with pytest.raises(InUseError, match=node):
            testbed.delete()
        testbed.terminate(node)
        testbed.delete()

    def test_an_instance_that_has_the_node_role_by_another_profile_stops_a_removal(
        self, testbed: OnboardingTestbed
    ) -> None:
        data = testbed.create()
        profile = testbed.iam.create_instance_profile(InstanceProfileName="mine")["InstanceProfile"]
        role = data["NodeRoleArn"].rpartition("/")[2]
        testbed.iam.add_role_to_instance_profile(InstanceProfileName="mine", RoleName=role)
        node = testbed.launch(profile["Arn"], _other_group(testbed))
        onboarded = testbed.snapshot()
        with pytest.raises(InUseError, match=node):
            testbed.delete()
        assert testbed.snapshot() == onboarded

    def test_a_network_interface_with_the_security_group_stops_a_removal(
        self, testbed: OnboardingTestbed
    ) -> None:
        data = testbed.create()
        subnet = testbed.ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        made = testbed.ec2.create_network_interface(
            SubnetId=subnet, Groups=[data["SecurityGroupId"]]
        )["NetworkInterface"]["NetworkInterfaceId"]
        onboarded = testbed.snapshot()
        with pytest.raises(InUseError, match=made):
            testbed.delete()
        assert testbed.snapshot() == onboarded
        testbed.ec2.delete_network_interface(NetworkInterfaceId=made)
        testbed.delete()

    @THROUGH_THE_SDK
    @pytest.mark.parametrize("direction", ["ingress", "egress"])
    def test_a_security_group_whose_rule_names_ours_stops_a_removal(
        self, testbed: OnboardingTestbed, direction: str
    ) -> None:
        before = testbed.snapshot()
        group = testbed.create()["SecurityGroupId"]
        database = testbed.ec2.create_security_group(GroupName="database", Description="-")[
            "GroupId"
        ]
        rule = [{"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": group}]}]
        authorize = getattr(testbed.ec2, f"authorize_security_group_{direction}")
        authorize(GroupId=database, IpPermissions=rule)
        onboarded = testbed.snapshot()
        testbed.writes.done.clear()
        with pytest.raises(InUseError) as error:
            testbed.delete()
        assert str(error.value) == (
            "Remove the rules first that name the nodes' security group in other security groups. "
            f"Nothing was changed. In use by 1 other security group: {database}"
        )
        assert testbed.writes.done == []
        assert testbed.snapshot() == onboarded
        testbed.ec2.delete_security_group(GroupId=database)
        testbed.delete()
        assert testbed.snapshot() == before

    def test_a_new_cluster_id_is_refused_while_nodes_of_the_old_one_run(
        self, testbed: OnboardingTestbed
    ) -> None:
        old = {"ClusterId": ID, "ApiKeySecret": None}
        new = {**old, "ClusterId": ID.replace("12345678-", "99999999-")}
        node = testbed.node(testbed.create(**old))
        onboarded = testbed.snapshot()
        with pytest.raises(InUseError, match=node):
            testbed.update(old, **new)
        assert testbed.snapshot() == onboarded
        testbed.terminate(node)
        testbed.update(old, **new)

    def test_a_node_that_is_launched_during_a_removal_stops_it(
        self, testbed: OnboardingTestbed
    ) -> None:
        before = testbed.snapshot()
        data = testbed.create()
        nodes: list[str] = []
        testbed.writes.just_before["ec2:delete_security_group"] = lambda: nodes.append(
            testbed.node(data)
        )
        onboarded = testbed.snapshot()
        with pytest.raises(OffboardError, match=r"Remove the nodes .*, first: security group"):
            testbed.delete()
        assert testbed.snapshot() == onboarded
        assert testbed.known.status == "ready"
        testbed.terminate(nodes[0])
        testbed.delete()
        assert testbed.snapshot() == before

    def test_retain_on_delete_changes_nothing(self, testbed: OnboardingTestbed) -> None:
        testbed.create()
        before = testbed.snapshot()
        testbed.delete(RetainOnDelete="true")
        assert testbed.snapshot() == before
        testbed.create(resource="Prod")  # a new stack of the same owner
        assert testbed.snapshot() == before

    def test_invalid_properties_stop_no_removal(self, testbed: OnboardingTestbed) -> None:
        before = testbed.snapshot()
        testbed.create()
        testbed.delete(Permissions="everything", Tags="none", Typo="1")
        assert testbed.snapshot() == before


def _other_group(testbed: OnboardingTestbed) -> str:
    made = testbed.ec2.create_security_group(GroupName="mine", Description="-")
    return str(made["GroupId"])


class _PatchedClient:
    """A client with some methods replaced."""

    def __init__(self, client: Any, **methods: Any) -> None:
        self._client, self._methods = client, methods

    def __getattr__(self, name: str) -> Any:
        return self._methods.get(name) or getattr(self._client, name)


class TestPrincipalsOfTheSameName:
    """EKS binds an access entry to the unique id of its principal, not to its ARN."""

    def test_a_recreated_node_role_gets_a_new_access_entry(
        self, testbed: OnboardingTestbed
    ) -> None:
        role = testbed.create()["NodeRoleArn"]
        _delete_node_role(testbed, role)
        testbed.update({}, RotationId="2")
        assert testbed.eks.admits(role)
        before = testbed.snapshot()
        testbed.update({"RotationId": "2"}, RotationId="2")
        assert testbed.snapshot() == before

    def test_a_recreated_user_gets_a_new_access_entry(self, testbed: OnboardingTestbed) -> None:
        user = testbed.create()["UserArn"]
        _delete_user(testbed, "cast-eks-prod")
        testbed.time.sleep(HOUR)
        testbed.update({}, RotationId="2")
        assert testbed.eks.admits(user)
        assert testbed.eks.entries[user].policies

    @pytest.mark.parametrize("made", ["by us", "by others"])
    def test_a_recreated_spot_handler_role_gets_a_new_access_entry_unless_others_made_it(
        self, testbed: OnboardingTestbed, made: str
    ) -> None:
        wanted = {"SpotHandlerRoleArn": SPOT_ROLE}
        testbed.iam.create_role(RoleName="CastLambdaRoleForSpot", AssumeRolePolicyDocument=TRUST)
        if made == "by others":
            groups = ["castai:spot-handler"]
            testbed.eks.create_access_entry(
                clusterName="prod", principalArn=SPOT_ROLE, kubernetesGroups=groups
            )
        testbed.create(**wanted)
        testbed.iam.delete_role(RoleName="CastLambdaRoleForSpot")
        testbed.time.sleep(HOUR)
        testbed.iam.create_role(RoleName="CastLambdaRoleForSpot", AssumeRolePolicyDocument=TRUST)
        if made == "by others":
            with pytest.raises(InTheWayError, match="of a former principal"):
                testbed.update(wanted, **wanted, RotationId="2")
            return
        testbed.update(wanted, **wanted, RotationId="2")
        assert testbed.eks.admits(SPOT_ROLE)

    def test_the_next_run_creates_the_access_entry_after_a_killed_one(
        self, testbed: OnboardingTestbed
    ) -> None:
        role = testbed.create()["NodeRoleArn"]
        _delete_node_role(testbed, role)

        def kill() -> None:
            raise KeyboardInterrupt

        testbed.writes.just_before["eks:delete_access_entry"] = kill
        with pytest.raises(KeyboardInterrupt):
            testbed.update({}, RotationId="2")
        testbed.update({}, RotationId="2")
        assert testbed.eks.admits(role)

    def test_the_undo_restores_the_former_access_entry(self, testbed: OnboardingTestbed) -> None:
        """The entry has its groups and its policy again, although its principal is gone."""
        user = testbed.create()["UserArn"]
        _delete_user(testbed, "cast-eks-prod")
        testbed.time.sleep(HOUR)
        testbed.iam.create_user(
            UserName="cast-eks-prod",
            Tags=[{"Key": "castai-eks:cluster", "Value": testbed.eks.arn}],
        )
        testbed.eks.entries[user].groups = ["viewers"]
        before = testbed.snapshot()["entries"]
        testbed.castai.propagation = 10_000
        with pytest.raises(StepFailedError, match="everything that this run did was undone"):
            testbed.update({}, RotationId="2")
        assert testbed.snapshot()["entries"] == before

    def test_an_entry_of_the_same_second_as_its_principal_is_kept(
        self, testbed: OnboardingTestbed
    ) -> None:
        """IAM cuts its dates to whole seconds; EKS does not."""
        role = testbed.create()["NodeRoleArn"]
        testbed.eks.entries[role].created += 0.5
        testbed.writes.done.clear()
        testbed.update({})
        assert testbed.writes.done == []

    def test_an_entry_of_others_for_a_former_role_is_a_conflict(
        self, testbed: OnboardingTestbed
    ) -> None:
        role = testbed.create()["NodeRoleArn"]
        testbed.delete()
        testbed.eks.create_access_entry(clusterName="prod", principalArn=role, type="EC2_LINUX")
        with pytest.raises(InTheWayError, match="access entry of"):
            testbed.create()

    def test_the_temporary_entry_of_a_killed_run_is_replaced(
        self, testbed: OnboardingTestbed
    ) -> None:
        former = Entry(OWN_ROLE, "STANDARD", [], {TEMPORARY_TAG: "true"}, "AROAFORMER")
        testbed.eks.entries[OWN_ROLE] = former
        testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert OWN_ROLE not in testbed.eks.entries


HOUR = 3600.0  # s


def _delete_node_role(testbed: OnboardingTestbed, arn: str) -> None:
    """Delete the role as a user would, and let an hour pass."""
    name = arn.rpartition("/")[2]
    testbed.iam.remove_role_from_instance_profile(InstanceProfileName=name, RoleName=name)
    for policy in testbed.iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
        testbed.iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
    testbed.iam.delete_role(RoleName=name)
    testbed.time.sleep(HOUR)


def _delete_user(testbed: OnboardingTestbed, name: str) -> None:
    for key in testbed.keys(name):
        testbed.iam.delete_access_key(UserName=name, AccessKeyId=key)
    for policy in testbed.iam.list_attached_user_policies(UserName=name)["AttachedPolicies"]:
        testbed.iam.detach_user_policy(UserName=name, PolicyArn=policy["PolicyArn"])
    for policy in testbed.iam.list_user_policies(UserName=name)["PolicyNames"]:
        testbed.iam.delete_user_policy(UserName=name, PolicyName=policy)
    testbed.iam.delete_user(UserName=name)


class TestEventualConsistency:
    """AWS refuses a call for some seconds and accepts it then."""

    @pytest.mark.parametrize(
        "call", ["delete_role", "delete_user", "delete_policy", "delete_instance_profile"]
    )
    def test_a_delete_is_retried_until_a_detach_is_effective(
        self, testbed: OnboardingTestbed, call: str
    ) -> None:
        before = testbed.snapshot()
        testbed.create()
        real = testbed.iam
        testbed.iam = _PatchedClient(
            real, **{call: refusing(getattr(real, call), "DeleteConflict", 3)}
        )
        testbed.delete()
        testbed.iam = real
        assert testbed.snapshot() == before
        assert testbed.time.slept

    def test_create_secret_is_retried_while_a_deleted_one_has_the_name(
        self, testbed: OnboardingTestbed
    ) -> None:
        real = testbed.secrets
        create = refusing(real.create_secret, "InvalidRequestException", 5)
        testbed.secrets = _PatchedClient(real, create_secret=create)
        testbed.create()
        assert testbed.stored_key()["accessKeyId"]
        assert testbed.time.slept


def refusing(call: Callable[..., Any], code: str, times: int) -> Callable[..., Any]:
    """The call, whose first `times` calls are refused."""
    refusals = iter([refusal(code)] * times)

    def refused(**arguments: Any) -> Any:
        for error in refusals:
            raise error
        return call(**arguments)

    return refused


class TestThrottling:
    """The SDK's own retries are off; the functions retry throttled calls."""

    def test_a_throttled_read_of_the_api_key_is_retried(self, testbed: OnboardingTestbed) -> None:
        answers = iter([refusal("ThrottlingException")] * 3)

        def read(**arguments: Any) -> Any:
            for error in answers:
                raise error
            return testbed.secrets.get_secret_value(**arguments)

        deps = testbed.dependencies()
        secrets: Any = _PatchedClient(deps.clients.secrets, get_secret_value=read)
        deps = replace(deps, clients=replace(deps.clients, secrets=secrets))
        event = testbed.event("Create", testbed.properties())
        assert handler.respond(event, deps, remaining=REMAINING)["Data"]["Mode"] == "user"
        assert testbed.time.slept

    @pytest.mark.usefixtures("testbed")
    def test_a_throttled_get_caller_identity_is_retried(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(session, "SYSTEM", FakeTime().clock)
        throttled = [AWSResponse("https://sts.invalid", 400, {}, None)] * 3
        for each in throttled:
            each._content = b"<ErrorResponse><Error><Code>Throttling</Code></Error></ErrorResponse>"

        def answer(**_: Any) -> AWSResponse | None:
            return throttled.pop() if throttled else None

        emitter = aws.session().events
        emitter.register_first("before-send.sts.GetCallerIdentity", answer)  # type: ignore[attr-defined]
        assert session.dependencies_of(OWN_ROLE).place.account == ACCOUNT
        assert throttled == []


class TestSeveralClusters:
    @MODES
    def test_one_of_two_clusters_is_removed_without_a_change_of_the_other(
        self, testbed: OnboardingTestbed, mode: dict[str, Any]
    ) -> None:
        empty = testbed.snapshot()
        stage = testbed.other_cluster("stage")
        testbed.create(**mode)
        only_prod = testbed.snapshot()
        stage.create(resource="Stage", **mode)
        stage.delete(resource="Stage", **mode)
        assert testbed.snapshot() == only_prod
        testbed.delete(**mode)
        assert testbed.snapshot() == empty

    def test_clusters_whose_names_are_cut_to_the_same_name_do_not_share_resources(
        self, testbed: OnboardingTestbed
    ) -> None:
        one, two = (testbed.other_cluster("x" * 45 + end) for end in ("-blue", "-green"))
        one.create(resource="One", **ROLE)
        before = testbed.snapshot()
        two.create(resource="Two", **ROLE)
        two.delete(resource="Two", **ROLE)
        assert testbed.snapshot() == before

    def test_the_same_cluster_name_in_another_region_is_a_conflict(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        before = testbed.snapshot()
        other = testbed.other_cluster("prod", region="eu-west-1")
        with pytest.raises(InTheWayError, match="belongs to arn:aws:eks:eu-central-1"):
            other.create(resource="Other")
        other.delete(resource="Other")
        assert testbed.snapshot() == before

    def test_a_refused_cluster_of_the_same_name_keeps_the_policy_on_delete(
        self, testbed: OnboardingTestbed
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        testbed.create(**wanted)
        before = testbed.snapshot()
        testbed.other_cluster("prod", region="eu-west-1").delete(resource="Other", **wanted)
        assert testbed.snapshot() == before

    def test_a_second_resource_for_a_cluster_is_refused_and_its_delete_removes_nothing(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        before = testbed.snapshot()
        with pytest.raises(InTheWayError, match="onboarded by castai-onboarding/Prod"):
            testbed.create(resource="Again")
        testbed.delete(resource="Again")
        assert testbed.snapshot() == before
        assert testbed.known.status == "ready"

    def test_a_renamed_resource_adopts_and_the_delete_of_the_old_one_removes_nothing(
        self, testbed: OnboardingTestbed
    ) -> None:
        empty = testbed.snapshot()
        testbed.create(resource="Old")
        testbed.create(resource="New", Adopt="true")
        before = testbed.snapshot()
        testbed.delete(resource="Old")
        assert testbed.snapshot() == before
        testbed.delete(resource="New")
        assert testbed.snapshot() == empty

    def test_the_account_wide_policy_is_kept_while_another_cluster_uses_it(
        self, testbed: OnboardingTestbed
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        empty = testbed.snapshot()
        stage = testbed.other_cluster("stage")
        testbed.create(**wanted)
        stage.create(resource="Stage", **wanted)
        testbed.delete(**wanted)
        arn = f"arn:aws:iam::{ACCOUNT}:policy/CastEKSPolicy"
        assert arn in testbed.snapshot()["policies"]
        stage.delete(resource="Stage", **wanted)
        assert testbed.snapshot() == empty

    @MODES
    def test_without_account_wide_policy_the_shared_policy_is_replaced_and_deleted(
        self, testbed: OnboardingTestbed, mode: dict[str, Any]
    ) -> None:
        before = testbed.snapshot()
        shared = {**mode, "AccountWidePolicy": "true"}
        testbed.create(**shared)
        testbed.update(shared, **mode)
        assert SHARED not in testbed.snapshot()["policies"]
        testbed.delete(**mode)
        assert testbed.snapshot() == before

    def test_a_delete_deletes_a_shared_policy_that_an_update_left(
        self, testbed: OnboardingTestbed
    ) -> None:
        """A failed clean-up after an Update does not fail the Update."""
        before = testbed.snapshot()
        testbed.create(AccountWidePolicy="true")
        real = testbed.iam.delete_policy
        testbed.iam = _PatchedClient(testbed.iam, delete_policy=refusing(real, "ServiceFailure", 1))
        testbed.update({"AccountWidePolicy": "true"})
        assert SHARED in testbed.snapshot()["policies"]
        testbed.delete()
        assert testbed.snapshot() == before

    def test_an_update_keeps_a_shared_policy_that_another_run_may_create_now(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        testbed.other_cluster("stage").iam.create_policy(
            PolicyName="CastEKSPolicy",
            PolicyDocument=POLICY,
            Tags=[{"Key": "castai-eks:cluster", "Value": "account-wide"}],
        )
        testbed.update({}, RotationId="2")
        assert SHARED in testbed.snapshot()["policies"]

    def test_a_shared_policy_that_another_run_creates_meanwhile_is_used(
        self, testbed: OnboardingTestbed
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        stage = testbed.other_cluster("stage")
        testbed.writes.just_before["iam:create_policy"] = lambda: stage.create(
            resource="S", **wanted
        )
        testbed.create(**wanted)
        testbed.delete(**wanted)
        assert SHARED in testbed.snapshot()["policies"]
        stage.delete(resource="S", **wanted)
        assert SHARED not in testbed.snapshot()["policies"]

    @pytest.mark.parametrize("write", ["iam:create_policy", "iam:create_user"])
    def test_the_undo_keeps_a_shared_policy_that_another_cluster_uses_meanwhile(
        self, testbed: OnboardingTestbed, write: str
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        stage = testbed.other_cluster("stage")

        def other_run() -> None:
            stage.create(resource="S", **wanted)
            testbed.castai.propagation = 10_000  # our own hand-over fails

        testbed.writes.just_before[write] = other_run
        with pytest.raises(CastaiError):
            testbed.create(**wanted)
        assert SHARED in testbed.snapshot()["policies"]

    def test_a_shared_policy_has_the_same_permissions_for_every_cluster(
        self, testbed: OnboardingTestbed
    ) -> None:
        wanted = {"AccountWidePolicy": "true"}
        other = {**wanted, "Permissions": "standard"}
        stage = testbed.other_cluster("stage")
        testbed.create(**wanted)
        before = testbed.snapshot()
        with pytest.raises(CastaiError, match=r"Permissions=full.*same properties for every"):
            stage.create(resource="Stage", **other)
        assert testbed.snapshot() == before
        stage.create(resource="Stage", **wanted)
        testbed.update(wanted, **other)  # a cluster that uses it may change it for all
        document, tags = testbed.snapshot()["policies"][SHARED]
        assert "CreateNodeRole" not in json.dumps(document)
        with pytest.raises(CastaiError, match=r"Permissions=standard.*same properties for every"):
            stage.update(wanted, resource="Stage", **wanted, RotationId="2")
        stage.update(wanted, resource="Stage", **other)
        assert testbed.snapshot()["policies"][SHARED] == (document, tags)

    @THROUGH_THE_SDK
    def test_resources_of_castais_script_are_adopted(self, testbed: OnboardingTestbed) -> None:
        """The script creates a user with a key, roles and a security group, without an owner."""
        iam = testbed.iam
        cluster_id = testbed.castai.register(
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
        testbed.ec2.create_security_group(
            GroupName=name,
            Description="-",
            VpcId=testbed.eks.vpc,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tags}],
        )
        iam.create_policy(PolicyName="CastEKSPolicy", PolicyDocument=POLICY)
        with pytest.raises(InTheWayError) as error:
            testbed.create(AccountWidePolicy="true")
        assert len(str(error.value).splitlines()) == 6
        before = testbed.snapshot()
        testbed.castai.propagation = 10_000
        with pytest.raises(StepFailedError):
            testbed.create(AccountWidePolicy="true", Adopt="true")
        assert testbed.snapshot() == before
        testbed.castai.propagation = 1
        testbed.create(AccountWidePolicy="true", Adopt="true")
        assert script_key not in testbed.keys("cast-eks-prod")
        assert len(testbed.keys("cast-eks-prod")) == 1
        testbed.delete(AccountWidePolicy="true")
        assert set(testbed.snapshot()["users"]) == set()
        assert set(testbed.snapshot()["policies"]) == set()


def test_a_new_code_version_updates_the_policy_and_keeps_the_key(
    testbed: OnboardingTestbed,
) -> None:
    """`cdk deploy` after an upgrade changes CodeVersion and nothing else."""
    data = testbed.create(CodeVersion="0123456789abcdef")
    current, key = testbed.snapshot(), testbed.stored_key()
    wide = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}
    older = json.dumps({"Version": "2012-10-17", "Statement": [wide]})
    testbed.iam.create_policy_version(
        PolicyArn=data["PolicyArn"], PolicyDocument=older, SetAsDefault=True
    )
    assert testbed.snapshot()["policies"] != current["policies"]
    testbed.update({"CodeVersion": "0123456789abcdef"}, CodeVersion="fedcba9876543210")
    assert testbed.snapshot() == current
    assert testbed.stored_key() == key


class TestClusterAccess:
    def test_with_aws_auth_the_mappings_are_added_and_removed(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.eks.mode = "CONFIG_MAP"
        testbed.users.admits = lambda: True  # mapped by hand, as in the documents
        before = testbed.snapshot()
        data = testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert data["AccessMethod"] == "aws-auth"
        found = testbed.snapshot()["aws-auth"]
        assert "cast-eks-prod" in found["mapUsers"]
        assert "castai:spot-handler" in found["mapRoles"]
        assert OWN_ROLE not in testbed.eks.entries
        testbed.delete(SpotHandlerRoleArn=SPOT_ROLE)
        assert testbed.snapshot() == before  # our ConfigMap is deleted too

    def test_a_concurrent_change_of_aws_auth_is_not_lost(self, testbed: OnboardingTestbed) -> None:
        testbed.eks.mode = "CONFIG_MAP"
        testbed.users.admits = lambda: True
        config_map: dict[str, Any] = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "aws-auth", "namespace": "kube-system"},
            "data": {"mapAccounts": "- '1'\n"},
        }
        testbed.cluster.create(config_map)

        def write(_request: object) -> None:
            now = testbed.cluster._running().get("ConfigMap", "aws-auth", "kube-system")
            assert now is not None
            testbed.cluster._running().set(
                {**now, "data": {**now["data"], "mapAccounts": "- '2'\n"}}
            )

        testbed.cluster.faults.add("PUT", "configmaps/aws-auth", Hook(write), skip=1)
        testbed.create()
        data = testbed.snapshot()["aws-auth"]
        assert data["mapAccounts"] == "- '2'\n"
        assert "cast-eks-prod" in data["mapUsers"]

    def test_an_aws_auth_that_cannot_be_parsed_is_not_changed(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.eks.mode = "CONFIG_MAP"
        testbed.users.admits = lambda: True
        testbed.cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "aws-auth", "namespace": "kube-system"},
                "data": {"mapRoles": "{[}"},
            }
        )
        before = testbed.snapshot()
        with pytest.raises(InTheWayError, match=r"(?s)by hand.*rolearn: arn:aws:iam"):
            testbed.create()
        assert testbed.snapshot() == before

    def test_a_function_without_a_mapping_in_aws_auth_is_refused(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.eks.mode = "CONFIG_MAP"
        testbed.users.admits = lambda: False
        with pytest.raises(StepFailedError, match=r"access to the cluster.*aws-auth"):
            testbed.create()

    @pytest.mark.parametrize(
        ("mode", "access", "words"),
        [
            ("CONFIG_MAP", "access-entries", "Set ClusterAccess to aws-auth"),
            ("API", "aws-auth", "Set ClusterAccess to access-entries"),
        ],
    )
    def test_a_cluster_access_that_the_authentication_mode_excludes_is_refused(
        self, testbed: OnboardingTestbed, mode: str, access: str, words: str
    ) -> None:
        testbed.eks.mode = mode
        before = testbed.snapshot()
        with pytest.raises(StepFailedError, match=words):
            testbed.create(ClusterAccess=access)
        assert testbed.snapshot() == before

    def test_cluster_access_none_creates_no_access_entry(self, testbed: OnboardingTestbed) -> None:
        assert testbed.create(ClusterAccess="none")["AccessMethod"] == "none"
        assert testbed.eks.entries == {}

    def test_the_functions_access_entry_is_created_only_where_needed_and_deleted(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.create()
        created = [w for w in testbed.writes.done if w == "eks:create_access_entry"]
        assert len(created) == 2  # node role and user: no write in the cluster was needed
        testbed.update({}, SpotHandlerRoleArn=SPOT_ROLE)
        assert OWN_ROLE not in testbed.eks.entries
        assert testbed.snapshot()["rbac"]["ClusterRole"]

    def test_the_functions_access_entry_is_deleted_before_the_time_out_despite_throttling(
        self, testbed: OnboardingTestbed
    ) -> None:
        """The undo has used all its time; EKS answers shortly before the retries of a call end."""
        start = testbed.time.now
        deadline = start + REMAINING - handler.RESERVE
        throttled = (
            deadline - UNDO_TIME,
            deadline + temporary_access.CALL_PATIENCE - 2 * LONGEST_DELAY,
        )
        testbed.eks.is_throttled = lambda: throttled[0] <= testbed.time.now < throttled[1]
        testbed.castai.propagation = 10_000

        def slow() -> None:
            testbed.time.now = throttled[0]

        testbed.writes.just_before["secretsmanager:create_secret"] = slow
        with pytest.raises(StepFailedError):
            testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        assert OWN_ROLE not in testbed.eks.entries
        assert throttled[1] <= testbed.time.now < start + REMAINING - TIME_TO_ANSWER

    def test_an_access_entry_of_others_for_the_function_is_used_and_kept(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.eks.create_access_entry(clusterName="prod", principalArn=OWN_ROLE)
        testbed.eks.entries[OWN_ROLE].policies.append("admin")
        testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        testbed.delete(SpotHandlerRoleArn=SPOT_ROLE)
        assert set(testbed.eks.entries) == {OWN_ROLE}

    def test_the_access_entry_of_the_spot_handlers_stack_is_used_and_kept(
        self, testbed: OnboardingTestbed
    ) -> None:
        testbed.eks.create_access_entry(
            clusterName="prod", principalArn=SPOT_ROLE, kubernetesGroups=["castai:spot-handler"]
        )
        before = testbed.snapshot()
        testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        testbed.delete(SpotHandlerRoleArn=SPOT_ROLE)
        assert testbed.snapshot() == before

    def test_with_spot_handler_entry_false_the_entry_is_neither_created_nor_deleted(
        self, testbed: OnboardingTestbed
    ) -> None:
        theirs = {"SpotHandlerRoleArn": SPOT_ROLE, "SpotHandlerEntry": "false"}
        testbed.create(**theirs)
        assert SPOT_ROLE not in testbed.eks.entries
        assert testbed.snapshot()["rbac"]["ClusterRole"]
        testbed.eks.create_access_entry(clusterName="prod", principalArn=SPOT_ROLE)
        testbed.update(theirs, **theirs)
        testbed.delete(**theirs)
        assert set(testbed.eks.entries) == {SPOT_ROLE}

    def test_an_update_to_spot_handler_entry_false_deletes_our_entry(
        self, testbed: OnboardingTestbed
    ) -> None:
        ours = {"SpotHandlerRoleArn": SPOT_ROLE}
        testbed.create(**ours)
        testbed.update(ours, **ours, SpotHandlerEntry="false")
        assert SPOT_ROLE not in testbed.eks.entries
        assert testbed.snapshot()["rbac"]["ClusterRole"]
        testbed.update({**ours, "SpotHandlerEntry": "false"}, **ours)
        assert SPOT_ROLE in testbed.eks.entries

    def test_a_cluster_role_of_others_is_a_conflict(self, testbed: OnboardingTestbed) -> None:
        testbed.cluster.create(
            {
                "apiVersion": "rbac.authorization.k8s.io/v1",
                "kind": "ClusterRole",
                "metadata": {"name": "castai-spot-handler"},
                "rules": [],
            }
        )
        with pytest.raises(InTheWayError, match="ClusterRole castai-spot-handler"):
            testbed.create(SpotHandlerRoleArn=SPOT_ROLE)
        testbed.create(SpotHandlerRoleArn=SPOT_ROLE, Adopt="true")
        assert testbed.snapshot()["rbac"]["ClusterRole"]


def test_the_functions_policies_allow_every_call(testbed: OnboardingTestbed) -> None:
    """`OnboardingTestbed.send` evaluates the policies for each call, here as in every test."""
    tags: dict[str, Any] = {"Tags": {"a": "b"}}
    tags["ManageSpotLambda"] = "true"
    testbed.create(SpotHandlerRoleArn=SPOT_ROLE, **tags)
    testbed.update(tags, RotationId="2", ManageSpotLambda="false", KmsKey="alias/mine")
    testbed.update({}, **ROLE, SsmOnNodes="true")
    testbed.update(ROLE, ClusterAccess="aws-auth")
    testbed.delete(ClusterAccess="aws-auth")
    assert len(testbed.writes.actions) > 40
    testbed.documents = [{"Version": "2012-10-17", "Statement": []}]
    with pytest.raises(CastaiError, match="Allow secretsmanager:GetSecretValue"):
        handler.respond(
            testbed.event("Create", testbed.properties()),
            testbed.dependencies(),
            remaining=REMAINING,
        )


def test_the_key_is_in_no_log_answer_error_or_tag(
    testbed: OnboardingTestbed, capfd: pytest.CaptureFixture[str]
) -> None:
    texts: list[str] = []
    secrets: list[str] = []
    texts.append(json.dumps(testbed.create()))
    secrets.append(testbed.stored_key()["secretAccessKey"])
    texts.append(json.dumps(testbed.update({}, RotationId="2")))
    secrets.append(testbed.stored_key()["secretAccessKey"])
    testbed.castai.propagation = 10_000
    with pytest.raises(CastaiError) as error:
        testbed.update({"RotationId": "2"}, RotationId="3")
    texts += [str(error.value), repr(error.value), repr(error.value.__cause__)]
    texts.append(json.dumps(testbed.castai.shown()))
    snapshot = testbed.snapshot()
    texts.append(json.dumps({k: v for k, v in snapshot.items() if k != "secrets"}, default=str))
    texts.append(json.dumps(testbed.delete()))
    out, err = capfd.readouterr()
    texts += [out, err]
    assert len(set(secrets)) == 2
    for secret in (*secrets, API_KEY, "signature=secret"):
        assert [text for text in texts if secret in text] == []
