"""The world of a day: the simulated cluster, the instances, the other actors, and their history."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any

import yaml

from kubesim.authentication import User
from kubesim.cluster import SimulatedCluster
from kubesim.controllers.kubelet import Kubelets
from kubesim.controllers.workloads import (
    DeploymentController,
    ReplicaSetController,
    StatefulSetController,
)
from kubesim.errors import ApiError
from kubesim.resources import NODES, PODS
from kubesim.store import Change
from lambdas.common.eks import TOKEN_PREFIX
from lambdas.common.names import SPOT_HANDLER_GROUP
from simulation.drain import actors
from simulation.drain.days import Day, Delivery, Fault, Pod
from simulation.drain.events import KINDS
from simulation.drain.faults import FAULTS, TARGETS

Obj = dict[str, Any]

MANIFEST = Path(__file__).parents[2] / "manifests" / "spot-handler-rbac.yaml"
CLUSTER = "shop"
NAMESPACE = "default"
ZONE = "eu-central-1a"
USER = "spot-handler"
HOLD = "example.com/hold"
SETTLED = 0.2  # s before the day in which the controllers adopt the pods
LATE_SHUTDOWN = 5.0  # s that a pod takes to end which is created during the day
REMOVED = 12.0  # s after an instance's end until its node object is deleted
_EXISTS = "Exists"
_TOLERATIONS: dict[str, list[Obj]] = {
    "": [],
    "drain": [{"key": "autoscaling.cast.ai/draining", "operator": _EXISTS}],
    "unschedulable": [{"key": "node.kubernetes.io/unschedulable", "operator": _EXISTS}],
    "both": [
        {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"},
        {"key": "node.kubernetes.io/unschedulable", "operator": _EXISTS, "effect": "NoSchedule"},
    ],
    "all": [{"operator": _EXISTS}],
}


class EksUsers:
    """Accepts every token of EKS's form as the function's role."""

    async def authenticate(self, token: str) -> User | None:
        if not token.startswith(TOKEN_PREFIX):
            return None
        return User(USER, (SPOT_HANDLER_GROUP, "system:authenticated"))


@dataclass
class Moment:
    """A change of the cluster. Times are virtual seconds of the event loop."""

    at: float
    change: Change


@dataclass
class World:
    """The cluster of a day, and what happened in it."""

    day: Day
    cluster: SimulatedCluster = field(
        default_factory=lambda: SimulatedCluster(authenticators=[EksUsers()])
    )
    moments: list[Moment] = field(default_factory=list)
    notes: list[tuple[float, str]] = field(default_factory=list)
    ends: dict[int, float] = field(default_factory=dict)
    """By node: when its instance ends."""
    stopped: dict[int, str] = field(default_factory=dict)
    """By node: the state of its instance after its end."""
    back: float = math.inf
    """When the instance of node 0 runs again."""
    returning: Delivery | None = None
    """The event of an instance that was stopped and runs again."""
    strays: list[str] = field(default_factory=list)
    """What the event loop reports: errors of tasks that nobody waits for."""
    _names: Counter[str] = field(default_factory=Counter)

    # Time

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    def later(self, seconds: float, action: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)

    def note(self, text: str) -> None:
        self.notes.append((self.now, text))

    # The day begins

    async def begin(self) -> None:
        """Build the cluster, and set the timers of actors and faults."""
        for document in _rbac():
            self.cluster.create(document)
        late = self.day.registers_at > 0
        for number in range(self.day.nodes):
            if number or not late:
                self._add_node(number)
        pods = [pod for pod in self.day.pods if pod.node or not late]
        self._add_workloads(pods)
        self._add_budgets()
        self.cluster.delay_bindings(self.day.late_bindings)
        await asyncio.sleep(SETTLED)
        self.cluster.store.subscribe(lambda change: self.moments.append(Moment(self.now, change)))
        self.start = self.now
        if late:
            self.later(self.day.registers_at, lambda: self._add_node(0))
        for act in self.day.acts:
            self.later(act.at, partial(actors.act, self, act.kind, act.node, act.app))
        for fault in self.day.faults:
            self.later(fault.at, partial(self._break, fault))
        for delivery in self.day.deliveries:
            if KINDS[delivery.kind].drains and delivery.kind != "drill":
                self._interrupt(delivery)
        if self.day.returns and self.stopped.get(0) == "stopped":
            at = self.ends[0] - self.start + self.day.returns
            self.returning = Delivery("running", at=at)
            self.later(at, self._return)

    def _add_budgets(self) -> None:
        for budget in self.day.budgets:
            spec: Obj = {budget.field: budget.value}
            app = f"app-{budget.app}"
            self.cluster.add_budget(f"budget-{budget.app}", {"app": app}, **spec)

    def _break(self, fault: Fault) -> None:
        method, path = TARGETS[fault.target]
        within = {"seconds": fault.seconds} if fault.seconds else {"times": fault.times}
        self.cluster.faults.add(
            method, path, FAULTS[fault.kind].action(), skip=fault.skip, **within
        )

    def _interrupt(self, delivery: Delivery) -> None:
        """The instance ends, so many seconds after its notice was given."""
        kind = KINDS[delivery.kind]
        given = self.start + delivery.at - delivery.age
        end = max(self.now, given + self.day.lifetime)
        node = delivery.node
        if end >= self.ends.get(node, math.inf):
            return
        self.ends[node] = end
        self.stopped[node] = (
            "terminated" if kind.detail("")["instance-action"] == "terminate" else "stopped"
        )
        self.later(end - self.now, lambda: self._end(node, end))

    def _end(self, node: int, end: float) -> None:
        if self.ends.get(node) != end:
            return
        self.note(f"instance of node {node} is {self.stopped[node]}")
        self.cluster.stop_node(self.node_name(node))
        if self.stopped[node] == "terminated":
            self.later(REMOVED, lambda: self._remove(node))

    def _return(self) -> None:
        self.back = self.now
        self.cluster.controller(Kubelets).stopped.discard(self.node_name(0))
        self.note("the instance of node 0 runs again")

    def _remove(self, node: int) -> None:
        try:
            self.delete("nodes", self.node_name(node), namespace="")
        except ApiError:
            return
        self.note(f"node {node} is deleted")

    # Nodes and instances

    def node_name(self, number: int) -> str:
        return f"ip-10-0-0-{number}.{ZONE[:-1]}.compute.internal"

    def instance(self, number: int) -> str:
        return f"i-{number:017x}"

    def number(self, instance: str) -> int:
        return int(instance.removeprefix("i-"), 16)

    def state(self, number: int) -> str:
        """The instance's state in EC2."""
        ended = self.now >= self.ends.get(number, math.inf)
        back = number == 0 and self.now >= self.back
        return self.stopped[number] if ended and not back else "running"

    def _add_node(self, number: int) -> None:
        self.cluster.add_node(self.node_name(number), f"aws:///{ZONE}/{self.instance(number)}")

    def add_further_node(self) -> None:
        self._names["node"] += 1
        self._add_node(self.day.nodes + self._names["node"])

    # Workloads

    def _add_workloads(self, pods: list[Pod]) -> None:
        replica_sets = self.cluster.controller(ReplicaSetController)
        stateful_sets = self.cluster.controller(StatefulSetController)
        replica_sets.pause()
        stateful_sets.pause()
        owners: dict[tuple[str, int], Obj] = {}
        for pod in pods:
            if pod.owner in ("Deployment", "StatefulSet", "DaemonSet"):
                key = pod.owner, pod.app
                if key not in owners:
                    alike = [p for p in pods if (p.owner, p.app) == key]
                    owners[key] = self._owner(pod, len(alike))
                if pod.owner == "DaemonSet":
                    continue
            self._add_pod(pod, owners.get((pod.owner, pod.app)))
        replica_sets.resume()
        stateful_sets.resume()

    def _owner(self, pod: Pod, count: int) -> Obj:
        name = f"app-{pod.app}"
        options: Obj = {"grace": pod.grace, "annotations": _behaviour(pod), **_further(pod)}
        if pod.owner == "DaemonSet":
            return self.cluster.add_daemonset(
                f"daemon-{pod.app}", namespace=NAMESPACE, labels={"daemon": name}, **options
            )
        if pod.owner == "StatefulSet":
            return self.cluster.add_statefulset(
                f"set-{pod.app}", count, labels={"app": name, "set": name}, **options
            )
        return self.cluster.add_deployment(name, count, labels={"app": name}, **options)

    def _add_pod(self, pod: Pod, owner: Obj | None) -> None:
        labels = {"app": f"app-{pod.app}"}
        name = f"bare-{pod.app}"
        if owner is not None and pod.owner == "Deployment":
            owner = self._replica_set(owner)
            labels = owner["spec"]["template"]["metadata"]["labels"]
            name = owner["metadata"]["name"]
        elif owner is not None:
            labels["set"] = labels["app"]
            name = owner["metadata"]["name"]
        notes = _behaviour(pod)
        if pod.owner == "Node":
            name, notes = f"static-{pod.app}", {**notes, "kubernetes.io/config.mirror": "1"}
            owner = self.cluster.get("nodes", self.node_name(pod.node))
        number = self._names[name]
        self._names[name] += 1
        created = self.cluster.add_pod(
            f"{name}-{number}",
            self.node_name(pod.node),
            labels=labels,
            annotations=notes,
            grace=pod.grace,
            phase=pod.phase,
            ready=pod.ready,
            owner=owner,
            **_further(pod),
        )
        if pod.finalizer:
            metadata = {**created["metadata"], "finalizers": [HOLD]}
            self.cluster.set({**created, "metadata": metadata})

    def _replica_set(self, deployment: Obj) -> Obj:
        """The Deployment's ReplicaSet, which its controller has not created yet."""
        name = deployment["metadata"]["name"]
        uid = deployment["metadata"]["uid"]
        for found in self.cluster.list("replicasets", NAMESPACE):
            if found["metadata"]["ownerReferences"][0]["uid"] == uid:
                return found
        self.cluster.controller(DeploymentController).sync((NAMESPACE, name))
        return self._replica_set(deployment)

    def add_bare_pod(self, app: int, *, bound_to: int | None) -> None:
        """A pod without a controller that is created during the day."""
        self._names["late"] += 1
        self.cluster.add_pod(
            f"late-{self._names['late']}",
            "" if bound_to is None else self.node_name(bound_to),
            labels={"app": f"app-{app}"},
            phase="Pending" if bound_to is None else "Running",
            shutdown=LATE_SHUTDOWN,
        )

    # What actors do

    def pods_of(self, app: int, node: int) -> list[Obj]:
        """The app's pods on a node, of any owner."""
        return [
            pod
            for pod in self.cluster.pods_on(self.node_name(node))
            if (pod["metadata"].get("labels") or {}).get("app") == f"app-{app}"
        ]

    def edit_spec(self, kind: str, name: str, change: Callable[[Obj], Obj]) -> None:
        """Raises KeyError (there is none)."""
        found = self.cluster.get(kind, name, NAMESPACE)
        if found is None:
            raise KeyError(name)
        spec = {"metadata": found["metadata"], "spec": change(found)}
        self.cluster.set({"kind": found["kind"], "apiVersion": found["apiVersion"], **spec})

    def edit_node(
        self,
        number: int,
        *,
        labels: dict[str, str] | None = None,
        spec: Callable[[Obj], Obj] = lambda spec: spec,
    ) -> None:
        """Raises KeyError (there is none)."""
        node = self.cluster.get("nodes", self.node_name(number))
        if node is None:
            raise KeyError(number)
        metadata = {**node["metadata"], "labels": {**node["metadata"]["labels"], **(labels or {})}}
        self.cluster.set({**node, "metadata": metadata, "spec": spec(node["spec"])})

    def set_phase(self, pod: Obj, phase: str) -> None:
        self.cluster.set({**pod, "status": {**pod["status"], "phase": phase}})

    def drop_finalizers(self, pod: Obj) -> None:
        if pod["metadata"].get("finalizers"):
            metadata = {k: v for k, v in pod["metadata"].items() if k != "finalizers"}
            self.cluster.set({**pod, "metadata": metadata})

    def delete(self, kind: str, name: str, namespace: str = NAMESPACE) -> None:
        self.cluster.delete(kind, name, namespace)

    # History

    def pods_at(self, node: int, moment: float) -> list[Obj]:
        """The pods that were bound to a node at a moment."""
        name = self.node_name(node)
        pods = {
            (pod["metadata"]["namespace"], pod["metadata"]["name"]): pod
            for pod in self.cluster.store.objects(PODS)
        }
        for each in reversed(self.moments):
            if each.at <= moment:
                break
            if each.change.resource is not PODS:
                continue
            metadata = each.change.new["metadata"]
            key = metadata["namespace"], metadata["name"]
            if each.change.old is None:
                pods.pop(key, None)
            else:
                pods[key] = each.change.old
        return [pod for pod in pods.values() if pod["spec"].get("nodeName") == name]

    def node_changes(self, name: str) -> list[Moment]:
        """The changes of a node."""
        return [
            moment
            for moment in self.moments
            if moment.change.resource is NODES and moment.change.new["metadata"]["name"] == name
        ]


def _behaviour(pod: Pod) -> dict[str, str]:
    notes = {"sandbox/shutdown-seconds": "never" if pod.shutdown is None else str(pod.shutdown)}
    if pod.phase == "Pending":
        notes["sandbox/waiting"] = "ImagePullBackOff"
    return notes


def _further(pod: Pod) -> Obj:
    """Optional fields of the pod's spec."""
    fields: Obj = {}
    if pod.tolerates:
        fields["tolerations"] = _TOLERATIONS[pod.tolerates]
    if pod.priority:
        fields["priorityClassName"] = pod.priority
    return fields


@cache
def _rbac() -> tuple[Obj, ...]:
    return tuple(yaml.safe_load_all(MANIFEST.read_text()))
