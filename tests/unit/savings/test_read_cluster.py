"""The reads of a cluster, over a transport whose answers are given."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import boto3
import httpx2
import lightkube
import pytest
from botocore.stub import Stubber
from lightkube.config.kubeconfig import KubeConfig
from lightkube.config.models import Cluster, User

from lambdas.common import aws
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_objects import Kube
from savings import read_cluster
from savings.rights import MissingRightsError, Rights
from savings.snapshot import Snapshot
from tests.support.fake_time import FakeTime

NOW = 1_800_000_000.0
REGION = {"topology.kubernetes.io/region": "eu-central-1"}
Json = dict[str, Any]


class Api:
    """Lists by plural; a test gives other answers to single requests."""

    def __init__(self) -> None:
        self.objects: dict[str, list[Json]] = {}
        self.refused: set[str] = set()
        self.once: list[tuple[str, httpx2.Response]] = []
        """A part of a URL, and the answer to the first request that has it."""
        self.asked: list[httpx2.Request] = []
        self.said: list[str] = []
        self.time = FakeTime(NOW)
        self.unknown: list[Sequence[str]] = []
        config = KubeConfig.from_one(cluster=Cluster(server="https://k.test"), user=User(token="t"))
        client = lightkube.Client(config, transport=httpx2.MockTransport(self._answer))
        self.kube = Kube(client, clock=self.time.clock)
        self.rights = Rights()

    def plurals(self) -> list[str]:
        return [each.url.path.rpartition("/")[2] for each in self.asked]

    def read(self, *, region: str = "eu-central-1", **markets: str) -> Snapshot:
        def markets_of(instances: Sequence[str]) -> Mapping[str, Any]:
            self.unknown.append(instances)
            return {name.replace("_", "-"): market for name, market in markets.items()}

        return read_cluster.read(
            self.kube,
            cluster="demo",
            region=region,
            markets_of=markets_of,
            rights=self.rights,
            progress=self.said.append,
            clock=self.time.clock,
        )

    def _answer(self, request: httpx2.Request) -> httpx2.Response:
        self.asked.append(request)
        for at, (part, answer) in enumerate(self.once):
            if part in str(request.url):
                del self.once[at]
                return answer
        plural = request.url.path.rpartition("/")[2]
        if plural in self.refused:
            message = f'{plural} is forbidden: User "u" cannot list resource "{plural}"'
            return status(403, "Forbidden", message)
        start = int(request.url.params.get("continue", 0))
        limit = int(request.url.params["limit"])
        items = self.objects.get(plural, [])
        metadata = {"continue": str(start + limit)} if len(items) > start + limit else {}
        return httpx2.Response(
            200, json={"metadata": metadata, "items": items[start : start + limit]}
        )


def status(code: int, reason: str, message: str) -> httpx2.Response:
    body = {"kind": "Status", "status": "Failure", "reason": reason, "message": message}
    return httpx2.Response(code, json=body | {"code": code})


def pods(count: int) -> list[Json]:
    return [
        {"metadata": {"name": f"p{at}", "namespace": "a"}, "spec": {"containers": []}}
        for at in range(count)
    ]


def node(name: str, instance: str = "", **labels: str) -> Json:
    spec = {"providerID": f"aws:///eu-central-1a/{instance}"} if instance else {}
    return {"metadata": {"name": name, "labels": REGION | labels}, "spec": spec}


@pytest.fixture
def api() -> Api:
    return Api()


def test_an_empty_cluster_is_read_by_lists_only(api: Api) -> None:
    found = api.read()
    assert found == Snapshot(
        cluster="demo", region="eu-central-1", taken="2027-01-15T08:00:00Z", nodes=(), pods=()
    )
    assert {each.method for each in api.asked} == {"GET"}
    assert {each.url.params["limit"] for each in api.asked} == {"500"}
    assert not any("watch" in each.url.params for each in api.asked)
    kinds = [f"{kind.lower()}s" for kind in read_cluster.READ]
    assert sorted(api.plurals()) == sorted(kinds)  # each once
    assert {each.url.path for each in api.asked} >= {
        "/api/v1/pods",
        "/apis/apps/v1/replicasets",
        "/apis/batch/v1/jobs",
        "/apis/policy/v1/poddisruptionbudgets",
    }
    # A pod is read after what it depends on: else its owner would be unknown.
    order = api.plurals()
    assert order.index("pods") > max(map(order.index, ("replicasets", "jobs", "persistentvolumes")))


def test_a_long_list_is_read_by_pages_and_counted(api: Api) -> None:
    api.objects["pods"] = pods(1200)
    assert len(api.read().pods) == 1200
    assert api.plurals().count("pods") == 3
    assert [each for each in api.said if "Pod" in each and "Budget" not in each] == [
        "reading Pod",
        "reading Pod: 1,000",
    ]


def test_a_list_that_is_too_old_begins_anew(api: Api) -> None:
    api.objects["pods"] = pods(1200)
    api.once = [("continue=1000", status(410, "Expired", "The provided continue is too old"))]
    names = [each.name for each in api.read().pods]
    assert (len(names), len(set(names))) == (1200, 1200)
    assert api.plurals().count("pods") == 6
    counts = [each for each in api.said if each.startswith("reading Pod: ")]
    assert set(counts) == {"reading Pod: 1,000"}  # not 2,000


def test_every_refused_list_is_named_once(api: Api) -> None:
    api.refused = {"replicasets", "persistentvolumes"}
    api.objects["nodes"] = [node("n")]
    assert [each.name for each in api.read().nodes] == ["n"]
    with pytest.raises(MissingRightsError) as missing:
        api.rights.check()
    first, *lines = str(missing.value).splitlines()
    assert "castai-eks policy savings" in first
    assert ["replicasets" in lines[0], "persistentvolumes" in lines[1]] == [True, True]
    assert len(lines) == 2


def test_another_refusal_is_no_missing_right(api: Api) -> None:
    api.once = [("/pods", status(400, "BadRequest", "limit is wrong"))]
    with pytest.raises(PermanentError, match="limit is wrong"):
        api.read()


def test_a_replica_set_is_the_owner_where_it_has_no_deployment(api: Api) -> None:
    def owned(name: str, owner: str) -> Json:
        kind, _, own = owner.partition("/")
        reference = {"kind": kind, "name": own, "controller": True}
        return {"metadata": {"name": name, "namespace": "a", "ownerReferences": [reference]}}

    def scaled(name: str, replicas: int) -> Json:
        return {"metadata": {"name": name, "namespace": "a"}, "spec": {"replicas": replicas}}

    api.objects = {
        "pods": [
            owned("p1", "ReplicaSet/web-1") | {"spec": {"containers": []}},
            owned("p2", "ReplicaSet/lone") | {"spec": {"containers": []}},
        ],
        "replicasets": [
            owned("web-1", "Deployment/web") | {"spec": {"replicas": 2}},
            scaled("lone", 3),
        ],
        "deployments": [scaled("web", 2), scaled("without-pods", 1)],
    }
    found = api.read()
    assert [each.owner for each in found.pods] == ["Deployment/web", "ReplicaSet/lone"]
    assert [(each.owner, each.replicas) for each in found.workloads] == [
        ("Deployment/web", 2),
        ("ReplicaSet/lone", 3),
    ]


def test_ec2_is_asked_only_about_nodes_without_a_label_of_their_market(api: Api) -> None:
    labelled = {"eks.amazonaws.com/capacityType": "SPOT"}
    api.objects["nodes"] = [
        node("labelled", "i-1", **labelled),
        node("on-spot", "i-2"),
        node("gone", "i-3"),
        node("outside"),
    ]
    found = api.read(i_2="spot")
    assert api.unknown == [["i-2", "i-3"]]
    assert {each.name: each.market for each in found.nodes} == {
        "labelled": "spot",
        "on-spot": "spot",
        "gone": "on-demand",
        "outside": "on-demand",
    }
    api.objects["nodes"] = api.objects["nodes"][:1]
    api.read()
    assert len(api.unknown) == 1


def test_the_region_is_that_of_the_nodes(api: Api) -> None:
    api.objects["nodes"] = [{"metadata": {"name": "bare"}}, node("n")]
    assert api.read(region="").region == "eu-central-1"
    api.objects["nodes"] = [{"metadata": {"name": "bare"}}]
    with pytest.raises(PermanentError, match="Give --region"):
        api.read(region="")
    api.refused = {"nodes"}  # the missing right is said, not the region
    with pytest.raises(MissingRightsError, match="nodes"):
        api.read(region="")


def test_markets_are_read_in_batches() -> None:
    keys = {"aws_access_key_id": "x", "aws_secret_access_key": "y"}
    ec2 = boto3.client("ec2", region_name="eu-central-1", config=aws.CONFIG, **keys)
    ids = [f"i-{at}" for at in range(450)]
    with Stubber(ec2) as stub:
        for at in (0, 200, 400):
            instances = [
                {"InstanceId": f"i-{at}", "InstanceLifecycle": "spot"},
                {"InstanceId": f"i-{at + 1}"},
            ]
            stub.add_response(
                "describe_instances",
                {"Reservations": [{"Instances": instances}]},
                {"Filters": [{"Name": "instance-id", "Values": ids[at : at + 200]}]},
            )
        found = read_cluster.markets_of(AwsCalls(FakeTime().clock, lambda: 60.0), ec2, ids)
        stub.assert_no_pending_responses()
    assert [name for name, market in found.items() if market == "spot"] == ["i-0", "i-200", "i-400"]
    assert found["i-1"] == "on-demand"


KUBECONFIG = """
clusters: [{name: c, cluster: {server: "https://127.0.0.1:1"}}]
contexts: [{name: c, context: {cluster: c, user: u}}]
current-context: c
users: [{name: u, user: USER}]
"""
EXEC = "{exec: {apiVersion: client.authentication.k8s.io/v1beta1, command: COMMAND, args: [ARGS]}}"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "parsing a flow node"),
        ("", "is no kubeconfig"),
        ("text", "is no kubeconfig"),
        ("clusters: []", "contexts"),
        ("clusters: []\ncontexts: []", "context"),
        (KUBECONFIG.replace("current-context: c", "current-context: x"), "'x' not found"),
        (KUBECONFIG.replace("cluster: c,", "cluster: x,"), "x"),
        (KUBECONFIG.replace("user: u}", "user: x}"), "x"),
        (KUBECONFIG.replace(", user: u}", "}"), "user"),
        (KUBECONFIG.replace("USER", "{client-certificate: /none, client-key: /none}"), "No such"),
    ],
)
def test_a_kubeconfig_that_is_none_is_said(tmp_path: Any, content: str, said: str) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(content.replace("USER", "{token: t}"))
    with pytest.raises(PermanentError, match=said) as refused:
        read_cluster.open_kubeconfig(path, until=0)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("command", "arguments", "said"),
    [
        ("sh", '"-c", "echo expired >&2; exit 3"', "expired"),
        ("sh", '"-c", "echo no json"', "status.token"),
        ("sh", '"-c", "echo {}"', "status.token"),
        ("no-such-plugin", "", "no-such-plugin"),
    ],
)
def test_a_plugin_that_fails_is_said(
    tmp_path: Any, command: str, arguments: str, said: str
) -> None:
    path = tmp_path / "kubeconfig"
    user = EXEC.replace("COMMAND", command).replace("ARGS", arguments)
    path.write_text(KUBECONFIG.replace("USER", user))
    with pytest.raises(PermanentError, match=f"^Check the kubeconfig .*{said}"):
        read_cluster.open_kubeconfig(path, until=0)


def test_a_kubeconfig_with_a_token_opens(tmp_path: Any) -> None:
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG.replace("USER", "{token: t}"))
    opened: Callable[[], object] = read_cluster.open_kubeconfig(path, until=0).__enter__
    assert isinstance(opened(), Kube)
