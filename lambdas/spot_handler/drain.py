"""Evict → wait → force, against the deadline.

Each pod that has to go has a task of its own, which knows only this pod: one pod's trouble never
holds up another. What happens to the pods is learned from one watch, never by asking again.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from lambdas.common import backoff
from lambdas.common.clock import Clock
from lambdas.common.errors import ClusterForbiddenError, ClusterUnavailableError
from lambdas.spot_handler import evictions, pods
from lambdas.spot_handler.evictions import Verdict
from lambdas.spot_handler.kubernetes import ClusterApi, Pod, PodList
from lambdas.spot_handler.outcome import Left, Tally
from lambdas.spot_handler.pods import Wave
from lambdas.spot_handler.retry import retried

# s without a word from the watch before the pods are listed again. The kernel's keep-alive finds a
# dead peer sooner; this is for one that lives and says nothing.
WATCH_SILENCE = 45.0


@dataclass(frozen=True)
class Window:
    """The time a drain has, epoch seconds.

    end: when every grace is over. deadline: until when the drain may still look and act.
    """

    end: float
    deadline: float


@dataclass
class _Going:
    """A pod that has to go, as it was last seen."""

    pod: Pod
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    evicted: bool = False
    forced: bool = False
    unanswered: bool = False  # an eviction was sent and its answer lost: it may have been accepted
    hurried: bool = False
    held_by: str = ""
    given_up: bool = False  # nothing that we could do would end it: the drain does not wait for it

    @property
    def accepted(self) -> bool:
        return self.evicted or self.forced

    @property
    def terminating(self) -> bool:
        return self.accepted or self.pod.metadata.deletion_timestamp is not None

    @property
    def why_left(self) -> str:
        if self.accepted:
            return "still terminating: its containers, or a finalizer, outlast its grace"
        if self.terminating:
            return "still terminating: others deleted it"
        return self.held_by or "its turn never came"


class Drain:
    """One drain of one node. `run` it once."""

    def __init__(
        self,
        api: ClusterApi,
        node: str,
        window: Window,
        *,
        force: bool,
        concurrency: int,
        clock: Clock,
    ) -> None:
        self._api = api
        self._node = node
        self._window = window
        self._force = force
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks = asyncio.TaskGroup()
        self._workers: list[asyncio.Task[None]] = []
        self._going: dict[str, _Going] = {}
        self._skipped: dict[str, pods.Skip] = {}
        self._answers: Counter[str] = Counter()
        self._ordinary_gone = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._forbidden: ClusterForbiddenError | None = None

    async def run(self) -> Tally:
        """Drain until the node is empty or the deadline has come.

        Raises ClusterForbiddenError and ClusterUnauthorizedError where rights are missing, and
        ClusterUnavailableError where the pods could not even be listed.
        """
        try:
            async with self._tasks:
                page = await self._list()
                self._reconcile(page.items)
                watch = self._tasks.create_task(self._watch(page.metadata.resource_version))
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._window.deadline - self._clock.now()):
                        await self._until_empty()
                watch.cancel()
                for task in self._workers:
                    task.cancel()
        except ExceptionGroup as group:  # the first error is the one that stopped the others
            raise group.exceptions[0] from group
        if self._forbidden:
            raise self._forbidden
        return self._tally()

    async def _until_empty(self) -> None:
        """Until a fresh list shows no pod that has to go: one may have landed late."""
        while True:
            await self._all_gone.wait()
            if self._forbidden:
                return
            try:
                self._reconcile((await self._list()).items)
            except ClusterUnavailableError:
                return  # the watch has shown every pod end; only the second look is missing
            if self._all_gone.is_set():
                return

    # What is seen of the pods

    async def _list(self) -> PodList:
        return await retried(
            lambda: self._api.pods(self._node), until=self._window.deadline, clock=self._clock
        )

    async def _watch(self, resource_version: str) -> None:
        """Follow the pods; where the watch breaks, list again and go on from there."""
        failures = 0
        while True:
            stream = self._api.watch_pods(
                self._node,
                resource_version,
                seconds=self._window.deadline - self._clock.now(),
                silence=WATCH_SILENCE,
            )
            try:
                async with contextlib.aclosing(stream):
                    async for event in stream:
                        failures = 0
                        if event.type == "DELETED":
                            self._end(event.pod.uid)
                        else:
                            self._see(event.pod)
            except ClusterUnavailableError:
                await asyncio.sleep(backoff.delay(failures) if failures else 0)
                failures += 1
            try:
                page = await self._list()
            except ClusterUnavailableError:
                return  # no time for another try: what was not seen to end is left
            self._reconcile(page.items)
            resource_version = page.metadata.resource_version

    def _reconcile(self, listed: Iterable[Pod]) -> None:
        present = {pod.uid: pod for pod in listed}
        for uid in self._going.keys() - present.keys():
            self._end(uid)
        for pod in present.values():
            self._see(pod)
        self._note_progress()

    def _see(self, pod: Pod) -> None:
        going = self._going.get(pod.uid)
        if going is not None:
            going.pod = pod
            if pods.finished(pod):
                self._end(pod.uid)
            self._hurry_if_it_outlasts_us(going)
        elif pod.uid not in self._skipped:
            reason = pods.skip(pod)
            if reason is not None:
                self._skipped[pod.uid] = reason
                return
            self._going[pod.uid] = going = _Going(pod)
            self._note_progress()
            self._work(self._remove(going))
            self._hurry_if_it_outlasts_us(going)

    def _hurry_if_it_outlasts_us(self, going: _Going) -> None:
        """Somebody gave a terminating pod more time than the node has: give it what there is."""
        stops_at = pods.stops_at(going.pod)
        if stops_at is not None and stops_at > self._window.deadline and not going.hurried:
            going.hurried = True
            self._work(self._hurry(going))

    def _work(self, action: Coroutine[Any, Any, None]) -> None:
        self._workers.append(self._tasks.create_task(action))

    def _end(self, uid: str) -> None:
        if uid in self._going:
            self._going[uid].ended.set()
            self._note_progress()

    def _note_progress(self) -> None:
        waiting = {
            pods.wave(going.pod)
            for going in self._going.values()
            if not (going.ended.is_set() or going.given_up)
        }
        _set(self._ordinary_gone, Wave.ORDINARY not in waiting)
        _set(self._all_gone, not waiting)

    # What is done about one pod

    async def _remove(self, going: _Going) -> None:
        if pods.wave(going.pod) is Wave.SYSTEM:
            await self._wait_for_turn(going)
        attempt = 0
        while not (going.ended.is_set() or going.terminating or going.given_up):
            pause = await self._evict(going, attempt)
            await self._pause(going, pause)
            attempt += 1

    async def _wait_for_turn(self, going: _Going) -> None:
        """System pods wait for the ordinary ones, as long as their own grace still fits."""
        left = pods.last_moment(going.pod, end=self._window.end) - self._clock.now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await self._ordinary_gone.wait()

    async def _evict(self, going: _Going, attempt: int) -> float:
        """One try to have the pod stopped; the seconds to wait before the next one.

        A pod whose eviction was refused at least once is forced when its last moment has come.
        """
        last_moment = pods.last_moment(going.pod, end=self._window.end)
        force = self._force and attempt > 0 and self._clock.now() >= last_moment
        reading = await self._send(going, force=force)
        match reading.verdict:
            case Verdict.ACCEPTED:
                going.evicted, going.forced = not force, force
                return 0.0
            case Verdict.GONE:
                self._end(going.pod.uid)
                return 0.0
            case Verdict.FORBIDDEN:
                self._give_up(going, reading.reason)
                return 0.0
        going.held_by = reading.reason
        wait = backoff.delay(attempt, retry_after=reading.retry_after)
        if self._force and not force:
            return min(wait, max(0.0, last_moment - self._clock.now()))
        return wait

    async def _hurry(self, going: _Going) -> None:
        """Shorten the grace of a terminating pod."""
        attempt = 0
        while not (going.ended.is_set() or going.forced):
            reading = await self._send(going, force=True)
            match reading.verdict:
                case Verdict.ACCEPTED:
                    going.forced = True
                case Verdict.GONE:
                    self._end(going.pod.uid)
                case Verdict.FORBIDDEN:
                    self._give_up(going, reading.reason)
                    return
            await self._pause(going, backoff.delay(attempt, retry_after=reading.retry_after))
            attempt += 1

    def _give_up(self, going: _Going, reason: str) -> None:
        """RBAC refused this pod. Others may be in namespaces where it does not: it is raised when
        they are gone.
        """
        going.given_up = True
        going.held_by = reason
        self._forbidden = ClusterForbiddenError(
            "Apply manifests/spot-handler-rbac.yaml, and give the function's role the group "
            f"castai:spot-handler: {reason}"
        )
        self._note_progress()

    async def _send(self, going: _Going, *, force: bool) -> evictions.Reading:
        async with self._slots:
            grace = pods.grace(going.pod, now=self._clock.now(), end=self._window.end)
            try:
                if force:
                    return evictions.read(await self._api.delete(going.pod, grace=grace))
                answer = await self._api.evict(going.pod, grace=grace)
            except ClusterUnavailableError as error:
                self._answers["none"] += 1
                going.unanswered = True
                return evictions.Reading(Verdict.RETRY, str(error), error.retry_after)
        self._answers[str(answer.code)] += 1
        return evictions.read(answer)

    async def _pause(self, going: _Going, seconds: float) -> None:
        """Wait, but not for a pod that has ended meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await going.ended.wait()

    def _tally(self) -> Tally:
        tally = Tally(
            skipped=Counter(reason.value for reason in self._skipped.values()),
            answers=self._answers,
        )
        for going in self._going.values():
            if not going.ended.is_set():
                tally.left.append(Left(going.pod.name, going.why_left))
            elif going.forced:
                tally.forced += 1
            elif going.evicted or going.unanswered:
                tally.evicted += 1
            else:
                tally.gone += 1
        return tally


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
