"""The same random requests to the simulated and to a real API server, both without controllers.

A seed determines the requests. They are those of the project's code, with values that are often
wrong. Compared are status, reason and causes; of a watch also the first event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple, TypeVar

from tests.contract.api import APPLY, JSON_PATCH, MERGE, NODES, STRATEGIC, Api

JSON = "application/json"
RBAC = "rbac.authorization.k8s.io"
OTHER_UID = "00000000-0000-0000-0000-000000000000"
PODS = ("p0", "p1", "p2", "p3")
STEADY = "steady"
"""A running pod without a budget: it is never deleted."""

T = TypeVar("T")
Json = Any


@dataclass(frozen=True)
class Request:
    """A request.

    Its text may have references to the last answers: `{uid:Pod/a}`, `{version:Pod/a}`, `{token}`.
    """

    what: str
    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Json = None
    content_type: str = JSON


class Shape(NamedTuple):
    """What is compared of an answer."""

    status: int
    reason: str
    causes: tuple[tuple[str, str], ...] = ()

    @property
    def accepted(self) -> bool:
        return self.status < 400


@dataclass(frozen=True)
class Difference:
    """A request that the two servers answer differently."""

    request: Request
    simulated: Shape
    real: Shape

    @property
    def kinder(self) -> bool:
        """Whether only the simulated server accepts the request."""
        return self.simulated.accepted and not self.real.accepted


class Draw:
    """Random choices, and the names of one run."""

    def __init__(self, seed: int, namespace: str, node: str) -> None:
        self.random = Random(seed)  # noqa: S311 - reproducible, not secret
        self.namespace = namespace
        self.node = node

    def one(self, values: Sequence[T]) -> T:
        return self.random.choice(values)

    def rarely(self, share: float = 0.1) -> bool:
        return self.random.random() < share

    def path(self, plural: str, name: str = "", group: str = "", sub: str = "") -> str:
        """The path of a resource in the run's namespace."""
        root = f"/apis/{group}" if group else "/api/v1"
        parts = (root, "namespaces", self.namespace, plural, name, sub)
        return "/".join(part for part in parts if part)


# Metadata and options that are often wrong


METADATA: tuple[Json, ...] = (
    {"labels": {"app": "x"}},
    {"labels": {"app": "not valid!"}},
    {"labels": {"a b": "x"}},
    {"labels": {"app": 1}},
    {"annotations": {"example.com/a": "any text!"}},
    {"annotations": {"a b": "x"}},
    {"finalizers": ["contract.invalid/keep"]},
    {"finalizers": ["keep"]},
    {"namespace": "default"},
    {"unknown": 1},
    {"uid": OTHER_UID},
    {"resourceVersion": "1"},
    {"resourceVersion": "none"},
    {"ownerReferences": [{"kind": "Pod", "name": "x"}]},
)
NAMES = ("", "UPPER", "a" * 260, "dot.name", "a/b", "-a")
WRITE_OPTIONS: tuple[Mapping[str, str], ...] = (
    {"dryRun": "All"},
    {"dryRun": "Some"},
    {"fieldValidation": "Strict"},
    {"fieldValidation": "Ignore"},
    {"fieldValidation": "None"},
    {"fieldManager": "contract"},
    {"fieldManager": "m" * 129},
    {"force": "true"},
)


def metadata(draw: Draw, name: str) -> Json:
    given: Json = {"name": name, **(draw.one(METADATA) if draw.rarely(0.3) else {})}
    if draw.rarely():
        given["name"] = draw.one(NAMES)
    return given


def options(draw: Draw) -> Mapping[str, str]:
    return draw.one(WRITE_OPTIONS) if draw.rarely(0.2) else {}


