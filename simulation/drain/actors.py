"""The other actors of a day, as data: an act is a row.

They write to the cluster directly, as its administrators and controllers do.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from kubesim.errors import ApiError

if TYPE_CHECKING:
    from simulation.drain.world import World

Obj = dict[str, Any]
Acting = Callable[["World", int, int], None]
"""What happens, with the numbers of a node and of an app."""

BUSY_WRITES = 20  # writes of an actor that disputes a node, one each BUSY_EVERY
BUSY_EVERY = 0.04  # s


def _roll_out(world: World, _node: int, app: int) -> None:
    """A rolling update: the template changes."""

    def change(workload: Obj) -> Obj:
        template = workload["spec"]["template"]
        notes = {**(template["metadata"].get("annotations") or {}), "version": "2"}
        metadata = {**template["metadata"], "annotations": notes}
        return {**workload["spec"], "template": {**template, "metadata": metadata}}

    world.edit_spec("deployments", f"app-{app}", change)


def _scale(by: int) -> Acting:
    def act(world: World, _node: int, app: int) -> None:
        world.edit_spec(
            "deployments",
            f"app-{app}",
            lambda workload: {
                **workload["spec"],
                "replicas": max(0, workload["spec"].get("replicas", 1) + by),
            },
        )

    return act


def _taint(key: str, effect: str = "NoSchedule") -> Acting:
    """A writer of taints, as Karpenter and the node termination handler are."""

    def act(world: World, node: int, _app: int) -> None:
        def change(spec: Obj) -> Obj:
            others = [taint for taint in spec.get("taints") or () if taint["key"] != key]
            return {**spec, "taints": [*others, {"key": key, "effect": effect}]}

        world.edit_node(node, spec=change)

    return act


def _dispute(world: World, node: int, _app: int) -> None:
    """A controller that writes the node many times: conditional patches conflict."""

    def write(number: int) -> None:
        try:
            world.edit_node(node, labels={"example.com/counter": str(number)})
        except KeyError:
            return  # the node is gone
        if number < BUSY_WRITES:
            world.later(BUSY_EVERY, lambda: write(number + 1))

    world.edit_node(node)
    write(1)


def _mark(world: World, node: int, _app: int) -> None:
    """Labels and a cordon by the node termination handler."""
    labels = {"aws-node-termination-handler/action": "cordon-and-drain"}
    world.edit_node(node, labels=labels, spec=lambda spec: {**spec, "unschedulable": True})


def _balancer(world: World, node: int, _app: int) -> None:
    """A person has taken the node out of the load balancers, with a value of their own."""
    world.edit_node(node, labels={"node.kubernetes.io/exclude-from-external-load-balancers": "me"})


def _delete_budget(world: World, _node: int, app: int) -> None:
    world.delete("poddisruptionbudgets", f"budget-{app}")


def _forbid_disruption(world: World, _node: int, app: int) -> None:
    world.edit_spec(
        "poddisruptionbudgets",
        f"budget-{app}",
        lambda budget: {"selector": budget["spec"]["selector"], "maxUnavailable": 0},
    )


def _delete_pod(world: World, node: int, app: int) -> None:
    """A person deletes a pod of the node."""
    for pod in world.pods_of(app, node):
        if "deletionTimestamp" not in pod["metadata"]:
            world.delete("pods", pod["metadata"]["name"])
            return


def _finish_pod(world: World, node: int, app: int) -> None:
    """A pod ends by itself, as a job's does."""
    for pod in world.pods_of(app, node):
        if pod["status"].get("phase") == "Running":
            world.set_phase(pod, "Succeeded")
            return


def _start_pod(world: World, _node: int, app: int) -> None:
    """A pod without a controller is created; the scheduler chooses its node."""
    world.add_bare_pod(app, bound_to=None)


def _bind_pod(world: World, node: int, app: int) -> None:
    """A pod is created for the node, without a scheduler: no cordon keeps it away."""
    world.add_bare_pod(app, bound_to=node)


def _release(world: World, node: int, _app: int) -> None:
    """The owner of a finalizer takes it away."""
    for pod in world.cluster.pods_on(world.node_name(node)):
        world.drop_finalizers(pod)


def _remove_node(world: World, node: int, _app: int) -> None:
    """An autoscaler deletes the node."""
    world.delete("nodes", world.node_name(node), namespace="")


def _hang(world: World, node: int, _app: int) -> None:
    """The machine hangs: its kubelet ends no pod any more."""
    world.cluster.stop_node(world.node_name(node))


def _compact(world: World, _node: int, _app: int) -> None:
    world.cluster.compact()


def _add_node(world: World, _node: int, _app: int) -> None:
    """An autoscaler adds a node."""
    world.add_further_node()


ACTS: dict[str, Acting] = {
    "delete pod": _delete_pod,
    "finish pod": _finish_pod,
    "start pod": _start_pod,
    "bind pod": _bind_pod,
    "roll out": _roll_out,
    "scale up": _scale(1),
    "scale down": _scale(-1),
    "taint": _taint("karpenter.sh/disrupted"),
    "taint of a rebalance": _taint("aws-node-termination-handler/rebalance-recommendation"),
    "dispute": _dispute,
    "mark": _mark,
    "balancer": _balancer,
    "delete budget": _delete_budget,
    "forbid disruption": _forbid_disruption,
    "release finalizers": _release,
    "remove node": _remove_node,
    "add node": _add_node,
    "compact": _compact,
    "machine hangs": _hang,
}


def act(world: World, kind: str, node: int, app: int) -> None:
    """Do it. What it needs may be gone: then nothing happens."""
    try:
        ACTS[kind](world, node, app)
    except (ApiError, KeyError):
        world.note(f"actor: {kind} (nothing to do)")
    else:
        world.note(f"actor: {kind}, node {node}, app {app}")
