"""The rights that the printed documents give are those that the command uses."""

from __future__ import annotations

from lambdas.onboarding.policies import savings
from savings import read_cluster


def test_the_cluster_role_lists_the_kinds_that_are_read() -> None:
    read = {
        (version.rpartition("/")[0], f"{kind.lower()}s")
        for kind, version in read_cluster.READ.items()
    }
    granted = {(group, each) for group, of in savings.LISTED.items() for each in of}
    assert read == granted
