"""The unit tier is pure: a socket opened here is a mistake."""

from __future__ import annotations

import pytest
from pytest_socket import disable_socket, enable_socket


@pytest.fixture(autouse=True)
def _no_network() -> object:
    disable_socket(allow_unix_socket=True)  # asyncio's own wake-up pipe is a socket pair
    yield
    enable_socket()
