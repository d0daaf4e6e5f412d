"""The simulated cluster compared with recorded answers of kube-apiserver 1.36 (tests/recorded).

For each file, the test builds the recorded situation, sends the recorded request and compares the
status, the recorded headers and the body. A Status is compared as a whole. Other objects are
compared without UIDs, versions, times and the values that the recorder's kubelet set. Answers that
follow from what was installed in the recorded cluster (policies, webhooks, FlowSchemas) are faults.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kubesim import Answer, SimulatedCluster, answers
from kubesim.controllers import ALL
from kubesim.virtual import run_virtual

FOLDER = Path(__file__).parents[1] / "recorded" / "kubernetes-1.36"
RECORDED = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
NODE = "ip-10-0-0-10.eu-central-1.compute.internal"
TOKENS: dict[str, tuple[str, tuple[str, ...]]] = {
    "admin": ("admin", ("system:masters",)),
    "drainer": ("drainer", ()),
    "nobody": ("nobody", ()),
}
GROUP = "rbac.authorization.k8s.io"
WITHOUT_KUBELET = {"sandbox/kubelet": "off"}
DEAD_NODE = "ip-10-0-0-2.ec2.internal"
GC_SECONDS = 20  # s, between two runs of kube-controller-manager's pod garbage collector

Cluster = SimulatedCluster
Setup = Callable[[SimulatedCluster], None]
Json = dict[str, Any]


def three_nodes(cluster: Cluster) -> None:
    for number, zone in enumerate(("1a", "1b", "1c")):
        cluster.add_node(
            f"ip-10-0-0-{10 + number}.eu-central-1.compute.internal",
            f"aws:///eu-central-{zone}/i-0123456789abc000{1 + number}",
            address=f"10.0.0.{10 + number}",
            annotations=WITHOUT_KUBELET,
        )


def listed(cluster: Cluster) -> None:
    cluster.add_namespace("rec")
    for name in ("list-0", "list-1", "list-2", "list-3"):
        cluster.add_pod(name, NODE, namespace="rec", labels={"app": name})


def pods(cluster: Cluster) -> None:
    """The pods that the recorder evicted and deleted."""
    listed(cluster)
    for name, app in (("b0", "b"), ("b1", "b"), ("c0", "c"), ("f0", "f")):
        cluster.add_pod(name, NODE, namespace="rec", labels={"app": app})
    for name in ("d0", "e0"):
        cluster.add_pod(name, NODE, namespace="rec", labels={"app": name[0]}, ready=False)
    cluster.add_pod("p0", NODE, namespace="rec", labels={"app": "p"}, phase="Pending")
    cluster.add_pod("g0", NODE, namespace="rec", labels={"app": "g0"}, grace=600)


def budget(name: str, app: str, least: int, healthy: int, **spec: Any) -> Setup:
    """A budget with the status that its controller sets."""

    def setup(cluster: Cluster) -> None:
        made = cluster.add_budget(name, {"app": app}, namespace="rec", minAvailable=least, **spec)
        condition = {
            "type": "DisruptionAllowed",
            "status": "False",
            "observedGeneration": 1,
            "lastTransitionTime": cluster.stamp(),
            "reason": "InsufficientPods",
            "message": "",
        }
        status = {
            "observedGeneration": 1,
            "disruptionsAllowed": 0,
            "currentHealthy": healthy,
            "desiredHealthy": least,
            "expectedPods": 2,
            "conditions": [condition],
        }
        cluster.set({**made, "status": status})

    return setup


def uncounted(cluster: Cluster) -> None:
    cluster.add_budget("f", {"app": "f"}, namespace="rec", minAvailable=1)


def gone_namespace(cluster: Cluster) -> None:
    cluster.add_namespace("rec-gone")
    cluster.add_pod("h0", NODE, namespace="rec-gone")
    cluster.delete("namespaces", "rec-gone")


def deleted(*graces: int | None) -> Setup:
    """Pod g0 after DELETE with each of these."""

    def setup(cluster: Cluster) -> None:
        for grace in graces:
            cluster.delete("pods", "g0", "rec", grace=grace)

    return setup


def evicted(cluster: Cluster) -> None:
    """Pod list-1 after its recorded eviction."""
    pod = cluster.get("pods", "list-1", "rec")
    assert pod is not None
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": cluster.stamp(),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    conditions = [*pod["status"]["conditions"], condition]
    cluster.set({**pod, "status": {**pod["status"], "conditions": conditions}})
    cluster.delete("pods", "list-1", "rec", grace=20)


def cordoned(cluster: Cluster) -> None:
    node = cluster.get("nodes", NODE)
    assert node is not None
    taints = RECORDED["node-after-cordon"]["response"]["body"]["spec"]["taints"]
    labels = {**node["metadata"]["labels"], EXCLUDED: "true"}
    metadata = {**node["metadata"], "labels": labels}
    spec = {**node["spec"], "unschedulable": True, "taints": taints}
    cluster.set({**node, "metadata": metadata, "spec": spec})


EXCLUDED = "node.kubernetes.io/exclude-from-external-load-balancers"


def aws_auth(cluster: Cluster) -> None:
    body = RECORDED["configmap-create"]["request"]["body"]
    cluster.create({**body, "metadata": {"name": "aws-auth", "namespace": "kube-system"}})


def second_batch(cluster: Cluster) -> None:
    """The objects of the second recorder."""
    cluster.add_namespace("rec2")
    cluster.add_node("ip-10-0-0-1.ec2.internal", unschedulable=True)
    cluster.add_pod("kept", NODE, namespace="rec2")
    cluster.add_pod("late", namespace="rec2")
    cluster.add_deployment("one", namespace="rec2")


def full_budget(cluster: Cluster) -> None:
    """A budget with more evictions than its controller may leave unconfirmed."""
    cluster.add_pod("full", NODE, namespace="rec2", labels={"app": "full"})
    made = cluster.add_budget("full", {"app": "full"}, namespace="rec2", minAvailable=0)
    disrupted = {f"gone-{number}": cluster.stamp() for number in range(2001)}
    status = {**made["status"], "observedGeneration": 1, "disruptionsAllowed": 1}
    cluster.set({**made, "status": {**status, "disruptedPods": disrupted}})


def fault(method: str, path: str, answer: Answer) -> Setup:
    return lambda cluster: void(cluster.faults.add(method, path, answer))


def void(_: object) -> None:
    return None


WEBHOOK_FAILS = answers.webhook_failed(
    "broken.example.invalid",
    'Post "https://127.0.0.1:9/x?timeout=2s": dial tcp 127.0.0.1:9: connect: connection refused',
)
POLICY_DENIES = answers.denied_by_policy("pods", "kept", "kept is not evicted on weekdays")


def with_volume(cluster: Cluster) -> None:
    """A pod with a volume, on a node whose kubelet no longer answers."""
    cluster.add_namespace("rec2")
    recorded = RECORDED["node-patch-out-of-service"]["response"]["body"]
    labels = recorded["metadata"]["labels"]
    metadata = {"name": DEAD_NODE, "labels": labels, "annotations": WITHOUT_KUBELET}
    spec = {"providerID": recorded["spec"]["providerID"]}
    cluster.create({**recorded, "metadata": metadata, "spec": spec})
    csi = {"driver": "ebs.csi.aws.com", "volumeHandle": "vol-0123456789abcdef0"}
    volume = {"kind": "PersistentVolume", "apiVersion": "v1", "metadata": {"name": "pv-1"}}
    cluster.create({**volume, "spec": {"csi": csi}})
    claim = {"kind": "PersistentVolumeClaim", "apiVersion": "v1"}
    place = {"name": "data", "namespace": "rec2"}
    cluster.create({**claim, "metadata": place, "spec": {"volumeName": "pv-1"}})
    volumes = [{"name": "d", "persistentVolumeClaim": {"claimName": "data"}}]
    labels = {"app": "db-0"}
    cluster.add_pod("db-0", DEAD_NODE, namespace="rec2", labels=labels, volumes=volumes)


def stuck(cluster: Cluster) -> None:
    cluster.delete("pods", "db-0", "rec2", grace=5)


@dataclass(frozen=True)
class Wait:
    """Seconds before the next step."""

    seconds: float


# The controllers that change what is recorded; the others do not run.
CONTROLLERS: dict[str, tuple[str, ...]] = {
    "volumeattachment-list": ("attach-detach",),
    "volumeattachment-list-after": ("attach-detach", "pod-garbage-collector"),
    "pod-stuck-on-dead-node": ("kubelet", "attach-detach", "pod-garbage-collector"),
}
# The setup before the request. The name of another file: its request is sent first.
Step = Setup | str | Wait
BEFORE: dict[str, tuple[Step, ...]] = {
    "apply-conflict": ("apply-create",),
    "apply-dry-run": ("apply-create",),
    "apply-escalation-forbidden": ("apply-create",),
    "apply-unchanged": ("apply-create",),
    "apply-invalid": (pods,),
    "configmap-create-exists": (aws_auth,),
    "configmap-replace": (aws_auth,),
    "configmap-replace-stale": (aws_auth, "configmap-replace"),
    "delete-graceful": (pods,),
    "delete-grace-zero": (pods, deleted(None, 5)),
    "delete-lengthen-grace": (pods, deleted(None, 5)),
    "delete-shorten-grace": (pods, deleted(None)),
    "delete-past-budget": (pods, budget("b", "b", 2, 2)),
    "delete-uid-mismatch": (pods,),
    "deployment-scale-get": (second_batch,),
    "deployment-scale-patch": (second_batch,),
    "evict-again-while-terminating": (pods, evicted),
    "evict-budget-exhausted": (pods, budget("b", "b", 2, 2)),
    "evict-budget-not-observed": (pods, uncounted),
    "evict-denied-by-policy": (second_batch, fault("POST", "/eviction$", POLICY_DENIES)),
    "evict-disrupted-pods-full": (second_batch, full_budget),
    "evict-namespace-terminating": (gone_namespace,),
    "evict-pending-under-budget": (pods, budget("p", "p", 1, 0)),
    "evict-priority-and-fairness": (
        second_batch, fault("POST", "/eviction$", answers.server_busy()),
    ),
    "evict-two-budgets": (pods, budget("c", "c", 1, 1), budget("c2", "c", 1, 1)),
    "evict-unready-alwaysallow": (
        pods, budget("e", "e", 1, 0, unhealthyPodEvictionPolicy="AlwaysAllow"),
    ),
    "evict-unready-ifhealthybudget": (pods, budget("d", "d", 1, 0)),
    "evict-webhook-fails": (second_batch, fault("POST", "/eviction$", WEBHOOK_FAILS)),
    "node-after-cordon": (cordoned,),
    "node-merge-patch-taints-replace": (cordoned,),
    "node-patch-out-of-service": (with_volume,),
    "node-patch-stale-resource-version": (),
    "node-patch-webhook-fails": (second_batch, fault("PATCH", "/nodes/", WEBHOOK_FAILS)),
    "pdb-status": (pods, budget("b", "b", 2, 2)),
    "pod-binding-to-cordoned-node": (second_batch,),
    "pod-get-missing": (),
    "pod-list-by-node": (listed,),
    "pod-list-priority-and-fairness": (fault("GET", "/pods$", answers.server_busy()),),
    "pod-stuck-on-dead-node": (with_volume, stuck, Wait(20)),
    "pod-terminating": (pods, evicted),
    "pod-watch-gone": (second_batch, Cluster.compact),
    "volumeattachment-list": (with_volume, Wait(1)),
    "volumeattachment-list-after": (
        with_volume, Wait(1), stuck, "node-patch-out-of-service", Wait(GC_SECONDS + 1),
    ),
}  # fmt: skip
BY_DEFAULT: dict[str, tuple[Step, ...]] = {"evict": (pods,), "pod": (pods,)}


def current(cluster: Cluster, method: str, path: str, body: Json) -> Json:
    """A recorded body with the UIDs and versions of the current objects.

    They replace the recorder's where the recorder took them from the object.
    """
    metadata = body.get("metadata", {})
    node = cluster.get("nodes", path.rpartition("/")[2]) or cluster.get("nodes", NODE)
    assert node is not None
    if metadata.get("resourceVersion") in ("315", "3369"):
        metadata = {**metadata, "resourceVersion": node["metadata"]["resourceVersion"]}
        return {**body, "metadata": metadata}
    found = re.search(r"/pods/([\w-]+)", path)
    pod = found and cluster.get("pods", found[1], "rec")
    options = body if method == "DELETE" else body.get("deleteOptions", {})
    uid = options.get("preconditions", {}).get("uid", "")
    if pod and len(uid) == 36 and not uid.startswith("00000000"):
        fresh = {**options, "preconditions": {"uid": pod["metadata"]["uid"]}}
        return fresh if method == "DELETE" else {**body, "deleteOptions": fresh}
    held = cluster.get("configmaps", "aws-auth", "kube-system")
    if method == "PUT" and held:
        stale = body["data"] == {"mapUsers": "lost"}
        own = held["metadata"]
        version = str(int(own["resourceVersion"]) - 1) if stale else own["resourceVersion"]
        return {**body, "metadata": {**metadata, "uid": own["uid"], "resourceVersion": version}}
    return body


async def send(cluster: Cluster, record: Json, continued: str = "") -> httpx2.Response:
    request = record["request"]
    path = request["path"]
    if continued:
        path = f"{path.partition('continue=')[0]}continue={continued}"
    headers = {"Content-Type": request.get("content_type", "application/json")}
    content = None
    if "body" in request:
        body = current(cluster, request["method"], path, request["body"])
        content = json.dumps(body).encode()
    token = record["as"] if record["as"] in TOKENS else "garbage"
    async with cluster.client(token) as client:
        return await client.request(request["method"], path, content=content, headers=headers)


VOLATILE = ("uid", "resourceVersion", "creationTimestamp", "deletionTimestamp", "managedFields",
            "annotations", "continue")  # fmt: skip
OF_THE_KUBELET = ("PodScheduled", "PodReadyToStartContainers")
POD_SPEC = ("terminationGracePeriodSeconds", "nodeName", "restartPolicy", "tolerations",
            "dnsPolicy", "schedulerName", "serviceAccountName", "priority")  # fmt: skip
UID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
OLDEST = re.compile(r"(?<=version: 1 )\(\d+\)")  # the oldest version that a watch may start from
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


def plain(body: Any) -> Any:
    """A body without the values that differ in each run."""
    if isinstance(body, str):
        return body
    if isinstance(body, list):
        return [{**event, "object": plain(event["object"])} for event in body]
    if body.get("kind") == "Status":
        return json.loads(OLDEST.sub("(OLDEST)", UID.sub("UID", json.dumps(body))))
    body = json.loads(TIME.sub("TIME", json.dumps(body)))
    if body["kind"].endswith("List"):
        items = [plain({"kind": body["kind"].removesuffix("List"), **i})
                 for i in body.get("items", ())]  # fmt: skip
        metadata = {k: v for k, v in body["metadata"].items() if k not in VOLATILE}
        return {**{k: v for k, v in body.items() if k != "resources"},
                "metadata": metadata, "items": items}  # fmt: skip
    return object_of(body)


def object_of(body: Json) -> Json:
    metadata = body.get("metadata", {})
    body = {**body, "metadata": {k: v for k, v in metadata.items() if k not in VOLATILE}}
    if body["kind"] in ("Pod", "Node"):
        body["metadata"].pop("labels")
    if body["kind"] == "Pod":
        body["spec"] = {key: body["spec"][key] for key in POD_SPEC}
        conditions = {c["type"]: c["status"] for c in body["status"]["conditions"]
                      if c["type"] not in OF_THE_KUBELET}  # fmt: skip
        body["status"] = {"phase": body["status"]["phase"], "conditions": conditions}
    elif body["kind"] == "Node":
        conditions = {c["type"]: c["status"] for c in body["status"]["conditions"]}
        shown = ("capacity", "allocatable", "addresses")
        status = {key: body["status"][key] for key in shown if key in body["status"]}
        body["status"] = {**status, "conditions": conditions}
    if body["metadata"].get("generateName"):
        body["metadata"]["name"] = body["metadata"]["name"][:-5]
    return body


def metadata_of(body: Any) -> set[str]:
    """The names of the metadata fields, without managedFields and the recorder's annotations."""
    if not isinstance(body, dict):
        return set()
    return set(body.get("metadata", {})) - {"annotations", "managedFields"}


