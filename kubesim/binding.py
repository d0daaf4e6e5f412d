"""The binding of a pod to a node, with the checks and the messages of kube-apiserver."""

from __future__ import annotations

from kubesim.errors import ApiError
from kubesim.eviction import with_condition
from kubesim.registry import Registry
from kubesim.resources import PODS, Obj
from kubesim.store import node_of


def bind(registry: Registry, pod: Obj, node: str, *, dry_run: bool = False) -> None:
    """Bind a pod to a node, also to a cordoned or missing one: only the scheduler checks the node.

    `dry_run`: check only.

    Raises ApiError (409: the pod is bound, is being deleted or has a scheduling gate).
    """
    name = pod["metadata"]["name"]
    if "deletionTimestamp" in pod["metadata"]:
        raise _refused(name, f"pod {name} is being deleted, cannot be assigned to a host")
    if pod["spec"].get("schedulingGates"):
        raise _refused(name, f"pod {name} has non-empty .spec.schedulingGates")
    if node_of(pod):
        raise _refused(name, f'pod {name} is already assigned to node "{node_of(pod)}"')
    if dry_run:
        return
    condition = {
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": registry.stamp(),
    }
    # A binding does not change the generation: it is not a user's change of the spec.
    spec = {**pod["spec"], "nodeName": node}
    bound = {**pod, "spec": spec, "status": with_condition(pod["status"], condition)}
    registry.store.put(PODS, bound)


def _refused(name: str, why: str) -> ApiError:
    message = f'Operation cannot be fulfilled on pods/binding "{name}": {why}'
    return ApiError(409, "Conflict", message, details={"name": name, "kind": "pods/binding"})