def delete_options(draw: Draw, kind: str, name: str) -> Json:
    given: Json = {}
    if draw.rarely(0.5):
        given["gracePeriodSeconds"] = draw.one([0, 1, 30, 600, -1, "5"])
    if draw.rarely(0.4):
        given["preconditions"] = {"uid": f"{{uid:{kind}/{name}}}"}
    if draw.rarely():
        given["preconditions"] = {"resourceVersion": draw.one([f"{{version:{kind}/{name}}}", "1"])}
    if draw.rarely():
        given["propagationPolicy"] = draw.one(["Background", "Foreground", "Orphan", "None"])
    if draw.rarely():
        given["dryRun"] = draw.one([["All"], ["Some"]])
    return given


# Pods


def pod(draw: Draw) -> Request:
    spec: Json = {
        "containers": [{"name": "c", "image": "example.invalid/x:1"}],
        "nodeName": draw.node,
        "terminationGracePeriodSeconds": draw.one([0, 1, 30]),
    }
    if draw.rarely():
        spec |= draw.one(POD_SPECS)
    meta = {"labels": {"app": draw.one("xy")}} | metadata(draw, draw.one(PODS))
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": spec}
    return Request("create pod", "POST", draw.path("pods"), options(draw), body)


POD_SPECS: tuple[Json, ...] = (
    {"containers": []},
    {"containers": [{"name": "C", "image": ""}]},
    {"nodeName": 5},
    {"restartPolicy": "Sometimes"},
    {"dnsPolicy": "None of these"},
    {"unknown": True},
    {"tolerations": [{"operator": "Maybe"}]},
    {"terminationGracePeriodSeconds": "x"},
)


def pod_status(draw: Draw) -> Request:
    status: Json = {
        "phase": draw.one(["Pending", "Running", "Running", "Succeeded"]),
        "conditions": [{"type": "Ready", "status": draw.one(["True", "False"])}],
    }
    if draw.rarely(0.05):
        status["phase"] = 5
    path = draw.path("pods", draw.one(PODS), sub="status")
    kind = draw.one([MERGE, STRATEGIC])
    return Request("status of pod", "PATCH", path, {}, {"status": status}, kind)


def eviction(draw: Draw) -> Request:
    name = draw.one(PODS)
    given = delete_options(draw, "Pod", name)
    if draw.rarely():
        # Of a running pod: kube-apiserver repeats the eviction of another for ten seconds.
        name, given = STEADY, {"preconditions": {"uid": OTHER_UID}}
    body: Json = {
        "apiVersion": draw.one(["policy/v1"] * 8 + ["policy/v1beta1", "v1"]),
        "kind": "Eviction",
        "metadata": {"name": name, "namespace": draw.namespace},
        "deleteOptions": given,
    }
    if draw.rarely(0.15):
        body |= draw.one(EVICTIONS)
    return Request("evict", "POST", draw.path("pods", name, sub="eviction"), options(draw), body)


EVICTIONS: tuple[Json, ...] = (
    {"metadata": {"name": "other"}},
    {"metadata": {"name": "p0", "namespace": "default"}},
    {"metadata": None},
    {"kind": "Pod"},
    {"kind": None, "apiVersion": None},
    {"deleteOptions": None},
    {"deleteOptions": []},
    {"unknown": 1},
)


def pod_deletion(draw: Draw) -> Request:
    name = draw.one(PODS)
    body = draw.one([None, delete_options(draw, "Pod", name)])
    if draw.rarely():
        body = draw.one([[], {"kind": "Pod"}, {"kind": "DeleteOptions", "apiVersion": "v1"}])
    query = draw.one(DELETION_QUERIES) if draw.rarely() else {}
    return Request("delete pod", "DELETE", draw.path("pods", name), query, body)


DELETION_QUERIES: tuple[Mapping[str, str], ...] = (
    {"gracePeriodSeconds": "1"},
    {"gracePeriodSeconds": "x"},
    {"propagationPolicy": "None"},
    {"dryRun": "All"},
    {"dryRun": "Some"},
)


def pod_change(draw: Draw) -> Request:
    path = draw.path("pods", draw.one(PODS))
    return Request("patch pod", "PATCH", path, options(draw), draw.one(POD_PATCHES), MERGE)


