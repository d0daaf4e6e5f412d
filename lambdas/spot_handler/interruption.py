"""Everything that happens to a notice: `handle` lists the steps, in order.

A step raises `Ended` with the outcome where the steps after it have nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx2

from lambdas.common import retry
from lambdas.common.clock import Clock
from lambdas.common.errors import ClusterUnavailableError, bug
from lambdas.spot_handler import cordon, instances, nodes, pods, report
from lambdas.spot_handler.drain import Drain, Window, cordon_succeeded
from lambdas.spot_handler.instances import Instance
from lambdas.spot_handler.node_api import NodeApi
from lambdas.spot_handler.nodes import Clusters
from lambdas.spot_handler.notices import Kind, Notice
from lambdas.spot_handler.objects import Node, Pod
from lambdas.spot_handler.report import NodeEvents
from lambdas.spot_handler.result import CastaiReport, Outcome, Result
from lambdas.spot_handler.settings import Environment, Mode, OnDeadline

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

    from lambdas.spot_handler.notify_castai import CastAi

# s that a run has at least, also for a late notice and for hibernation, which begins at once: the
# instance may run a little longer.
LEAST_TIME = 10.0

REGISTRATION = 30.0  # s for EC2 to know a young instance, and for its node to register
UNKNOWN_POLL = 2.5  # s between two questions for the instance
REGISTRATION_POLL = 5.0  # s between two searches for the node
CORDON_WAIT = 10.0  # s that the drain waits for the cordon
CORDON_PART = 0.25  # of the time left, if that is shorter than CORDON_WAIT
CASTAI_WAIT = 10.0  # s that CAST AI has to answer after the drain

TransportFactory = Callable[[str, int], httpx2.AsyncBaseTransport]
Cordoning = asyncio.Task[float | None]
"""Its result is the moment of the cordon (epoch seconds), or None where the node is gone."""


@dataclass(frozen=True)
class Dependencies:
    """The clients and settings of an invocation: built once per container, or by a test."""

    settings: Environment
    ec2: EC2Client
    clusters: Clusters
    transport: TransportFactory
    clock: Clock
    castai: CastAi | None = None
    """None without an API key: then CAST AI gets no report."""


class Ended(Exception):  # noqa: N818 - the end of a notice is no error
    """The handling is over."""

    def __init__(self, outcome: Outcome, reason: str = "") -> None:
        super().__init__(reason)
        self.outcome = outcome
        self.reason = reason


@dataclass
class Interruption:
    """A notice while it is handled."""

    notice: Notice
    deps: Dependencies
    deadline: float
    """Epoch seconds until which the handler may read and write."""
    result: Result

    @property
    def settings(self) -> Environment:
        return self.deps.settings

    @property
    def clock(self) -> Clock:
        return self.deps.clock

    def window(self) -> Window:
        """The time of a drain that begins now."""
        return Window(
            start=self.clock.now(),
            end=self.deadline - self.settings.margin,
            deadline=self.deadline,
        )

    def end(self, outcome: Outcome, reason: str = "") -> None:
        self.result.outcome, self.result.reason = outcome, reason


async def handle(notice: Notice, deps: Dependencies, *, time_limit: float) -> Result:
    """Handle a notice. `time_limit`: epoch seconds by which the function must answer.

    Raises RetryableError where AWS or the cluster did not answer in time, and PermanentError where
    rights are missing: both must reach the on-failure destination.
    """
    run = begin(notice, deps, time_limit)
    try:
        instance = find_instance(run)
        async with located(run, instance) as (api, node):
            if notice.kind is Kind.INSTANCE_RUNNING:
                await uncordon(run, api, node)
            elif run.settings.mode is Mode.DRY_RUN:
                await plan(run, api, node)
            else:
                async with (
                    cordoned(run, api, node) as cordoning,
                    announced(run, api, instance, node, cordoning),
                ):
                    await drain(run, api, node, cordoning)
    except Ended as end:
        run.end(end.outcome, end.reason)
    run.result.ended = deps.clock.now()
    return run.result


def begin(notice: Notice, deps: Dependencies, time_limit: float) -> Interruption:
    """The notice with its deadline and an empty result."""
    now = deps.clock.now()
    result = Result(
        outcome=Outcome.IGNORED,
        instance=notice.instance,
        kind=notice.kind.value,
        event_id=notice.event_id,
        given=notice.given,
        deadline=min(notice.deadline, time_limit),
        started=now,
    )
    # The result shows the instance's deadline; the run itself has LEAST_TIME at least.
    deadline = min(max(notice.deadline, now + LEAST_TIME), time_limit)
    return Interruption(notice, deps, deadline, result)


# Step 1: the instance


def find_instance(run: Interruption) -> Instance:
    """The instance, if it still runs and its cluster is one of ours.

    Raises Ended with IGNORED or TOO_LATE.
    """
    instance = _describe(run)
    if instance is None:
        raise Ended(Outcome.IGNORED, "EC2 does not know the instance")
    run.result.cluster = instance.cluster
    if not instance.cluster:
        raise Ended(Outcome.IGNORED, "no tag of the instance names a cluster")
    if run.settings.clusters and instance.cluster not in run.settings.clusters:
        raise Ended(Outcome.IGNORED, f"cluster {instance.cluster} is not on the list")
    if instance.gone:
        raise Ended(Outcome.TOO_LATE, f"the instance is {instance.state}")
    if run.clock.now() >= run.notice.expires:
        raise Ended(Outcome.TOO_LATE, "the notice is stale and the instance still runs: no drain")
    return instance


def _describe(run: Interruption) -> Instance | None:
    """The instance; None where EC2 does not know it for REGISTRATION seconds.

    DescribeInstances may not show a young instance at once:
    https://docs.aws.amazon.com/ec2/latest/devguide/eventual-consistency.html
    """
    until = min(run.deadline, run.clock.now() + REGISTRATION)
    while True:
        found = retry.call(
            lambda: instances.find(run.deps.ec2, run.notice.instance),
            until=run.deadline,
            clock=run.clock,
        )
        is_new = run.notice.kind is Kind.INSTANCE_RUNNING  # it has no marks yet
        if found is not None or is_new or run.clock.now() + UNKNOWN_POLL > until:
            return found
        run.clock.sleep(UNKNOWN_POLL)


# Step 2: the cluster and the node


@asynccontextmanager
async def located(run: Interruption, instance: Instance) -> AsyncIterator[tuple[NodeApi, Node]]:
    """The API of the instance's cluster, and the instance's node. Closes its connections.

    Raises Ended with IGNORED or NODE_NOT_FOUND.
    """
    async with AsyncExitStack() as connections:
        try:
            api, node = await _find_node(run, instance, connections, fresh=False)
        except ClusterUnavailableError as error:
            if not error.unreachable:
                raise
            # The cluster may have a new endpoint since it was described.
            api, node = await _find_node(run, instance, connections, fresh=True)
        if node is None:
            cluster, name = run.result.cluster, run.result.instance
            reason = f"no node of {cluster} has the provider id of {name}"
            raise Ended(Outcome.NODE_NOT_FOUND, reason)
        run.result.node = node.metadata.name
        yield api, node


async def _find_node(
    run: Interruption, instance: Instance, connections: AsyncExitStack, *, fresh: bool
) -> tuple[NodeApi, Node | None]:
    """`fresh`: describe the cluster anew, and retry also where its endpoint is unreachable."""
    access = run.deps.clusters.get(instance.cluster, until=run.deadline, fresh=fresh)
    if access is None:
        raise Ended(Outcome.IGNORED, f"EKS has no cluster {instance.cluster}")
    cluster, token = access
    transport = run.deps.transport(cluster.ca_pem, run.settings.concurrency)
    api = await connections.enter_async_context(NodeApi(cluster.endpoint, token, transport))
    return api, await _registered_node(run, api, instance, retry_unreachable=fresh)


async def _registered_node(
    run: Interruption, api: NodeApi, instance: Instance, *, retry_unreachable: bool
) -> Node | None:
    """The node of the instance. A young instance's node may register after the notice."""
    until = min(run.deadline, run.clock.now() + REGISTRATION)
    current: Instance | None = instance
    while current is not None and not current.gone:
        node = await nodes.find(
            api,
            current,
            until=run.deadline,
            clock=run.clock,
            retry_unreachable=retry_unreachable,
        )
        if node is not None or run.clock.now() + REGISTRATION_POLL > until:
            return node
        if run.notice.kind is Kind.INSTANCE_RUNNING:  # a new instance: its node has no marks
            return None
        await asyncio.sleep(REGISTRATION_POLL)
        current = _describe(run)
    return None


