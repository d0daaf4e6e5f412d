"""CAST AI's API for a day: it answers, is slow, is away, or repeats the key in its errors."""

from __future__ import annotations

import asyncio

import httpx2

KEY = "simulated-castai-api-key"
CLUSTER_ID = "6c7a2c0e-0000-4000-8000-000000000001"
SLOW = 20.0  # s


class Api(httpx2.AsyncBaseTransport):
    """A transport that answers without a network. `how`: `up`, `slow`, `down` or `echo`."""

    def __init__(self, how: str) -> None:
        self._how = how

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        if self._how == "down":
            raise httpx2.ConnectError("refused", request=request)
        if self._how == "slow":
            await asyncio.sleep(SLOW)
        if self._how == "echo":
            said = {"message": f"no rights for {request.headers.get('x-api-key')}"}
            return httpx2.Response(500, json=said, request=request)
        return httpx2.Response(200, json={}, request=request)
