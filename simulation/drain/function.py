"""The function as Lambda runs it: containers, invocations, retries, logs, and their ends.

The shipped boundary `handler.respond` runs in the world's event loop. Each request that it sends to
the API server passes a `Wire`, which records it and, where the day says so, ends the container.
"""

from __future__ import annotations

import asyncio
import io
from collections import Counter
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec

from lambdas.common.clock import Clock
from lambdas.common.errors import CastaiError
from lambdas.spot_handler import handler
from lambdas.spot_handler.interruption import Dependencies
from lambdas.spot_handler.nodes import Clusters
from lambdas.spot_handler.notify_castai import CastAi
from lambdas.spot_handler.settings import Environment, Mode, OnDeadline
from simulation.drain import aws, castai, ec2_answer
from simulation.drain.days import Day, Delivery, Kill
from simulation.drain.events import DRILL_SOURCE, KINDS, event
from simulation.drain.faults import AWS_FAULTS
from simulation.drain.world import CLUSTER, World

TIMEOUT = 150.0  # s: the function's, as the stack sets it
START = 0.3  # s of a cold start
RETRY_AFTER = 60.0  # s: Lambda's wait before the first retry of an asynchronous invocation
LARGEST_AGE = 120.0  # s after the delivery, beyond which Lambda drops the event
AWS_CALL = 0.02  # s of virtual time for a call to AWS


@dataclass
class Sent:
    """A request to the API server."""

    at: float
    method: str
    path: str
    query: str
    body: Any
    status: int = 0
    """0: no answer."""
    answered: float | None = None
    answer: str = ""
    retry_after: str = ""

    @property
    def uid(self) -> str:
        """The pod that an eviction or a DELETE is about; empty: it is neither."""
        uid: str = (self._options.get("preconditions") or {}).get("uid", "")
        return uid

    @property
    def grace(self) -> int:
        """Seconds."""
        grace: int = self._options.get("gracePeriodSeconds", 0)
        return grace

    @property
    def _options(self) -> dict[str, Any]:
        if not isinstance(self.body, dict):
            return {}
        found: dict[str, Any] = self.body.get("deleteOptions", self.body)
        return found


@dataclass
class Invocation:
    """One run of the function for one event."""

    number: int
    delivery: Delivery
    event: dict[str, Any]
    attempt: int
    started: float
    remaining: float
    sent: list[Sent] = field(default_factory=list)
    ended: float | None = None
    result: dict[str, Any] | None = None
    error: str = ""
    killed: bool = False
    crashed: bool = False
    """It ended by an error that the handler did not foresee."""
    calls: int = 0
    """To AWS, and requests to the API server."""
    on_node: list[dict[str, Any]] = field(default_factory=list)
    """The pods on the node when the result came."""


@dataclass
class Container:
    """An execution environment: its clients live as long as it does."""

    deps: Dependencies
    invocation: Invocation | None = None


class Wire(httpx2.AsyncBaseTransport):
    """The connection of one container to the API server."""

    def __init__(self, function: Function) -> None:
        self._function = function
        self._inner = function.world.cluster.transport()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        function = self._function
        run = function.current.get()
        body = await request.aread()
        sent = Sent(
            function.world.now,
            request.method,
            request.url.path,
            request.url.query.decode(),
            msgspec.json.decode(body) if body else None,
        )
        if run.killed:
            await asyncio.Event().wait()  # the container is gone: nothing is sent
        run.sent.append(sent)
        kill = function.next_kill(run)
        if kill is not None and not kill.after:
            await function.kill(run)
        response = await self._inner.handle_async_request(request)
        if "watch=1" not in sent.query:
            await response.aread()
            sent.answer = response.text
        sent.status, sent.answered = response.status_code, function.world.now
        sent.retry_after = response.headers.get("retry-after", "")
        if kill is not None:
            await function.kill(run)
        return response


