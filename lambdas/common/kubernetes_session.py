"""A cluster's Kubernetes API for one run: opened on first use, closed on every way out."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from types import TracebackType
from typing import Self

from lambdas.common import kubernetes_objects
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster, token_for
from lambdas.common.kubernetes_objects import Kube

Access = Callable[[Cluster], AbstractContextManager[float]]
"""Access to a cluster inside the `with`; yields until when (epoch seconds) the cluster may still
refuse it."""

OpenKube = Callable[[Cluster, Clock, float, float], Kube]
"""Connects to a cluster. The numbers, in epoch seconds: when to stop retrying, and until when the
cluster may refuse access that is new."""


def existing_access(_cluster: Cluster) -> AbstractContextManager[float]:
    """The access that this process has without a grant."""
    return nullcontext(0.0)


def open_kube(cluster: Cluster, clock: Clock, until: float, refusals_pass_until: float) -> Kube:
    """Connect with this process's own AWS identity."""
    return kubernetes_objects.connect(
        cluster,
        token_for(cluster),
        clock=clock,
        until=until,
        refusals_pass_until=refusals_pass_until,
    )


class KubernetesSession:
    """A context manager. A run that never calls `kube` never has access to the cluster."""

    def __init__(
        self,
        access: Access,
        *,
        until: float,
        open_kube: OpenKube = open_kube,
        clock: Clock = SYSTEM,
    ) -> None:
        """`until`: epoch seconds after which calls are no longer retried, undo included."""
        self._access = access
        self._until = until
        self._open_kube = open_kube
        self._clock = clock
        self._exits = ExitStack()
        self._kube: Kube | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close. The error of the body is raised; what fails while closing becomes a note of it."""
        self._kube = None
        self._exits.__exit__(kind, error, trace)

    def kube(self, cluster: Cluster) -> Kube:
        """The client for the cluster's Kubernetes API; the first call gets access and connects.

        Raises AwsRefusedError or AwsUnavailableError where access cannot be granted.
        """
        if self._kube is None:
            refusals_pass_until = self._exits.enter_context(self._access(cluster))
            client = self._open_kube(cluster, self._clock, self._until, refusals_pass_until)
            self._kube = self._exits.enter_context(client)
        return self._kube

    def close(self) -> None:
        """Disconnect and remove temporary access; the next `kube` opens the session again.

        Raises AwsRefusedError or AwsUnavailableError where the access cannot be removed.
        """
        self._kube = None
        self._exits.close()
