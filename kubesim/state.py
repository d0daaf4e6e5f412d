"""Methods that build and read the state of a cluster.

They are the same for `SimulatedCluster` and `ServedCluster`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

from kubesim.controllers.kubelet import node_status, running_status
from kubesim.resources import Json, Obj

IMAGE = "registry.invalid/app:1"
ZONE = "eu-central-1a"


def pod_spec(*, grace: int = 30, **spec: Json) -> Obj:
    """A pod spec with one container; `spec` adds fields by their Kubernetes names."""
    return {
        "containers": [{"name": "app", "image": IMAGE}],
        "terminationGracePeriodSeconds": grace,
        **spec,
    }


class ClusterState(ABC):
    """Direct access to the state of a cluster, without HTTP, for tests and scenarios.

    Returned objects are snapshots with kind and apiVersion. They must not be changed.
    """

    @abstractmethod
    def create(self, obj: Obj) -> Obj:
        """Create an object with kind and apiVersion. If it has a status, set that too.

        Raises ApiError (the API would refuse the object).
        """

    @abstractmethod
    def get(self, kind: str, name: str, namespace: str = "") -> Obj | None:
        """The object of a kind, plural or short name; None: there is none."""

    @abstractmethod
    def list(self, kind: str, namespace: str = "") -> list[Obj]:
        """The objects of a kind in one namespace or in all, ordered by namespace and name."""

    @abstractmethod
    def set(self, obj: Obj) -> Obj:
        """Replace an object, its status included."""

    @abstractmethod
    def delete(
        self, kind: str, name: str, namespace: str = "", *, grace: int | None = None
    ) -> None:
        """Delete an object as a client would."""

    def add_namespace(self, name: str) -> Obj:
        return self.create({"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": name}})

    def add_node(
        self,
        name: str,
        provider_id: str = "",
        *,
        labels: Mapping[str, str] | None = None,
        taints: Sequence[Obj] = (),
        address: str = "10.0.0.1",
        zone: str = ZONE,
        annotations: Mapping[str, str] | None = None,
        **spec: Json,
    ) -> Obj:
        """Add a ready node. `spec` adds fields of the spec."""
        own = {
            "beta.kubernetes.io/arch": "amd64",
            "beta.kubernetes.io/os": "linux",
            "kubernetes.io/arch": "amd64",
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "node.kubernetes.io/instance-type": "m6i.2xlarge",
            "topology.kubernetes.io/region": zone.rstrip("abcdef"),
            "topology.kubernetes.io/zone": zone,
        }
        node: Obj = {
            "kind": "Node",
            "apiVersion": "v1",
            "metadata": {"name": name, "labels": {**own, **(labels or {})}},
            "spec": {**spec},
            "status": node_status(name, address, self.stamp()),
        }
        if annotations:
            node["metadata"]["annotations"] = dict(annotations)
        if provider_id:
            node["spec"]["providerID"] = provider_id
        if taints:
            node["spec"]["taints"] = list(taints)
        return self.create(node)

    def add_pod(
        self,
        name: str,
        node: str = "",
        *,
        namespace: str = "default",
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
        grace: int = 30,
        phase: str = "Running",
        ready: bool = True,
        shutdown: float | str | None = None,
        owner: Obj | None = None,
        **spec: Json,
    ) -> Obj:
        """Add a pod. With a node, it runs at once, unless `phase` is Pending.

        `shutdown`: seconds that its process takes to end, or "never". `owner`: its controller (an
        object that `get` returned). `spec` adds fields of the pod's spec.
        """
        notes = dict(annotations or {})
        if shutdown is not None:
            notes["sandbox/shutdown-seconds"] = str(shutdown)
        metadata: Obj = {"name": name, "namespace": namespace}
        if labels:
            metadata["labels"] = dict(labels)
        if notes:
            metadata["annotations"] = notes
        if owner is not None:
            reference = {
                "apiVersion": owner["apiVersion"],
                "kind": owner["kind"],
                "name": owner["metadata"]["name"],
                "uid": owner["metadata"]["uid"],
                "controller": True,
            }
            metadata["ownerReferences"] = [reference]
        pod: Obj = {
            "kind": "Pod",
            "apiVersion": "v1",
            "metadata": metadata,
            "spec": pod_spec(grace=grace, **spec),
        }
        if node:
            pod["spec"]["nodeName"] = node
            status: Obj = {"phase": phase, "qosClass": "BestEffort"}
            if phase == "Running":
                status = running_status(pod, status, self.stamp(), ready=ready)
            if phase != "Pending":
                pod["status"] = status
        return self.create(pod)

    def add_deployment(
        self, name: str, replicas: int = 1, *, namespace: str = "default", **template: Json
    ) -> Obj:
        """Add a Deployment; see `workload` for `template`."""
        deployment = workload("Deployment", name, namespace, **template)
        deployment["spec"]["replicas"] = replicas
        return self.create(deployment)

    def add_statefulset(
        self, name: str, replicas: int = 1, *, namespace: str = "default", **template: Json
    ) -> Obj:
        """Add a StatefulSet; see `workload` for `template`."""
        stateful_set = workload("StatefulSet", name, namespace, **template)
        stateful_set["spec"] |= {"replicas": replicas, "serviceName": name}
        return self.create(stateful_set)

    def add_daemonset(self, name: str, *, namespace: str = "kube-system", **template: Json) -> Obj:
        """Add a DaemonSet; see `workload` for `template`."""
        return self.create(workload("DaemonSet", name, namespace, **template))

    def add_budget(
        self,
        name: str,
        labels: Mapping[str, str],
        *,
        namespace: str = "default",
        **spec: Json,
    ) -> Obj:
        """Add a PodDisruptionBudget for pods with these labels; `spec`: minAvailable and so on."""
        return self.create(
            {
                "kind": "PodDisruptionBudget",
                "apiVersion": "policy/v1",
                "metadata": {"name": name, "namespace": namespace},
                "spec": {"selector": {"matchLabels": dict(labels)}, **spec},
            }
        )

    def pods_on(self, node: str) -> Sequence[Obj]:
        """The pods bound to a node."""
        return [pod for pod in self.list("pods") if pod["spec"].get("nodeName") == node]

    @abstractmethod
    def stamp(self) -> str:
        """The cluster's wall clock as a timestamp."""


def workload(
    kind: str,
    name: str,
    namespace: str,
    *,
    labels: Mapping[str, str] | None = None,
    annotations: Mapping[str, str] | None = None,
    grace: int = 30,
    **spec: Json,
) -> Obj:
    """A workload with one container per pod.

    `labels`: `app=<name>` by default. `spec` adds fields of the pod's spec.
    """
    chosen = dict(labels or {"app": name})
    metadata: Obj = {"labels": chosen}
    if annotations:
        metadata["annotations"] = dict(annotations)
    return {
        "kind": kind,
        "apiVersion": "apps/v1",
        "metadata": {"name": name, "namespace": namespace, "labels": chosen},
        "spec": {
            "selector": {"matchLabels": chosen},
            "template": {"metadata": metadata, "spec": pod_spec(grace=grace, **spec)},
        },
    }