# Instead of the steps below: an instance that was stopped and runs again, and a dry run


async def uncordon(run: Interruption, api: NodeApi, node: Node) -> None:
    """Remove our marks from the node of an instance that was stopped and runs again."""
    since = run.notice.given
    patch = cordon.uncordon_patch(node, running_since=since)
    if patch is None:
        raise Ended(Outcome.IGNORED, "the node has no marks of a notice before this start")
    if run.settings.mode is Mode.DRY_RUN:
        run.result.plan = [{"node": node.metadata.name, "patch": patch}]
        raise Ended(Outcome.DRY_RUN)
    await cordon.uncordon(api, node, running_since=since, until=run.deadline, clock=run.clock)
    run.end(Outcome.UNCORDONED)


async def plan(run: Interruption, api: NodeApi, node: Node) -> None:
    """Put into the result what a drain would do. Writes nothing."""
    page = await retry.call_async(
        lambda: api.pods(node.metadata.name), until=run.deadline, clock=run.clock
    )
    run.result.plan = [
        {"node": node.metadata.name, "patch": cordon.cordon_patch(node, run.notice)},
        *planned(page.items, now=run.clock.now(), end=run.window().end),
    ]
    reasons = (pods.skip(pod) for pod in page.items)
    run.result.pods.skipped.update(reason.value for reason in reasons if reason)
    run.end(Outcome.DRY_RUN)


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


