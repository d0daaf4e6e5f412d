"""The names that CAST AI's backend uses, and AWS's limits for them."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.common.names import SPOT_ROLE
from lambdas.onboarding import names
from lambdas.onboarding.names import NameRefusedError

ID = "1a2b3c4d-0000-4000-8000-000000000001"
LONG = "c" * 100
CLUSTERS = st.from_regex(r"[0-9A-Za-z][0-9A-Za-z_-]{0,99}", fullmatch=True)


def test_each_name_is_the_one_that_cast_ai_expects() -> None:
    assert names.user_name("prod") == "cast-eks-prod"
    assert names.role_name("prod", ID) == "cast-eks-prod-cluster-role-1a2b3c4d"
    assert names.node_role_name("prod", ID) == "cast-prod-eks-1a2b3c4d"
    assert names.policy_name("prod", account_wide=False) == "CastEKSPolicy-prod"
    assert names.policy_name("prod", account_wide=True) == "CastEKSPolicy"
    assert names.INLINE_POLICY == "CastEKSRestrictedAccess"
    assert names.security_group_name("prod") == "cast-prod-cluster/CastNodeSecurityGroup"
    assert SPOT_ROLE == "CastLambdaRoleForSpot"
    assert names.SPOT_FUNCTION == "cast-ai-ec2-events-handler"
    assert names.security_group_tags("prod", ID) == {
        "Name": "cast-prod-cluster/CastNodeSecurityGroup",
        "cast:cluster-id": ID,
    }


def test_role_names_are_cut_as_castai_cuts_them() -> None:
    assert names.role_name(LONG, ID) == f"cast-eks-{'c' * 30}-cluster-role-1a2b3c4d"
    assert names.node_role_name(LONG, ID) == f"cast-{'c' * 40}-eks-1a2b3c4d"


@pytest.mark.parametrize(
    ("make", "pattern"),
    [
        (lambda cluster: names.role_name(cluster, ID), r"[\w+=,.@-]{1,64}"),
        (lambda cluster: names.node_role_name(cluster, ID), r"[\w+=,.@-]{1,64}"),
        (lambda cluster: names.policy_name(cluster, account_wide=False), r"[\w+=,.@-]{1,128}"),
        (names.security_group_name, r"[\w .:/()#,@\[\]+=&;{}!$*-]{1,255}"),
        (names.credentials_secret_name, r"[\w/+=.@-]{1,512}"),
    ],
)
@given(cluster=CLUSTERS)
def test_every_cluster_name_gives_names_that_aws_takes(
    make: Callable[[str], str], pattern: str, cluster: str
) -> None:
    assert re.fullmatch(pattern, make(cluster), re.ASCII)


def test_a_user_name_is_never_cut() -> None:
    assert names.user_name("c" * 55) == f"cast-eks-{'c' * 55}"
    with pytest.raises(NameRefusedError) as refused:
        names.user_name("c" * 56)
    message = str(refused.value)
    assert message.startswith("Use a shorter cluster name, or Mode cross-account-role")
    assert f"cast-eks-{'c' * 56}" in message
    assert "65 characters" in message
    assert "allows 64" in message


@pytest.mark.parametrize("cluster", ["", "-prod", "_prod", "pro d", "c" * 101, "prod\n", "prod/x"])
def test_an_invalid_cluster_name_is_refused(cluster: str) -> None:
    with pytest.raises(NameRefusedError, match="name of an EKS cluster"):
        names.role_name(cluster, ID)


@pytest.mark.parametrize("cluster_id", ["1a2b3c4d", "prod", ID + "0", ID.replace("-", "")])
def test_a_cluster_id_is_a_uuid(cluster_id: str) -> None:
    with pytest.raises(NameRefusedError, match="UUID"):
        names.node_role_name("prod", cluster_id)


def test_an_unknown_id_matches_any_eight_characters_in_a_policy() -> None:
    assert names.node_role_name("prod", "") == "cast-prod-eks-????????"


@pytest.mark.parametrize("path", ["", "castai", "/castai", "castai/", "//", "/a b/", "/" * 600])
def test_an_invalid_iam_path_is_refused(path: str) -> None:
    with pytest.raises(NameRefusedError, match="IAM path"):
        names.checked_path(path)


@pytest.mark.parametrize("path", ["/", "/castai/", "/platform/castai/"])
def test_a_valid_iam_path_is_returned_unchanged(path: str) -> None:
    assert names.checked_path(path) == path


def test_a_physical_id_is_unique_by_account_region_and_cluster() -> None:
    assert names.physical_id("1", "eu-west-1", "prod") == "castai-eks/1/eu-west-1/prod"
    ids = {
        names.physical_id(account, region, cluster)
        for account in ("1", "2")
        for region in ("eu-west-1", "us-east-1")
        for cluster in ("prod", "test")
    }
    assert len(ids) == 8


def test_the_cluster_tag_is_the_arn_of_the_cluster() -> None:
    arn = "arn:aws-us-gov:eks:us-gov-west-1:111122223333:cluster/" + LONG
    assert names.cluster_tags(arn) == {"castai-eks:cluster": arn}
    assert len(arn) <= 256  # the limit of a tag's value
