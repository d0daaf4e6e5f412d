"""Whether the castai-agent runs in a cluster, and a sentence that says why not.

It is read from the Deployment, its ReplicaSets and its pods.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import AGENT
from lambdas.common.text import cut, cut_front

_PULL: Final = frozenset(
    {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}
)
_OUT_OF_MEMORY: Final = "OOMKilled"
_LONGEST_NUMBER: Final = 20  # digits; a revision has 64 bits

Object = Mapping[str, Any]


@dataclass(frozen=True)
class AgentStatus:
    """The agent's state. `sentence` begins with what to do where there is something to do."""

    installed: bool
    available: bool
    sentence: str
    image: str = ""
    """Image of the agent's container, where there is one."""


def check(kube: Kube) -> AgentStatus:
    """Read the agent's state from the cluster.

    Raises the cluster's errors (ClusterUnauthorizedError, ClusterForbiddenError, …).
    """
    deployment = kube.get("apps/v1", "Deployment", AGENT, AGENT)
    if deployment is None:
        return diagnose(None, (), ())
    return diagnose(
        deployment,
        kube.list("apps/v1", "ReplicaSet", namespace=AGENT),
        kube.list("v1", "Pod", namespace=AGENT),
    )


def diagnose(
    deployment: Object | None, replica_sets: Sequence[Object], pods: Sequence[Object]
) -> AgentStatus:
    """The agent's state from the three kinds of objects. Pure.

    `replica_sets` and `pods` are all of the namespace; those of the Deployment's current generation
    count.
    """
    if deployment is None:
        return AgentStatus(
            installed=False,
            available=False,
            sentence="Connect the cluster first (`castai-eks connect`, or the agent's stack): "
            f"there is no Deployment {AGENT}/{AGENT}.",
        )
    image = _image(deployment)
    if _is_available(deployment):
        return AgentStatus(
            installed=True, available=True, sentence="The agent is available.", image=image
        )
    own = [each for each in replica_sets if _controls(deployment, each)]
    newest = max(own, key=_revision, default=None)
    mine = [each for each in pods if newest is not None and _controls(newest, each)]
    trouble = [*_of_deployment(deployment, newest), *(w for pod in mine for w in _of_pod(pod))]
    sentence = trouble[0] if trouble else "Wait: the agent is starting."
    return AgentStatus(installed=True, available=False, sentence=sentence, image=image)


def _is_available(deployment: Object) -> bool:
    """Whether the rollout is complete, by the rule of `kubectl rollout status`."""
    spec, status = deployment.get("spec") or {}, deployment.get("status") or {}
    wanted = spec.get("replicas", 1)
    return bool(
        status.get("observedGeneration", 0) >= deployment["metadata"].get("generation", 0)
        and wanted > 0
        and status.get("updatedReplicas", 0) >= wanted
        and status.get("availableReplicas", 0) >= wanted
        and status.get("replicas", 0) <= status.get("updatedReplicas", 0)
    )


def _of_deployment(deployment: Object, replica_set: Object | None) -> Iterator[str]:
    if (deployment.get("spec") or {}).get("replicas") == 0:
        yield "Scale the agent up: its Deployment has 0 replicas."
    for each in (replica_set, deployment):
        failure = _condition(each, "ReplicaFailure") if each else None
        if failure and failure.get("status") == "True":
            yield _refused_pods(str(failure.get("message", "")))


def _refused_pods(message: str) -> str:
    if "quota" in message:
        advice = "Raise or remove the quota that keeps the agent's pods out"
    elif "PodSecurity" in message or "violates" in message:
        advice = "Make the agent's pods fit the namespace's Pod Security level"
    elif "webhook" in message:
        advice = "Let the admission webhook accept the agent's pods"
    else:
        advice = "Let the agent's pods be created"
    return f"{advice}: {cut(message)}"


def _of_pod(pod: Object) -> Iterator[str]:
    name = pod["metadata"]["name"]
    status = pod.get("status") or {}
    scheduled = _condition(pod, "PodScheduled")
    if scheduled and scheduled.get("status") == "False":
        yield (
            "Make room for the agent, or check its nodeSelector and tolerations: pod "
            f"{name} cannot be scheduled: {cut(scheduled.get('message', ''))}"
        )
    states = [
        *(status.get("initContainerStatuses") or ()),
        *(status.get("containerStatuses") or ()),
    ]
    for each in states:
        yield from _of_container(name, each)


def _of_container(pod: str, status: Object) -> Iterator[str]:
    where = f"container {status.get('name')} of pod {pod}"
    state = status.get("state") or {}
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason", "")), str(waiting.get("message", ""))
    ended = state.get("terminated") or (status.get("lastState") or {}).get("terminated") or {}
    if reason in _PULL:
        yield (
            f"Check the image and how nodes reach its registry: {where} cannot pull "
            f"{cut(status.get('image'))}: {cut(message)}"
        )
    elif reason in {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}:
        yield f"Correct what the container needs: {where} cannot start: {cut(message)}"
    elif ended and (reason == "CrashLoopBackOff" or not status.get("ready")):
        yield _crash(where, ended)


def _crash(where: str, ended: Object) -> str:
    """Why a container ended. The message is the end of its log, by terminationMessagePolicy."""
    message = str(ended.get("message", ""))
    if ended.get("reason") == _OUT_OF_MEMORY:
        return f"Give the agent more memory: {where} was killed for using more than its limit."
    if "401" in message or "unauthorized" in message.lower():
        return (
            "Put a valid CAST AI API key into the secret, and change KeyVersion: CAST AI answered "
            f"{where} with 401."
        )
    last = cut_front(message.strip().splitlines()[-1]) if message.strip() else "it left no message"
    return (
        f"Look at the agent's log (kubectl logs -n {AGENT} deployment/{AGENT} "
        f"--previous): {where} ended with code {ended.get('exitCode')}: {last}"
    )


def _condition(obj: Object, kind: str) -> Object | None:
    for each in (obj.get("status") or {}).get("conditions") or ():
        if each.get("type") == kind:
            return dict(each)
    return None


def _controls(owner: Object, obj: Object) -> bool:
    return any(
        reference.get("controller") and reference.get("uid") == owner["metadata"].get("uid")
        for reference in obj["metadata"].get("ownerReferences") or ()
    )


def _revision(replica_set: Object) -> int:
    annotations = replica_set["metadata"].get("annotations") or {}
    revision = str(annotations.get("deployment.kubernetes.io/revision", "0"))
    return int(revision) if revision.isdecimal() and len(revision) < _LONGEST_NUMBER else 0


def _image(deployment: Object) -> str:
    pod = ((deployment.get("spec") or {}).get("template") or {}).get("spec") or {}
    for container in pod.get("containers") or ():
        if container.get("name") == "agent":
            return str(container.get("image", ""))
    return ""
