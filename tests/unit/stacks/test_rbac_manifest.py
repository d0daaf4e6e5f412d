"""manifests/spot-handler-rbac.yaml grants the handler's permissions and no others."""

from __future__ import annotations

from pathlib import Path

import yaml

from tools.docs import rbac_manifest

MANIFEST = Path(__file__).parents[3] / "manifests" / "spot-handler-rbac.yaml"
ROLE, BINDING = yaml.safe_load_all(MANIFEST.read_text())


def test_the_manifest_is_current() -> None:
    assert MANIFEST.read_text() == rbac_manifest.current(), "Run make docs"


def test_the_cluster_role_has_these_verbs_and_no_others() -> None:
    assert (ROLE["kind"], ROLE["metadata"]["name"]) == ("ClusterRole", "castai-spot-handler")
    assert ROLE.keys() == {"apiVersion", "kind", "metadata", "rules"}
    assert ROLE["rules"] == [
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "patch"]},
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch", "delete"]},
        {"apiGroups": [""], "resources": ["pods/eviction"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["events"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["castai-agent-metadata"],
            "verbs": ["get"],
        },
    ]


def test_only_the_group_of_the_access_entry_is_bound_to_the_role() -> None:
    assert BINDING["kind"] == "ClusterRoleBinding"
    assert BINDING["metadata"]["name"] == "castai-spot-handler"
    assert BINDING["roleRef"] == {
        "apiGroup": "rbac.authorization.k8s.io",
        "kind": "ClusterRole",
        "name": ROLE["metadata"]["name"],
    }
    assert BINDING["subjects"] == [
        {"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "castai:spot-handler"}
    ]
