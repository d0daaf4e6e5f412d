"""What happens to the nodes and pods of a simulated cluster, from the changes in its store.

The cluster's own process takes these observations. No measured process takes part in them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

from kubesim.cluster import SimulatedCluster
from kubesim.eviction import is_ready
from kubesim.registry import FINISHED
from kubesim.resources import BUDGETS, DEPLOYMENTS, NODES, PODS, Obj
from kubesim.selectors import labels_of
from kubesim.store import Change, node_of


class Observations:
    """Counts since `forget`.

    A pod belongs to the Deployment and to the budget that its label `app` names. A budget must have
    `maxUnavailable` as a number.
    """

    def __init__(
        self, cluster: SimulatedCluster, now: Callable[[], float] = time.monotonic
    ) -> None:
        """`now`: seconds of any clock."""
        self._store = cluster.store
        self._now = now
        self._ready: dict[tuple[str, str], set[str]] = defaultdict(set)
        self._down_since: dict[tuple[str, str], float] = {}
        self._store.subscribe(self._note)
        self.forget()

    def forget(self) -> None:
        """Delete all observations. Deployments without a ready pod count from now on."""
        self._times: dict[str, dict[str, float]] = {"cordoned": {}, "accepted": {}, "gone": {}}
        self._lost: set[str] = set()
        self._short: set[str] = set()
        self._broken = 0
        self._down: dict[tuple[str, str], float] = defaultdict(float)
        for app in self._down_since:
            self._down_since[app] = self._now()

    def seen(self) -> dict[str, Any]:
        """Return what happened since `forget`.

        `cordoned`, `accepted` and `gone`: times by name. `accepted` is when a pod began to
        terminate. `lost`: pods that were gone while their containers ran. `short`: pods that were
        given less than their own grace. `broken`: ready pods that began to terminate and left fewer
        ready ones than their budget asks for. `down`: seconds without a ready pod by Deployment.
        """
        down = dict(self._down)
        for app, since in self._down_since.items():
            down[app] = down.get(app, 0.0) + self._now() - since
        return {
            **self._times,
            "lost": len(self._lost),
            "short": len(self._short),
            "broken": self._broken,
            "down": {name: seconds for (_, name), seconds in down.items()},
        }

    def _note(self, change: Change) -> None:
        if change.resource is NODES:
            self._note_node(change)
        elif change.resource is PODS:
            self._note_pod(change)

    def _note_node(self, change: Change) -> None:
        name = change.new["metadata"]["name"]
        if change.kind == "MODIFIED" and change.new["spec"].get("unschedulable"):
            self._times["cordoned"].setdefault(name, self._now())

    def _note_pod(self, change: Change) -> None:
        pod, metadata = change.new, change.new["metadata"]
        name = metadata["name"]
        was_ready = self._note_ready(change)
        if change.kind == "DELETED":
            self._times["gone"][name] = self._now()
            if node_of(pod) and (change.old or pod)["status"].get("phase") not in FINISHED:
                self._lost.add(name)
        elif "deletionTimestamp" in metadata:
            runs = pod["status"].get("phase") not in FINISHED
            own = pod["spec"]["terminationGracePeriodSeconds"]
            if runs and metadata["deletionGracePeriodSeconds"] < own:
                self._short.add(name)
            if name not in self._times["accepted"]:
                self._times["accepted"][name] = self._now()
                self._broken += was_ready and self._below_budget(_app(pod))

    def _note_ready(self, change: Change) -> bool:
        """Follow the ready pods of each Deployment. Returns whether the pod was one of them."""
        pod, app = change.new, _app(change.new)
        if not app[1]:
            return False
        ready, name = self._ready[app], pod["metadata"]["name"]
        was_ready = name in ready
        if (
            change.kind != "DELETED"
            and is_ready(pod)
            and "deletionTimestamp" not in pod["metadata"]
        ):
            ready.add(name)
            if app in self._down_since:
                self._down[app] += self._now() - self._down_since.pop(app)
        elif was_ready:
            ready.discard(name)
            if not ready:
                self._down_since[app] = self._now()
        return was_ready

    def _below_budget(self, app: tuple[str, str]) -> bool:
        budget = self._store.get(BUDGETS, *app)
        deployment = self._store.get(DEPLOYMENTS, *app)
        if budget is None or deployment is None:
            return False
        least: int = deployment["spec"]["replicas"] - budget["spec"]["maxUnavailable"]
        return len(self._ready[app]) < least


def _app(pod: Obj) -> tuple[str, str]:
    """Namespace and name of the pod's Deployment; the name is empty where it has none."""
    return pod["metadata"]["namespace"], labels_of(pod).get("app", "")
