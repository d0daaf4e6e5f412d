"""The timeline of a drain: what happens to a node's pods, from watch events.

Pure: no calls to the cluster. The demo shows the timeline. The tests compare the handler's result
with it.
"""

import dataclasses
from collections.abc import Iterable, Iterator
from enum import StrEnum

from lightkube.models.meta_v1 import OwnerReference
from lightkube.resources.core_v1 import Node, Pod
from lightkube.resources.policy_v1 import PodDisruptionBudget

from sandbox.kubernetes import ready

EVICTED_REASON = "EvictionByEvictionAPI"  # of the DisruptionTarget condition


class PodState(StrEnum):
    """The state of a pod during a drain."""

    RUNNING = "running"
    EVICTED = "evicted"  # terminating by an eviction
    FORCED = "forced"  # terminating by a deletion past its budget
    GONE = "gone"


@dataclasses.dataclass
class PodProgress:
    """A pod that was on the node at the beginning, or was bound to it later."""

    name: str
    """Namespace/name."""
    uid: str
    owner: str
    """Uid of its controller, "" for a bare pod."""
    stays: str
    """Why a drain leaves it on the node, "" if the drain must evict it."""
    state: PodState = PodState.RUNNING
    forced: bool = False
    left_at: float | None = None
    """Epoch seconds of the first event with a deletionTimestamp."""
    gone_at: float | None = None
    replacement: str = ""
    replacement_uid: str = ""
    replacement_node: str = ""
    replacement_ready: bool = False


@dataclasses.dataclass
class Line:
    """One line of the timeline."""

    at: float
    """Epoch seconds."""
    text: str


@dataclasses.dataclass
class Budget:
    """A budget's last status."""

    name: str
    healthy: int = 0
    desired: int = 0
    allowed: int = 0


