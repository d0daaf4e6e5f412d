"""A drain by one who knows the day: how early could the node have been empty?

The planner lives the same day in a world of its own. It knows when each fault is over and how long
each pod takes to end, needs no list and no watch, and none of its requests is lost. It keeps the
rules of a drain: budgets, graces, system pods last, a DELETE no earlier than the rules allow. What
the shipped drain needs more than the planner is its regret. The shipped drain can be better in two
ways: by the order in which it uses up a budget (the planner takes the longest shutdown first), and
by a clock that is ahead or behind.
"""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field
from typing import Any

import httpx2
from msgspec import structs

from kubesim.resources import BUDGETS, PODS
from kubesim.store import Change
from kubesim.virtual import EPOCH, run_virtual
from simulation.drain import rules
from simulation.drain.days import Day, Delivery, Fault
from simulation.drain.events import KINDS
from simulation.drain.faults import FAULTS
from simulation.drain.function import START
from simulation.drain.rules import NOTICE, Obj, Window
from simulation.drain.world import World

_LEAST_WAIT = 0.001  # s: a timer may fire a rounding error before its time


def plan(day: Day) -> World:
    """The day as it goes with the planner instead of the function."""
    random.seed(0)
    return run_virtual(_live(day))


async def _live(day: Day) -> World:
    world = World(structs.replace(day, faults=[], aws_faults=[], kills=[], skew=0.0))
    async with world.cluster, world.cluster.client(timeout=None) as http:
        await world.begin()
        async with asyncio.TaskGroup() as running:
            for delivery in day.deliveries:
                if rules.drains(day, delivery):
                    running.create_task(_PlannedDrain(world, day, http, delivery).run())
    return world


@dataclass
class _PlannedDrain:
    """The planner's answer to one event."""

    world: World
    day: Day
    http: httpx2.AsyncClient
    delivery: Delivery
    window: Window = field(init=False)
    refused: dict[str, float] = field(default_factory=dict)
    """By a pod's UID: when a budget first refused it."""
    first: frozenset[str] | None = None
    """The UIDs of the pods that were on the node when it was first seen."""
    cordoned: bool = False

    async def run(self) -> None:
        """Drain until the deadline."""
        world = self.world
        await asyncio.sleep(world.start + self.delivery.at + START - world.now)
        given = math.floor(world.cluster.now() - START - self.delivery.age) - EPOCH
        if given + NOTICE <= world.now or world.state(self.delivery.node) != "running":
            return
        kind = KINDS[self.delivery.kind]
        self.window = rules.window(kind, started=world.now, given=given)
        changed = asyncio.Event()

        def note(change: Change) -> None:
            if change.resource in (PODS, BUDGETS):
                changed.set()

        unsubscribe = world.cluster.store.subscribe(note)
        try:
            while world.now < self.window.deadline:
                changed.clear()
                wake = min(await self._try(), self.window.deadline)
                try:
                    async with asyncio.timeout(max(_LEAST_WAIT, wake - world.now)):
                        await changed.wait()
                except TimeoutError:
                    continue
        finally:
            unsubscribe()

    @property
    def _node(self) -> str:
        return self.world.node_name(self.delivery.node)

    async def _try(self) -> float:
        """Do all that is possible now; returns when more may be, if nothing changes."""
        if self.world.cluster.get("nodes", self._node) is None:
            return self.world.now + 1
        wake = math.inf if self.cordoned else self._cordon()
        pods = [pod for pod in self.world.cluster.pods_on(self._node) if rules.has_to_go(pod)]
        if self.first is None:
            self.first = frozenset(pod["metadata"]["uid"] for pod in pods)
        if not self.cordoned:  # a replacement would start there as well
            pods = [pod for pod in pods if pod["metadata"]["uid"] in self.first]
        ordinary = any(not rules.is_system(pod) for pod in pods)
        for pod in sorted(pods, key=_ends_in, reverse=True):
            wait = ordinary and rules.is_system(pod)
            wake = min(wake, await self._remove(pod, wait_for_others=wait))
        return wake

    def _cordon(self) -> float:
        if (until := self._blocked("patch")) is not None:
            return until
        self.world.edit_node(self.delivery.node, spec=_cordoned)
        self.cordoned = True
        return math.inf

    async def _remove(self, pod: Obj, *, wait_for_others: bool) -> float:
        now, path = self.world.now, f"/api/v1/namespaces/default/pods/{pod['metadata']['name']}"
        own_last = self.window.end - rules.own_grace(pod)
        if "deletionTimestamp" in pod["metadata"]:
            if rules.stops_at(pod) <= self.window.deadline:
                return math.inf
            return await self._delete(path, pod, self.window.hard_end)
        if wait_for_others and now < own_last:
            return own_last
        blocked = self._blocked("evict")
        if blocked is None:
            eviction = {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": pod["metadata"]["name"], "namespace": "default"},
                "deleteOptions": self._options(pod),
            }
            answer = await self._send("POST", f"{path}/eviction", eviction)
            if answer.is_success:
                return math.inf
            retry_after = answer.headers.get("retry-after", "")
            if rules.budget_refused(answer.status_code, answer.text, retry_after):
                self.refused.setdefault(pod["metadata"]["uid"], now)
        wake = math.inf if blocked is None else blocked
        if self.day.settings.on_deadline == "leave":
            return wake
        refused = self.refused.get(pod["metadata"]["uid"], math.inf)
        due = rules.force_from(pod, self.window, refused=refused)
        return min(wake, await self._delete(path, pod, due))

    async def _delete(self, path: str, pod: Obj, due: float) -> float:
        """DELETE the pod where it is due; returns when to try again."""
        if self.world.now < due:
            return due
        if (until := self._blocked("delete")) is not None:
            return until
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **self._options(pod)}
        await self._send("DELETE", path, body)
        return self.world.now + 1

    def _options(self, pod: Obj) -> dict[str, Any]:
        fits = math.floor(self.window.end - self.world.now)
        grace = max(1, min(rules.own_grace(pod), fits))
        return {"gracePeriodSeconds": grace, "preconditions": {"uid": pod["metadata"]["uid"]}}

    def _blocked(self, target: str) -> float | None:
        """When a fault that refuses these requests for a time is over; None: none does now.

        A fault that meets a number of requests costs the planner nothing.
        """
        now, spans = self.world.now, []
        for fault in self.day.faults:
            begins = self.world.start + fault.at
            if _refuses(fault, target):
                spans.append((begins, begins + fault.seconds))
        return max((ends for begins, ends in spans if begins <= now < ends), default=None)

    async def _send(self, method: str, path: str, body: Obj) -> httpx2.Response:
        return await self.http.request(method, path, json=body)


def _refuses(fault: Fault, target: str) -> bool:
    return FAULTS[fault.kind].refuses and fault.target in (target, "any") and not fault.skip


def _cordoned(spec: Obj) -> Obj:
    others = [taint for taint in spec.get("taints") or () if taint["key"] != rules.DRAIN_KEY]
    taint = {"key": rules.DRAIN_KEY, "value": "true", "effect": "NoSchedule"}
    return {**spec, "unschedulable": True, "taints": [*others, taint]}


def _ends_in(pod: Obj) -> float:
    """Seconds that the pod takes to end once it is told."""
    text = (pod["metadata"].get("annotations") or {}).get("sandbox/shutdown-seconds", "1")
    grace = rules.own_grace(pod)
    return float(grace) if text == "never" else min(float(text), grace)
