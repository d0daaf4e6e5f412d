"""The access entry of the spot handler's role has one owner for every change of the lists."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from stacks.constructs.cluster_onboarding import RESOURCE_TYPE
from tests.infra.conftest import Synthesise

ENTRY = "AWS::EKS::AccessEntry"
KEY = {"castai:apiKeySecret": "castai/api-key"}
LISTED = {"castai:clusters": "blue"}
ONBOARDED = {"castai:onboardClusters": "blue", **KEY}


def owners(synthesise: Synthesise, context: dict[str, Any]) -> set[str]:
    """The stacks that create the entry in cluster blue."""
    assembly = synthesise(context)
    entries = assembly.stack("spot-handler").all(ENTRY).values()
    found = {"spot handler" for entry in entries if entry["ClusterName"] == "blue"}
    if "castai-onboarding" in assembly.templates:
        (resource,) = assembly.stack("onboarding").all(RESOURCE_TYPE).values()
        if "SpotHandlerRoleArn" in resource and resource.get("SpotHandlerEntry") != "false":
            found.add("onboarding")
    return found


OLDER = {"castai:onboardByCluster": {"blue": {"ClusterAccess": "aws-auth"}}}
"""The setting that the README gives for a cluster with the authentication mode CONFIG_MAP."""


@pytest.mark.parametrize("lists", [ONBOARDED, {**LISTED, **ONBOARDED}], ids=["onboarded", "both"])
@pytest.mark.parametrize("way", [OLDER, {"castai:clusterAccess": "false"}], ids=["own", "all"])
def test_a_cluster_without_access_entries_gets_none(
    synthesise: Synthesise, lists: dict[str, Any], way: dict[str, Any]
) -> None:
    """EKS would refuse the entry, and the stack would roll back."""
    assert owners(synthesise, {**lists, **way}) == {"onboarding"}


STATES = (LISTED, ONBOARDED, {**LISTED, **ONBOARDED})


@pytest.mark.parametrize(("before", "after"), [*itertools.permutations(STATES, 2)])
def test_a_change_of_the_lists_does_not_change_the_owner(
    synthesise: Synthesise, before: dict[str, Any], after: dict[str, Any]
) -> None:
    """The spot handler is deployed first: an entry can be neither taken over nor missing."""
    assert owners(synthesise, before) == owners(synthesise, after) == {"spot handler"}
    ids = [set(synthesise(each).stack("spot-handler").all(ENTRY)) for each in (before, after)]
    assert ids[0] == ids[1]


@pytest.mark.parametrize(
    ("more", "owner"),
    [
        ({"castai:clusterAccess": "false"}, {"onboarding"}),
        (
            {"castai:onboardProperties": {"ClusterAccess": "aws-auth"}},
            {"onboarding"},
        ),  # by a mapping
        ({"castai:onboardSpotHandler": "false"}, set()),
        ({"castai:onboardProperties": {"ClusterAccess": "access-entries"}}, {"spot handler"}),
    ],
)
def test_the_onboarding_is_the_owner_where_the_spot_handlers_stack_has_no_entry(
    synthesise: Synthesise, more: dict[str, Any], owner: set[str]
) -> None:
    assert owners(synthesise, {**ONBOARDED, **more}) == owner