POD_PATCHES: tuple[Json, ...] = (
    {"metadata": {"finalizers": None}},
    {"metadata": {"labels": {"app": "y"}}},
    {"metadata": {"deletionGracePeriodSeconds": 5}},
    {"spec": {"nodeName": "other"}},
    {"spec": {"containers": []}},
    {"spec": {"terminationGracePeriodSeconds": 5}},
)


def read_pod(draw: Draw) -> Request:
    query = draw.one([{}, {"resourceVersion": "0"}, {"resourceVersion": "none"}])
    return Request("get pod", "GET", draw.path("pods", draw.one([*PODS, "absent"])), query)


# Lists and watches


def listing(draw: Draw) -> Request:
    path = draw.one([draw.path("pods"), "/api/v1/pods", NODES, draw.path("configmaps")])
    query = draw.one(LISTS)
    if path != draw.path("pods") and "continue" in query:
        query = {"limit": "1"}  # the token is of the list of pods
    return Request("list", "GET", path, query)


LISTS: tuple[Mapping[str, str], ...] = (
    {"fieldSelector": "spec.nodeName=some"},
    {"fieldSelector": "metadata.name=p0"},
    {"fieldSelector": "spec.none=x"},
    {"fieldSelector": "metadata.name"},
    {"labelSelector": "app=x"},
    {"labelSelector": "app in (x,y),!other"},
    {"labelSelector": "((("},
    {"labelSelector": "app=x,,"},
    {"labelSelector": "app=not valid!"},
    {"limit": "2"},
    {"limit": "2", "continue": "{token}"},
    {"limit": "2", "continue": "none"},
    {"limit": "-1"},
    {"limit": "x"},
    {"resourceVersion": "0"},
    {"resourceVersion": "none"},
    {"resourceVersion": "1", "resourceVersionMatch": "Exact"},
    {"resourceVersion": "0", "resourceVersionMatch": "Exact"},
    {"resourceVersion": "1", "resourceVersionMatch": "NotOlderThan"},
    {"resourceVersion": "1", "resourceVersionMatch": "None"},
    {"resourceVersionMatch": "Exact"},
    {"sendInitialEvents": "true"},
    {"timeoutSeconds": "x"},
)


def watch(draw: Draw) -> Request:
    path = draw.one([draw.path("pods"), draw.path("configmaps"), NODES])
    query = {"watch": draw.one(["1", "true"]), "timeoutSeconds": "1", **draw.one(WATCHES)}
    return Request("watch", "GET", path, query)


WATCHES: tuple[Mapping[str, str], ...] = (
    {"fieldSelector": f"metadata.name={STEADY}"},
    {"resourceVersion": f"{{version:Pod/{STEADY}}}", "fieldSelector": f"metadata.name={STEADY}"},
    {"resourceVersion": "none"},
    {"resourceVersionMatch": "Exact"},
    {"sendInitialEvents": "true"},
    {"fieldSelector": "none=x"},
    {"labelSelector": "((("},
    {"timeoutSeconds": "x"},
)


# Nodes


def node_patch(draw: Draw) -> Request:
    body = draw.one(NODE_PATCHES)
    name = "absent" if draw.rarely(0.05) else draw.node
    kind = draw.one([MERGE, MERGE, STRATEGIC])
    return Request("patch node", "PATCH", f"{NODES}/{name}", options(draw), body, kind)


TAINT = {"key": "a", "effect": "NoSchedule"}
NODE_PATCHES: tuple[Json, ...] = (
    {"spec": {"unschedulable": True}},
    {"spec": {"unschedulable": None}},
    {"metadata": {"resourceVersion": "{version:Node}"}, "spec": {"taints": [TAINT]}},
    {"metadata": {"resourceVersion": "1"}, "spec": {"unschedulable": True}},
    {"metadata": {"resourceVersion": "none"}},
    {"metadata": {"labels": {"x": "y"}, "annotations": {"x": "{}"}}},
    {"metadata": {"labels": {"x": None}}},
    {"metadata": {"labels": {"x": "not valid!"}}},
    {"metadata": {"name": "renamed"}},
    {"metadata": {"uid": OTHER_UID}},
    {"spec": {"taints": [{**TAINT, "effect": "Never"}]}},
    {"spec": {"taints": [TAINT, TAINT]}},
    {"spec": {"taints": [{"$patch": "delete", "key": "a"}]}},
    {"spec": {"taints": None}},
    {"spec": {"providerID": "aws:///z/i-1"}},
    {"spec": {"providerID": "aws:///z/i-2"}},
    {"spec": {"unknown": 1}},
    {"spec": {"unschedulable": "yes"}},
    [],
)


