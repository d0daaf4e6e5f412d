"""Budgets: how many pods may be evicted now."""

from __future__ import annotations

import math
from typing import Any

from kubesim.controllers.base import Controller, Key
from kubesim.eviction import disruption_allowed, is_ready, with_condition
from kubesim.registry import FINISHED, seconds_of
from kubesim.resources import BUDGETS, PODS, REPLICA_SETS, STATEFUL_SETS, Obj
from kubesim.selectors import labels_of, match_selector
from kubesim.store import Change

DELETION_TIMEOUT = 120.0
"""Seconds for which an evicted pod counts as disrupted if its deletion is not observed."""


class DisruptionController(Controller):
    """Writes the status of each budget."""

    name = "disruption"
    latency = 0.05

    def on_change(self, change: Change) -> None:
        metadata = change.new["metadata"]
        if change.resource is BUDGETS:
            if change.kind != "DELETED":
                self.enqueue((metadata["namespace"], metadata["name"]))
        elif change.resource is PODS:
            for budget in self.store.objects(BUDGETS, metadata["namespace"]):
                matches = match_selector(budget["spec"].get("selector"))
                if matches(labels_of(change.new)) or (
                    change.old and matches(labels_of(change.old))
                ):
                    self.enqueue((metadata["namespace"], budget["metadata"]["name"]))

    def sync(self, key: Key) -> None:
        budget = self.store.get(BUDGETS, *key)
        if budget is None:
            return
        matches = match_selector(budget["spec"].get("selector"))
        pods = [pod for pod in self.store.objects(PODS, key[0]) if matches(labels_of(pod))]
        disrupted = self._still_disrupted(budget, pods)
        unfinished = [pod for pod in pods if pod["status"].get("phase") not in FINISHED]
        healthy = sum(
            1
            for pod in unfinished
            if is_ready(pod)
            and "deletionTimestamp" not in pod["metadata"]
            and pod["metadata"]["name"] not in disrupted
        )
        expected, desired = self._desired(budget["spec"], unfinished)
        allowed = max(0, healthy - desired) if expected > 0 else 0
        self._write(budget, disrupted, allowed, (healthy, desired, expected))

    def _write(
        self, budget: Obj, disrupted: dict[str, str], allowed: int, counts: tuple[int, int, int]
    ) -> None:
        healthy, desired, expected = counts
        old = budget["status"]
        status: dict[str, Any] = {
            "observedGeneration": budget["metadata"]["generation"],
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "conditions": old.get("conditions", []),
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        condition = disruption_allowed(budget, self.registry.stamp(), allowed=allowed > 0)
        if any(c["status"] == condition["status"] for c in status["conditions"]):
            condition["lastTransitionTime"] = status["conditions"][0]["lastTransitionTime"]
        self.registry.set_status(BUDGETS, budget, with_condition(status, condition))

    def _still_disrupted(self, budget: Obj, pods: list[Obj]) -> dict[str, str]:
        """Pods whose eviction was granted and whose deletion is not observed yet."""
        present = {
            pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]
        }
        now = self.registry.now()
        still = {
            name: since
            for name, since in budget["status"].get("disruptedPods", {}).items()
            if name in present and now < seconds_of(since) + DELETION_TIMEOUT
        }
        if still:
            self.enqueue(
                (budget["metadata"]["namespace"], budget["metadata"]["name"]), DELETION_TIMEOUT
            )
        return still

    def _desired(self, spec: Obj, pods: list[Obj]) -> tuple[int, int]:
        """Expected pods, and how many of them must stay healthy."""
        if "maxUnavailable" in spec:
            expected = self._scale(pods)
            return expected, max(0, expected - _share(spec["maxUnavailable"], expected))
        least = spec.get("minAvailable", 1)
        expected = self._scale(pods) if isinstance(least, str) else len(pods)
        return expected, _share(least, expected)

    def _scale(self, pods: list[Obj]) -> int:
        """The sum of the replicas of these pods' controllers; a pod without one counts as 1."""
        wanted: dict[str, int] = {}
        for pod in pods:
            owner = next(
                (o for o in pod["metadata"].get("ownerReferences", ()) if o.get("controller")), None
            )
            resource = {"ReplicaSet": REPLICA_SETS, "StatefulSet": STATEFUL_SETS}.get(
                owner["kind"] if owner else ""
            )
            found = (
                self.store.get(resource, pod["metadata"]["namespace"], owner["name"])
                if resource and owner
                else None
            )
            uid = owner["uid"] if found and owner else pod["metadata"]["uid"]
            wanted[uid] = found["spec"].get("replicas", 1) if found else 1
        return sum(wanted.values())


def _share(value: int | str, of: int) -> int:
    """A number as it is; a percentage of `of`, rounded up."""
    if isinstance(value, str) and value.endswith("%"):
        return math.ceil(int(value[:-1]) * of / 100)
    return int(value)
