"""The cluster with the user's own identity: what the drill meets and what has to be undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, NamedTuple

import httpx2
from lightkube import ApiError, Client
from lightkube.models.core_v1 import Taint
from lightkube.resources.core_v1 import Node, Pod
from lightkube.types import PatchType

from acceptance.account import Account
from acceptance.errors import AcceptanceError
from lambdas.common import kubernetes_objects
from lambdas.common.eks import Cluster, token_for
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import OWNER_ANNOTATION, SPOT_HANDLER
from lambdas.onboarding import spot_rbac
from lambdas.spot_handler.taint import DRAIN_LABEL, DRAIN_TAINT, NO_BALANCER_LABEL
from sandbox.demo.timeline import Timeline

MARKS: Final = (DRAIN_LABEL, NO_BALANCER_LABEL)
"""Labels that the spot handler sets."""
BUILT_IN: Final = "node.kubernetes.io/"
"""Prefix of the taints that controllers set and remove: `unschedulable` follows the cordon."""
ATTEMPTS: Final = 5
"""For a write that meets the write of another client."""
OWNER: Final = "acceptance"
"""Owner of the RBAC objects that a run creates."""

Connect = Callable[[], Client]


def connector(account: Account, cluster: Cluster) -> Connect:
    """Return a function that connects. EKS accepts a token for 15 minutes: connect for each use."""

    def connect() -> Client:
        config = kubernetes_objects.config_of(cluster, token_for(cluster, session=account.session))
        timeout = httpx2.Timeout(kubernetes_objects.REQUEST_TIMEOUT)
        return Client(config, timeout=timeout, trust_env=False)

    return connect


@contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client's errors into ours, which say what to do. `what` is what was being done."""
    with kubernetes_objects.translated_errors(what):
        yield


class NodeState(NamedTuple):
    """The fields of a node that a drain changes."""

    unschedulable: bool
    taints: tuple[tuple[str, str, str], ...]
    """Key, value and effect, sorted. Without those of Kubernetes, which its controllers set."""
    labels: tuple[str, ...]
    """Those of the drain that the node has."""


@dataclass(frozen=True)
class Found:
    """A node, as it is before the drill."""

    name: str
    state: NodeState
    version: str
    """Of the kubelet, which is at most three minor versions behind the API server."""
    pods: Timeline
    problems: tuple[str, ...]


def find(client: Client, instance: str) -> Found:
    """Return the node of the instance and its pods.

    Raises AcceptanceError if no node is this instance, CastaiError if the cluster refuses.
    """
    with translated("reading nodes and pods"):
        nodes = list(client.list(Node))
        pods = list(client.list(Pod, namespace="*"))
    node = next((each for each in nodes if _instance(each) == instance), None)
    if node is None or node.metadata is None or node.metadata.name is None:
        raise AcceptanceError(
            f"Name an instance that is a node of this cluster: none of its {len(nodes)} nodes is "
            f"{instance}"
        )
    name = node.metadata.name
    timeline = Timeline(name)
    for pod in pods:
        timeline.pod_changed(pod, 0.0)
    kubelet = node.status.nodeInfo.kubeletVersion if node.status and node.status.nodeInfo else ""
    return Found(name, _state(node), kubelet, timeline, tuple(_problems(node, nodes)))


def state_of(client: Client, name: str) -> NodeState | None:
    """Return what a drain changes, as it is now; None if the node is gone."""
    node = _node(client, name)
    return None if node is None else _state(node)


def _state(node: Node) -> NodeState:
    taints = (node.spec and node.spec.taints) or ()
    return NodeState(
        bool(node.spec and node.spec.unschedulable),
        tuple(
            sorted(
                (each.key, each.value or "", each.effect)
                for each in taints
                if not each.key.startswith(BUILT_IN)
            )
        ),
        tuple(_our_labels(node)),
    )


def _node(client: Client, name: str) -> Node | None:
    try:
        return client.get(Node, name)
    except ApiError as error:
        if error.status.code == httpx2.codes.NOT_FOUND:
            return None
        raise