def node_json_patch(draw: Draw) -> Request:
    body = draw.one(OPERATIONS)
    return Request("json patch", "PATCH", f"{NODES}/{draw.node}", options(draw), body, JSON_PATCH)


OPERATIONS: tuple[Json, ...] = (
    [{"op": "test", "path": "/metadata/resourceVersion", "value": "1"}],
    [{"op": "add", "path": "/spec/unschedulable", "value": True}],
    [{"op": "add", "path": "/spec/unschedulable", "value": "yes"}],
    [{"op": "add", "path": "/spec/taints", "value": [TAINT]}],
    [{"op": "remove", "path": "/none"}],
    [{"op": "none"}],
    {"op": "add"},
)


# Budgets, ConfigMaps, events


def budget(draw: Draw) -> Request:
    name, group = draw.one(["b0", "b1"]), "policy/v1"
    if draw.rarely(0.3):
        path = draw.path("poddisruptionbudgets", name, group)
        return Request("delete budget", "DELETE", path)
    path = draw.path("poddisruptionbudgets", group=group)
    body = {"metadata": metadata(draw, name), "spec": draw.one(BUDGETS)}
    return Request("create budget", "POST", path, options(draw), body)


CHOSEN = {"selector": {"matchLabels": {"app": "x"}}}
BUDGETS: tuple[Json, ...] = (
    {"minAvailable": 1, **CHOSEN},
    {"maxUnavailable": "50%", "selector": {"matchLabels": {"app": "y"}}},
    {"minAvailable": 1, "maxUnavailable": 1},
    {"maxUnavailable": -1, **CHOSEN},
    {"minAvailable": "101%"},
    {"minAvailable": "some"},
    {"minAvailable": True},
    {"selector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
    {"unhealthyPodEvictionPolicy": "None"},
)


def config_map(draw: Draw) -> Request:
    name, method = draw.one(["c0", "c1"]), draw.one(["POST", "PUT", "PUT", "DELETE", "GET"])
    what, path = f"{method} ConfigMap", draw.path("configmaps", name if method != "POST" else "")
    if method == "GET":
        return Request(what, method, path)
    if method == "DELETE":
        return Request(what, method, path, {}, delete_options(draw, "ConfigMap", name))
    body = {"metadata": metadata(draw, name), "data": draw.one(DATA)}
    if draw.rarely(0.5):
        body["metadata"]["resourceVersion"] = f"{{version:ConfigMap/{name}}}"
    return Request(what, method, path, options(draw), body)


DATA: tuple[Json, ...] = ({"a": "1"}, {"a": "2"}, {"a": 1}, {"b/c": "x"}, {"a": None}, [], None)


def event(draw: Draw) -> Request:
    body: Json = {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"generateName": "spot-interruption-", "namespace": "default"},
        "involvedObject": {"apiVersion": "v1", "kind": "Node", "name": draw.node},
        "type": "Warning",
        "reason": "SpotInterruption",
        "message": "m",
        "source": {"component": "contract"},
        "firstTimestamp": "2026-11-21T03:21:15Z",
        "count": 1,
    }
    if draw.rarely(0.5):
        body |= draw.one(EVENTS)
    return Request("event", "POST", "/api/v1/namespaces/default/events", options(draw), body)


EVENTS: tuple[Json, ...] = (
    {"metadata": {"generateName": "Not_valid/"}},
    {"metadata": {"name": ""}},
    {"metadata": {"namespace": "kube-system"}},
    {"involvedObject": {"kind": "Pod", "name": "p0", "namespace": "kube-system"}},
    {"involvedObject": None},
    {"firstTimestamp": "yesterday"},
    {"count": "one"},
    {"eventTime": "2026-11-21T03:21:15.000000Z"},
)


