"""The simulated API on a loopback port: in a thread for tests, in the foreground as a process."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import uvicorn

from sandbox.castai_api.app import App

HOST = "127.0.0.1"
_JOIN = 10.0  # s for the server's thread to end


@dataclass(frozen=True)
class Tls:
    """Certificate and key files for https."""

    certificate: str
    key: str


class _Server(uvicorn.Server):
    """Calls `ready` when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        self._ready()


def listen(port: int = 0) -> socket.socket:
    """Return a loopback socket on `port`; 0: on a free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((HOST, port))
    return sock


def url_of(sock: socket.socket, tls: Tls | None = None) -> str:
    """Return the URL of the API on this socket."""
    return f"{'https' if tls else 'http'}://{HOST}:{sock.getsockname()[1]}"


def server(app: App, ready: Callable[[], None], tls: Tls | None = None) -> uvicorn.Server:
    """Return the server, not yet running. It calls `ready` when it listens."""
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        ws="none",
        ssl_certfile=tls.certificate if tls else None,
        ssl_keyfile=tls.key if tls else None,
    )
    return _Server(config, ready)


@contextmanager
def running(app: App) -> Iterator[str]:
    """Serve the application in a thread until the `with` block ends. Yields the URL."""
    listening = threading.Event()
    with listen() as sock:
        api = server(app, listening.set)
        thread = threading.Thread(
            target=api.run, kwargs={"sockets": [sock]}, name="castai-api", daemon=True
        )
        thread.start()
        try:
            if not listening.wait(_JOIN):
                raise RuntimeError(f"the simulated CAST AI did not start within {_JOIN:.0f} s")
            yield url_of(sock)
        finally:
            api.should_exit = True
            thread.join(_JOIN)
