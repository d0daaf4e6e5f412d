"""The rules of the spot handler's ClusterRole."""

from __future__ import annotations

from lambdas.onboarding import spot_rbac


def test_the_only_writes_are_those_of_a_drain() -> None:
    writes = {
        (resource, verb)
        for resource, verbs, _only in spot_rbac.RULES
        for verb in verbs
        if verb not in {"get", "list", "watch"}
    }
    assert writes == {
        ("nodes", "patch"), ("pods", "delete"), ("pods/eviction", "create"), ("events", "create"),
    }  # fmt: skip


def test_a_rule_for_all_objects_is_not_the_rule_for_one() -> None:
    """A role with wider rules is not the same role."""
    wide = spot_rbac.role()
    for rule in wide["rules"]:
        rule.pop("resourceNames", None)
    assert spot_rbac._meaning(wide) != spot_rbac._meaning(spot_rbac.role())
