"""What others do to the agent's objects and its namespace, between CloudFormation's requests.

As in a real cluster, every write has a field manager. The promises: what others own stays, a
request that would change a field of theirs is refused as a whole, and what we own and they removed
is restored by the next request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import partial
from typing import Any, Final

from kubesim import resources
from kubesim.registry import Write
from lambdas.common.names import AGENT
from simulation.resources.edits import EDITS, Edit
from simulation.resources.facts import FOREIGN, KINDS, OTHERS_NAMESPACE
from simulation.resources.world import Place, World

Object = dict[str, Any]

CONTEST: Final = f"{FOREIGN}-contest"
"""The field manager of writes to fields that are ours."""
ADDITION: Final = f"{FOREIGN}-addition"
"""The field manager of other writes."""
FINALIZER: Final = f"{FOREIGN}.example/hold"


def _write(manager: str, kind: str, name: str, change: Callable[[Object], None]) -> Edit:
    """Change an object, as with `kubectl edit`."""

    def edit(world: World, place: Place) -> None:
        namespace = "" if kind in {"ClusterRole", "Namespace"} else AGENT
        found = world.kubernetes[place].get(kind, name, namespace)
        if found is not None and "deletionTimestamp" not in found["metadata"]:
            _put(world, place, found, change, manager)

    return Edit(edit, drifts=manager == "")


def _put(
    world: World, place: Place, found: Object, change: Callable[[Object], None], manager: str
) -> None:
    cluster, resource = world.kubernetes[place], resources.of(found)
    changed = deepcopy(found)
    change(changed)
    write = Write(manager=manager or ADDITION)
    old = cluster.registry.get(
        resource, found["metadata"].get("namespace", ""), found["metadata"]["name"]
    )
    world.act(partial(cluster.registry.update, resource, old, changed, write))


def _agent(deployment: Object) -> Object:
    """The agent's container."""
    containers: list[Object] = deployment["spec"]["template"]["spec"]["containers"]
    return containers[0]


def _scale(deployment: Object) -> None:
    deployment["spec"]["replicas"] = 5 - deployment["spec"]["replicas"]


def _change_image(deployment: Object) -> None:
    _agent(deployment)["image"] = f"registry.invalid/{FOREIGN}/agent:v1"


def _change_command(deployment: Object) -> None:
    for container in deployment["spec"]["template"]["spec"]["containers"]:
        if "command" in container:
            container["command"] = ["/cpvpa", f"--{FOREIGN}"]


def _change_label(deployment: Object) -> None:
    deployment["metadata"]["labels"]["app.kubernetes.io/name"] = FOREIGN


def _change_data(config_map: Object) -> None:
    config_map["data"] = dict.fromkeys(config_map["data"], f'{{"by": "{FOREIGN}"}}')


def _add_rule(role: Object) -> None:
    rules = role.get("rules") or []
    role["rules"] = [*rules, {"apiGroups": [FOREIGN], "resources": ["pods"], "verbs": ["get"]}]


def _add_variable(deployment: Object) -> None:
    env = _agent(deployment)["env"]
    if all(each["name"] != FOREIGN for each in env):
        env.append({"name": FOREIGN, "value": "1"})


def _remove_variable(deployment: Object) -> None:
    container = _agent(deployment)
    container["env"] = [each for each in container["env"] if each["name"] != "PROVIDER"]


def _annotate(obj: Object) -> None:
    metadata = obj["metadata"]
    metadata["annotations"] = {**(metadata.get("annotations") or {}), FOREIGN: "cost"}


def _label(obj: Object) -> None:
    metadata = obj["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), FOREIGN: "cost"}


def _hold(obj: Object) -> None:
    obj["metadata"]["finalizers"] = [FINALIZER]


def _forces(world: World, place: Place) -> None:
    """Apply a number of replicas and an image with force, as a GitOps controller does."""
    cluster = world.kubernetes[place]
    found = cluster.get("Deployment", AGENT, AGENT)
    if found is None or "deletionTimestamp" in found["metadata"]:
        return
    containers = [{"name": "agent", "image": f"registry.invalid/{FOREIGN}/agent:v2"}]
    body = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": AGENT, "namespace": AGENT},
        "spec": {"replicas": 2, "template": {"spec": {"containers": containers}}},
    }
    apply = partial(cluster.registry.apply, resources.of(body), AGENT, AGENT, body, force=True)
    world.act(partial(apply, Write(manager=CONTEST)))


def _deletes(kind: str, namespace: str, seconds: float = 60.0) -> Edit:
    """Delete our objects of a kind. `seconds`: how long it is until the next request."""

    def delete(world: World, place: Place) -> None:
        cluster = world.kubernetes[place]
        for obj in cluster.list(kind, namespace):
            if AGENT in obj["metadata"]["name"] and FOREIGN not in obj["metadata"]["name"]:
                world.act(partial(cluster.delete, kind, obj["metadata"]["name"], namespace))
        world.sleep(seconds)

    return Edit(delete, drifts=True)


