"""Evict → wait → force, against the deadline.

Each pod that has to go has a task of its own, which knows only this pod: one pod
never delays another. One watch shows what happens to the pods. What has to be
certain comes from a list that was sent after the question came up: an answer about one pod may be a
proxy's, and a list may be older than what the watch has reported.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import math
from collections import Counter
from collections.abc import Collection, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from lambdas.common import retry
from lambdas.common.clock import Clock
from lambdas.common.errors import ClusterForbiddenError, ClusterUnavailableError
from lambdas.common.names import SPOT_HANDLER_GROUP
from lambdas.spot_handler import evictions, pods
from lambdas.spot_handler.evictions import EvictionAnswer, Verdict
from lambdas.spot_handler.node_api import NodeApi, PodList
from lambdas.spot_handler.objects import Pod
from lambdas.spot_handler.pods import Wave
from lambdas.spot_handler.result import PodCounts, RemainingPod

# s without a word from the watch before the pods are listed again. The kernel's keep-alive finds a
# dead peer sooner; this is for one that lives and says nothing.
WATCH_SILENCE = 45.0
# s after the cordon until which a pod may still land: the scheduler chose the node before it, and
# binds after volumes, which takes seconds.
SETTLING = 3.0
# The part of the time left for which a budget's refusal is respected before it is overridden, also
# where the pod's grace does not fit any more: the replacement of another replica may become ready.
RESPECTED = 0.5
# s before the end of the window from when on any refusal is overridden, not only a budget's.
HARD_END = 30.0
# s past its grace after which a terminating pod is not waited for: a finalizer, or a kubelet that
# is gone, may keep it for ever.
STUCK = 30.0
_REFUSALS = frozenset({Verdict.BLOCKED, Verdict.RETRY, Verdict.REFUSED})


@dataclass(frozen=True)
class Window:
    """The time a drain has, epoch seconds.

    start: when it begins. end: when every grace is over. deadline: until when the drain may still
    look and act.
    """

    start: float
    end: float
    deadline: float

    @property
    def hard_end(self) -> float:
        """From when on any refusal is overridden; a short window keeps a half for asking."""
        return max(self.end - HARD_END, _part(self.start, self.end))


@dataclass
class PodDrain:
    """A pod that has to go, as it was last seen."""

    pod: Pod
    late: bool = False
    """It landed after the drain's first list."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    evicted: bool = False
    forced: bool = False
    # Sent, and the answer is lost: it may have been accepted.
    evicted_in_doubt: bool = False
    forced_in_doubt: bool = False
    shortened: bool = False
    given_up: bool = False
    """Nothing that we could do would end it: the drain does not wait for it."""
    blocked_by: str = ""
    blocked: bool = False
    """The last answer to its eviction was a budget's refusal."""
    blocked_since: float = math.inf

    @property
    def accepted(self) -> bool:
        return self.evicted or self.forced

    @property
    def terminating(self) -> bool:
        return self.accepted or self.pod.metadata.deletion_timestamp is not None

    @property
    def waited_for(self) -> bool:
        return not (self.ended.is_set() or self.given_up)

    @property
    def why_left(self) -> str:
        if self.terminating:
            if self.accepted or self.evicted_in_doubt or self.forced_in_doubt:
                return "still terminating: its containers, or a finalizer, outlast its grace"
            return "still terminating: others deleted it"
        return self.blocked_by or "not evicted before the deadline"

    def refused(self, reading: EvictionAnswer, *, now: float) -> None:
        """Note why the pod was not evicted."""
        self.blocked_by = reading.reason
        self.blocked = reading.verdict is Verdict.BLOCKED
        if self.blocked:
            self.blocked_since = min(self.blocked_since, now)


