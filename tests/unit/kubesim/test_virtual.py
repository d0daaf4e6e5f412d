"""Virtual time, and HTTP requests in it."""

from __future__ import annotations

import asyncio

import httpx2
import pytest

from kubesim import virtual as virtual_time
from kubesim.virtual import EPOCH, InMemoryTransport, StuckError, VirtualLoop, run_virtual
from tests.unit.kubesim.support import virtual


def test_ten_minutes_pass_without_waiting() -> None:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        await asyncio.sleep(600)
        return loop.wall_time()

    assert run_virtual(main()) == pytest.approx(EPOCH + 600)


@virtual
async def test_timers_run_in_the_order_of_their_times() -> None:
    order: list[int] = []
    loop = asyncio.get_running_loop()
    for seconds in (30, 10, 20):
        loop.call_later(seconds, order.append, seconds)

    await asyncio.sleep(31)

    assert order == [10, 20, 30]


@virtual
async def test_the_clock_stops_while_a_thread_runs() -> None:
    loop = asyncio.get_running_loop()
    released = asyncio.Event()
    later = loop.call_later(1_000, released.set)

    done = await asyncio.to_thread(lambda: "done")

    assert (done, loop.time()) == ("done", 0)
    later.cancel()


def test_a_stuck_loop_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(virtual_time, "STUCK_SECONDS", 0.0)

    async def main() -> None:
        await asyncio.Event().wait()

    with pytest.raises(StuckError, match="loop is stuck"):
        run_virtual(main())


async def _slow(_scope: object, _receive: object, _send: object) -> None:
    """An application that never answers."""
    await asyncio.sleep(1e6)


@virtual
async def test_a_read_timeout_is_measured_in_virtual_time() -> None:
    async with httpx2.AsyncClient(transport=InMemoryTransport(_slow), timeout=10) as client:
        with pytest.raises(httpx2.ReadTimeout):
            await client.get("https://cluster.invalid/")

    assert asyncio.get_running_loop().time() == pytest.approx(10)
