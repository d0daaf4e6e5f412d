"""The nodes of one test, their pods, and notices for them."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any

from lightkube import Client, codecs
from lightkube.core.exceptions import ApiError
from lightkube.models.core_v1 import NodeSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Namespace, Pod
from lightkube.resources.core_v1 import Node as NodeResource

from sandbox import account as accounts
from sandbox import kubernetes, wait
from sandbox.account import Machine
from sandbox.aws import Aws, spot_notice
from sandbox.demo.watcher import Watcher
from sandbox.state import Node, State

FUNCTION = "castai-spot-handler"
ENDED = ("succeeded", "failed", "expired", "discarded")
SOON = 60.0  # s: much more than the drain of a few pods on a busy machine

_numbers = itertools.count(1)  # makes cut names unique

WORKLOAD = """
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  minAvailable: {min_available}
  selector: {{matchLabels: {{app: {name}}}}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata:
      labels: {{app: {name}}}
      annotations: {{sandbox/ready-seconds: "{ready}", sandbox/shutdown-seconds: "0.2"}}
    spec:
      nodeSelector: {{pool: {namespace}}}
      terminationGracePeriodSeconds: {grace}
      containers: [{{name: main, image: main}}]
"""

POD = """
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  namespace: {namespace}
  annotations: {{sandbox/shutdown-seconds: "{shutdown}"}}
spec:
  nodeName: {node}
  terminationGracePeriodSeconds: 5
  containers: [{{name: main, image: main}}]
"""


@dataclass(frozen=True)
class Delivery:
    """The delivery of one event: its state, its attempts, and the function's last result."""

    event: str
    state: str
    attempts: int
    result: dict[str, Any]

    @property
    def error(self) -> str:
        return str(self.result.get("errorMessage", ""))


class Pool:
    """Nodes labelled with the test's name, and a namespace of that name."""

    def __init__(self, state: State, account: Aws, admin: Client, test: str) -> None:
        self.state = state
        self.account = account
        self.admin = admin
        words = re.sub(r"[^a-z0-9]+", "-", test.lower().removeprefix("test_"))
        self.namespace = f"t{next(_numbers)}-{words[:40]}".strip("-")
        self.nodes: list[Node] = []
        admin.create(Namespace(metadata=ObjectMeta(name=self.namespace)))
        self._subnets = [
            subnet["SubnetId"] for subnet in account.ec2.describe_subnets(
                Filters=[{"Name": "tag:Name", "Values": [state.cluster]}]
            )["Subnets"]
        ]  # fmt: skip

    def node(self, *, name: str = "") -> Node:
        """A new instance and its node. `name` is another name than EC2's DNS name."""
        [node] = accounts.launch(
            self.account,
            self.state.cluster,
            self._subnets,
            [Machine("m6i.large", "a", spot=True)],
        )
        node = Node(node.instance, name or node.name, node.zone, spot=True)
        self.admin.create(
            NodeResource(
                metadata=ObjectMeta(name=node.name, labels={"pool": self.namespace}),
                spec=NodeSpec(providerID=node.provider_id),
            )
        )
        self.nodes.append(node)
        return node

    def tag_with_cluster_id(self, node: Node) -> None:
        """Tag the instance as CAST AI does, so that the interruption is reported to CAST AI."""
        tag = {"Key": "cast:cluster-id", "Value": "00000000-0000-4000-8000-000000000000"}
        self.account.ec2.create_tags(Resources=[node.instance], Tags=[tag])  # type: ignore[list-item]

    def deployment(
        self, name: str, *, replicas: int, min_available: int, ready: float = 0.2, grace: int = 10
    ) -> None:
        """Create a Deployment on this pool's nodes and its budget, and wait until it is ready."""
        self._apply(
            WORKLOAD.format(
                name=name,
                namespace=self.namespace,
                replicas=replicas,
                min_available=min_available,
                ready=ready,
                grace=grace,
            )
        )
        self.settled()

    def pod(self, node: Node, name: str = "lone", *, shutdown: float = 0.2) -> None:
        """Create a pod without an owner and wait until it is ready. It ends after `shutdown` s."""
        self._apply(
            POD.format(name=name, namespace=self.namespace, node=node.name, shutdown=shutdown)
        )
        self.settled()

    def settled(self) -> None:
        """Wait until everything in the cluster is ready."""
        wait.until(
            lambda: kubernetes.settled(self.admin), "the workloads being ready", timeout=SOON
        )

    def pods(self, node: Node) -> list[str]:
        """Names of this test's pods on the node."""
        return sorted(
            pod.metadata.name
            for pod in self.admin.list(
                Pod, namespace=self.namespace, fields={"spec.nodeName": node.name}
            )
            if pod.metadata is not None and pod.metadata.name is not None
        )

    def watcher(self, node: Node) -> Watcher:
        """A watcher of the node's pods."""
        return Watcher(partial(kubernetes.administrator, self.state), node.name)

    def notice(self, node: Node, **changes: Any) -> str:
        """Publish a spot notice for the node's instance. Returns the event's id."""
        event = spot_notice(node.instance, given=datetime.now(UTC), state=self.state)
        return self.account.publish({**event, **changes})

    def logged(self, event: str) -> list[dict[str, Any]]:
        """The function's log lines with this event's id."""
        found = self.account.logs.filter_log_events(logGroupName=f"/aws/lambda/{FUNCTION}")
        lines = [line["message"] for line in found["events"]]
        decoded = [json.loads(line) for line in lines if line.startswith("{")]
        return [line for line in decoded if line.get("event_id") == event]

    def ended(self, event: str, functions: int) -> list[dict[str, Any]]:
        """Wait until the event's deliveries to this number of functions have ended."""

        def ended() -> list[dict[str, Any]]:
            found = [
                delivery
                for delivery in self.account.deliveries(event)
                if delivery["state"] in ENDED
            ]
            return found if len(found) == functions else []

        return wait.until(ended, f"{functions} ended deliveries of event {event}", timeout=SOON)

    def outcome(self, event: str) -> Delivery:
        """Wait until the event's delivery has ended."""
        [found] = self.ended(event, 1)
        return Delivery(event, found["state"], found["attempts"], found["result"] or {})

    def drained(self, node: Node, **changes: Any) -> Delivery:
        """Publish a notice for the node and wait until its delivery has ended."""
        return self.outcome(self.notice(node, **changes))

    def _apply(self, manifests: str) -> None:
        for thing in codecs.load_all_yaml(manifests):
            try:
                self.admin.apply(thing)
            except ApiError as error:
                raise AssertionError(f"{error}: {thing}") from error
