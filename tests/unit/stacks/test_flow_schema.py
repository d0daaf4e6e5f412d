"""manifests/spot-handler-flow-schema.yaml is for the handler's requests, and for all of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lambdas.common.names import SPOT_HANDLER_GROUP

MANIFESTS = Path(__file__).parents[3] / "manifests"
[SCHEMA] = yaml.safe_load_all((MANIFESTS / "spot-handler-flow-schema.yaml").read_text())
ROLE, _ = yaml.safe_load_all((MANIFESTS / "spot-handler-rbac.yaml").read_text())
# Kubernetes' own, each with the precedence of its last FlowSchema before all logged-in users.
# https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#default-suggested-objects
LEVELS = {"workload-high", "workload-low", "system"}
SYSTEMS, SERVICE_ACCOUNTS = 900, 9000


def test_it_is_served_since_kubernetes_1_29() -> None:
    assert (SCHEMA["apiVersion"], SCHEMA["kind"]) == (
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
    )


def test_it_comes_before_everyone_and_after_the_system() -> None:
    spec = SCHEMA["spec"]
    assert spec["priorityLevelConfiguration"]["name"] in LEVELS
    assert SYSTEMS < spec["matchingPrecedence"] < SERVICE_ACCOUNTS


def test_its_subject_is_the_group_of_the_access_entry_alone() -> None:
    [rule] = SCHEMA["spec"]["rules"]
    assert rule["subjects"] == [{"kind": "Group", "group": {"name": SPOT_HANDLER_GROUP}}]


def test_it_matches_every_request_that_the_handler_may_make() -> None:
    [rule] = SCHEMA["spec"]["rules"]
    [requests] = rule["resourceRules"]
    assert (requests["clusterScope"], requests["namespaces"]) == (True, ["*"])

    def all_of(key: str) -> set[Any]:
        return {value for rights in ROLE["rules"] for value in rights[key]}

    for key in ("verbs", "apiGroups", "resources"):
        assert set(requests[key]) == all_of(key)
