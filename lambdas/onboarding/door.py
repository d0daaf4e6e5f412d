"""The door to the cluster's Kubernetes API: opened when a step first needs it, shut on every way
out. A run that needs nothing inside the cluster never has access to it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from lambdas.common import kube, own_access
from lambdas.common.cluster import Cluster, Token, token_for
from lambdas.common.kube import Kube
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

    def __enter__(self) -> Self:
        """Nothing is opened yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close connections, then take our own access back."""
        self._kube = None
        self._ways_out.__exit__(kind, error, trace)

    def kube(self, ctx: Context) -> Kube:
        """The cluster's API, as `context.ClusterDoor` has it."""
        if self._kube is None:
            settled = 0.0
            if self._principal and not ctx.plan_only:
                settled = self._ways_out.enter_context(
                    own_access.granted(
                        ctx.clients.eks, ctx.cluster, self._principal, clock=ctx.clock
                    )
                )
            client = kube.connect(
                ctx.cluster,
                self._token(ctx.cluster),
                clock=ctx.clock,
                until=self._until,
                settled=settled,
            )
            self._kube = self._ways_out.enter_context(client)
        return self._kube