# Server-side apply


def applied(draw: Draw) -> Request:
    plural, group, wanted, wrong = draw.one(APPLIED)
    name = f"{draw.namespace}-{draw.one('ab')}"
    scope = f"namespaces/{draw.namespace}/" if plural not in CLUSTER_SCOPED else ""
    path = f"{'/apis/' if '/' in group else '/api/'}{group}/{scope}{plural}/{name}"
    body = {"apiVersion": group, **wanted, "metadata": {"name": name}}
    if draw.rarely(0.4):
        body |= draw.one([*wrong, *WRONGLY_APPLIED])
    if draw.rarely(0.15):
        body["metadata"] = {**metadata(draw, name)}
    query: dict[str, str] = {"fieldManager": draw.one(["m1", "m2"]), **options(draw)}
    if draw.rarely(0.2):
        query["force"] = draw.one(["true", "false"])
    if draw.rarely(0.05):
        del query["fieldManager"]
    return Request(f"apply {wanted['kind']}", "PATCH", path, query, body, APPLY)


def _template(**spec: Json) -> Json:
    containers = [{"name": "c", "image": "example.invalid/x:1"}]
    return {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": containers, **spec}}


def _deployment(**spec: Json) -> Json:
    return {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": _template(), **spec}}


def _container(**fields: Json) -> Json:
    return _deployment(template=_template(containers=[{"name": "c", "image": "x", **fields}]))


CLUSTER_SCOPED = ("namespaces", "clusterroles", "clusterrolebindings")
WRONGLY_APPLIED: tuple[Json, ...] = (
    {"apiVersion": "v9"},
    {"kind": "Pod"},
    {"kind": ""},
    {"unknown": 1},
    {"metadata": {}},
    {"metadata": {"name": "other"}},
)
APPLIED: tuple[tuple[str, str, Json, tuple[Json, ...]], ...] = (
    ("namespaces", "v1", {"kind": "Namespace"}, ({"spec": {"finalizers": 1}},)),
    (
        "resourcequotas",
        "v1",
        {"kind": "ResourceQuota", "spec": {"hard": {"pods": "10"}}},
        (
            {"spec": {"hard": {"pods": "-1", "none": "1"}}},
            {"spec": {"hard": {"pods": "x"}}},
            {"spec": {"scopes": ["None"]}},
        ),
    ),
    (
        "serviceaccounts",
        "v1",
        {"kind": "ServiceAccount"},
        ({"automountServiceAccountToken": "no"}, {"imagePullSecrets": [{"name": "a"}]}),
    ),
    (
        "secrets",
        "v1",
        {"kind": "Secret", "stringData": {"k": "v"}},
        (
            {"stringData": {"a b": "v"}},
            {"data": {"k": "not base64!"}},
            {"type": "kubernetes.io/tls"},
            {"stringData": {"k": "w"}},
        ),
    ),
    (
        "configmaps",
        "v1",
        {"kind": "ConfigMap", "data": {"k": "1"}},
        ({"data": {"k": "2"}}, {"data": {"k": 3}}, {"data": {"a b": "1"}}, {"data": {}}),
    ),
    (
        "clusterroles",
        f"{RBAC}/v1",
        {
            "kind": "ClusterRole",
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}],
        },
        (
            {"rules": [{"verbs": ["get"]}]},
            {"rules": [{"nonResourceURLs": ["/x"], "verbs": []}]},
            {"rules": []},
        ),
    ),
    (
        "clusterrolebindings",
        f"{RBAC}/v1",
        {
            "kind": "ClusterRoleBinding",
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}],
        },
        (
            {"roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "edit"}},
            {"roleRef": {"apiGroup": RBAC, "kind": "Role", "name": ""}},
            {"subjects": [{"kind": "ServiceAccount", "name": "a"}]},
            {"subjects": [{"kind": "Robot", "name": ""}]},
        ),
    ),
    (
        "roles",
        f"{RBAC}/v1",
        {"kind": "Role", "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]},
        ({"rules": [{"nonResourceURLs": ["/x"], "verbs": ["get"]}]}, {"rules": [{}]}),
    ),
    (
        "rolebindings",
        f"{RBAC}/v1",
        {
            "kind": "RoleBinding",
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "a"},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": "a"}],
        },
        (
            {"roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "b"}},
            {"roleRef": {"kind": "Robot", "name": "b"}},
            {"subjects": [{"apiGroup": "none", "kind": "Group", "name": "a"}]},
        ),
    ),
    (
        "deployments",
        "apps/v1",
        {"kind": "Deployment", **_deployment()},
        (
            _deployment(replicas=-1),
            _deployment(replicas="2"),
            _deployment(selector={}),
            _deployment(selector={"matchLabels": {"a": "c"}}),
            _deployment(strategy={"type": "None"}),
            _deployment(template=_template(restartPolicy="Never")),
            _deployment(template=_template(nodeSelector={"a b": "c d"})),
            _container(image=""),
            _container(name="C"),
            _container(resources={"limits": {"cpu": "much"}}),
            _container(resources={"limits": {"cpu": "1"}, "requests": {"cpu": "2"}}),
            _container(env=[{"name": "a=b"}]),
            _container(volumeMounts=[{"name": "none", "mountPath": "/x"}]),
        ),
    ),
    (
        "poddisruptionbudgets",
        "policy/v1",
        {"kind": "PodDisruptionBudget", "spec": {"minAvailable": 1, **CHOSEN}},
        ({"spec": {"minAvailable": -1}}, {"spec": {"minAvailable": "x%"}}),
    ),
)
"""The kinds that the agent's connection applies: plural, version, object, wrong parts."""


