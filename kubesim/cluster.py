"""The simulated cluster: store, API and controllers in the running event loop."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from types import TracebackType
from typing import Self, TypeVar

import httpx2

from kubesim import resources
from kubesim.api import Api
from kubesim.authentication import Authenticator, StaticTokens
from kubesim.controllers import ALL, Controller
from kubesim.controllers.kubelet import Kubelets
from kubesim.controllers.scheduler import Scheduler
from kubesim.faults import Faults, How
from kubesim.rbac import BOOTSTRAP, MASTERS, Authorizer
from kubesim.registry import Deletion, Registry, Write, timestamp
from kubesim.requestlog import RequestLog
from kubesim.resources import PODS, Obj
from kubesim.state import ClusterState
from kubesim.store import HISTORY, Change, Store
from kubesim.virtual import InMemoryTransport, VirtualLoop

ADMIN_TOKEN = "admin-token"  # noqa: S105 - of a simulated cluster only
NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
URL = "https://cluster.invalid"

C = TypeVar("C", bound=Controller)


class SimulatedCluster(ClusterState):
    """A cluster in the running event loop.

    `async with SimulatedCluster() as cluster:` starts the controllers. `cluster.client()` is an
    HTTP client of the API in this loop. `cluster.app` is the API as an ASGI application.

    `admin_token`: the token of a cluster administrator. `tokens` (token → user name and groups) and
    `authenticators` add other users. `without`: names of controllers that do not run.
    """

    def __init__(
        self,
        *,
        tokens: dict[str, tuple[str, tuple[str, ...]]] | None = None,
        admin_token: str = ADMIN_TOKEN,
        authenticators: Sequence[Authenticator] = (),
        without: Iterable[str] = (),
        now: Callable[[], float] | None = None,
        history: int = HISTORY,
    ) -> None:
        self._now = now
        self.store = Store(history, self.now)
        self.registry = Registry(self.store, self.now)
        self.faults = Faults()
        self.log = RequestLog()
        self.authorizer = Authorizer(self.store)
        known = {admin_token: ("kubernetes-admin", (MASTERS,)), **(tokens or {})}
        self.app = Api(
            self.registry,
            (StaticTokens(known), *authenticators),
            self.authorizer,
            self.faults,
            self.log,
        )
        left_out = set(without)
        unknown = left_out - {controller.name for controller in ALL}
        if unknown:
            message = f"Use the names of controllers; unknown: {', '.join(sorted(unknown))}"
            raise ValueError(message)
        self.controllers = tuple(c(self.registry) for c in ALL if c.name not in left_out)
        self._unsubscribe: Callable[[], None] | None = None

    def now(self) -> float:
        """The wall clock in seconds since 1970; virtual in a virtual loop."""
        if self._now is not None:
            return self._now()
        loop = asyncio.get_running_loop()
        return loop.wall_time() if isinstance(loop, VirtualLoop) else time.time()

    async def __aenter__(self) -> Self:
        self._unsubscribe = self.store.subscribe(self._dispatch)
        self._bootstrap()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.app.drop_connections()
        for controller in self.controllers:
            controller.stop()
        if self._unsubscribe is not None:
            self._unsubscribe()

    def client(
        self, token: str = ADMIN_TOKEN, *, timeout: float | None = 5.0
    ) -> httpx2.AsyncClient:
        """An HTTP client of the API in this loop. `timeout`: seconds for each read."""
        return httpx2.AsyncClient(
            transport=self.transport(),
            base_url=URL,
            headers={"Authorization": f"Bearer {token}"},
            timeout=timeout,
        )

    def transport(self) -> InMemoryTransport:
        """The transport that calls the API in this loop."""
        return InMemoryTransport(self.app, refused=self.faults.is_down)

    def controller(self, kind: type[C]) -> C:
        """The controller of a type.

        Raises LookupError (it does not run).
        """
        for controller in self.controllers:
            if isinstance(controller, kind):
                return controller
        raise LookupError(kind.name)

    def create(self, obj: Obj) -> Obj:
        resource = resources.of(obj)
        namespace = obj["metadata"].get("namespace", "")
        status = obj.get("status")
        body = {**obj, "metadata": dict(obj["metadata"])}
        created = self.registry.create(resource, namespace, body)
        if status and created.get("status") != status:
            created = self.registry.set_status(resource, created, status)
        return resource.typed(created)

    def get(self, kind: str, name: str, namespace: str = "") -> Obj | None:
        resource = resources.find(kind)
        obj = self.store.get(resource, namespace, name)
        return None if obj is None else resource.typed(obj)

    def list(self, kind: str, namespace: str = "") -> list[Obj]:
        resource = resources.find(kind)
        return [resource.typed(obj) for obj in self.store.objects(resource, namespace)]

    def set(self, obj: Obj) -> Obj:
        resource = resources.of(obj)
        metadata = obj["metadata"]
        old = self.registry.get(resource, metadata.get("namespace", ""), metadata["name"])
        stored = self.registry.update(resource, old, obj)
        if "status" in obj and resource.has_status:
            stored = self.registry.update(
                resource, stored, {**stored, "status": obj["status"]}, Write(subresource="status")
            )
        return resource.typed(stored)

    def delete(
        self, kind: str, name: str, namespace: str = "", *, grace: int | None = None
    ) -> None:
        self.registry.delete(resources.find(kind), namespace, name, Deletion(grace=grace))

    def pods_on(self, node: str) -> Sequence[Obj]:
        return [PODS.typed(pod) for pod in self.store.pods_on(node)]

    def stamp(self) -> str:
        return timestamp(self.now())

    def stop_node(self, name: str) -> None:
        """Stop the machine of a node: its pods do not change until the node is deleted."""
        self.controller(Kubelets).stop_node(name)

    def delay_bindings(self, seconds: float) -> None:
        """Bind each pod so many seconds after the scheduler has chosen its node."""
        self.controller(Scheduler).bind_seconds = seconds

    def compact(self) -> None:
        """Make every earlier resourceVersion too old."""
        self.store.compact()

    def break_watches(self, how: How = "reset", kind: str = "") -> None:
        """Break every open watch, or those of one kind (`pods`)."""
        self.app.break_watches(how, resources.find(kind) if kind else None)

    async def until(self, condition: Callable[[], object]) -> None:
        """Wait until a condition on the state holds. It is checked after each change."""
        changed = asyncio.Event()
        unsubscribe = self.store.subscribe(lambda _change: changed.set())
        try:
            while not condition():
                changed.clear()
                await changed.wait()
        finally:
            unsubscribe()

    def _dispatch(self, change: Change) -> None:
        for controller in self.controllers:
            controller.on_change(change)

    def _bootstrap(self) -> None:
        """Create the objects that every cluster has from the start."""
        if self.store.version:
            return
        for name in NAMESPACES:
            self.add_namespace(name)
        group = "rbac.authorization.k8s.io"
        for name, rules, subject in BOOTSTRAP:
            labels = {"kubernetes.io/bootstrapping": "rbac-defaults"}
            meta = {"name": name, "labels": labels}
            common = {"apiVersion": f"{group}/v1", "metadata": meta}
            self.create({"kind": "ClusterRole", **common, "rules": rules})
            binding = {
                "kind": "ClusterRoleBinding",
                **common,
                "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": name},
                "subjects": [{"kind": "Group", "name": subject, "apiGroup": group}],
            }
            self.create(binding)