class Function:
    """The Lambda function in a world."""

    def __init__(self, world: World, sdk: aws.Aws) -> None:
        self.world = world
        self.day: Day = world.day
        self.output = io.StringIO()
        self.runs: list[Invocation] = []
        self.frozen: list[tuple[float, float]] = []
        """Times in which a call to AWS, or a wait before the next one, blocks the loop."""
        self._sdk = sdk
        self._idle: list[Container] = []
        self._calls: Counter[str] = Counter()
        self.current: ContextVar[Invocation] = ContextVar("invocation")
        self._tasks: dict[int, asyncio.Task[Any]] = {}

    # EventBridge and Lambda

    async def deliver(self, number: int, delivery: Delivery) -> None:
        """Deliver an event, and invoke again as Lambda does for an asynchronous invocation."""
        world = self.world
        await asyncio.sleep(world.start + delivery.at - world.now)
        delivered = world.now
        given = world.cluster.now() - delivery.age
        instance = world.instance(delivery.node)
        what = event(KINDS[delivery.kind], instance, given, number)
        for attempt in range(2):
            if await self._invoke(delivery, what, attempt):
                return
            await asyncio.sleep(RETRY_AFTER)
            if world.now - delivered > LARGEST_AGE:
                return

    async def _invoke(self, delivery: Delivery, what: dict[str, Any], attempt: int) -> bool:
        """One invocation; False where Lambda tries again."""
        container = self._idle.pop() if self._idle and self.day.reused else None
        if container is None:
            await asyncio.sleep(START)
            container = Container(self._dependencies())
        run = Invocation(len(self.runs), delivery, what, attempt, self.world.now, TIMEOUT - START)
        self.runs.append(run)
        self.world.note(f"invocation {run.number}: {delivery.kind}, node {delivery.node}")
        task = asyncio.create_task(self._respond(run, container.deps))
        self._tasks[run.number] = task
        await asyncio.wait([task], timeout=run.remaining)
        run.ended = self.world.now
        if not task.done():
            run.error = "timed out"
            await self._end(run, task)
        if not run.killed:
            self._idle.append(container)
        self.world.note(f"invocation {run.number} ends: {_words(run)}")
        return run.result is not None

    async def _respond(self, run: Invocation, deps: Dependencies) -> None:
        self.current.set(run)
        try:
            run.result = await handler.respond(run.event, deps, remaining=run.remaining)
        except Exception as error:  # noqa: BLE001 - Lambda fails the invocation
            run.error = f"{type(error).__name__}: {error}"
            run.crashed = not isinstance(error, CastaiError)
        except asyncio.CancelledError:
            if not run.killed:
                raise
        run.on_node = [
            dict(pod) for pod in self.world.cluster.pods_on(self.world.node_name(run.delivery.node))
        ]

    async def _end(self, run: Invocation, task: asyncio.Task[Any]) -> None:
        run.killed = True
        task.cancel()
        await asyncio.wait([task])

    def next_kill(self, run: Invocation) -> Kill | None:
        """Whether the container ends at the call that is made now."""
        number, run.calls = run.calls, run.calls + 1
        for kill in self.day.kills:
            if (kill.invocation, kill.request) == (run.number, number):
                return kill
        return None

    async def kill(self, run: Invocation) -> None:
        """End the container: nothing that it does from now on has an effect."""
        self._kill(run)
        self._tasks[run.number].cancel()
        await asyncio.Event().wait()

    def _kill(self, run: Invocation) -> None:
        run.killed = True
        self.world.note(f"the container of invocation {run.number} is killed")

    # The container

    def _dependencies(self) -> Dependencies:
        clock = Clock(now=self._wall, sleep=self._sleep)
        settings = Environment(
            mode=Mode(self.day.settings.mode),
            on_deadline=OnDeadline(self.day.settings.on_deadline),
            concurrency=self.day.settings.concurrency,
            drill_sources=frozenset({DRILL_SOURCE}),
        )
        return Dependencies(
            settings=settings,
            ec2=self._sdk.ec2,
            clusters=Clusters(self._sdk.session, clock),
            transport=lambda _ca, _connections: Wire(self),
            clock=clock,
            castai=self._castai(clock),
        )

    def _castai(self, clock: Clock) -> CastAi | None:
        if not self.day.castai:
            return None
        return CastAi(
            "https://api.castai.invalid",
            lambda: castai.KEY,
            clock,
            transport=castai.Api(self.day.castai),
        )

    def _wall(self) -> float:
        return self.world.cluster.now() + self.day.skew

    def _sleep(self, seconds: float) -> None:
        self.frozen.append((self.world.now, self.world.now + seconds))
        asyncio.get_running_loop().jump(seconds)  # type: ignore[attr-defined]

    # AWS

    def answer(self, call: str, argument: str) -> tuple[int, bytes]:
        """AWS's answer to a call of the function. Raises CancelledError (the container ends)."""
        run = self.current.get()
        if self.next_kill(run) is not None:
            self._kill(run)
            raise asyncio.CancelledError
        number = self._calls[call]
        self._calls[call] += 1
        self._sleep(AWS_CALL)
        for fault in self.day.aws_faults:
            if fault.call == call and fault.skip <= number < fault.skip + fault.times:
                row = AWS_FAULTS[fault.kind]
                self.world.note(f"AWS: {call}: {fault.kind}")
                if row.silent:
                    self._sleep(row.silent)
                    raise TimeoutError
                return row.status, aws.error(call, row.code) if row.code else ec2_answer.NOTHING
        if call == "DescribeCluster":
            return 200, aws.cluster_json(argument)
        node = self.world.number(argument)
        tags = {"aws:eks:cluster-name": CLUSTER}
        if self.day.castai:
            tags["cast:cluster-id"] = castai.CLUSTER_ID
        name = self.world.node_name(node)
        state = self.world.state(node)
        return 200, ec2_answer.one_instance(argument, name, tags, state=state)


def _words(run: Invocation) -> str:
    if run.result is not None:
        pods = run.result["pods"]
        counts = ", ".join(f"{number} {what}" for what, number in pods.items() if number)
        reason = run.result.get("reason", "")
        return (
            f"{run.result['outcome']}"
            + (f" ({reason})" if reason else "")
            + (f": {counts}" if counts else "")
        )
    return run.error or "killed"
