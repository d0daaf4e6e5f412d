from __future__ import annotations

import pytest

from lambdas.spot_handler.instances import Instance


@pytest.mark.parametrize(
    ("tags", "cluster"),
    [
        ({"aws:eks:cluster-name": "a", "eks:cluster-name": "b"}, "a"),
        ({"eks:cluster-name": "b", "kubernetes.io/cluster/c": "owned"}, "b"),
        ({"eks:eks-cluster-name": "d", "kubernetes.io/cluster/c": "owned"}, "d"),
        ({"kubernetes.io/cluster/c": "owned"}, "c"),
        ({"kubernetes.io/cluster/c": "shared"}, "c"),
        ({"kubernetes.io/cluster/a": "shared", "kubernetes.io/cluster/b": "owned"}, "b"),
        ({"kubernetes.io/cluster/c": "enabled"}, ""),
        ({"kubernetes.io/cluster/": "owned"}, ""),
        ({"eks:cluster-name": "", "kubernetes.io/cluster/c": "owned"}, "c"),
        ({"Name": "web"}, ""),
        ({}, ""),
    ],
)
def test_the_cluster_of_an_instances_tags(tags: dict[str, str], cluster: str) -> None:
    assert Instance("i-0123456789abc0001", "running", "", tags).cluster == cluster


@pytest.mark.parametrize(
    ("state", "gone"),
    [("pending", False), ("running", False), ("shutting-down", True), ("terminated", True),
     ("stopping", True), ("stopped", True)],
)  # fmt: skip
def test_the_states_of_an_instance_that_is_gone(state: str, *, gone: bool) -> None:
    assert Instance("i-0123456789abc0001", state, "", {}).gone is gone
