"""`up` and `down`: idempotent, every process ends, another cluster instead of the simulated one."""

from __future__ import annotations

import os
import ssl
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml
from lightkube.resources.core_v1 import Pod

from lambdas.common import eks
from sandbox import external, kubernetes, lifecycle, processes, wait
from sandbox.aws import Aws, spot_notice
from sandbox.cdk import Cdk
from sandbox.errors import SandboxError
from sandbox.processes import Process
from sandbox.state import State
from tests.integration.pool import SOON

pytestmark = pytest.mark.long

REST = ["bind the access polici", "give the spot handler "]
INSTANCE, OTHER = "i-0123456789abcdef0", "i-0123456789abcdef1"
NODE = "ip-10-0-3-4.eu-west-1.compute.internal"
OBJECTS = f"""
apiVersion: v1
kind: Node
metadata: {{name: {NODE}, labels: {{eks.amazonaws.com/capacityType: SPOT}}}}
spec: {{providerID: "aws:///eu-west-1c/{INSTANCE}"}}
---
apiVersion: v1
kind: Node
metadata: {{name: worker}}
spec: {{providerID: "aws:///eu-west-1d/{OTHER}"}}
---
apiVersion: v1
kind: Pod
metadata: {{name: lone, namespace: default}}
spec:
  nodeName: {NODE}
  containers: [{{name: main, image: main}}]
"""


def test_a_second_up_changes_nothing_and_down_ends_every_process(folder: Path) -> None:
    first = lifecycle.up(folder, print)
    assert lifecycle.up(folder, print) == first
    processes = first.processes()
    assert len(processes) == 3
    assert all(process.alive() for process in processes.values())
    assert lifecycle.down(folder) == list(processes)
    assert not any(process.alive() for process in processes.values())
    assert not folder.exists()
    assert lifecycle.down(folder) == []


def test_a_sandbox_with_an_ended_process_is_started_again(folder: Path) -> None:
    first = lifecycle.up(folder, print)
    assert first.kubernetes is not None
    assert isinstance(first.kubernetes.process, Process)
    first.kubernetes.process.end()
    with pytest.raises(SandboxError, match="python -m sandbox up"):
        lifecycle.running(folder)
    second = lifecycle.up(folder, print)
    assert lifecycle.running(folder) == second
    assert not any(process.alive() for process in first.processes().values())


def test_another_cluster_is_used_instead_of_the_simulated_one(folder: Path, state: State) -> None:
    """The user's cluster in this test is the one of the session's sandbox."""
    assert state.kubernetes is not None
    other = Path(state.kubernetes.kubeconfig)
    placed = lifecycle.up(folder, print, kubeconfig=other)
    assert placed.kubernetes is not None
    assert placed.kubernetes.process is None
    account = Aws(placed)
    endpoint, authority = kubernetes.server(other)
    described = account.eks.describe_cluster(name=placed.cluster)["cluster"]
    assert described["endpoint"] == endpoint
    assert [each.what[:22] for each in external.steps(placed)] == ["restart the API server", *REST]
    review_config = (folder / external.REVIEW_FILE).read_text()
    assert placed.kubernetes.token_review_url in review_config
    assert _reviewed(placed, account, placed.cluster)
    assert not _reviewed(placed, account, "another")
    assert authority.startswith("-----BEGIN CERTIFICATE-----")


def test_the_instances_are_the_nodes_of_the_users_cluster(folder: Path, tmp_path: Path) -> None:
    """Up, down, the API server started with the kept file, up: a notice drains one of its nodes."""
    kubeconfig, objects = tmp_path / "kubeconfig", tmp_path / "objects.yaml"
    objects.write_text(OBJECTS)
    with simulated(kubeconfig, objects) as port:
        first = lifecycle.up(folder, print, kubeconfig=kubeconfig)
        assert [node.instance for node in first.nodes] == [INSTANCE, OTHER]
        described = Aws(first).ec2.describe_instances(InstanceIds=[INSTANCE])
        [instance] = described["Reservations"][0]["Instances"]
        assert instance["PrivateDnsName"] == NODE
        assert instance["Placement"]["AvailabilityZone"] == "eu-west-1c"
        assert {"Key": "eks:cluster-name", "Value": first.cluster} in instance["Tags"]
        lifecycle.down(folder)
    review = yaml.safe_load((folder / external.REVIEW_FILE).read_text())
    url = review["clusters"][0]["cluster"]["server"]
    webhook = ["--token-review-url", url, "--token-review-ca", folder / "tls" / "ca.pem"]
    with simulated(kubeconfig, objects, "--port", str(port), *webhook):
        state = lifecycle.up(folder, print, kubeconfig=kubeconfig)
        assert state.kubernetes is not None
        assert state.kubernetes.token_review_url == url
        # The simulated cluster evaluates access policies itself.
        assert [each.what[:22] for each in external.steps(state)] == REST[1:]
        with kubernetes.administrator(state) as admin:
            kubernetes.apply(admin, lifecycle.RBAC.read_text())
            assert external.steps(state) == []
            wait.until(lambda: kubernetes.settled(admin), "the pods to be ready", timeout=SOON)
            account = Aws(state)
            cdk = Cdk(account, state.path)
            cdk.synth({"castai:clusters": state.cluster})
            cdk.bootstrap()
            cdk.deploy()
            event = account.publish(spot_notice(INSTANCE, state=state))

            def outcome() -> Any:
                return [each["result"] for each in account.deliveries(event) if each["result"]]

            [result] = wait.until(outcome, "the notice's outcome", timeout=SOON)
            assert result["outcome"] == "drained"
            assert result["node"] == NODE
            pods = admin.list(Pod, namespace="default", fields={"spec.nodeName": NODE})
            assert list(pods) == []


@contextmanager
def simulated(kubeconfig: Path, objects: Path, *options: str | Path) -> Iterator[int]:
    """A simulated cluster as a process, in the place of the user's. Yields its port."""
    process, endpoint = processes.start(
        [
            sys.executable,
            "-m",
            "kubesim",
            "--kubeconfig",
            kubeconfig,
            "--objects",
            objects,
            *options,
        ],
        log=kubeconfig.with_name("kubesim.log"),
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(lifecycle.ROOT)},
    )
    try:
        yield int(endpoint.rpartition(":")[2])
    finally:
        process.end()


def _reviewed(state: State, account: Aws, cluster: str) -> bool:
    """Whether the TokenReview URL authenticates the administrator's token for that cluster."""
    assert state.kubernetes is not None
    credentials = account.session.get_credentials()
    assert credentials is not None
    token = eks.sign_token(
        credentials, region=account.region, dns_suffix="amazonaws.com", cluster=cluster
    )
    review = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenReview",
        "spec": {"token": token},
    }
    tls = ssl.create_default_context(cafile=state.ca)
    with httpx2.Client(verify=tls, trust_env=False) as client:
        answer = client.post(state.kubernetes.token_review_url, json=review)
    return bool(answer.json()["status"].get("authenticated"))