def body_of(got: httpx2.Response, expected: Any) -> Any:
    """The answer's body in the form of the recorded one: an object, a text or a stream's lines."""
    if isinstance(expected, str):
        return got.text
    return (
        [json.loads(line) for line in got.text.splitlines()]
        if isinstance(expected, list)
        else got.json()
    )


STREAM = "pod-watch-eviction"
TIMELINE = "out-of-service-timeline"


@pytest.mark.parametrize("name", [name for name in RECORDED if name not in (STREAM, TIMELINE)])
def test_the_simulated_cluster_answers_as_the_real_one_did(name: str) -> None:
    record = RECORDED[name]
    expected = record["response"]

    async def answer() -> httpx2.Response:
        runs = CONTROLLERS.get(name, ())
        without = [controller.name for controller in ALL if controller.name not in runs]
        async with SimulatedCluster(tokens=TOKENS, without=without) as cluster:
            three_nodes(cluster)
            for step in BEFORE.get(name, BY_DEFAULT.get(name.partition("-")[0], ())):
                if isinstance(step, str):
                    (await send(cluster, RECORDED[step])).raise_for_status()
                elif isinstance(step, Wait):
                    await asyncio.sleep(step.seconds)
                else:
                    step(cluster)
            continued = ""
            if name == "node-list-page-2":
                first = await send(cluster, RECORDED["node-list-page-1"])
                continued = first.json()["metadata"]["continue"]
            return await send(cluster, record, continued)

    got = run_virtual(answer())

    assert got.status_code == expected["status"]
    kept = {key: got.headers.get(key) for key in ("content-type", "retry-after", "warning")}
    assert {key: value for key, value in kept.items() if value} == expected["headers"]
    body = body_of(got, expected["body"])
    assert metadata_of(body) == metadata_of(expected["body"])
    if name == "discovery-policy":
        assert_same_resources(body, expected["body"])
    elif name == "version":
        assert body == expected["body"]
    else:
        assert plain(body) == plain(expected["body"])