# Step 3: the cordon


@asynccontextmanager
async def cordoned(run: Interruption, api: NodeApi, node: Node) -> AsyncIterator[Cordoning]:
    """Cordon the node. The body runs once it is cordoned, or after CORDON_WAIT: then the cordon is
    retried beside the body.

    Raises Ended with TOO_LATE where the node is gone and, at the end, the cordon's own error or
    ClusterUnavailableError where the node is still not cordoned: a person or a retry is needed.
    """
    cordoning = asyncio.create_task(_cordon(run, api, node))
    left = max(0.0, run.deadline - run.clock.now())
    await asyncio.wait([cordoning], timeout=min(CORDON_WAIT, left * CORDON_PART))
    try:
        if run.settings.mode is Mode.CORDON:
            await cordoning
        if cordon_succeeded(cordoning) and cordoning.result() is None:
            reason = "the node went away before it was cordoned, and its pods with it"
            raise Ended(Outcome.TOO_LATE, reason)
        yield cordoning
    finally:
        cordoning.cancel()
        await asyncio.wait([cordoning])
    if not cordon_succeeded(cordoning):
        fault = None if cordoning.cancelled() else cordoning.exception()
        error = fault or ClusterUnavailableError("The node was not cordoned before the deadline")
        error.add_note(f"The node is not cordoned; the drain: {report.headline(run.result)}")
        raise error


async def _cordon(run: Interruption, api: NodeApi, node: Node) -> float | None:
    patched = await cordon.cordon(api, node, run.notice, until=run.deadline, clock=run.clock)
    if patched is not None:
        run.result.cordoned_at = run.clock.now()
    return run.result.cordoned_at


# Step 4: Events on the node, and CAST AI


@asynccontextmanager
async def announced(
    run: Interruption, api: NodeApi, instance: Instance, node: Node, cordoning: Cordoning
) -> AsyncIterator[None]:
    """Report while the body runs: by Events on the node, and to CAST AI."""
    events = NodeEvents(api, node, run.notice, run.clock)
    begun = asyncio.create_task(_announce(run, events, cordoning))
    castai = CastaiReport()
    reporting = asyncio.create_task(_report_to_castai(run, api, instance, node, castai))
    try:
        yield
        await events.ended(run.result, cordoned=cordon_succeeded(cordoning))
        await asyncio.wait([reporting], timeout=CASTAI_WAIT)
    finally:
        reporting.cancel()  # an error of the drain does not wait for CAST AI
        cordoning.cancel()  # its time is over, and `begun` waits for its end
        await asyncio.wait([begun, reporting])
        if run.deps.castai is not None:
            run.result.castai, run.result.castai_reason = castai.state.value, castai.reason


async def _announce(run: Interruption, events: NodeEvents, cordoning: Cordoning) -> None:
    await asyncio.wait([cordoning])
    if cordon_succeeded(cordoning):
        await events.begun(deadline=run.result.deadline)


async def _report_to_castai(
    run: Interruption, api: NodeApi, instance: Instance, node: Node, castai: CastaiReport
) -> None:
    if run.deps.castai is None:
        return
    try:
        await run.deps.castai.interrupted(api, instance, node, castai, until=run.deadline)
    except Exception as error:  # noqa: BLE001 - no error of this report may end the drain
        castai.reason = str(bug(error))


# Step 5: the drain


async def drain(run: Interruption, api: NodeApi, node: Node, cordoning: Cordoning) -> None:
    """Evict the pods, wait for them, force what is left; in cordon mode nothing."""
    if run.settings.mode is Mode.CORDON:
        run.end(Outcome.CORDONED)
        return
    counts = await Drain(
        api,
        node.metadata.name,
        run.window(),
        cordoning=cordoning,
        force=run.settings.on_deadline is OnDeadline.FORCE,
        concurrency=run.settings.concurrency,
        clock=run.clock,
    ).run()
    run.result.pods = counts
    if counts.left:
        run.end(Outcome.PARTIAL)
    elif counts.unconfirmed:
        run.end(Outcome.PARTIAL, counts.unconfirmed)
    else:
        run.result.drained_at = counts.emptied_at
        run.end(Outcome.DRAINED)
