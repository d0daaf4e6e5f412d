"""The Kubernetes client of the custom resources: retries, errors and objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from kubesim import Answer, Hook, Reset, ServedCluster
from lambdas.common import agent_status
from lambdas.common.eks import Cluster, Token
from lambdas.common.errors import (
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    ClusterUnavailableError,
    PermanentError,
)
from lambdas.common.kubernetes_objects import Kube, connect
from tests.functional.agent.conftest import kube_of
from tests.support.fake_time import FakeTime


@pytest.mark.parametrize("code", [429, 500, 503])
def test_a_temporary_error_of_the_server_is_retried(
    cluster: ServedCluster, kube: Kube, code: int
) -> None:
    cluster.faults.add("GET", "/namespaces/default", Answer(code))
    found = kube.get("v1", "Namespace", "default")
    assert found is not None
    assert found["kind"] == "Namespace"


def test_a_request_on_a_broken_connection_is_retried(cluster: ServedCluster, kube: Kube) -> None:
    cluster.faults.add("GET", "/namespaces/default", Reset())
    assert kube.get("v1", "Namespace", "default") is not None


def test_retries_end_at_the_given_time(cluster: ServedCluster) -> None:
    cluster.faults.add("GET", "/namespaces/", Answer(503), times=1000)
    time = FakeTime()
    with (
        kube_of(cluster, clock=time.clock, until=10.0) as kube,
        pytest.raises(ClusterUnavailableError, match="reading Namespace default"),
    ):
        kube.get("v1", "Namespace", "default")
    assert 5 < time.now <= 10


def test_an_endpoint_that_cannot_be_reached_is_refused_with_what_to_check(
    cluster: ServedCluster,
) -> None:
    nowhere = Cluster(
        name="prod", endpoint="https://127.0.0.1:1", ca_pem=cluster.ca_pem, region="eu-central-1"
    )
    time = FakeTime()
    with (
        connect(nowhere, Token(lambda: "x"), clock=time.clock) as kube,
        pytest.raises(ClusterUnavailableError, match="VPC, security group") as caught,
    ):
        kube.get("v1", "Namespace", "default")
    assert caught.value.unreachable


def test_a_missing_object_is_none_and_its_delete_is_no_error(kube: Kube) -> None:
    assert kube.get("v1", "ConfigMap", "none", "default") is None
    kube.delete("v1", "ConfigMap", "none", "default")


def test_a_404_of_a_proxy_is_retried_and_means_no_missing_object(
    cluster: ServedCluster, kube: Kube
) -> None:
    """A proxy's 404 has no Status: an aws-auth that exists would count as missing."""
    cluster.faults.add("GET", "/namespaces/default", Answer(404))
    assert kube.get("v1", "Namespace", "default") is not None


def test_a_missing_right_is_named() -> None:
    with (
        ServedCluster(tokens={"weak": ("reader", ())}) as cluster,
        kube_of(cluster, "weak") as kube,
        pytest.raises(ClusterForbiddenError, match=r"Give this identity the right.*reader"),
    ):
        kube.list("v1", "Secret")


@pytest.mark.parametrize(
    ("code", "error"), [(401, ClusterUnauthorizedError), (403, ClusterForbiddenError)]
)
def test_401_and_403_are_retried_until_new_access_is_effective(
    cluster: ServedCluster, code: int, error: type[Exception]
) -> None:
    time = FakeTime()
    message = 'namespaces "default" is forbidden: User "us" cannot get resource "namespaces"'
    refusal = Answer(code, {"kind": "Status", "message": message, "code": code})
    with kube_of(cluster, clock=time.clock, refusals_pass_until=60.0) as kube:
        cluster.faults.add("GET", "/namespaces/default", refusal, times=3)
        assert kube.get("v1", "Namespace", "default") is not None
        cluster.faults.add("GET", "/namespaces/default", refusal, times=1000)
        with pytest.raises(error):
            kube.get("v1", "Namespace", "default")
    assert time.now <= 60


def test_a_403_of_an_admission_plugin_is_no_missing_right(cluster: ServedCluster) -> None:
    denied = {"kind": "Status", "message": "admission webhook denied the request", "code": 403}
    with kube_of(cluster) as kube:
        cluster.faults.add("GET", "/namespaces/default", Answer(403, denied), times=1)
        with pytest.raises(ClusterRefusedError, match=r"Change what refuses.*webhook denied"):
            kube.get("v1", "Namespace", "default")


def test_an_object_that_the_server_refuses_is_named(kube: Kube) -> None:
    bad = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "Not A Name", "namespace": "default"},
    }
    with pytest.raises(ClusterRefusedError, match="applying ConfigMap default/Not A Name"):
        kube.apply(bad)


def test_a_kind_that_is_not_supported_is_refused_without_a_request(kube: Kube) -> None:
    with pytest.raises(PermanentError, match="Leave CronJob"):
        kube.get("batch/v1", "CronJob", "x", "default")


def test_a_cluster_without_agent_says_how_to_connect(kube: Kube) -> None:
    found = agent_status.check(kube)
    assert not found.installed
    assert "castai-eks connect" in found.sentence


UNKNOWN = {"of": ["a newer Kubernetes"]}


def cluster_role(**rule: object) -> dict[str, Any]:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "reader", "unknown": UNKNOWN},
        "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"], **rule}],
        "unknown": UNKNOWN,
    }


def sent(cluster: ServedCluster, method: str) -> list[Any]:
    """The bodies of the next requests with this method; the list fills as they arrive."""
    bodies: list[Any] = []
    hook = Hook(lambda request: bodies.append(json.loads(request.body)))
    cluster.faults.add(method, "/", hook)
    return bodies


def test_unknown_fields_are_read_and_sent(cluster: ServedCluster, kube: Kube) -> None:
    """The server knows fields that we do not know; the simulated one drops those of a request."""
    kind = "rbac.authorization.k8s.io/v1", "ClusterRole"
    role = cluster_role(unknown=UNKNOWN)
    posted, put = sent(cluster, "POST"), sent(cluster, "PUT")
    kube.create({**role, "metadata": {**role["metadata"], "name": "other"}})
    cluster.create(role)

    found = kube.get(*kind, "reader")
    assert found is not None
    (listed,) = [each for each in kube.list(*kind) if each["metadata"]["name"] == "reader"]
    kube.replace(found)

    metadata = {key: found["metadata"].get(key) for key in ("name", "unknown")}
    assert {**found, "metadata": metadata} == role
    assert listed == found
    assert put == [found]
    assert posted == [{**role, "metadata": {**role["metadata"], "name": "other"}}]


def test_a_namespaced_object_is_written_to_its_namespace(
    cluster: ServedCluster, kube: Kube
) -> None:
    written = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "map", "namespace": "kube-system"},
        "data": {"a": "1"},
    }
    kube.create(written)
    found = kube.get("v1", "ConfigMap", "map", "kube-system")
    assert found is not None
    kube.replace({**found, "data": {"a": "2"}})
    after = cluster.get("ConfigMap", "map", "kube-system")
    assert after is not None
    assert after["data"] == {"a": "2"}
    assert [each["kind"] for each in kube.list("v1", "ConfigMap", namespace="kube-system")] == [
        "ConfigMap"
    ]
