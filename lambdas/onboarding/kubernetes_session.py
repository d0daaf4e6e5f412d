"""The door to the cluster's Kubernetes API: opened when a step first needs it, shut on every way
out. A run that needs nothing inside the cluster never has access to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Self

from lambdas.common import kubernetes_objects, temporary_access
from lambdas.common.eks import Cluster, Token, token_for
from lambdas.common.errors import CastaiError
from lambdas.common.kubernetes_objects import Kube
from lambdas.onboarding.context import Context


class Door:
    """Use as a context manager. `principal_arn` None: come as who we are, grant nothing."""

    def __init__(
        self,
        principal_arn: str | None,
        *,
        until: float,
        token: Callable[[Cluster], Token] = token_for,
    ) -> None:
        """`until`: the end of all patience with the cluster, the time to undo included."""
        self._principal = principal_arn
        self._until = until
        self._token = token
        self._ways_out = ExitStack()
        self._kube: Kube | None = None
        self._granted: Callable[[], AbstractContextManager[float]] = lambda: nullcontext(0.0)

    def __enter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Shut the door, whatever happened."""
        try:
            self.close()
        except CastaiError as second:
            if error is None:
                raise
            error.add_note(str(second))

    def kube(self, ctx: Context) -> Kube:
        """The cluster's API, as `context.ClusterDoor` has it."""
        if self._kube is None:
            self._granted = self._grant_of(ctx)
            refusals_pass_until = self._ways_out.enter_context(self._granted())
            client = kubernetes_objects.connect(
                ctx.cluster,
                self._token(ctx.cluster),
                clock=ctx.clock,
                until=self._until,
                refusals_pass_until=refusals_pass_until,
            )
            self._kube = self._ways_out.enter_context(client)
        return self._kube

    def close(self) -> None:
        """Close connections and take our own access back; the next `kube` opens again.

        Raises CastaiError where our access cannot be removed, after a second try.
        """
        self._kube = None
        try:
            self._ways_out.close()
        except CastaiError:
            with self._granted():  # the entry is found, used and removed again
                pass

    def _grant_of(self, ctx: Context) -> Callable[[], AbstractContextManager[float]]:
        if self._principal is None or ctx.plan_only:
            return lambda: nullcontext(0.0)
        principal, eks, cluster, clock = self._principal, ctx.clients.eks, ctx.cluster, ctx.clock
        return lambda: temporary_access.temporary_access(eks, cluster, principal, clock=clock)
