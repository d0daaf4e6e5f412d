"""The spot handler's rights are written twice, for people and for us: both say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lambdas.onboarding import spot_rbac

MANIFEST = Path(__file__).parents[3] / "manifests" / "spot-handler-rbac.yaml"


def documents() -> dict[str, Any]:
    return {each["kind"]: each for each in yaml.safe_load_all(MANIFEST.read_text())}


def test_the_manifest_and_the_onboarding_apply_the_same() -> None:
    assert documents() == {
        "ClusterRole": spot_rbac.role(),
        "ClusterRoleBinding": spot_rbac.binding(),
    }


def test_it_may_write_only_what_a_drain_writes() -> None:
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
    """A role with more rules is another role."""
    wide = spot_rbac.role()
    for rule in wide["rules"]:
        rule.pop("resourceNames", None)
    assert spot_rbac._meaning(wide) != spot_rbac._meaning(spot_rbac.role())
