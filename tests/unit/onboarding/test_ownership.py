"""Whose a thing is."""

from __future__ import annotations

import pytest

from lambdas.onboarding import ownership
from lambdas.onboarding.ownership import Owner

ARN = "arn:aws:eks:eu-central-1:123456789012:cluster/prod"
OWNER = Owner(ARN, "stack/Prod")


def test_what_we_tag_is_ours_and_keeps_the_users_tags() -> None:
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
def test_what_is_not_ours_says_whose_it_is(tags: dict[str, str], words: str) -> None:
    assert not OWNER.owns(tags)
    assert words in ownership.described(tags)


def test_the_shared_policy_is_no_clusters() -> None:
    assert ownership.is_shared(ownership.shared_tags({"team": "a"}))
    assert not ownership.is_shared(OWNER.tags())
