"""Asynchronous tests in virtual time."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import wraps
from typing import Any

import httpx2

from kubesim.virtual import run_virtual


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on an event loop with virtual time."""

    @wraps(test)
    def run(**arguments: Any) -> None:
        run_virtual(test(**arguments))

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


async def evict(client: httpx2.AsyncClient, name: str, **options: Any) -> httpx2.Response:
    body = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name},
        "deleteOptions": options,
    }
    return await client.post(f"/api/v1/namespaces/default/pods/{name}/eviction", json=body)


async def watch(client: httpx2.AsyncClient, path: str, **query: str) -> AsyncIterator[Any]:
    parameters = {"watch": "1", **query}
    async with client.stream("GET", path, params=parameters, timeout=None) as stream:
        async for line in stream.aiter_lines():
            yield json.loads(line)
