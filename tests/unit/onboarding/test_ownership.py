"""The owner of a resource by its tags."""

from __future__ import annotations

import pytest

from lambdas.onboarding import ownership
from lambdas.onboarding.ownership import Owner

ARN = "arn:aws:eks:eu-central-1:123456789012:cluster/prod"
OWNER = Owner(ARN, "stack/Prod")


def test_a_resource_with_our_tags_is_ours_and_has_the_users_tags() -> None:
    tags = OWNER.tags({"team": "a", "castai-eks:cluster": "forged"})
    assert OWNER.owns(tags)
    assert tags["team"] == "a"


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({}, "made by someone else"),
        (Owner(ARN, "other/Prod").tags(), "onboarded by other/Prod"),
        (Owner(ARN.replace("central", "west"), "stack/Prod").tags(), "belongs to arn:aws:eks:eu-w"),
        ({"castai-eks:owner": "stack/Prod"}, "made by someone else"),
        (ownership.shared_tags({}), "belongs to account-wide"),
    ],
)
def test_the_owner_of_another_resource_is_described(tags: dict[str, str], words: str) -> None:
    assert not OWNER.owns(tags)
    assert words in ownership.described(tags)


def test_the_tags_of_a_shared_policy_are_not_those_of_a_cluster() -> None:
    assert ownership.is_shared(ownership.shared_tags({"team": "a"}))
    assert not ownership.is_shared(OWNER.tags())
