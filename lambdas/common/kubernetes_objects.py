"""A cluster's Kubernetes API for whole objects: plain JSON in and out, our errors.

Over lightkube's synchronous client. Objects are dicts, read and sent as they are: a typed model
would drop the fields that it does not know. Every call is retried until `until` where a retry can
help. The drain has a client of its own (docs/adr/0002-a-thin-kubernetes-client.md).
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final, Self, TypeVar

import httpx2
import lightkube
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as ClusterConfig
from lightkube.config.models import Context, User
from lightkube.generic_resource import (
    GenericGlobalResource,
    GenericNamespacedResource,
    create_api_info,
)
from lightkube.types import CascadeType, PatchType

from lambdas.common import retry
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster, Token
from lambdas.common.errors import (
    CastaiError,
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    ClusterUnavailableError,
    PermanentError,
    RetryableError,
)
from lambdas.common.kubernetes_answers import Rules, Status, error_of, status_of
from lambdas.common.text import REFUSAL_LIMIT, cut

FIELD_MANAGER: Final = "castai-eks"
"""The field manager of what we apply."""

REQUEST_TIMEOUT: Final = 10.0  # s for one answer
PATIENCE: Final = 30.0  # s for one call with its retries
PAGE: Final = 500  # objects of one answer, as kubectl asks for
FIELD_CONFLICT: Final = "FieldManagerConflict"

Object = Mapping[str, Any]
T = TypeVar("T")

# Those that we never touch are not here on purpose.
_KINDS: Final[Mapping[str, tuple[str, ...]]] = {
    "v1": (
        "ConfigMap",
        "Namespace",
        "Node",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "Pod",
        "ResourceQuota",
        "Secret",
        "Service",
        "ServiceAccount",
    ),
    "apps/v1": ("DaemonSet", "Deployment", "ReplicaSet", "StatefulSet"),
    "batch/v1": ("Job",),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"),
}
_WITHOUT_NAMESPACE: Final = frozenset(
    {"Namespace", "Node", "PersistentVolume", "ClusterRole", "ClusterRoleBinding"}
)


def _generic(api_version: str, kind: str) -> Any:  # noqa: ANN401 - lightkube's classes are dynamic
    """lightkube addresses a kind through its class; the objects of this one are dicts.

    It is in no registry: `create_global_resource` would put it where lightkube's YAML looks.
    """
    group, _, version = api_version.rpartition("/")
    base = GenericGlobalResource if kind in _WITHOUT_NAMESPACE else GenericNamespacedResource
    info = create_api_info(group, version, kind, plural=f"{kind.lower()}s")
    return type(kind, (base,), {"_api_info": info})


_CLASSES: Final[Mapping[tuple[str, str], Any]] = {
    (api_version, kind): _generic(api_version, kind)
    for api_version, kinds in _KINDS.items()
    for kind in kinds
}

_NOT_FOUND, _CONFLICT = 404, 409
# lightkube reads an answer as JSON with the fields of an object, and an error's Content-Type.
_UNREADABLE: Final = (ValueError, LookupError, TypeError, AttributeError, RecursionError)
RULES: Final = Rules(
    unauthorized="Give this identity access to the cluster (access entry, or aws-auth)",
    forbidden="Give this identity the right in the cluster",
    retried=frozenset({408, 410, 429}),  # 410: pages of a list that is too old by now
    limit=REFUSAL_LIMIT,
)


class FieldConflictError(PermanentError):
    """Another field manager owns fields that we would set. `conflicts` holds (field, manager)
    pairs.
    """

    def __init__(self, message: str, conflicts: tuple[tuple[str, str], ...]) -> None:
        super().__init__(message)
        self.conflicts = conflicts


class WrittenMeanwhileError(PermanentError):
    """Another client wrote the object since it was read: read it again before the next attempt."""


class _NotYetKnownError(RetryableError):
    """401 or 403 shortly after we were given access: this API server does not know of it yet."""

    def __init__(self, refusal: ClusterUnauthorizedError | ClusterForbiddenError) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal


class Kube:
    """The Kubernetes API of one cluster.

    All methods raise ClusterUnauthorizedError, ClusterForbiddenError, ClusterRefusedError, or
    ClusterUnavailableError when the time is used up.
    """

    def __init__(
        self,
        client: lightkube.Client,
        *,
        clock: Clock = SYSTEM,
        until: float = float("inf"),
        refusals_pass_until: float = 0.0,
    ) -> None:
        """`until` ends every retry; before `refusals_pass_until` a 401 or 403 is retried too.

        Both are epoch seconds.
        """
        self._client: Any = client  # its overloads know kinds by class; here a kind is data
        self._clock = clock
        self._until = until
        self._settled = refusals_pass_until

    def __enter__(self) -> Self:
        """Use as a context manager to close connections."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close connections."""
        self._client.close()

    def get(
        self, api_version: str, kind: str, name: str, namespace: str | None = None
    ) -> dict[str, Any] | None:
        """The object, or None where there is none."""
        what = f"reading {kind} {_path(name, namespace)}"
        try:
            return self._ask(
                what,
                lambda: self._client.get(_class(api_version, kind), name, **_in(namespace)),
            )
        except ClusterRefusedError as error:
            if error.code == _NOT_FOUND:
                return None
            raise

    def list_as(
        self,
        make: Callable[[dict[str, Any]], T],
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
        patience: float = PATIENCE,
    ) -> list[T]:
        """As `list`, and each object becomes what `make` makes of it while pages are read: whole
        objects of a large cluster would fill the memory. `patience`: seconds from the first page
        until no list is begun again.
        """
        resource = _class(api_version, kind)
        spaced = kind not in _WITHOUT_NAMESPACE
        where: dict[str, Any] = {"namespace": namespace or lightkube.ALL_NS} if spaced else {}
        if labels:
            where["labels"] = dict(labels)

        def call() -> list[T]:
            # Items of a list come without kind and version.
            head = {"apiVersion": api_version, "kind": kind}
            found = self._client.list(resource, chunk_size=PAGE, **where)
            return [make(head | item) for item in found]

        return self._retried(f"listing {kind}", call, patience=patience)

    def list(
        self,
        api_version: str,
        kind: str,
        *,
        namespace: str | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> list[dict[str, Any]]:
        """Objects of a kind; of all namespaces where it has any and none is given."""
        return self.list_as(dict[str, Any], api_version, kind, namespace=namespace, labels=labels)

    def apply(self, obj: Object, *, dry_run: bool = False) -> dict[str, Any]:
        """Server-side apply under our field manager; fields of others are never overwritten.

        Raises FieldConflictError with every contested field.
        """
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")

        def call() -> Any:  # noqa: ANN401 - lightkube's objects are typed by kind
            return self._client.patch(
                _class(obj["apiVersion"], obj["kind"]),
                name,
                dict(obj),
                patch_type=PatchType.APPLY,
                field_manager=FIELD_MANAGER,
                dry_run=dry_run,
                **_in(namespace),
            )

        return self._ask(f"applying {obj['kind']} {_path(name, namespace)}", call)

    def create(self, obj: Object) -> dict[str, Any]:
        """POST. Raises WrittenMeanwhileError where the object exists already."""
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
        resource = _class(obj["apiVersion"], obj["kind"])
        return self._ask(
            f"creating {obj['kind']} {_path(name, namespace)}",
            lambda: self._client.create(resource(obj)),
        )

    def replace(self, obj: Object, *, dry_run: bool = False) -> dict[str, Any]:
        """PUT of the whole object. Raises WrittenMeanwhileError for an old resourceVersion."""
        name, namespace = obj["metadata"]["name"], obj["metadata"].get("namespace")
        resource = _class(obj["apiVersion"], obj["kind"])
        return self._ask(
            f"writing {obj['kind']} {_path(name, namespace)}",
            lambda: self._client.replace(resource(obj), dry_run=dry_run),
        )

    def delete(self, api_version: str, kind: str, name: str, namespace: str | None = None) -> None:
        """Delete the object; its dependents are collected in the background. It is no error where
        it does not exist.
        """

        def call() -> None:
            self._client.delete(
                _class(api_version, kind),
                name,
                cascade=CascadeType.BACKGROUND,
                **_in(namespace),
            )

        try:
            self._retried(f"deleting {kind} {_path(name, namespace)}", call)
        except ClusterRefusedError as error:
            if error.code != _NOT_FOUND:
                raise

    def _ask(self, what: str, call: Callable[[], Any]) -> dict[str, Any]:
        return self._retried(what, lambda: dict(call()))

    def _retried(self, what: str, call: Callable[[], T], *, patience: float = PATIENCE) -> T:
        def once() -> T:
            try:
                with translated_errors(what):
                    return call()
            except (ClusterUnauthorizedError, ClusterForbiddenError) as error:
                if self._clock.now() < self._settled:
                    raise _NotYetKnownError(error) from error
                raise

        until = max(self._clock.now() + patience, self._settled)
        try:
            return retry.call(once, until=min(self._until, until), clock=self._clock)
        except _NotYetKnownError as error:
            raise error.refusal from error


def config_of(cluster: Cluster, token: Token) -> SingleConfig:
    """The client configuration: the cluster's certificate authority alone, the present token."""
    return SingleConfig(
        context_name=cluster.name,
        context=Context(cluster=cluster.name, user=cluster.name),
        cluster=ClusterConfig(
            server=cluster.endpoint,
            certificate_auth_data=base64.b64encode(cluster.ca_pem.encode()).decode(),
        ),
        user=User(token=token.get()),
    )


def connect(
    cluster: Cluster,
    token: Token,
    *,
    clock: Clock = SYSTEM,
    until: float = float("inf"),
    refusals_pass_until: float = 0.0,
) -> Kube:
    """The API of `cluster`, under the token's identity."""
    timeout = httpx2.Timeout(REQUEST_TIMEOUT)
    client = lightkube.Client(config_of(cluster, token), timeout=timeout, trust_env=False)
    return Kube(client, clock=clock, until=until, refusals_pass_until=refusals_pass_until)


@contextmanager
def translated_errors(what: str) -> Iterator[None]:
    """Turn lightkube's and httpx2's errors into ours; `what` is what was being done."""
    try:
        yield
    except httpx2.HTTPStatusError as error:
        raise _refusal(what, error) from error
    except httpx2.TransportError as error:
        raise ClusterUnavailableError(
            "Check that the cluster's endpoint can be reached (VPC, security group, public access):"
            f" {what} failed ({type(error).__name__})",
            unreachable=True,
        ) from error
    except (httpx2.DecodingError, *_UNREADABLE) as error:
        raise ClusterUnavailableError(
            f"Check any proxy before the cluster's endpoint: {what} got an answer that cannot be "
            f"read ({type(error).__name__})"
        ) from error


def _refusal(what: str, error: httpx2.HTTPStatusError) -> CastaiError:
    if error.response.status_code != _CONFLICT:
        return error_of(what, error.response, RULES)
    status = status_of(error.response)
    if conflicts := _conflicts(status):
        fields = cut("; ".join(f"{f} is {manager}'s" for f, manager in conflicts), REFUSAL_LIMIT)
        return FieldConflictError(
            "Remove the fields that another field manager owns; none was overwritten: "
            f"{what}: {fields}",
            conflicts,
        )
    said = cut(status.message, REFUSAL_LIMIT)
    return WrittenMeanwhileError(f"Read again and try again: {what}: {_CONFLICT} {said}")


def _conflicts(status: Status) -> tuple[tuple[str, str], ...]:
    """(field, manager) of each cause; the manager is quoted in the cause's message."""
    return tuple(
        (cause.field or "?", cause.message.partition('"')[2].partition('"')[0] or "?")
        for cause in status.causes
        if cause.reason == FIELD_CONFLICT
    )


def _class(api_version: str, kind: str) -> Any:  # noqa: ANN401 - lightkube's classes are dynamic
    try:
        return _CLASSES[api_version, kind]
    except KeyError:
        raise PermanentError(f"Leave {kind} ({api_version}) out: it is not handled here") from None


def _in(namespace: str | None) -> dict[str, str]:
    return {"namespace": namespace} if namespace else {}


def _path(name: str, namespace: str | None) -> str:
    return f"{namespace}/{name}" if namespace else name
