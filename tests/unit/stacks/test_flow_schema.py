"""manifests/spot-handler-flow-schema.yaml matches every request of the handler and no other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from lambdas.common.names import SPOT_HANDLER_GROUP

MANIFESTS = Path(__file__).parents[3] / "manifests"
[SCHEMA] = yaml.safe_load_all((MANIFESTS / "spot-handler-flow-schema.yaml").read_text())
ROLE, _ = yaml.safe_load_all((MANIFESTS / "spot-handler-rbac.yaml").read_text())
# Kubernetes' default priority levels, and the precedence of two of its default FlowSchemas.
# https://kubernetes.io/docs/concepts/cluster-administration/flow-control/#default-suggested-objects
LEVELS = {"workload-high", "workload-low", "system"}
SYSTEMS, SERVICE_ACCOUNTS = 900, 9000


def test_its_api_version_is_served_since_kubernetes_1_29() -> None:
    assert (SCHEMA["apiVersion"], SCHEMA["kind"]) == (
        "flowcontrol.apiserver.k8s.io/v1",
        "FlowSchema",
    )


def test_its_precedence_is_after_the_system_and_before_service_accounts() -> None:
    spec = SCHEMA["spec"]
    assert spec["priorityLevelConfiguration"]["name"] in LEVELS
    assert SYSTEMS < spec["matchingPrecedence"] < SERVICE_ACCOUNTS


def test_its_only_subject_is_the_group_of_the_access_entry() -> None:
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
