"""The simulated cluster over HTTPS on loopback, from a thread or from the running loop."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import uvicorn
import yaml
from uvicorn.protocols.http.h11_impl import H11Protocol

from kubesim.certificates import Certificates
from kubesim.cluster import ADMIN_TOKEN, SimulatedCluster
from kubesim.faults import Faults
from kubesim.requestlog import RequestLog
from kubesim.resources import Obj
from kubesim.state import ClusterState

HOST = "127.0.0.1"
CALL_SECONDS = 60.0
"""Time limit of a call into the cluster's thread."""

KEEP_ALIVE_SECONDS = 180
"""For idle connections, as in kube-apiserver."""

T = TypeVar("T")


class _Protocol(H11Protocol):
    """Lets the application cut its connection, as the in-memory transport does."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - uvicorn's own
        super().__init__(*args, **kwargs)
        app = self.app

        async def with_drop(scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401
            extensions = {**scope.get("extensions", {}), "sandbox.drop": self.transport.abort}
            scope["extensions"] = extensions
            await app(scope, receive, send)

        self.app = with_drop


class _Server(uvicorn.Server):
    """A server that sets an event when it listens, handles no signals, and can go down and up."""

    def __init__(self, config: uvicorn.Config, faults: Faults) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.port = 0
        self._restarts: set[asyncio.Task[None]] = set()
        faults.listen(self._go_down, self._go_up)

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    async def startup(self, sockets: Any = None) -> None:  # noqa: ANN401
        await super().startup(sockets)
        self.port = self.servers[0].sockets[0].getsockname()[1]
        self.listening.set()

    def cut(self) -> None:
        """Cut every connection."""
        for connection in list(self.server_state.connections):
            connection.transport.abort()

    def _go_down(self) -> None:
        for server in self.servers:
            server.close()
        self.cut()

    def _go_up(self) -> None:
        # The socket listens from now on. Connections wait in its backlog until `_listen` runs.
        sock = socket.create_server((HOST, self.port), backlog=self.config.backlog)
        task = asyncio.get_running_loop().create_task(self._listen(sock))
        self._restarts.add(task)
        task.add_done_callback(self._restarts.discard)

    async def _listen(self, sock: socket.socket) -> None:
        server = await asyncio.get_running_loop().create_server(
            lambda: _Protocol(
                config=self.config, server_state=self.server_state, app_state=self.lifespan.state
            ),
            sock=sock,
            ssl=self.config.ssl,
        )
        self.servers = [server]


@contextlib.asynccontextmanager
async def https(
    cluster: SimulatedCluster, certificates: Certificates, port: int = 0
) -> AsyncIterator[str]:
    """Serve a cluster in the running loop; yield the endpoint.

    Raises OSError (the port is in use).
    """
    config = uvicorn.Config(
        cluster.app,
        host=HOST,
        port=port,
        http=_Protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=1,
        ssl_certfile=certificates.certificate,
        ssl_keyfile=certificates.key,
        backlog=2048,
    )
    server = _Server(config, cluster.faults)
    serving = asyncio.create_task(server.serve())
    listening = asyncio.create_task(server.listening.wait())
    await asyncio.wait([serving, listening], return_when=asyncio.FIRST_COMPLETED)
    if not server.listening.is_set():
        listening.cancel()
        message = f"Free port {port} on {HOST}, or use port 0: the server could not listen"
        raise OSError(message)
    try:
        yield f"https://{HOST}:{server.port}"
    finally:
        server.should_exit = True
        cluster.app.drop_connections()
        server.cut()
        await serving


def kubeconfig(endpoint: str, ca_pem: str, token: str = ADMIN_TOKEN, *, user: str = "admin") -> str:
    """A kubeconfig (YAML) for a bearer token."""
    name = "sandbox"
    authority = base64.b64encode(ca_pem.encode()).decode()
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {
                    "name": name,
                    "cluster": {"server": endpoint, "certificate-authority-data": authority},
                }
            ],
            "users": [{"name": user, "user": {"token": token}}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": user}}],
            "current-context": name,
        },
        sort_keys=False,
    )


class ServedCluster(ClusterState):
    """A simulated cluster over HTTPS, in its own thread.

    In `with ServedCluster() as cluster:`, a client needs `cluster.endpoint`, `cluster.ca_pem` and
    `cluster.kubeconfig()`. The methods that build and read the state are those of
    `SimulatedCluster`. `run` calls a function with the `SimulatedCluster` in its thread.

    Arguments are those of `SimulatedCluster`, and the port.
    """

    def __init__(self, *, port: int = 0, **options: Any) -> None:  # noqa: ANN401 - passed through
        self.endpoint = ""
        self.ca_pem = ""
        self._port = port
        self._options = options
        self._cluster: SimulatedCluster | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._thread = threading.Thread(target=self._main, name="sandbox-cluster", daemon=True)
        self._started = threading.Event()
        self._failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(CALL_SECONDS)
        if self._failure is not None:
            raise self._failure
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._loop is not None and self._stop is not None:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(CALL_SECONDS)

    def kubeconfig(self, token: str = ADMIN_TOKEN) -> str:
        """A kubeconfig (YAML) for a token."""
        return kubeconfig(self.endpoint, self.ca_pem, token)

    def ssl_context(self) -> ssl.SSLContext:
        """The context of a client that trusts this cluster only."""
        return ssl.create_default_context(cadata=self.ca_pem)

    def run(self, function: Callable[[SimulatedCluster], T]) -> T:
        """Call a function with the cluster, in the cluster's thread."""

        async def call() -> T:
            return function(self._running())

        result: T = self._await(call(), CALL_SECONDS)
        return result

    def until(
        self, condition: Callable[[SimulatedCluster], object], *, timeout: float = CALL_SECONDS
    ) -> None:
        """Wait until a condition on the state holds.

        Raises TimeoutError (it does not hold after `timeout` seconds).
        """

        async def wait() -> None:
            cluster = self._running()
            async with asyncio.timeout(timeout):
                await cluster.until(lambda: condition(cluster))

        self._await(wait(), timeout + CALL_SECONDS)

    def wait_up(self, *, timeout: float = CALL_SECONDS) -> None:
        """Wait until a server that a fault took down listens again.

        Raises TimeoutError (it does not listen after `timeout` seconds).
        """

        async def wait() -> None:
            up = asyncio.Event()
            faults = self._running().faults
            faults.listen(lambda: None, up.set)
            if faults.is_down():
                async with asyncio.timeout(timeout):
                    await up.wait()

        self._await(wait(), timeout + CALL_SECONDS)

    @property
    def faults(self) -> Faults:
        """The faults. `add` is safe from any thread; `down_for` must be called through `run`."""
        return self._running().faults

    @property
    def log(self) -> RequestLog:
        return self._running().log

    def create(self, obj: Obj) -> Obj:
        return self.run(lambda cluster: cluster.create(obj))

    def get(self, kind: str, name: str, namespace: str = "") -> Obj | None:
        return self.run(lambda cluster: cluster.get(kind, name, namespace))

    def list(self, kind: str, namespace: str = "") -> list[Obj]:
        return self.run(lambda cluster: cluster.list(kind, namespace))

    def set(self, obj: Obj) -> Obj:
        return self.run(lambda cluster: cluster.set(obj))

    def delete(
        self, kind: str, name: str, namespace: str = "", *, grace: int | None = None
    ) -> None:
        self.run(lambda cluster: cluster.delete(kind, name, namespace, grace=grace))

    def pods_on(self, node: str) -> Sequence[Obj]:
        return self.run(lambda cluster: cluster.pods_on(node))

    def stamp(self) -> str:
        return self.run(lambda cluster: cluster.stamp())

    def _running(self) -> SimulatedCluster:
        if self._cluster is None:
            message = "Enter the cluster first: with ServedCluster() as cluster"
            raise RuntimeError(message)
        return self._cluster

    def _await(self, coroutine: Any, seconds: float) -> Any:  # noqa: ANN401 - the coroutine's own
        if self._loop is None:
            coroutine.close()
            self._running()
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)  # type: ignore[arg-type]

    def _main(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as failure:  # noqa: BLE001 - raised again by `__enter__`
            self._failure = failure
        finally:
            self._started.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        with tempfile.TemporaryDirectory(prefix="kubesim-") as folder:
            certificates = Certificates.ensure(Path(folder))
            self.ca_pem = certificates.ca.read_text()
            async with (
                SimulatedCluster(**self._options) as self._cluster,
                https(self._cluster, certificates, self._port) as self.endpoint,
            ):
                self._started.set()
                await self._stop.wait()