# Paths, methods and media types


def odd(draw: Draw) -> Request:
    path = draw.one(ODD_PATHS).replace("{namespace}", draw.namespace)
    method = draw.one(["GET", "POST", "PUT", "PATCH", "DELETE"])
    body = draw.one([None, {}, {"kind": "Pod"}, []])
    content_type = draw.one([JSON, JSON, MERGE, "text/plain", "application/yaml"])
    return Request("odd", method, path, {}, body, content_type)


ODD_PATHS = (
    "/api/v1/none",
    "/api/v2/pods",
    "/api/v1/pods/p0",
    "/api/v1/namespaces/{namespace}/nodes",
    "/api/v1/namespaces/absent/pods",
    "/api/v1/namespaces/{namespace}/pods/p0/none",
    "/api/v1/namespaces/{namespace}/pods/absent/eviction",
    "/api/v1/nodes/absent",
    "/apis/contract.invalid/v1/things",
    "/apis/apps/v9/deployments",
    "/apis/policy/v1/namespaces/{namespace}/poddisruptionbudgets/absent",
    "/none",
)

MOVES: tuple[tuple[int, Callable[[Draw], Request]], ...] = (
    (14, pod),
    (6, pod_status),
    (14, eviction),
    (8, pod_deletion),
    (4, pod_change),
    (3, read_pod),
    (8, listing),
    (2, watch),
    (10, node_patch),
    (3, node_json_patch),
    (4, budget),
    (8, config_map),
    (4, event),
    (16, applied),
    (6, odd),
)
"""How often each kind of request is drawn."""


def requests(draw: Draw, count: int) -> Iterator[Request]:
    weights, moves = zip(*MOVES, strict=True)
    for move in draw.random.choices(moves, weights, k=count):
        yield move(draw)


