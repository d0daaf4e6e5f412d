"""What a snapshot holds of Kubernetes objects."""

from __future__ import annotations

from typing import Any

import pytest

from savings import objects
from savings.snapshot import Taint, tolerates


def daemon_set(**spec: Any) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "agent"}], **spec}}
    return {"metadata": {"name": "agent", "namespace": "ops"}, "spec": {"template": template}}


@pytest.mark.parametrize(
    ("key", "effect", "host_network", "expected"),
    [
        ("unschedulable", "NoSchedule", False, True),
        ("not-ready", "NoExecute", False, True),
        ("not-ready", "NoSchedule", False, False),
        ("network-unavailable", "NoSchedule", False, False),
        ("network-unavailable", "NoSchedule", True, True),
    ],
)
def test_a_daemon_set_tolerates_what_its_controller_adds(
    key: str, effect: str, host_network: bool, expected: bool
) -> None:
    found = objects.daemon_set(daemon_set(hostNetwork=host_network))
    taint = Taint(key=f"node.kubernetes.io/{key}", effect=effect)
    assert tolerates(found.demand.tolerations, taint) is expected


def test_a_daemon_set_keeps_its_own_tolerations() -> None:
    found = objects.daemon_set(daemon_set(tolerations=[{"key": "gpu", "operator": "Exists"}]))
    assert tolerates(found.demand.tolerations, Taint(key="gpu", effect="NoSchedule"))
    assert not tolerates(found.demand.tolerations, Taint(key="other", effect="NoSchedule"))


def test_a_limit_without_a_request_is_the_request() -> None:
    resources = {"limits": {"cpu": "200m", "memory": "64Mi"}, "requests": {"memory": "32Mi"}}
    found = objects.daemon_set(daemon_set(containers=[{"name": "a", "resources": resources}]))
    assert found.demand.requests == {"cpu": 200, "memory": 32 * 2**20}