class Drain:
    """One drain of one node. `run` it once."""

    def __init__(
        self,
        api: NodeApi,
        node: str,
        window: Window,
        *,
        cordoning: asyncio.Task[float | None],
        force: bool,
        concurrency: int,
        clock: Clock,
    ) -> None:
        """`cordoning` results in the moment of the cordon (epoch seconds), or None where the node
        is gone; it may still be under way, and it may fail.
        """
        self._api = api
        self._node = node
        self._window = window
        self._cordoning = cordoning
        self._force = force
        self._clock = clock
        self._slots = asyncio.Semaphore(concurrency)
        self._tasks = asyncio.TaskGroup()
        self._workers: list[asyncio.Task[None]] = []
        self._going: dict[str, PodDrain] = {}
        self._skipped: dict[str, pods.Skip] = {}
        self._answers: Counter[str] = Counter()
        self._ordinary_gone = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._emptied_at: float | None = None
        self._unconfirmed = "no list showed the node empty before the deadline"
        self._forbidden: ClusterForbiddenError | None = None
        self._looking = asyncio.Lock()
        self._order = itertools.count(1)
        self._looked = 0  # the place in the order at which the last answered list was sent
        self._page: PodList | None = None

    async def run(self) -> PodCounts:
        """Drain until the node is empty or the deadline has come.

        Raises ClusterForbiddenError and ClusterUnauthorizedError where rights are missing, and
        ClusterUnavailableError where the pods could not even be listed.
        """
        try:
            async with self._tasks:
                page = await self._look()
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
        return self._counts()

    async def _until_empty(self) -> None:
        """Until a list that was sent after the last change shows no pod that has to go."""
        settled = False
        for attempt in itertools.count():
            await self._all_gone.wait()
            if any(going.given_up and not going.ended.is_set() for going in self._going.values()):
                return
            if not settled:
                await self._settled()
                settled = True
                continue
            known = len(self._going)
            try:
                page = await self._look()
            except ClusterUnavailableError as error:
                self._unconfirmed = f"the last list was not answered: {error}"
                return
            if len(self._going) == known and all(pods.skip(pod) for pod in page.items):
                self._unconfirmed = ""
                return
            await asyncio.sleep(retry.delay(attempt))

    async def _settled(self) -> None:
        """Until no binding from before the cordon can land any more."""
        if await self._is_cordoned():
            cordoned_at = self._cordoning.result()
            if cordoned_at is not None:
                await asyncio.sleep(max(0.0, cordoned_at + SETTLING - self._clock.now()))

    async def _is_cordoned(self) -> bool:
        """Wait for the cordon; False where it failed for good."""
        await asyncio.wait([self._cordoning])
        return is_cordoned(self._cordoning)

    # What is seen of the pods

    async def _look(self) -> PodList:
        """The pods by a list that is sent after this call; calls at the same time share one.

        Raises ClusterUnavailableError when the time is used up.
        """
        asked = next(self._order)
        async with self._looking:
            if self._page is None or self._looked < asked:
                sent = next(self._order)
                known = frozenset(self._going)
                page = await retry.call_async(
                    lambda: self._api.pods(self._node),
                    until=self._window.deadline,
                    clock=self._clock,
                )
                self._reconcile(page.items, known)
                self._looked, self._page = sent, page
            return self._page

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
                await asyncio.sleep(retry.delay(failures) if failures else 0)
                failures += 1
            try:
                page = await self._look()
            except ClusterUnavailableError:
                return  # no time for another try: what was not seen to end is left
            resource_version = page.metadata.resource_version

    def _reconcile(self, listed: Iterable[Pod], known: Collection[str]) -> None:
        """Take in a list. It ends only pods that were `known` before it was sent: a younger pod
        that it does not show may have landed since.
        """
        present = {pod.uid: pod for pod in listed}
        for uid in known - present.keys():
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
            self._shorten_grace_if_too_long(going)
        elif pod.uid not in self._skipped:
            reason = pods.skip(pod)
            if reason is not None:
                self._skipped[pod.uid] = reason
                return
            self._going[pod.uid] = going = PodDrain(pod, late=self._page is not None)
            self._note_progress()
            self._work(self._remove(going))
            self._shorten_grace_if_too_long(going)

    def _shorten_grace_if_too_long(self, going: PodDrain) -> None:
        """Shorten the grace of a terminating pod to the time that the node has."""
        if self._outlasts_the_node(going) and not going.shortened:
            going.shortened = True
            self._work(self._shorten_grace(going))

    def _outlasts_the_node(self, going: PodDrain) -> bool:
        stops_at = pods.stops_at(going.pod)
        return stops_at is not None and stops_at > self._window.deadline

    def _work(self, action: Coroutine[Any, Any, None]) -> None:
        self._workers.append(self._tasks.create_task(action))

    def _end(self, uid: str) -> None:
        if uid in self._going:
            self._going[uid].ended.set()
            self._note_progress()

    def _note_progress(self) -> None:
        waiting = {pods.wave(going.pod) for going in self._going.values() if going.waited_for}
        _set(self._ordinary_gone, Wave.ORDINARY not in waiting)
        if not waiting and not self._all_gone.is_set():
            self._emptied_at = self._clock.now()
        _set(self._all_gone, not waiting)

    # What is done about one pod

    async def _remove(self, going: PodDrain) -> None:
        if going.late and not await self._is_cordoned():
            # Evicted, its replacement would land here as well, and so on until the deadline.
            self._give_up(going, "landed on the node, which could not be cordoned")
            return
        if pods.wave(going.pod) is Wave.SYSTEM:
            await self._wait_for_turn(going)
        attempt = 0
        while going.waited_for and not going.terminating:
            pause = await self._evict(going, attempt)
            await self._pause(going, pause)
            attempt += 1
        await self._wait_while_terminating(going)

    async def _wait_for_turn(self, going: PodDrain) -> None:
        """System pods wait for the ordinary ones, as long as their own grace still fits."""
        left = pods.last_moment(going.pod, end=self._window.end) - self._clock.now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await self._ordinary_gone.wait()

    async def _evict(self, going: PodDrain, attempt: int) -> float:
        """One try to have the pod stopped; the seconds to wait before the next one.

        A refused eviction is followed by a DELETE once the pod's time has come.
        """
        reading = await self._send(going, force=False)
        if reading.verdict in _REFUSALS:
            going.refused(reading, now=self._clock.now())
            due = self._clock.now() >= self._force_from(going)
            if self._force and due and not going.terminating:
                reading = await self._send(going, force=True)
                going.forced = reading.verdict is Verdict.ACCEPTED
                going.blocked_by = reading.reason
        elif reading.verdict is Verdict.ACCEPTED:
            going.evicted = True
        if reading.verdict is Verdict.FORBIDDEN:
            self._forbid(going, reading.reason)
        wait = retry.delay(attempt, retry_after=reading.retry_after)
        ahead = self._force_from(going) - self._clock.now()
        return min(wait, ahead) if self._force and ahead > 0 else wait

    def _force_from(self, going: PodDrain) -> float:
        """When a refusal of the eviction may be overridden by a DELETE (epoch seconds).

        Not before the pod's whole grace would no longer fit; then a budget's refusal once it was
        respected for a part of the time, and any refusal at the hard end.
        """
        respected = _part(going.blocked_since, self._window.end) if going.blocked else math.inf
        last_moment = pods.last_moment(going.pod, end=self._window.end)
        return max(last_moment, min(respected, self._window.hard_end))

    async def _shorten_grace(self, going: PodDrain) -> None:
        """Not before the hard end: until then a shorter grace would end the pod no earlier."""
        attempt = 0
        await self._pause(going, self._window.hard_end - self._clock.now())
        while going.waited_for and not going.forced and self._outlasts_the_node(going):
            reading = await self._send(going, force=True)
            if reading.verdict is Verdict.ACCEPTED:
                going.forced = True
            elif reading.verdict is Verdict.FORBIDDEN:
                self._forbid(going, reading.reason)
            await self._pause(going, retry.delay(attempt, retry_after=reading.retry_after))
            attempt += 1

    async def _wait_while_terminating(self, going: PodDrain) -> None:
        """Give a pod up that outlasts its grace by far."""
        while going.waited_for:
            stops_at = pods.stops_at(going.pod)
            left = STUCK if stops_at is None else stops_at + STUCK - self._clock.now()
            if left <= 0:
                self._give_up(going, "")
            await self._pause(going, left)

    def _forbid(self, going: PodDrain, reason: str) -> None:
        """RBAC refuses this pod. It may allow the next, in another namespace: the error is raised
        when the others are gone.
        """
        self._forbidden = ClusterForbiddenError(
            "Apply manifests/spot-handler-rbac.yaml, and give the function's role the group "
            f"{SPOT_HANDLER_GROUP}: {reason}"
        )
        self._give_up(going, reason)

    def _give_up(self, going: PodDrain, reason: str) -> None:
        going.given_up = True
        going.blocked_by = reason
        self._note_progress()

    async def _send(self, going: PodDrain, *, force: bool) -> EvictionAnswer:
        reading = await self._answer(going, force=force)
        if reading.verdict is not Verdict.GONE:
            return reading
        # A 404 may be the budget's, or a proxy's: only a list tells that a pod is gone.
        with contextlib.suppress(ClusterUnavailableError):
            await self._look()
        if going.ended.is_set():
            return reading
        return EvictionAnswer(Verdict.RETRY, f"{reading.reason}, but it is still listed")

    async def _answer(self, going: PodDrain, *, force: bool) -> EvictionAnswer:
        async with self._slots:
            grace = pods.grace(going.pod, now=self._clock.now(), end=self._window.end)
            send = self._api.delete if force else self._api.evict
            try:
                answer = await send(going.pod, grace=grace)
            except ClusterUnavailableError as error:
                code = "none"
                lost = not error.unreachable
                reading = EvictionAnswer(
                    Verdict.RETRY, str(error), error.retry_after, in_doubt=lost
                )
            else:
                code, reading = str(answer.code), evictions.read(answer)
        if force:
            going.forced_in_doubt |= reading.in_doubt
        else:
            going.evicted_in_doubt |= reading.in_doubt
            self._answers[code] += 1
        return reading

    async def _pause(self, going: PodDrain, seconds: float) -> None:
        """Wait, but not for a pod that has ended or was given up."""
        if going.waited_for:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await going.ended.wait()

    def _counts(self) -> PodCounts:
        counts = PodCounts(
            skipped=Counter(reason.value for reason in self._skipped.values()),
            answers=self._answers,
            emptied_at=None if self._unconfirmed else self._emptied_at,
            unconfirmed=self._unconfirmed,
        )
        for going in self._going.values():
            if not going.ended.is_set():
                counts.left.append(RemainingPod(going.pod.name, going.why_left))
            elif going.forced or (going.forced_in_doubt and not going.evicted):
                counts.forced += 1
            elif going.evicted or going.evicted_in_doubt:
                counts.evicted += 1
            else:
                counts.gone += 1
        return counts


def is_cordoned(cordoning: asyncio.Task[float | None]) -> bool:
    """Whether the cordon stands, or the node is gone."""
    return cordoning.done() and not cordoning.cancelled() and cordoning.exception() is None


def _part(start: float, end: float) -> float:
    """The moment at which RESPECTED of the time between two moments has passed."""
    return start + (end - start) * RESPECTED


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