def assert_same_resources(body: Json, expected: Json) -> None:
    assert body["groupVersion"] == expected["groupVersion"]
    for resource in (*body["resources"], *expected["resources"]):
        resource.pop("storageVersionHash", None)
    assert body["resources"] == expected["resources"]


def compared(event: Json) -> Json:
    """The values of an event that are compared."""
    pod = event["object"]
    conditions = {c["type"]: c["status"] for c in pod["status"]["conditions"]
                  if c["type"] != "PodScheduled"}  # fmt: skip
    return {
        "type": event["type"],
        "grace": pod["metadata"].get("deletionGracePeriodSeconds"),
        "generation": pod["metadata"]["generation"],
        "phase": pod["status"]["phase"],
        "conditions": conditions,
        "states": [sorted(c["state"]) for c in pod["status"]["containerStatuses"]],
    }


def test_a_watch_of_an_eviction_has_the_events_of_the_real_cluster() -> None:
    async def events() -> list[Json]:
        async with SimulatedCluster() as cluster, cluster.client() as client:
            cluster.add_node(NODE)
            cluster.add_pod("list-0", NODE, shutdown=1)
            query = {
                "watch": "1",
                "fieldSelector": f"spec.nodeName={NODE}",
                "resourceVersion": str(cluster.store.version),
                "timeoutSeconds": "15",
            }
            eviction = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": "list-0"},
                "deleteOptions": {"gracePeriodSeconds": 2},
            }
            async with client.stream("GET", "/api/v1/pods", params=query, timeout=None) as stream:
                path = "/api/v1/namespaces/default/pods/list-0/eviction"
                (await client.post(path, json=eviction)).raise_for_status()
                return [json.loads(line) async for line in stream.aiter_lines()]

    expected = RECORDED[STREAM]["response"]["stream"]
    assert [compared(e) for e in run_virtual(events())] == [compared(e) for e in expected]


def test_a_pod_and_its_volume_leave_a_node_that_is_out_of_service() -> None:
    """The recorded times lie between two runs of the pod garbage collector."""

    async def seconds() -> tuple[float, float]:
        async with SimulatedCluster(tokens=TOKENS) as cluster:
            three_nodes(cluster)
            with_volume(cluster)
            stuck(cluster)
            await asyncio.sleep(60)
            (await send(cluster, RECORDED["node-patch-out-of-service"])).raise_for_status()
            begun = cluster.now()
            await cluster.until(lambda: cluster.get("pods", "db-0", "rec2") is None)
            gone = cluster.now() - begun
            await cluster.until(lambda: not cluster.list("volumeattachments"))
            return gone, cluster.now() - begun

    recorded = RECORDED[TIMELINE]
    pod_gone, detached = run_virtual(seconds())
    assert recorded["pod_gone_s"] <= pod_gone <= GC_SECONDS
    assert recorded["attachment_deleted_s"] <= detached <= GC_SECONDS + 1
