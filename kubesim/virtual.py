"""Virtual time: an event loop whose clock jumps to the next timer, and an HTTP transport for it.

The loop does not wait for timers. The transport calls an ASGI application in the same loop. A drain
of ten minutes takes milliseconds, and each run has the same result.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, MutableMapping
from concurrent.futures import Executor
from typing import Any, TypeVar

import httpx2

EPOCH = 1_795_000_000.0
"""Wall clock of a virtual loop at its start, in seconds since 1970 (2026-11-18T11:06:40Z)."""

STUCK_SECONDS = 5.0
"""Real seconds that a loop without a timer waits for a thread before it raises StuckError."""

T = TypeVar("T")
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
AsgiApp = Callable[
    [Scope, Callable[[], Awaitable[Message]], Callable[[Message], Awaitable[None]]],
    Awaitable[None],
]


class StuckError(RuntimeError):
    """Nothing is ready, no timer is set and no thread runs: the coroutine would wait forever."""


class _JumpingSelector(selectors.DefaultSelector):
    """Polls files without waiting; the loop's clock jumps by the time to wait."""

    loop: VirtualLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None and timeout <= 0:
            return super().select(0)
        if self.loop.threads:  # the clock stops while a thread runs
            return super().select(STUCK_SECONDS)
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            ready = super().select(STUCK_SECONDS)
            if not ready:
                message = (
                    "The virtual loop is stuck: nothing is ready, no timer is set, no thread runs"
                )
                raise StuckError(message)
            return ready
        self.loop.jump(timeout)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop in virtual time; `time()` starts at 0."""

    def __init__(self, epoch: float = EPOCH) -> None:
        selector = _JumpingSelector()
        selector.loop = self
        self.threads = 0
        self._elapsed = 0.0
        self._epoch = epoch
        super().__init__(selector)
        # Tolerance: after a jump the clock may miss the timer by a rounding error.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self._elapsed

    def wall_time(self) -> float:
        """Seconds since 1970, in virtual time."""
        return self._epoch + self._elapsed

    def jump(self, seconds: float) -> None:
        self._elapsed += seconds

    def run_in_executor(
        self, executor: Executor | None, func: Callable[..., T], *args: object
    ) -> asyncio.Future[T]:
        self.threads += 1
        future = super().run_in_executor(executor, func, *args)

        def done(_future: asyncio.Future[T]) -> None:
            self.threads -= 1

        future.add_done_callback(done)
        return future

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ARG002, ASYNC109 - asyncio's own
        """Join the executor's threads, without a timeout.

        From Python 3.12 on, asyncio's timeout is five minutes. They pass at once in virtual time.
        """
        await super().shutdown_default_executor()


def run_virtual(main: Coroutine[Any, Any, T], *, epoch: float = EPOCH) -> T:
    """`asyncio.run` in virtual time.

    Raises StuckError (the coroutine waits for something that cannot happen).
    """
    with asyncio.Runner(loop_factory=lambda: VirtualLoop(epoch)) as runner:
        return runner.run(main)


def scope_of(request: httpx2.Request, drop: Callable[[], None] = lambda: None) -> Scope:
    """The ASGI scope of a request. `drop` cuts its connection."""
    url = request.url
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": url.scheme,
        "path": url.path,
        "raw_path": url.raw_path.split(b"?")[0],
        "query_string": url.query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": ("127.0.0.1", 0),
        "server": (url.host, url.port),
        "extensions": {"sandbox.drop": drop},
    }


class InMemoryTransport(httpx2.AsyncBaseTransport):
    """Calls an ASGI application in the running loop; answers stream, so watches work.

    The read timeout of a request is measured in the loop's time. The application can call
    `scope["extensions"]["sandbox.drop"]` to cut the connection, as with the HTTPS server.
    """

    def __init__(self, app: AsgiApp, *, refused: Callable[[], bool] = lambda: False) -> None:
        self._app = app
        self._refused = refused

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._refused():
            message = "All connection attempts failed"
            raise httpx2.ConnectError(message, request=request)
        body = await request.aread()
        exchange = _Exchange(request, body)
        exchange.start(self._app)
        try:
            start = await exchange.next_message()
        except BaseException:
            await exchange.aclose()
            raise
        return httpx2.Response(
            start["status"], headers=start.get("headers", []), stream=exchange, request=request
        )


class _Exchange(httpx2.AsyncByteStream):
    """One open request, and the stream of its answer."""

    def __init__(self, request: httpx2.Request, body: bytes) -> None:
        self._request = request
        self._body: bytes | None = body
        self._messages: asyncio.Queue[Message | None] = asyncio.Queue()
        self._closed = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        self._read_timeout = timeouts.get("read")

    def start(self, app: AsgiApp) -> None:
        self._task = asyncio.create_task(self._run(app))

    async def next_message(self) -> Message:
        try:
            async with asyncio.timeout(self._read_timeout):
                message = await self._messages.get()
        except TimeoutError as fault:
            raise httpx2.ReadTimeout("", request=self._request) from fault
        if message is None:
            raise httpx2.ReadError("Connection reset by peer", request=self._request)
        return message

    async def __aiter__(self) -> AsyncIterator[bytes]:
        more = True
        while more:
            message = await self.next_message()
            more = message.get("more_body", False)
            if chunk := message.get("body", b""):
                yield chunk

    async def aclose(self) -> None:
        self._closed.set()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    async def _run(self, app: AsgiApp) -> None:
        scope = scope_of(self._request, self._drop)
        try:
            await app(scope, self._receive, self._send)
        finally:
            self._messages.put_nowait(None)

    def _drop(self) -> None:
        self._messages.put_nowait(None)
        if self._task is not None:
            self._task.cancel()

    async def _receive(self) -> Message:
        if self._body is None:
            await self._closed.wait()
            return {"type": "http.disconnect"}
        body, self._body = self._body, None
        return {"type": "http.request", "body": body, "more_body": False}

    async def _send(self, message: Message) -> None:
        self._messages.put_nowait(message)
