"""Evict → wait → force, against the deadline.

Each pod that has to go has a task of its own, so one pod never delays another. One watch reports
what happens to the pods. Only a list that was sent afterwards confirms that a pod is gone: an
answer about one pod may be a proxy's, and an earlier list may be older than what the watch has
reported.
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
from lambdas.spot_handler import evictions, pods
from lambdas.spot_handler.evictions import EvictionAnswer, Verdict
from lambdas.spot_handler.node_api import RULES, NodeApi, PodList
from lambdas.spot_handler.objects import Pod
from lambdas.spot_handler.pods import Wave
from lambdas.spot_handler.result import PodCounts, RemainingPod

# s without an event of the watch before the pods are listed again. The kernel's keep-alive finds a
# dead peer sooner; this is for a peer that answers and sends no event.
WATCH_SILENCE = 45.0
# s after the cordon until which a pod may still be bound to the node: the scheduler chose the node
# before the cordon, and binds after the volumes, which takes seconds.
SETTLING = 3.0
# The part of the time left for which a budget's refusal is respected before it is overridden, also
# where the pod's grace does not fit any more: the replacement of another replica may become ready.
RESPECTED = 0.5
# s before the end of the window. From then on any refusal is overridden, not only a budget's.
HARD_END = 30.0
# s past its grace after which a terminating pod is not waited for: a finalizer, or a kubelet that
# does not answer, may keep it forever.
STUCK = 30.0
# So many pods may start on the node during the drain before each further one waits: where somebody
# uncordons the node, a pod's replacement may start there at once, and be evicted, without end.
LATE_AT_ONCE = 20
_REFUSALS = frozenset({Verdict.BLOCKED, Verdict.RETRY, Verdict.REFUSED})


@dataclass(frozen=True)
class Window:
    """The time that a drain has, in epoch seconds."""

    start: float
    """When the drain begins."""
    end: float
    """When every grace is over."""
    deadline: float
    """Until when the drain may read and write."""

    @property
    def hard_end(self) -> float:
        """When any refusal may be overridden: not in the first half of a short window."""
        return max(self.end - HARD_END, _part(self.start, self.end))


@dataclass
class PodDrain:
    """A pod that has to go, in its last known state."""

    pod: Pod
    late: int = 0
    """Its number among the pods that started on the node after the drain's first list; 0: it is on
    that list."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    unlisted: bool = False
    """It ended because a list did not show it."""
    worker: asyncio.Task[None] | None = None
    """Its task; None before the first."""
    evicted: bool = False
    forced: bool = False
    evicted_in_doubt: bool = False
    """The answer to an eviction is lost: it may have been accepted."""
    forced_in_doubt: bool = False
    """The same for a DELETE."""
    shortened: bool = False
    given_up: bool = False
    """No further request would end it: the drain does not wait for it."""
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

    def refused(self, answer: EvictionAnswer, *, now: float) -> None:
        """Note why the pod was not evicted."""
        self.blocked_by = answer.reason
        self.blocked = answer.verdict is Verdict.BLOCKED
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
        """`cordoning` has as result the moment of the cordon (epoch seconds), or None where the
        node is gone. It may still run, and it may fail.
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
        self._pods: dict[str, PodDrain] = {}
        self._skipped: dict[str, pods.Skip] = {}
        self._answers: Counter[str] = Counter()
        self._ordinary_gone = asyncio.Event()
        self._all_gone = asyncio.Event()
        self._emptied_at: float | None = None
        self._unconfirmed = "no list showed the node empty before the deadline"
        self._forbidden: ClusterForbiddenError | None = None
        self._list_lock = asyncio.Lock()
        self._order = itertools.count(1)
        self._listed = 0  # the number, in that order, of the last answered list
        self._page: PodList | None = None
        self._late = 0

    async def run(self) -> PodCounts:
        """Drain until the node is empty or the deadline has come.

        Raises ClusterForbiddenError and ClusterUnauthorizedError where rights are missing, and
        ClusterUnavailableError where the pods could not even be listed.
        """
        try:
            async with self._tasks:
                page = await self._list()
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
        """Wait for a list, sent after the last change, that shows no pod that has to go."""
        settled = False
        for attempt in itertools.count():
            await self._all_gone.wait()
            if any(
                pod_drain.given_up and not pod_drain.ended.is_set()
                for pod_drain in self._pods.values()
            ):
                return
            if not settled:
                await self._settled()
                settled = True
                continue
            known = len(self._pods)
            try:
                page = await self._list()
            except ClusterUnavailableError as error:
                self._unconfirmed = f"the last list was not answered: {error}"
                return
            if len(self._pods) == known and all(pods.skip(pod) for pod in page.items):
                self._unconfirmed = ""
                return
            await asyncio.sleep(retry.delay(attempt))

    async def _settled(self) -> None:
        """Wait until a binding from before the cordon is visible."""
        if await self._cordon_succeeded():
            cordoned_at = self._cordoning.result()
            if cordoned_at is not None:
                await asyncio.sleep(max(0.0, cordoned_at + SETTLING - self._clock.now()))

    async def _cordon_succeeded(self) -> bool:
        """Wait for the cordon; False where it failed permanently."""
        await asyncio.wait([self._cordoning])
        return cordon_succeeded(self._cordoning)

    # Reading the pods

    async def _list(self) -> PodList:
        """The pods by a list that is sent after this call; calls at the same time share one.

        Raises ClusterUnavailableError when the time is used up.
        """
        requested = next(self._order)
        async with self._list_lock:
            if self._page is None or self._listed < requested:
                sent = next(self._order)
                known = frozenset(self._pods)
                page = await retry.call_async(
                    lambda: self._api.pods(self._node),
                    until=self._window.deadline,
                    clock=self._clock,
                )
                self._reconcile(page.items, known)
                self._listed, self._page = sent, page
            return self._page

    async def _watch(self, resource_version: str) -> None:
        """Follow the pods. Where the watch breaks, list again and watch from there."""
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
                page = await self._list()
            except ClusterUnavailableError:
                return  # no time for another try: what was not seen to end is left
            resource_version = page.metadata.resource_version

    def _reconcile(self, listed: Iterable[Pod], known: Collection[str]) -> None:
        """Apply a list. It ends only pods that were `known` before it was sent: a younger pod that
        it does not show may have started since.
        """
        present = {pod.uid: pod for pod in listed}
        for uid in known - present.keys():
            if not self._pods[uid].ended.is_set():
                self._pods[uid].unlisted = True
                self._end(uid)
        for pod in present.values():
            self._see(pod)
        self._note_progress()

    def _see(self, pod: Pod) -> None:
        pod_drain = self._pods.get(pod.uid)
        if pod_drain is not None:
            pod_drain.pod = pod
            if pods.finished(pod):
                self._end(pod.uid)
            elif pod_drain.unlisted:
                self._return(pod_drain)
            self._shorten_grace_if_too_long(pod_drain)
        elif pod.uid not in self._skipped:
            reason = pods.skip(pod)
            if reason is not None:
                self._skipped[pod.uid] = reason
                return
            self._late += self._page is not None
            self._pods[pod.uid] = pod_drain = PodDrain(pod, late=self._late)
            self._note_progress()
            pod_drain.worker = self._work(self._remove(pod_drain))
            self._shorten_grace_if_too_long(pod_drain)

    def _return(self, pod_drain: PodDrain) -> None:
        """Remove a pod again that a list did not show, but that exists: that list was too old."""
        pod_drain.unlisted = False
        pod_drain.ended.clear()
        self._note_progress()
        if pod_drain.worker is not None and pod_drain.worker.done():
            pod_drain.worker = self._work(self._remove(pod_drain))

    def _shorten_grace_if_too_long(self, pod_drain: PodDrain) -> None:
        """Shorten the grace of a terminating pod to the time that the node has."""
        if self._outlasts_the_node(pod_drain) and not pod_drain.shortened:
            pod_drain.shortened = True
            self._work(self._shorten_grace(pod_drain))

    def _outlasts_the_node(self, pod_drain: PodDrain) -> bool:
        stops_at = pods.stops_at(pod_drain.pod)
        # Kubernetes cuts the time to whole seconds: the pod may stop up to a second later.
        return stops_at is not None and stops_at + 1 > self._window.deadline

    def _work(self, action: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._tasks.create_task(action)
        self._workers.append(task)
        return task

    def _end(self, uid: str) -> None:
        if uid in self._pods:
            self._pods[uid].ended.set()
            self._note_progress()

    def _note_progress(self) -> None:
        waiting = {
            pods.wave(pod_drain.pod) for pod_drain in self._pods.values() if pod_drain.waited_for
        }
        _set(self._ordinary_gone, Wave.ORDINARY not in waiting)
        if not waiting and not self._all_gone.is_set():
            self._emptied_at = self._clock.now()
        _set(self._all_gone, not waiting)

    # Removing one pod

    async def _remove(self, pod_drain: PodDrain) -> None:
        if pod_drain.late and not await self._cordon_succeeded():
            # Its replacement would start here as well, and so on until the deadline.
            self._give_up(pod_drain, "started on the node, which could not be cordoned")
            return
        if pod_drain.late > LATE_AT_ONCE:
            await self._pause(pod_drain, retry.delay(pod_drain.late - LATE_AT_ONCE))
        if pods.wave(pod_drain.pod) is Wave.SYSTEM:
            await self._wait_for_turn(pod_drain)
        attempt = 0
        while pod_drain.waited_for and not pod_drain.terminating:
            pause = await self._evict(pod_drain, attempt)
            await self._pause(pod_drain, pause)
            attempt += 1
        await self._wait_while_terminating(pod_drain)

    async def _wait_for_turn(self, pod_drain: PodDrain) -> None:
        """System pods wait for the ordinary ones, as long as their own grace still fits."""
        left = pods.last_moment(pod_drain.pod, end=self._window.end) - self._clock.now()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, left)):
                await self._ordinary_gone.wait()

    async def _evict(self, pod_drain: PodDrain, attempt: int) -> float:
        """Evict the pod once; returns the seconds to wait before the next attempt.

        A DELETE follows a refused eviction where `_force_from` allows it.
        """
        answer = await self._send(pod_drain, force=False)
        if answer.verdict in _REFUSALS:
            pod_drain.refused(answer, now=self._clock.now())
            due = self._clock.now() >= self._force_from(pod_drain)
            if self._force and due and not pod_drain.terminating:
                answer = await self._send(pod_drain, force=True)
                pod_drain.forced = answer.verdict is Verdict.ACCEPTED
                pod_drain.blocked_by = answer.reason
        elif answer.verdict is Verdict.ACCEPTED:
            pod_drain.evicted = True
        if answer.verdict is Verdict.FORBIDDEN:
            self._forbid(pod_drain, answer.reason)
        wait = retry.delay(attempt, retry_after=answer.retry_after)
        ahead = self._force_from(pod_drain) - self._clock.now()
        return min(wait, ahead) if self._force and ahead > 0 else wait

    def _force_from(self, pod_drain: PodDrain) -> float:
        """When a refusal of the eviction may be overridden by a DELETE (epoch seconds).

        Not before the pod's whole grace would no longer fit; then a budget's refusal once it was
        respected for a part of the time, and any refusal at the hard end.
        """
        respected = (
            _part(pod_drain.blocked_since, self._window.end) if pod_drain.blocked else math.inf
        )
        last_moment = pods.last_moment(pod_drain.pod, end=self._window.end)
        return max(last_moment, min(respected, self._window.hard_end))

    async def _shorten_grace(self, pod_drain: PodDrain) -> None:
        """Shorten the grace at the hard end: until then a shorter grace would end the pod no
        earlier.
        """
        attempt = 0
        await self._pause(pod_drain, self._window.hard_end - self._clock.now())
        while pod_drain.waited_for and not pod_drain.forced and self._outlasts_the_node(pod_drain):
            answer = await self._send(pod_drain, force=True)
            if answer.verdict is Verdict.ACCEPTED:
                pod_drain.forced = True
            elif answer.verdict is Verdict.FORBIDDEN:
                self._forbid(pod_drain, answer.reason)
            await self._pause(pod_drain, retry.delay(attempt, retry_after=answer.retry_after))
            attempt += 1

    async def _wait_while_terminating(self, pod_drain: PodDrain) -> None:
        """Wait for the pod's end, at most STUCK seconds past its grace."""
        while pod_drain.waited_for:
            stops_at = pods.stops_at(pod_drain.pod)
            left = STUCK if stops_at is None else stops_at + STUCK - self._clock.now()
            if left <= 0:
                self._give_up(pod_drain, "")
            await self._pause(pod_drain, left)

    def _forbid(self, pod_drain: PodDrain, reason: str) -> None:
        """Note that RBAC refuses this pod. It may allow another, in another namespace: the error
        is raised when the others are gone.
        """
        self._forbidden = ClusterForbiddenError(f"{RULES.forbidden}: {reason}")
        self._give_up(pod_drain, reason)

    def _give_up(self, pod_drain: PodDrain, reason: str) -> None:
        pod_drain.given_up = True
        pod_drain.blocked_by = reason
        self._note_progress()

    async def _send(self, pod_drain: PodDrain, *, force: bool) -> EvictionAnswer:
        answer = await self._answer(pod_drain, force=force)
        if answer.verdict is not Verdict.GONE:
            return answer
        # A 404 may be the budget's, or a proxy's: only a list shows that a pod is gone.
        with contextlib.suppress(ClusterUnavailableError):
            await self._list()
        if pod_drain.ended.is_set():
            return answer
        return EvictionAnswer(Verdict.RETRY, f"{answer.reason}; the pod is still listed")

    async def _answer(self, pod_drain: PodDrain, *, force: bool) -> EvictionAnswer:
        async with self._slots:
            grace = pods.grace(pod_drain.pod, now=self._clock.now(), end=self._window.end)
            send = self._api.delete if force else self._api.evict
            try:
                response = await send(pod_drain.pod, grace=grace)
            except ClusterUnavailableError as error:
                code = "none"
                lost = not error.unreachable
                answer = EvictionAnswer(Verdict.RETRY, str(error), error.retry_after, in_doubt=lost)
            else:
                code, answer = str(response.code), evictions.read(response)
        if force:
            pod_drain.forced_in_doubt |= answer.in_doubt
        else:
            pod_drain.evicted_in_doubt |= answer.in_doubt
            self._answers[code] += 1
        return answer

    async def _pause(self, pod_drain: PodDrain, seconds: float) -> None:
        """Wait, unless the pod has ended or is not waited for."""
        if pod_drain.waited_for:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await pod_drain.ended.wait()

    def _counts(self) -> PodCounts:
        counts = PodCounts(
            skipped=Counter(reason.value for reason in self._skipped.values()),
            answers=self._answers,
            emptied_at=None if self._unconfirmed else self._emptied_at,
            unconfirmed=self._unconfirmed,
        )
        for pod_drain in self._pods.values():
            if not pod_drain.ended.is_set():
                counts.left.append(RemainingPod(pod_drain.pod.name, pod_drain.why_left))
            elif pod_drain.forced or (pod_drain.forced_in_doubt and not pod_drain.evicted):
                counts.forced += 1
            elif pod_drain.evicted or pod_drain.evicted_in_doubt:
                counts.evicted += 1
            else:
                counts.gone += 1
        return counts


def cordon_succeeded(cordoning: asyncio.Task[float | None]) -> bool:
    """Whether the node is cordoned, or gone."""
    return cordoning.done() and not cordoning.cancelled() and cordoning.exception() is None


def _part(start: float, end: float) -> float:
    """The moment at which RESPECTED of the time between two moments has passed."""
    return start + (end - start) * RESPECTED


def _set(event: asyncio.Event, value: bool) -> None:
    if value:
        event.set()
    else:
        event.clear()
