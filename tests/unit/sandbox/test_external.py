"""A cluster of the user: its nodes as instances, the TokenReview's file, what is left to do."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import httpx2
import pytest

from sandbox import external, kubernetes
from sandbox.errors import SandboxError
from sandbox.external import Review, instances_of, node_instances, steps, without_instance
from sandbox.kubernetes import Permission, Subject
from sandbox.state import Administrator, Emulator, Kubernetes, Node, State

FIRST, SECOND = "i-0123456789abcdef0", "i-0123abcd"
KUBECONFIG = Path("/tmp/kubeconfig")


def node(name: str, provider_id: str = "", /, **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": provider_id} if provider_id else {},
    }


def zone(instance: str, name: str = "eu-central-1a") -> str:
    return f"aws:///{name}/{instance}"


EKS = "eks.amazonaws.com/capacityType"
KARPENTER = "karpenter.sh/capacity-type"


class TestNodes:
    def test_a_node_is_the_instance_of_its_provider_id(self) -> None:
        given = node("a", zone(FIRST), **{external.TYPE_LABEL: "c7g.large"})
        given["status"] = {
            "addresses": [
                {"type": "InternalIP", "address": "fd00::1"},
                {"type": "InternalIP", "address": "10.1.2.3"},
            ]
        }
        [found] = instances_of([given])
        assert found.node == Node(FIRST, "a", "eu-central-1a", spot=True)
        assert (found.kind, found.address, found.region) == (
            "c7g.large",
            "10.1.2.3",
            "eu-central-1",
        )

    def test_the_address_is_that_of_the_name(self) -> None:
        nodes = [node("ip-10-0-3-4.ec2.internal", zone(FIRST)), node("b", zone(SECOND))]
        assert [each.address for each in instances_of(nodes)] == ["10.0.3.4", ""]

    @pytest.mark.parametrize(
        ("labels", "spot"),
        [
            ([{}, {}], [True, True]),
            ([{EKS: "SPOT"}, {EKS: "ON_DEMAND"}], [True, False]),
            ([{KARPENTER: "spot"}, {KARPENTER: "on-demand"}], [True, False]),
            ([{EKS: "ON_DEMAND"}, {}], [False, False]),
        ],
    )
    def test_the_labels_say_which_are_spot_and_without_labels_all_are(
        self, labels: list[dict[str, str]], spot: list[bool]
    ) -> None:
        nodes = [
            node(str(number), zone(f"i-0000000{number}"), **each)
            for number, each in enumerate(labels)
        ]
        assert [each.node.spot for each in instances_of(nodes)] == spot

    @pytest.mark.parametrize(
        ("name", "region"),
        [("us-gov-west-1b", "us-gov-west-1"), ("us-west-2-lax-1a", "us-west-2"), ("zone", "")],
    )
    def test_the_region_is_that_of_the_zone(self, name: str, region: str) -> None:
        [found] = instances_of([node("a", zone(FIRST, name))])
        assert found.region == region

    def test_a_node_without_a_provider_id_gets_the_command_that_sets_one(self) -> None:
        [line] = without_instance(
            [node("a", zone(FIRST)), node("b", **{external.ZONE_LABEL: "eu-west-1c"})], KUBECONFIG
        )
        words = shlex.split(line)
        assert words[:6] == ["kubectl", "--kubeconfig", str(KUBECONFIG), "patch", "node", "b"]
        [found] = instances_of([{**node("b"), **json.loads(words[-1])}])
        assert found.node.zone == "eu-west-1c"

    @pytest.mark.parametrize(
        "given", ["kind://docker/kind/a", "aws:///us-east-1a/fargate-ip-10-0-0-1", zone("i-xyz")]
    )
    def test_a_node_that_is_no_instance_is_named(self, given: str) -> None:
        assert list(instances_of([node("a", given)])) == []
        [line] = without_instance([node("a", given)], KUBECONFIG)
        assert line == f"node a is no EC2 instance, and its provider id {given} cannot be changed"

    @pytest.mark.parametrize(
        ("nodes", "said"),
        [
            ([], "Add a node to the cluster of"),
            (
                [node("a")],
                "Give the nodes the provider ids of EC2 instances: no node has one\nkubectl",
            ),
            (
                [node("a", zone(FIRST)), node("b", zone(SECOND, "us-east-1a"))],
                "Use a cluster in one region: its nodes are in eu-central-1a, us-east-1a",
            ),
            ([node("a", zone(FIRST, "here"))], "Use a cluster in one region"),
        ],
    )
    def test_a_cluster_that_cannot_be_used_says_what_to_do(
        self, monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], said: str
    ) -> None:
        monkeypatch.setattr(kubernetes, "nodes", lambda _kubeconfig: nodes)
        with pytest.raises(SandboxError) as refused:
            node_instances(KUBECONFIG, print)
        assert said in str(refused.value)

    def test_nodes_without_an_instance_are_reported_beside_those_that_have_one(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said: list[str] = []
        nodes = [node("a", zone(FIRST)), node("b")]
        monkeypatch.setattr(kubernetes, "nodes", lambda _kubeconfig: nodes)
        [found] = node_instances(KUBECONFIG, said.append)
        assert found.node.name == "a"
        assert [" patch node b " in line for line in said] == [True]


def test_the_token_reviews_file_keeps_port_and_secret(tmp_path: Path) -> None:
    assert Review.of(tmp_path) is None
    external.write_review(
        tmp_path, "https://localhost:8443/_ministack/eks-auth/1/r/demo/s3cret", "CA"
    )
    assert Review.of(tmp_path) == Review(8443, "s3cret")


STATE = State(
    folder="/tmp/sandbox",
    emulator=Emulator(process=None, endpoint="https://localhost:1", token="", root_secret=""),  # type: ignore[arg-type]
    administrator=Administrator("AKIA", "secret"),
    kubernetes=Kubernetes(str(KUBECONFIG), "https://localhost:1/review"),
)


class TestSteps:
    @pytest.fixture(autouse=True)
    def _token(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(external, "_token", lambda _state: "token")

    def ask(self, monkeypatch: pytest.MonkeyPatch, *, has: set[str] | int) -> list[str]:
        """The steps if these groups have their permissions, or if the API server answers so."""

        def rights(
            _state: State, subject: Subject, permissions: dict[str, Permission], *, token: str
        ) -> dict[str, bool]:
            assert token == "token"
            if isinstance(has, int):
                request = httpx2.Request("POST", "https://localhost")
                raise httpx2.HTTPStatusError(
                    "refused", request=request, response=httpx2.Response(has, request=request)
                )
            return dict.fromkeys(permissions, subject.group in has)

        monkeypatch.setattr(kubernetes, "rights", rights)
        return [line for step in steps(STATE) for line in (step.what, *step.commands)]

    def test_an_api_server_that_refuses_the_token_was_not_started_with_the_file(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = self.ask(monkeypatch, has=401)
        flag = "--authentication-token-webhook-config-file=/tmp/sandbox/token-review.kubeconfig"
        assert said[0].startswith("restart the API server")
        assert flag in said[1]
        assert "cluster-admin" in said[3]

    def test_an_administrator_without_permissions_gets_the_bindings(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        said = self.ask(monkeypatch, has=set())
        words = shlex.split(said[1])
        assert words[:3] == ["kubectl", "--kubeconfig", str(KUBECONFIG)]
        assert words[-2:] == [
            "--clusterrole=cluster-admin",
            "--group=eks:access-policy:AmazonEKSClusterAdminPolicy:*",
        ]
        assert "--clusterrole=view" in said[2]
        assert said[-1].endswith(external.MANIFEST)

    def test_only_what_is_missing_is_left(self, monkeypatch: pytest.MonkeyPatch) -> None:
        viewers = "eks:access-policy:AmazonEKSViewPolicy:castai-agent"
        said = self.ask(monkeypatch, has={"", "castai:spot-handler"})
        assert [viewers in line for line in said] == [False, True]
        said = self.ask(monkeypatch, has={"", viewers})
        assert [external.MANIFEST in line for line in said] == [False, True]
        assert self.ask(monkeypatch, has={"", viewers, "castai:spot-handler"}) == []

    def test_another_answer_is_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.ask(monkeypatch, has=503) == ["look at the API server: refused"]

    def test_the_simulated_cluster_needs_nothing(self) -> None:
        assert steps(State(folder="/tmp/sandbox")) == []
