"""The main path: a notice is located, its node cordoned, its pods planned and drained."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from lambdas.common import retry
from lambdas.common.clock import Clock
from lambdas.common.errors import ClusterUnavailableError, bug
from lambdas.spot_handler import instances, nodes, pods, report
from lambdas.spot_handler.cordon import cordon, patch_back, patch_for, take_back
from lambdas.spot_handler.drain import Drain, Window, is_cordoned
from lambdas.spot_handler.instances import Instance
from lambdas.spot_handler.node_api import ClusterApi, Node, Pod
from lambdas.spot_handler.nodes import Clusters
from lambdas.spot_handler.notices import Kind, Notice
from lambdas.spot_handler.report import NodeEvents
from lambdas.spot_handler.result import Outcome, Report, Result
from lambdas.spot_handler.retry import retried
from lambdas.spot_handler.settings import Mode, OnDeadline, Settings

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

    from lambdas.spot_handler.notify_castai import CastAi

# s. A notice that leaves no time (hibernation begins at once, a delivery comes late) still gets
# one pass over the pods: the instance may live a little longer, and trying harms nothing.
LAST_PASS = 10.0

REGISTRATION = 30.0  # s that a running instance without a node has to register one
CORDON_PATIENCE = 10.0  # s until pods are evicted from a node that is not cordoned yet
CORDON_PART = 0.25  # of the time left, where that is less: the pods need the rest
REPORT_PATIENCE = 10.0  # s that CAST AI has to answer when the drain is over
LOOK_AGAIN = 5.0  # s between two looks for it

TransportFactory = Callable[[str, int], httpx2.AsyncBaseTransport]


@dataclass(frozen=True)
class Means:
    """What an invocation works with: built once per container, or by a test."""

    settings: Settings
    ec2: EC2Client
    clusters: Clusters
    transport: TransportFactory
    clock: Clock
    castai: CastAi | None = None  # None: there is no API key, CAST AI is not told


async def handle(notice: Notice, means: Means, *, time_limit: float) -> Result:
    """Do what the notice asks for. `time_limit`: epoch seconds by which the function must answer.

    Raises RetryableError where AWS or the cluster did not answer in time, and PermanentError where
    rights are missing: both must reach the on-failure target.
    """
    interruption = _Interruption(notice, means, time_limit)
    await interruption.run()
    interruption.result.ended = means.clock.now()
    return interruption.result


class _Interruption:
    """One notice on its way. Each step fills in the result; each `return` ends the story."""

    def __init__(self, notice: Notice, means: Means, time_limit: float) -> None:
        self.notice = notice
        self.settings = means.settings
        self.means = means
        self.clock = means.clock
        now = means.clock.now()
        self.deadline = min(max(notice.deadline, now + LAST_PASS), time_limit)
        self.result = Result(
            outcome=Outcome.IGNORED,
            instance=notice.instance,
            kind=notice.kind.value,
            event_id=notice.event_id,
            given=notice.given,
            deadline=min(notice.deadline, time_limit),
            started=now,
        )

    async def run(self) -> None:
        instance = self._describe()
        if instance is None:
            self._finish(Outcome.IGNORED, "EC2 does not know the instance")
            return
        self.result.cluster = instance.cluster
        if reason := self._not_ours(instance):
            self._finish(Outcome.IGNORED, reason)
            return
        if reason := self._too_late(instance):
            self._finish(Outcome.TOO_LATE, reason)
            return
        await self._in_cluster(instance)

    def _describe(self) -> Instance | None:
        return retry.call(
            lambda: instances.find(self.means.ec2, self.notice.instance),
            until=self.deadline,
            clock=self.clock,
        )

    def _not_ours(self, instance: Instance) -> str:
        if not instance.cluster:
            return "no tag of the instance names a cluster"
        if self.settings.clusters and instance.cluster not in self.settings.clusters:
            return f"cluster {instance.cluster} is not on the list"
        return ""

    def _too_late(self, instance: Instance) -> str:
        if instance.gone:
            return f"the instance is {instance.state}"
        if self.clock.now() >= self.notice.expires:
            return "the notice is stale, and the instance still runs: it must be healthy"
        return ""

    async def _in_cluster(self, instance: Instance) -> None:
        for again in (False, True):
            # `again`: nobody answered at the endpoint that we knew; the cluster may have a new one.
            access = self.means.clusters.get(instance.cluster, until=self.deadline, fresh=again)
            if access is None:
                self._finish(Outcome.IGNORED, f"EKS has no cluster {instance.cluster}")
                return
            cluster, token = access
            transport = self.means.transport(cluster.ca_pem, self.settings.concurrency)
            async with ClusterApi(cluster.endpoint, token, transport) as api:
                try:
                    node = await self._registered_node(api, instance, patient=again)
                except ClusterUnavailableError as error:
                    if again or not error.unreachable:
                        raise
                    continue
                await self._on_node(api, instance, node)
                return

    async def _registered_node(
        self, api: ClusterApi, instance: Instance, *, patient: bool
    ) -> Node | None:
        """The node of the instance. A young instance's node may register after the notice."""
        until = min(self.deadline, self.clock.now() + REGISTRATION)
        current: Instance | None = instance
        while current is not None and not current.gone:
            node = await nodes.node(
                api, current, until=self.deadline, clock=self.clock, patient=patient
            )
            if node is not None or self.clock.now() + LOOK_AGAIN > until:
                return node
            if self.notice.kind is Kind.INSTANCE_RUNNING:  # it was launched: there are no marks
                return None
            await asyncio.sleep(LOOK_AGAIN)
            current = self._describe()
        return None

    async def _on_node(self, api: ClusterApi, instance: Instance, node: Node | None) -> None:
        if node is None:
            self._finish(
                Outcome.NODE_NOT_FOUND,
                f"no node of {self.result.cluster} has the provider id of {self.result.instance}",
            )
            return
        self.result.node = node.metadata.name
        if self.notice.kind is Kind.INSTANCE_RUNNING:
            await self._take_back(api, node)
            return
        if self.settings.mode is Mode.DRY_RUN:
            await self._plan(api, node)
            return
        cordoning = asyncio.create_task(self._cordon(api, node))
        left = max(0.0, self.deadline - self.clock.now())
        await asyncio.wait([cordoning], timeout=min(CORDON_PATIENCE, left * CORDON_PART))
        try:
            if self.settings.mode is Mode.CORDON:
                await cordoning
            if is_cordoned(cordoning) and cordoning.result() is None:
                reason = "the node went away before it was cordoned, and its pods with it"
                self._finish(Outcome.TOO_LATE, reason)
                return
            await self._on_cordoned_node(api, instance, node, cordoning)
        finally:
            cordoning.cancel()
            await asyncio.wait([cordoning])
        self._raise_unless_cordoned(cordoning)

    async def _take_back(self, api: ClusterApi, node: Node) -> None:
        """Take our marks off the node of an instance that was stopped and runs again."""
        since = self.notice.given
        patch = patch_back(node, running_since=since)
        if patch is None:
            self._finish(Outcome.IGNORED, "the node has no marks of a notice before this start")
        elif self.settings.mode is Mode.DRY_RUN:
            self.result.plan = [{"node": node.metadata.name, "patch": patch}]
            self._finish(Outcome.DRY_RUN)
        else:
            until, clock = self.deadline, self.clock
            await take_back(api, node, running_since=since, until=until, clock=clock)
            self._finish(Outcome.UNCORDONED)

    async def _cordon(self, api: ClusterApi, node: Node) -> float | None:
        """When the node was cordoned (epoch seconds); None where it is gone."""
        cordoned = await cordon(api, node, self.notice, until=self.deadline, clock=self.clock)
        if cordoned is not None:
            self.result.cordoned_at = self.clock.now()
        return self.result.cordoned_at

    async def _on_cordoned_node(
        self,
        api: ClusterApi,
        instance: Instance,
        node: Node,
        cordoning: asyncio.Task[float | None],
    ) -> None:
        """Drain, and tell of it. The cordon may still be under way, or have failed."""
        events = NodeEvents(api, node, self.notice, self.clock)
        begun = asyncio.create_task(self._announce(events, cordoning))
        telling = Report()
        told = asyncio.create_task(self._tell_castai(api, instance, node, telling))
        try:
            if self.settings.mode is Mode.CORDON:
                self._finish(Outcome.CORDONED)
            else:
                await self._drain(api, node, cordoning)
            await events.ended(self.result, cordoned=is_cordoned(cordoning))
            await asyncio.wait([told], timeout=REPORT_PATIENCE)
        finally:
            told.cancel()  # where the drain failed, the failure is not held up by CAST AI
            cordoning.cancel()
            await asyncio.wait([begun, told])
            if self.means.castai is not None:
                self.result.castai, self.result.castai_reason = telling.told.value, telling.reason

    async def _announce(self, events: NodeEvents, cordoning: asyncio.Task[float | None]) -> None:
        await asyncio.wait([cordoning])
        if is_cordoned(cordoning):
            await events.begun(deadline=self.result.deadline)

    def _raise_unless_cordoned(self, cordoning: asyncio.Task[float | None]) -> None:
        """The drain is over, and the node still takes pods: a person, or a retry, is needed."""
        if is_cordoned(cordoning):
            return
        fault = None if cordoning.cancelled() else cordoning.exception()
        error = fault or ClusterUnavailableError("The node was not cordoned before the deadline")
        error.add_note(f"The node is not cordoned; the drain: {report.headline(self.result)}")
        raise error

    async def _tell_castai(
        self, api: ClusterApi, instance: Instance, node: Node, telling: Report
    ) -> None:
        if self.means.castai is None:
            return
        try:
            await self.means.castai.interrupted(api, instance, node, telling, until=self.deadline)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is none of the drain's
            telling.reason = str(bug(error))

    async def _drain(
        self, api: ClusterApi, node: Node, cordoning: asyncio.Task[float | None]
    ) -> None:
        tally = await Drain(
            api,
            node.metadata.name,
            self._window,
            cordoning=cordoning,
            force=self.settings.on_deadline is OnDeadline.FORCE,
            concurrency=self.settings.concurrency,
            clock=self.clock,
        ).run()
        self.result.pods = tally
        if tally.left:
            self._finish(Outcome.PARTIAL)
        elif tally.unconfirmed:
            self._finish(Outcome.PARTIAL, tally.unconfirmed)
        else:
            self.result.drained_at = tally.emptied_at
            self._finish(Outcome.DRAINED)

    async def _plan(self, api: ClusterApi, node: Node) -> None:
        page = await retried(
            lambda: api.pods(node.metadata.name), until=self.deadline, clock=self.clock
        )
        self.result.plan = [
            {"node": node.metadata.name, "patch": patch_for(node, self.notice)},
            *planned(page.items, now=self.clock.now(), end=self._window.end),
        ]
        reasons = (pods.skip(pod) for pod in page.items)
        self.result.pods.skipped.update(reason.value for reason in reasons if reason)
        self._finish(Outcome.DRY_RUN)

    @property
    def _window(self) -> Window:
        return Window(
            start=self.clock.now(),
            end=self.deadline - self.settings.margin,
            deadline=self.deadline,
        )

    def _finish(self, outcome: Outcome, reason: str = "") -> None:
        self.result.outcome, self.result.reason = outcome, reason


def planned(listed: Iterable[Pod], *, now: float, end: float) -> list[dict[str, Any]]:
    """What a drain would do with each pod, in its order. Pure; times are epoch seconds."""
    going = [pod for pod in listed if pods.skip(pod) is None]
    going.sort(key=lambda pod: (pods.wave(pod), pod.name))
    staying = sorted((pod.name, reason) for pod in listed if (reason := pods.skip(pod)))
    return [
        {
            "pod": pod.name,
            "action": "wait" if pod.metadata.deletion_timestamp else "evict",
            "wave": pods.wave(pod).name.lower(),
            "grace": pods.grace(pod, now=now, end=end),
        }
        for pod in going
    ] + [{"pod": name, "action": "skip", "reason": reason.value} for name, reason in staying]