def _makes(api_version: str, kind: str, **body: Any) -> Edit:
    """Make an object of their own; in the agent's namespace, where the kind has one."""
    name = f"{FOREIGN}-{AGENT}"

    def make(world: World, place: Place) -> None:
        cluster = world.kubernetes[place]
        namespace = "" if kind == "ClusterRoleBinding" else AGENT
        space = cluster.get("Namespace", AGENT)
        usable = space is not None and "deletionTimestamp" not in space["metadata"]
        if cluster.get(kind, name, namespace) is not None or (namespace and not usable):
            return
        metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
        obj = {"apiVersion": api_version, "kind": kind, "metadata": metadata, **body}
        world.act(partial(cluster.create, obj))

    return Edit(make)


def _makes_the_namespace(world: World, place: Place) -> None:
    cluster = world.kubernetes[place]
    if cluster.get("Namespace", AGENT) is None:
        metadata = {"name": AGENT, "annotations": {OTHERS_NAMESPACE: "platform"}}
        obj = {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}
        world.act(partial(cluster.create, obj))


_RBAC: Final = "rbac.authorization.k8s.io"
_AUTOSCALER: Final = "castai-agent-autoscaler"
AGENT_EDITS: Final = {
    "maps a role in aws-auth": EDITS["maps a role in aws-auth"],
    "gives a role access": EDITS["gives a role access"],
    # Fields and objects of their own.
    "labels the Deployment": _write(ADDITION, "Deployment", AGENT, _label),
    "labels the ClusterRole": _write(ADDITION, "ClusterRole", AGENT, _label),
    "annotates the namespace": _write(ADDITION, "Namespace", AGENT, _annotate),
    "adds a variable": _write(ADDITION, "Deployment", AGENT, _add_variable),
    "makes the namespace": Edit(_makes_the_namespace),
    "adds a ConfigMap": _makes("v1", "ConfigMap", data={"a": "1"}),
    "adds a Service": _makes("v1", "Service", spec={"ports": [{"port": 80}]}),
    "adds a quota": _makes("v1", "ResourceQuota", spec={"hard": {"services": "9"}}),
    "adds a budget": _makes("policy/v1", "PodDisruptionBudget", spec={"maxUnavailable": 1}),
    "binds a ClusterRole to the agent": _makes(
        f"{_RBAC}/v1",
        "ClusterRoleBinding",
        roleRef={"apiGroup": _RBAC, "kind": "ClusterRole", "name": "view"},
        subjects=[{"kind": "ServiceAccount", "name": AGENT, "namespace": AGENT}],
    ),
    # Fields of ours.
    "scales the Deployment": _write(CONTEST, "Deployment", AGENT, _scale),
    "changes the image": _write(CONTEST, "Deployment", AGENT, _change_image),
    "changes the command": _write(CONTEST, "Deployment", AGENT, _change_command),
    "changes a label": _write(CONTEST, "Deployment", AGENT, _change_label),
    "changes the autoscaler's data": _write(CONTEST, "ConfigMap", _AUTOSCALER, _change_data),
    "adds a rule": _write(CONTEST, "ClusterRole", AGENT, _add_rule),
    "forces fields": Edit(_forces),
    # What blocks a removal.
    "holds the Deployment": _write(ADDITION, "Deployment", AGENT, _hold),
    "holds the Secret": _write(ADDITION, "Secret", AGENT, _hold),
    # What is ours goes.
    "removes a variable": _write("", "Deployment", AGENT, _remove_variable),
    "deletes the Deployment": _deletes("Deployment", AGENT),
    "deletes the Secret": _deletes("Secret", AGENT),
    "deletes the ServiceAccount": _deletes("ServiceAccount", AGENT),
    "deletes the Role": _deletes("Role", AGENT),
    "deletes the ClusterRole": _deletes("ClusterRole", ""),
    "deletes the ClusterRoleBinding": _deletes("ClusterRoleBinding", ""),
    "deletes the namespace": _deletes("Namespace", ""),
    "begins to delete the namespace": _deletes("Namespace", "", 1.0),
}
"""The kinds of edits. The next kind is a row."""


def _contested(world: World) -> Iterator[tuple[Place, Object]]:
    """Objects of which others own a field that was ours, and those that their finalizer holds."""
    for place, cluster in world.kubernetes.items():
        for kind, namespace in KINDS:
            for obj in cluster.list(kind, namespace):
                metadata = obj["metadata"]
                managers = [each["manager"] for each in metadata.get("managedFields") or ()]
                held = FINALIZER in (metadata.get("finalizers") or ())
                if CONTEST in managers or (held and "deletionTimestamp" in metadata):
                    yield place, obj


def obstacles(world: World) -> set[Place]:
    """Clusters where a request may have to refuse."""
    return {place for place, _ in _contested(world)}


def clear_obstacles(world: World) -> None:
    """Do what the function's refusals ask for: release the fields, and take the finalizers off."""

    def release(obj: Object) -> None:
        metadata = obj["metadata"]
        managers = metadata.get("managedFields") or ()
        metadata["managedFields"] = [each for each in managers if each["manager"] != CONTEST]
        metadata.pop("finalizers", None)

    for place, obj in list(_contested(world)):
        changed = deepcopy(obj)
        release(changed)
        world.act(partial(world.kubernetes[place].set, changed))
    world.sleep(60)
