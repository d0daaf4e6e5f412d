"""The real client over the simulated API without a socket, and a clock that never waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx2
import pytest

from lambdas.common.castai import CastaiApi
from lambdas.common.clock import Clock
from sandbox.castai_api.app import App
from sandbox.castai_api.state import State

KEY = "castai-key-for-tests"
START = 1_700_000_000.0


@dataclass
class Time:
    """Moves only when someone sleeps, or when a test says that a request took long."""

    now: float = START
    slept: list[float] = field(default_factory=list)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds

    @property
    def clock(self) -> Clock:
        return Clock(now=lambda: self.now, sleep=self.sleep)


class AppTransport(httpx2.BaseTransport):
    """Hands requests straight to the ASGI application, whose coroutines never wait."""

    def __init__(self, app: App) -> None:
        self._transport = httpx2.ASGITransport(app)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        async def send() -> httpx2.Response:
            response = await self._transport.handle_async_request(request)
            await response.aread()
            return httpx2.Response(
                response.status_code, headers=response.headers, content=response.content
            )

        return asyncio.run(send())


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def state() -> State:
    return State(KEY)


@pytest.fixture
def api(state: State, time: Time) -> Iterator[CastaiApi]:
    transport = AppTransport(App(state))
    with CastaiApi(KEY, "https://api.test", clock=time.clock, transport=transport) as client:
        yield client


Answering = Callable[..., CastaiApi]


@pytest.fixture
def answering(time: Time) -> Answering:
    """A client whose server gives these answers (or raises these errors), the last for ever."""

    def client(*answers: httpx2.Response | Exception, deadline: float = float("inf")) -> CastaiApi:
        given = list(answers)

        def handle(_: httpx2.Request) -> httpx2.Response:
            answer = given.pop(0) if len(given) > 1 else given[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return CastaiApi(
            KEY,
            "https://api.test",
            deadline=deadline,
            clock=time.clock,
            transport=httpx2.MockTransport(handle),
        )

    return client