class Peer:
    """One of the two servers, with the UIDs and versions of its objects."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, str] = {}

    def prepare(self, draw: Draw) -> None:
        """Create the namespace, its service account, the node and the steady pod."""
        namespace, account = (
            {"metadata": {"name": draw.namespace}},
            {"metadata": {"name": "default"}},
        )
        node = {"metadata": {"name": draw.node}}
        steady = {
            "metadata": {"name": STEADY},
            "spec": {"nodeName": draw.node, "containers": [{"name": "c", "image": "x"}]},
        }
        running = {"status": {"phase": "Running"}}
        untainted = {"spec": {"taints": None}}  # kube-apiserver taints a new node as not ready
        for request in (
            Request("", "POST", "/api/v1/namespaces", {}, namespace),
            Request("", "POST", draw.path("serviceaccounts"), {}, account),
            Request("", "POST", NODES, {}, node),
            Request("", "PATCH", f"{NODES}/{draw.node}", {}, untainted, MERGE),
            Request("", "POST", draw.path("pods"), {}, steady),
            Request("", "PATCH", draw.path("pods", STEADY, sub="status"), {}, running, MERGE),
        ):
            shape = self.ask(request)
            assert shape.accepted, (request, shape)

    def ask(self, request: Request) -> Shape:
        headers = {} if request.body is None else {"Content-Type": request.content_type}
        content = None if request.body is None else self._filled(json.dumps(request.body))
        answer = self._api.client.request(
            request.method,
            self._filled(request.path),
            params={key: self._filled(value) for key, value in request.query.items()},
            content=content,
            headers=headers,
        )
        if not answer.headers.get("content-type", "").startswith(JSON):
            return Shape(answer.status_code, "text")
        if request.what == "watch" and answer.status_code == 200:
            return _first_event(answer.text)
        body = answer.json()
        self._remember(body)
        return _shape(answer.status_code, body)

    def _remember(self, body: Json) -> None:
        meta = body.get("metadata") or {}
        if meta.get("resourceVersion") and meta.get("uid"):  # not of a list, not of a dry run
            for name in (body["kind"], f"{body['kind']}/{meta['name']}"):
                self._known[f"uid:{name}"] = meta["uid"]
                self._known[f"version:{name}"] = meta["resourceVersion"]
        if meta.get("continue"):
            self._known["token"] = meta["continue"]

    def _filled(self, text: str) -> str:
        def value(found: re.Match[str]) -> str:
            return self._known.get(found[1], "")

        return re.sub(r"\{((?:uid|version):[^}]*|token)\}", value, text)


def _shape(status: int, body: Json) -> Shape:
    if body.get("kind") != "Status":
        return Shape(status, body.get("kind") or "")
    causes = (body.get("details") or {}).get("causes") or ()
    found = {(cause.get("reason", ""), cause.get("field", "")) for cause in causes}
    return Shape(status, body.get("reason") or body["status"], tuple(sorted(found)))


def _first_event(text: str) -> Shape:
    if not text:
        return Shape(200, "no event")
    first = json.loads(text.splitlines()[0])
    return Shape(200, f"{first['type']} {first['object'].get('kind')}")


@dataclass
class Report:
    """What two servers answered to the same requests."""

    asked: int = 0
    differences: list[Difference] = field(default_factory=list)

    @property
    def agreement(self) -> float:
        return 1 - len(self.differences) / self.asked

    def text(self) -> str:
        """Each distinct difference once, with its number and an example."""
        found: dict[tuple[str, Shape, Shape], list[Request]] = {}
        for each in self.differences:
            key = each.request.what, each.simulated, each.real
            found.setdefault(key, []).append(each.request)
        lines = [f"{len(self.differences)} of {self.asked} answers differ"]
        for (what, simulated, real), examples in sorted(found.items(), key=lambda i: -len(i[1])):
            lines += [f"{len(examples)} {what}: simulated {simulated}", f"    real {real}"]
            lines.append(f"    {examples[0]}")
        return "\n".join(lines)


def compare(simulated: Peer, real: Peer, draw: Draw, count: int) -> Report:
    """Send `count` requests to both servers."""
    for peer in (simulated, real):
        peer.prepare(draw)
    report = Report()
    for request in requests(draw, count):
        report.asked += 1
        answers = simulated.ask(request), real.ask(request)
        if answers[0] != answers[1]:
            report.differences.append(Difference(request, *answers))
    return report
