"""The HTTP client of the contract tests for the Kubernetes API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
from lightkube import KubeConfig
from lightkube.config import client_adapter

DEADLINE = 30.0
"""Time limit in seconds of each wait; tests that pass do not reach it."""

MERGE = "application/merge-patch+json"
STRATEGIC = "application/strategic-merge-patch+json"
JSON_PATCH = "application/json-patch+json"
APPLY = "application/apply-patch+yaml"
NODES = "/api/v1/nodes"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
BINDINGS = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"

_numbers = count(1)
_run = f"{time.time_ns() % 10**9:09d}"


def unique(what: str) -> str:
    """A name that is unique on the cluster."""
    return f"contract-{what}-{_run}-{next(_numbers)}"


@dataclass(frozen=True)
class Answer:
    """Status, headers and decoded body of an answer. `text`: the body of one that is no JSON."""

    status: int
    headers: httpx2.Headers
    body: dict[str, Any]
    text: str = ""

    @property
    def causes(self) -> list[dict[str, str]]:
        causes: list[dict[str, str]] = self.body.get("details", {}).get("causes", [])
        return causes

    def ok(self) -> dict[str, Any]:
        """Assert that the answer is a success; return its body."""
        assert self.status < 400, self.body
        return self.body


@dataclass(frozen=True)
class Api:
    """A client of one user: the administrator, or a user that the administrator impersonates."""

    client: httpx2.Client
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, kubeconfig: Path) -> Api:
        config = KubeConfig.from_file(kubeconfig).get()
        assert config is not None
        parameters = client_adapter.ConnectionParams(
            timeout=httpx2.Timeout(DEADLINE), trust_env=False
        )
        return cls(client_adapter.Client(config, parameters))

    def acting_as(self, user: str) -> Api:
        return Api(self.client, {**self.headers, "Impersonate-User": user})

    def with_token(self, token: str) -> Api:
        """A client with this bearer token and nothing else."""
        client = httpx2.Client(
            base_url=self.client.base_url,
            transport=self.client._transport,
            headers={"Authorization": f"Bearer {token}"},
        )
        return Api(client)

    def call(
        self, method: str, path: str, body: Any = None, content_type: str = "application/json"
    ) -> Answer:
        headers = dict(self.headers)
        content = None
        if body is not None:
            content = json.dumps(body).encode()
            headers["Content-Type"] = content_type
        answer = self.client.request(method, path, content=content, headers=headers)
        if answer.headers["content-type"].startswith("text/plain"):
            return Answer(answer.status_code, answer.headers, {}, answer.text)
        return Answer(answer.status_code, answer.headers, answer.json())

    def get(self, path: str) -> Answer:
        return self.call("GET", path)

    def post(self, path: str, body: Any) -> Answer:
        return self.call("POST", path, body)

    def put(self, path: str, body: Any) -> Answer:
        return self.call("PUT", path, body)

    def patch(self, path: str, body: Any, content_type: str = MERGE) -> Answer:
        return self.call("PATCH", path, body, content_type)

    def apply(self, path: str, body: Any, manager: str = "contract", options: str = "") -> Answer:
        return self.patch(f"{path}?fieldManager={manager}{options}", body, APPLY)

    def delete(self, path: str, **options: Any) -> Answer:
        return self.call("DELETE", path, {"kind": "DeleteOptions", "apiVersion": "v1", **options})

    @contextmanager
    def watch(self, path: str, **query: Any) -> Iterator[Iterator[dict[str, Any]]]:
        """The events of a watch; the server ends it after `DEADLINE`."""
        parameters = {"watch": "1", "timeoutSeconds": str(int(DEADLINE)), **query}
        with self.client.stream("GET", path, params=parameters, headers=self.headers) as stream:
            assert stream.status_code == 200, stream.read()
            yield (json.loads(line) for line in stream.iter_lines() if line)

    def until(self, path: str, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Watch one object until a condition holds; return the object."""
        collection, _, name = path.rpartition("/")
        found = self.get(path)
        if found.status == 200 and condition(found.body):
            return found.body
        with self.watch(collection, fieldSelector=f"metadata.name={name}") as events:
            for event in events:
                if event["type"] in ("ADDED", "MODIFIED") and condition(event["object"]):
                    held: dict[str, Any] = event["object"]
                    return held
        raise AssertionError(f"{path}: not within {DEADLINE:.0f} s")


@dataclass(frozen=True)
class Target:
    """The cluster under test."""

    admin: Api
    kubeconfig: Path
    disruption_controller: bool
    """Whether the cluster sets the status of budgets; otherwise the tests set it."""
    compact: Callable[[], object] = lambda: None
    """Make all earlier versions too old. A cluster that is used has done this itself."""


@dataclass(frozen=True)
class Space:
    """The namespace and the node of one test. The test sets the status of the node's pods."""

    target: Target
    name: str
    node: str

    @property
    def api(self) -> Api:
        return self.target.admin

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.name}/pods"

    @property
    def budgets(self) -> str:
        return f"/apis/policy/v1/namespaces/{self.name}/poddisruptionbudgets"

    @property
    def config_maps(self) -> str:
        return f"/api/v1/namespaces/{self.name}/configmaps"

    def pod(
        self,
        name: str,
        *,
        app: str = "",
        grace: int = 30,
        state: str = "ready",
        finalizers: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """Create a pod on the test's node; `state`: pending, unready, ready or succeeded."""
        metadata: dict[str, Any] = {"name": name, "labels": {"app": app or name}}
        if finalizers:
            metadata["finalizers"] = list(finalizers)
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": metadata,
            "spec": {
                "nodeName": self.node,
                "terminationGracePeriodSeconds": grace,
                "automountServiceAccountToken": False,
                "containers": [{"name": "c", "image": "example.invalid/x:1"}],
            },
        }
        created = self.api.post(self.pods, pod).ok()
        return created if state == "pending" else self.report(name, state)

    def report(self, name: str, state: str) -> dict[str, Any]:
        """Set a pod's status, as its kubelet would."""
        ready = "True" if state == "ready" else "False"
        status = {
            "phase": "Succeeded" if state == "succeeded" else "Running",
            "conditions": [{"type": "Ready", "status": ready}],
        }
        return self.api.patch(f"{self.pods}/{name}/status", {"status": status}, STRATEGIC).ok()

    def finish(self, name: str) -> None:
        """End a terminating pod, as its kubelet would."""
        self.report(name, "succeeded")
        self.api.delete(f"{self.pods}/{name}", gracePeriodSeconds=0).ok()

    def evict(self, name: str, *, api: Api | None = None, query: str = "", **body: Any) -> Answer:
        eviction = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": self.name},
            **body,
        }
        return (api or self.api).post(f"{self.pods}/{name}/eviction{query}", eviction)

    def budget(
        self, name: str, app: str, *, healthy: int, desired: int, allowed: int, **spec: Any
    ) -> dict[str, Any]:
        """Create a budget; its controller, or otherwise the test, sets the status."""
        path = f"{self.budgets}/{name}"
        selector = {"matchLabels": {"app": app}}
        budget = {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": {"name": name},
            "spec": {"selector": selector, "minAvailable": desired, **spec},
        }
        created = self.api.post(self.budgets, budget).ok()
        status = {
            "observedGeneration": created["metadata"]["generation"],
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": max(healthy, desired),
        }
        if not self.target.disruption_controller:
            return self.api.patch(f"{path}/status", {"status": status}).ok()
        counted = ("observedGeneration", "disruptionsAllowed", "currentHealthy", "desiredHealthy")
        return self.api.until(
            path, lambda obj: all(obj["status"].get(key) == status[key] for key in counted)
        )