def _instance(node: Node) -> str:
    return ((node.spec and node.spec.providerID) or "").rpartition("/")[2]


def _problems(node: Node, nodes: list[Node]) -> Iterator[str]:
    """What speaks against a drill of this node."""
    name = node.metadata.name if node.metadata else ""
    if _cordoned(node) or _our_labels(node):
        yield (
            f"Choose another node, or uncordon {name} first: it is cordoned or has labels of a "
            "drain, which the end of the run would remove"
        )
    if not any(each is not node and not _cordoned(each) for each in nodes):
        yield f"Add a node first: no other node can take the pods of {name}"


def _cordoned(node: Node) -> bool:
    if node.spec is None:
        return False
    return bool(node.spec.unschedulable) or any(map(_is_ours, node.spec.taints or ()))


def _is_ours(taint: Taint) -> bool:
    return (taint.key, taint.effect) == (DRAIN_TAINT.key, DRAIN_TAINT.effect)


def _our_labels(node: Node) -> list[str]:
    labels = (node.metadata and node.metadata.labels) or {}
    return [label for label in MARKS if label in labels]


def remove_marks(client: Client, name: str) -> bool:
    """Remove what the spot handler set on a node. Return whether there was something.

    Raises AcceptanceError if others write the node all the time, CastaiError if the cluster
    refuses. A node that is gone has no marks.
    """
    for _ in range(ATTEMPTS):
        try:
            with translated(f"uncordoning {name}"):
                return _remove_marks(client, name)
        except _ConflictError:
            continue
    raise AcceptanceError(
        f"Uncordon {name} by hand: others wrote it at each of {ATTEMPTS} attempts"
    )


class _ConflictError(Exception):
    """Another client wrote the node since it was read."""


def _remove_marks(client: Client, name: str) -> bool:
    node = _node(client, name)
    if node is None or not (_cordoned(node) or _our_labels(node)):
        return False
    taints = [
        each.to_dict() for each in (node.spec and node.spec.taints) or () if not _is_ours(each)
    ]
    version = node.metadata.resourceVersion if node.metadata else None
    patch = {
        "metadata": {"resourceVersion": version, "labels": dict.fromkeys(_our_labels(node))},
        "spec": {"unschedulable": None, "taints": taints or None},
    }
    try:
        client.patch(Node, name, patch, patch_type=PatchType.MERGE)
    except ApiError as error:
        if error.status.code == httpx2.codes.CONFLICT:
            raise _ConflictError from error
        raise
    return True


def rbac_objects() -> tuple[dict[str, object], ...]:
    """The spot handler's RBAC objects, with this run as their owner."""
    made = (spot_rbac.role(), spot_rbac.binding())
    for each in made:
        each["metadata"]["annotations"] = {OWNER_ANNOTATION: OWNER}
    return made


def missing_rbac(kube: Kube) -> tuple[str, ...]:
    """Return the kinds of the spot handler's RBAC objects that the cluster does not have."""
    kinds = (spot_rbac.role()["kind"], spot_rbac.binding()["kind"])
    return tuple(kind for kind in kinds if kube.get(spot_rbac.VERSION, kind, SPOT_HANDLER) is None)


def apply_rbac(kube: Kube, kinds: tuple[str, ...]) -> None:
    """Create these of the spot handler's RBAC objects."""
    for each in rbac_objects():
        if each["kind"] in kinds:
            kube.create(each)


def remove_rbac(kube: Kube) -> list[str]:
    """Remove the RBAC objects that this run created, and return their kinds."""
    removed = []
    for each in reversed(rbac_objects()):
        kind = str(each["kind"])
        found = kube.get(spot_rbac.VERSION, kind, SPOT_HANDLER)
        annotations = (found or {}).get("metadata", {}).get("annotations") or {}
        if annotations.get(OWNER_ANNOTATION) == OWNER:
            kube.delete(spot_rbac.VERSION, kind, SPOT_HANDLER)
            removed.append(kind)
    return removed
