"""The simulated cluster over a real socket: TLS, faults, the process."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from kubesim import Delay, Down, DropAnswer, Reset, ServedCluster
from kubesim.cluster import ADMIN_TOKEN
from tests.contract.api import DEADLINE, Api

ROOT = Path(__file__).parents[2]
NODE = "/api/v1/nodes/n"
OBJECTS = """
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: Namespace, metadata: {name: mine}}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: a, namespace: mine}
data: {k: v}
"""


@pytest.fixture(scope="module")
def served() -> Iterator[ServedCluster]:
    with ServedCluster() as cluster:
        cluster.add_node("n")
        yield cluster


@pytest.fixture
def client(served: ServedCluster) -> Iterator[httpx2.Client]:
    with httpx2.Client(
        base_url=served.endpoint,
        verify=served.ssl_context(),
        headers={"Authorization": f"Bearer {ADMIN_TOKEN}"},
        timeout=DEADLINE,
        trust_env=False,
    ) as client:
        yield client


def test_a_client_without_the_ca_refuses_the_certificate(served: ServedCluster) -> None:
    context = ssl.create_default_context()
    with (
        httpx2.Client(verify=context, trust_env=False) as client,
        pytest.raises(httpx2.ConnectError, match="CERTIFICATE_VERIFY_FAILED"),
    ):
        client.get(served.endpoint)


def test_a_reset_is_a_broken_connection(served: ServedCluster, client: httpx2.Client) -> None:
    served.faults.add("GET", "/nodes/n$", Reset())

    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        client.get(NODE)

    assert client.get(NODE).status_code == 200


def test_a_request_with_a_dropped_answer_has_its_effect(
    served: ServedCluster, client: httpx2.Client
) -> None:
    served.faults.add("PATCH", "/nodes/n$", DropAnswer())
    headers = {"Content-Type": "application/merge-patch+json"}

    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        client.patch(NODE, content=b'{"metadata":{"labels":{"x":"1"}}}', headers=headers)

    assert client.get(NODE).json()["metadata"]["labels"]["x"] == "1"


def test_a_server_that_never_answers(served: ServedCluster, client: httpx2.Client) -> None:
    served.faults.add("GET", "/nodes/n$", Delay())

    with pytest.raises(httpx2.ReadTimeout):
        client.get(NODE, timeout=0.05)

    assert client.get(NODE).status_code == 200


def test_a_server_that_is_down_refuses_connections_until_it_is_up(
    served: ServedCluster, client: httpx2.Client
) -> None:
    served.faults.add("GET", "/nodes/n$", Down(0.2))

    with pytest.raises((httpx2.ReadError, httpx2.RemoteProtocolError)):
        client.get(NODE)
    with pytest.raises(httpx2.ConnectError):
        client.get(NODE)

    served.wait_up()
    assert client.get(NODE).status_code == 200


def test_a_watch_streams_its_events(served: ServedCluster, client: httpx2.Client) -> None:
    path = "/api/v1/namespaces/default/configmaps"
    version = client.get(path).json()["metadata"]["resourceVersion"]
    query = {"watch": "1", "resourceVersion": version}
    with client.stream("GET", path, params=query) as stream:
        served.create(
            {"kind": "ConfigMap", "apiVersion": "v1",
             "metadata": {"name": "streamed", "namespace": "default"}}
        )  # fmt: skip
        event = json.loads(next(stream.iter_lines()))

    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "streamed")


def test_the_process_serves_until_sigterm(tmp_path: Path) -> None:
    kubeconfig, state = tmp_path / "kubeconfig", tmp_path / "state.json"
    objects = tmp_path / "objects.yaml"
    objects.write_text(OBJECTS)
    command = [sys.executable, "-m", "kubesim", "--kubeconfig", str(kubeconfig),
               "--state-file", str(state), "--objects", str(objects)]  # fmt: skip
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(  # noqa: S603 - our own module
        command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True
    ) as run:
        try:
            assert run.stdout is not None
            endpoint = run.stdout.readline().strip()
            known = json.loads(state.read_text())
            assert (known["endpoint"], known["pid"]) == (endpoint, run.pid)
            assert kubeconfig.stat().st_mode & 0o077 == 0
            with Api.of(kubeconfig).client as client:
                found = client.get("/api/v1/namespaces/mine/configmaps/a")
            assert found.json()["data"] == {"k": "v"}
        finally:
            run.send_signal(signal.SIGTERM)
            status = run.wait(DEADLINE)

    assert status == 0
    assert not state.exists()
