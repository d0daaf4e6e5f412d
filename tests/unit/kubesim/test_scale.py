"""The scale of a workload. The answers are those of kube-apiserver 1.36."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from kubesim import SimulatedCluster
from tests.unit.kubesim.support import virtual

PATH = "/apis/apps/v1/namespaces/default/deployments/web"
MERGE = {"content-type": "application/merge-patch+json"}


@virtual
async def test_a_scaled_deployment_has_so_many_pods() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_node("n")
        cluster.add_deployment("web", 1)
        for replicas in (3, 0):
            body = {"spec": {"replicas": replicas}}
            answer = await client.patch(f"{PATH}/scale", json=body, headers=MERGE)
            await cluster.until(lambda want=replicas: len(cluster.list("pods")) == want)

        assert answer.json()["spec"] == {}  # no replicas: the field is left out
        assert (await client.get(PATH)).json()["spec"]["replicas"] == 0


@virtual
async def test_the_selector_is_ordered_by_key() -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        expressions = [
            {"key": "z", "operator": "In", "values": ["y", "x"]},
            {"key": "q", "operator": "DoesNotExist"},
            {"key": "k", "operator": "Exists"},
        ]
        selector = {"matchLabels": {"b": "2", "a": "1"}, "matchExpressions": expressions}
        labels = {"a": "1", "b": "2", "k": "", "z": "x"}
        spec = {"containers": [{"name": "app", "image": "registry.invalid/app:1"}]}
        template = {"metadata": {"labels": labels}, "spec": spec}
        cluster.create(
            {
                "kind": "Deployment",
                "apiVersion": "apps/v1",
                "metadata": {"name": "web", "namespace": "default"},
                "spec": {"replicas": 0, "selector": selector, "template": template},
            }
        )

        answer = await client.get(f"{PATH}/scale")

        assert answer.json()["status"]["selector"] == "a=1,b=2,k,!q,z in (x,y)"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({"metadata": {"resourceVersion": "1"}}, 409, "the object has been modified"),
        ({"metadata": {"name": "other"}}, 400, "the name of the object (other) does not match"),
        (
            {"spec": {"replicas": -1}},
            422,
            'Scale.autoscaling "web" is invalid: spec.replicas: Invalid value: -1: must be greater',
        ),
    ],
    ids=["version", "name", "negative"],
)
@virtual
async def test_a_scale_that_is_refused(body: dict[str, Any], code: int, message: str) -> None:
    async with SimulatedCluster() as cluster, cluster.client() as client:
        cluster.add_deployment("web", 2)
        answer: httpx2.Response = await client.patch(f"{PATH}/scale", json=body, headers=MERGE)

        assert answer.status_code == code
        assert message in answer.json()["message"]
        assert (await client.get(f"{PATH}/scale")).json()["spec"] == {"replicas": 2}
