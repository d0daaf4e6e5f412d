"""CAST AI's client on the simulated API without a socket, with a clock that does not wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import httpx2
import pytest

from lambdas.common.castai import CastaiApi
from sandbox.castai_api.app import App
from sandbox.castai_api.state import State
from tests.support.fake_time import FakeTime

KEY = "castai-key-for-tests"
START = 1_700_000_000.0


class AppTransport(httpx2.BaseTransport):
    """Calls the ASGI application directly; its coroutines never wait."""

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
def time() -> FakeTime:
    return FakeTime(START)


@pytest.fixture
def state() -> State:
    return State(KEY)


@pytest.fixture
def api(state: State, time: FakeTime) -> Iterator[CastaiApi]:
    transport = AppTransport(App(state))
    with CastaiApi(KEY, "https://api.test", clock=time.clock, transport=transport) as client:
        yield client


Answering = Callable[..., CastaiApi]


@pytest.fixture
def answering(time: FakeTime) -> Answering:
    """A client whose server gives these answers or errors, and then repeats the last one."""

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
