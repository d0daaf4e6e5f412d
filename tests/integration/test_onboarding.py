"""The onboarding's stack by `cdk deploy` with IAM enforced: both modes, a failure, destroy."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.aws import Aws
from sandbox.cdk import Cdk
from sandbox.errors import SandboxError
from sandbox.state import API_KEY_SECRET, CastAi, State
from tests.integration.conftest import (
    ALARM_EMAIL,
    DEBUG_LOG,
    LEAST_PRIVILEGE,
    assert_no_secret_is_logged,
    castai_log,
    faulty,
)

SPOT_SETTINGS = {
    key.removeprefix("castai:"): value
    for key, value in {**LEAST_PRIVILEGE, **DEBUG_LOG, **ALARM_EMAIL}.items()
}


# Errors that AWS gives for a moment, the second one about a new role. The onboarding tries again.
FOR_A_MOMENT = (
    ("eks", "DescribeCluster", ""),
    ("eks", "CreateAccessEntry", "InvalidParameterException"),
    ("eks", "CreateAccessEntry", ""),
    ("iam", "CreateUser", ""),
    ("iam", "CreateRole", ""),
    ("ec2", "CreateSecurityGroup", ""),
    ("secretsmanager", "CreateSecret", ""),
)
STILL_IN_USE = (
    ("iam", "DeleteUser", "DeleteConflict"),
    ("iam", "DeleteRole", "DeleteConflict"),
    ("eks", "DeleteAccessEntry", ""),
)


class Account:
    """The resources of the account that the onboarding could change."""

    def __init__(self, account: Aws, cluster: str) -> None:
        options = account.client_options()
        self.iam: Any = account.session.client("iam", **options)
        self.ec2: Any = account.session.client("ec2", **options)
        self.secrets: Any = account.session.client("secretsmanager", **options)
        self.eks: Any = account.eks
        self.cluster = cluster

    def snapshot(self) -> dict[str, Any]:
        iam = self.iam
        return {
            "users": {
                user["UserName"]: sorted(
                    p["PolicyName"]
                    for p in iam.list_attached_user_policies(UserName=user["UserName"])[
                        "AttachedPolicies"
                    ]
                )
                for user in iam.list_users()["Users"]
            },
            "roles": sorted(role["RoleName"] for role in iam.list_roles()["Roles"]),
            "policies": sorted(
                p["PolicyName"] for p in iam.list_policies(Scope="Local")["Policies"]
            ),
            "profiles": sorted(
                p["InstanceProfileName"] for p in iam.list_instance_profiles()["InstanceProfiles"]
            ),
            "groups": sorted(
                g["GroupName"] for g in self.ec2.describe_security_groups()["SecurityGroups"]
            ),
            "secrets": sorted(s["Name"] for s in self.secrets.list_secrets()["SecretList"]),
            "entries": sorted(
                self.eks.list_access_entries(clusterName=self.cluster)["accessEntries"]
            ),
        }

    def made(self, before: dict[str, Any]) -> dict[str, set[str]]:
        """The new resources by kind, without kinds that have none."""
        now = self.snapshot()
        new = {kind: set(now[kind]) - set(before[kind]) for kind in now}
        return {kind: things for kind, things in new.items() if things}


@pytest.fixture
def spot_handler(stack: Cdk) -> Iterator[None]:
    """The spot handler's stack; it is deployed again after the test, which updates it."""
    yield
    stack.deploy()


@pytest.fixture
def own(account: Aws, state: State) -> Account:
    return Account(account, state.cluster)


def cdk_of(
    state: State,
    account: Aws,
    castai: CastAi,
    properties: dict[str, str] | None = None,
    **more: Any,
) -> Cdk:
    cdk = Cdk(account, Path(state.folder), name="onboarding")
    settings = {
        # The onboarding's stack depends on the spot handler's, which is deployed unchanged.
        **SPOT_SETTINGS,
        "clusters": state.cluster,
        "onboardClusters": state.cluster,
        "onboardProperties": json.dumps({"RequireAgent": "false", **(properties or {})}),
        "apiKeySecret": API_KEY_SECRET,
        "apiUrl": castai.url,
        **more,
    }
    cdk.synth({f"castai:{key}": value for key, value in settings.items()})
    return cdk


def known(castai: CastAi, name: str) -> dict[str, Any]:
    (cluster,) = [c for c in castai_log(castai)["clusters"] if c["name"] == name]
    return dict(cluster)


@pytest.mark.usefixtures("spot_handler")
def test_user_mode_then_role_mode_then_destroy(
    state: State, account: Aws, castai: CastAi, own: Account
) -> None:
    cluster, before = state.cluster, own.snapshot()
    cdk = cdk_of(state, account, castai, {"ManageSpotLambda": "true"})
    part = cluster.capitalize()
    try:
        with faulty(account, FOR_A_MOMENT):
            cdk.deploy("castai-onboarding")
        outputs = cdk.outputs()
        assert outputs[f"{part}UserArn"].endswith(f":user/cast-eks-{cluster}")
        seen = known(castai, cluster)
        assert seen["credentials"]["kind"] == "key"
        id8 = seen["id"][:8]
        node = f"cast-{cluster}-eks-{id8}"
        made = own.made(before)
        assert made["users"] == {f"cast-eks-{cluster}"}
        assert {node, f"cast-{cluster}-lambda-{id8}"} <= made["roles"]
        assert made["profiles"] == {node}
        assert any(arn.endswith(f"user/cast-eks-{cluster}") for arn in made["entries"])
        assert all("onboarding" not in arn for arn in made["entries"])
        stored = own.secrets.get_secret_value(SecretId=f"castai-eks/{cluster}/credentials")
        key = json.loads(stored["SecretString"])["secretAccessKey"]
        assert_no_secret_is_logged(account, f"castai-onboarding-{cluster}", key)

        cdk = cdk_of(state, account, castai, onboardMode="cross-account-role")
        with faulty(account, STILL_IN_USE):
            cdk.deploy("castai-onboarding")
        seen = known(castai, cluster)
        assert seen["credentials"]["role"] == cdk.outputs()[f"{part}RoleArn"]
        made = own.made(before)
        assert "users" not in made
        assert "secrets" not in made
        assert f"cast-eks-{cluster}-cluster-role-{id8}" in made["roles"]
        assert f"cast-{cluster}-lambda-{id8}" not in made["roles"]  # no longer asked for
    finally:
        cdk.destroy("castai-onboarding")
    assert own.snapshot() == before
    assert known(castai, cluster)["credentials"] == {}


@pytest.mark.usefixtures("spot_handler")
def test_a_create_with_a_conflict_is_rolled_back_without_a_change(
    state: State, account: Aws, castai: CastAi, own: Account
) -> None:
    name = f"cast-eks-{state.cluster}"
    own.iam.create_user(UserName=name)
    before = own.snapshot()
    cdk = cdk_of(state, account, castai)
    try:
        with pytest.raises(SandboxError, match=f"IAM user {name}: made by someone else"):
            cdk.deploy("castai-onboarding")
    finally:
        cdk.destroy("castai-onboarding")
        assert own.snapshot() == before
        own.iam.delete_user(UserName=name)


def test_no_template_holds_a_key(state: State, account: Aws, castai: CastAi) -> None:
    templates = [*cdk_of(state, account, castai).assembly.rglob("*.template.json")]
    assert templates
    for template in templates:
        assert "SecretAccessKey" not in template.read_text()
