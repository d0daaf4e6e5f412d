"""EKS access policies, which the simulated cluster reads from a user's groups."""

from __future__ import annotations

import pytest

from kubesim.access_policies import rules

VIEW = "eks:access-policy:AmazonEKSViewPolicy:castai-agent,other"


@pytest.mark.parametrize(
    ("group", "namespace", "has"),
    [
        (VIEW, "castai-agent", True),
        (VIEW, "other", True),
        (VIEW, "kube-system", False),
        (VIEW, "", False),
        ("eks:access-policy:AmazonEKSViewPolicy:*", "", True),
        ("eks:access-policy:AmazonEKSViewPolicy:", "", False),
        ("eks:access-policy:AmazonEKSUnknownPolicy:*", "default", False),
        ("system:authenticated", "default", False),
    ],
)
def test_a_policy_applies_in_its_scope(group: str, namespace: str, *, has: bool) -> None:
    assert bool(list(rules([group], namespace))) is has


def test_the_view_policy_excludes_secrets() -> None:
    seen = {resource for rule in rules([VIEW], "other") for resource in rule["resources"]}
    assert "pods" in seen
    assert "secrets" not in seen