class Timeline:
    """The timeline of one node."""

    def __init__(self, node: str) -> None:
        self.node = node
        self.pods: dict[str, PodProgress] = {}
        self.budgets: dict[str, Budget] = {}
        self.lines: list[Line] = []
        self.cordoned_at: float | None = None
        self.began = False
        self._unclaimed: dict[str, list[PodProgress]] = {}
        self._elsewhere: set[str] = set()  # uids of pods that were never on the node

    def begin(self) -> None:
        """Record changes from now on. Events before are the initial state."""
        self.began = True

    def node_changed(self, node: Node, now: float) -> None:
        """Handle an event of the watch on nodes."""
        if node.metadata is None or node.metadata.name != self.node or node.spec is None:
            return
        if node.spec.unschedulable and self.cordoned_at is None:
            self.cordoned_at = now
            self._add_line(now, "node cordoned and tainted")

    def budget_changed(self, budget: PodDisruptionBudget, now: float) -> None:
        """Handle an event of the watch on budgets."""
        metadata, status = budget.metadata, budget.status
        if metadata is None or status is None:
            return
        name = f"{metadata.namespace}/{metadata.name}"
        found = Budget(
            name,
            status.currentHealthy or 0,
            status.desiredHealthy or 0,
            status.disruptionsAllowed or 0,
        )
        before = self.budgets.get(name)
        self.budgets[name] = found
        if before is None or before.allowed == found.allowed:
            return
        if found.allowed:
            state = f"{found.healthy} ready, {found.desired} required"
            self._add_line(now, f"budget {name}, evictions allowed: {found.allowed} ({state})")
        else:
            state = f"{found.desired} must stay ready"
            self._add_line(now, f"budget {name}, evictions allowed: 0 ({state})")

    def pod_changed(self, pod: Pod, now: float, *, deleted: bool = False) -> None:
        """Handle an event of the watch on pods."""
        if pod.metadata is None or pod.metadata.uid is None or pod.spec is None:
            return
        ours = self.pods.get(pod.metadata.uid)
        if ours is None and pod.spec.nodeName == self.node and not deleted:
            ours = self._arrived(pod, now)
        if ours is not None:
            self._moved(ours, pod, now, deleted=deleted)
        elif not deleted:
            first_sight = pod.metadata.uid not in self._elsewhere
            self._elsewhere.add(pod.metadata.uid)
            if self.began:
                self._record_replacement(pod, now, may_claim=first_sight)

    def pods_listed(self, pods: Iterable[Pod], now: float) -> None:
        """Handle a list of all pods after a broken watch: pods that are not in it are gone."""
        listed = list(pods)
        uids = {pod.metadata.uid for pod in listed if pod.metadata}
        for progress in self.pods.values():
            if progress.uid not in uids and progress.state is not PodState.GONE:
                self._gone(progress, now)
        for pod in listed:
            self.pod_changed(pod, now)

    @property
    def leaving(self) -> list[PodProgress]:
        """Pods that the drain must evict or has evicted or forced, by name."""
        return sorted((pod for pod in self.pods.values() if not pod.stays), key=_by_name)

    @property
    def staying(self) -> list[PodProgress]:
        """Pods that a drain leaves on the node, by name."""
        return sorted((pod for pod in self.pods.values() if pod.stays), key=_by_name)

    def count(self) -> tuple[int, int, int]:
        """Return the numbers of pods evicted, forced and left."""
        leaving = self.leaving
        forced = sum(pod.forced for pod in leaving)
        left = sum(pod.state is PodState.RUNNING for pod in leaving)
        return len(leaving) - forced - left, forced, left

    def empty(self) -> bool:
        """Return whether every leaving pod is gone."""
        return all(pod.state is PodState.GONE for pod in self.leaving)

    def settled(self) -> bool:
        """Return whether all leaving pods are gone and all controllers' pods are replaced."""
        return self.empty() and all(pod.replacement_ready for pod in self.leaving if pod.owner)

    def lost(self) -> list[str]:
        """Return the controllers' pods that have no ready replacement."""
        return [pod.name for pod in self.leaving if pod.owner and not pod.replacement_ready]

    def _arrived(self, pod: Pod, now: float) -> PodProgress:
        name, uid = _name(pod), pod.metadata.uid or ""  # type: ignore[union-attr] # checked by the caller
        controller = _controller(pod)
        progress = PodProgress(
            name, uid, controller.uid if controller else "", _stays(pod, controller)
        )
        self.pods[uid] = progress
        if self.began:
            self._add_line(now, f"{name} bound to the node")
        return progress

    def _moved(self, progress: PodProgress, pod: Pod, now: float, *, deleted: bool) -> None:
        terminating = pod.metadata is not None and pod.metadata.deletionTimestamp is not None
        if terminating and progress.state is PodState.RUNNING:
            evicted = any(
                condition.type == "DisruptionTarget" and condition.reason == EVICTED_REASON
                for condition in (pod.status and pod.status.conditions) or ()
            )
            progress.state = PodState.EVICTED if evicted else PodState.FORCED
            progress.forced = not evicted
            progress.left_at = now
            if progress.owner:
                self._unclaimed.setdefault(progress.owner, []).append(progress)
            self._add_line(
                now, f"{progress.name} {'evicted' if evicted else 'deleted past its budget'}"
            )
        if deleted and progress.state is not PodState.GONE:
            self._gone(progress, now)

    def _gone(self, progress: PodProgress, now: float) -> None:
        if progress.state is PodState.RUNNING and progress.owner:  # its end was not seen
            self._unclaimed.setdefault(progress.owner, []).append(progress)
        progress.state = PodState.GONE
        progress.gone_at = now
        self._add_line(now, f"{progress.name} gone")

    def _record_replacement(self, pod: Pod, now: float, *, may_claim: bool) -> None:
        """Record a pod elsewhere as the replacement of its controller's first unreplaced pod."""
        controller = _controller(pod)
        uid = pod.metadata.uid if pod.metadata else None
        if controller is None or uid is None:
            return
        waiting = [progress for progress in self.pods.values() if progress.replacement_uid == uid]
        if not waiting and may_claim and self._unclaimed.get(controller.uid):
            waiting = [self._unclaimed[controller.uid].pop(0)]
        for progress in waiting:
            progress.replacement, progress.replacement_uid = _name(pod), uid
            progress.replacement_node = (pod.spec and pod.spec.nodeName) or ""
            if ready(pod) and not progress.replacement_ready:
                progress.replacement_ready = True
                self._add_line(now, f"{progress.replacement} ready on {progress.replacement_node}")

    def _add_line(self, now: float, text: str) -> None:
        if self.began:
            self.lines.append(Line(now, text))


def since(lines: Iterable[Line], start: float) -> Iterator[str]:
    """Yield timeline lines with seconds since ``start``."""
    for line in lines:
        yield f"{line.at - start:6.1f} s  {line.text}"


def _name(pod: Pod) -> str:
    return f"{pod.metadata.namespace}/{pod.metadata.name}" if pod.metadata else ""


def _by_name(progress: PodProgress) -> str:
    return progress.name


def _controller(pod: Pod) -> OwnerReference | None:
    owners = (pod.metadata and pod.metadata.ownerReferences) or ()
    return next((owner for owner in owners if owner.controller), None)


def _stays(pod: Pod, controller: OwnerReference | None) -> str:
    """Return why a drain leaves the pod. A check: it must not share the handler's code."""
    annotations = (pod.metadata and pod.metadata.annotations) or {}
    if "kubernetes.io/config.mirror" in annotations:
        return "static pod"
    if controller is not None and controller.kind == "DaemonSet":
        return "DaemonSet"
    if pod.status is not None and pod.status.phase in ("Succeeded", "Failed"):
        return "finished"
    return ""
