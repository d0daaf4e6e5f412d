"""The kinds that the cluster serves, as one table.

The columns define the generic behaviour. The behaviour of single kinds is in `admission` and the
controllers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

Json: TypeAlias = Any
"""Decoded JSON of any shape."""

Obj = dict[str, Any]
"""A Kubernetes object as decoded JSON. In the store it has no kind and apiVersion. It is never
changed in place: a write replaces it with another dict."""

VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True)
class Resource:
    """One served resource.

    `generation`: metadata.generation counts changes of the spec. `returns_deleted`: DELETE answers
    with the object instead of a Status, as kube-apiserver does for these kinds.
    """

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    generation: bool = False
    returns_deleted: bool = False
    singular: str = ""
    created_by_update: bool = False
    """Whether a PUT creates an object that does not exist."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """The name in error messages: `pods`, `deployments.apps`."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified_kind(self) -> str:
        return f"{self.kind}.{self.group}" if self.group else self.kind

    @property
    def has_status(self) -> bool:
        return "status" in self.subresources

    def typed(self, obj: Obj) -> Obj:
        """`obj` with kind and apiVersion in front."""
        return {"kind": self.kind, "apiVersion": self.api_version, **obj}


_STATUS = ("status",)
_SCALED = ("scale", "status")
_RBAC = "rbac.authorization.k8s.io"
_STORAGE = "storage.k8s.io"

PODS = Resource(
    "",
    "v1",
    "pods",
    "Pod",
    short=("po",),
    subresources=("status", "eviction", "binding"),
    generation=True,
    returns_deleted=True,
)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False, short=("no",), subresources=_STATUS)
NAMESPACES = Resource(
    "",
    "v1",
    "namespaces",
    "Namespace",
    namespaced=False,
    short=("ns",),
    subresources=("status", "finalize"),
    returns_deleted=True,
)
EVENTS = Resource("", "v1", "events", "Event", short=("ev",), created_by_update=True)
SERVICE_ACCOUNTS = Resource(
    "", "v1", "serviceaccounts", "ServiceAccount", short=("sa",), returns_deleted=True
)
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICES = Resource(
    "", "v1", "services", "Service", True, ("svc",), _STATUS, returns_deleted=True,
    created_by_update=True,
)  # fmt: skip
QUOTAS = Resource(
    "", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), _STATUS, returns_deleted=True
)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap", short=("cm",))
DEPLOYMENTS = Resource(
    "apps", "v1", "deployments", "Deployment", True, ("deploy",), _SCALED, generation=True
)
REPLICA_SETS = Resource(
    "apps", "v1", "replicasets", "ReplicaSet", True, ("rs",), _SCALED, generation=True
)
STATEFUL_SETS = Resource(
    "apps", "v1", "statefulsets", "StatefulSet", True, ("sts",), _SCALED, generation=True
)
DAEMON_SETS = Resource(
    "apps", "v1", "daemonsets", "DaemonSet", True, ("ds",), _STATUS, generation=True
)
BUDGETS = Resource(
    "policy",
    "v1",
    "poddisruptionbudgets",
    "PodDisruptionBudget",
    short=("pdb",),
    subresources=_STATUS,
    generation=True,
)
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim", short=("pvc",))
VOLUMES = Resource(
    "", "v1", "persistentvolumes", "PersistentVolume", namespaced=False, short=("pv",)
)
VOLUME_ATTACHMENTS = Resource(
    _STORAGE,
    "v1",
    "volumeattachments",
    "VolumeAttachment",
    namespaced=False,
    subresources=_STATUS,
    returns_deleted=True,
)
CLUSTER_ROLES = Resource(_RBAC, "v1", "clusterroles", "ClusterRole", False, created_by_update=True)
CLUSTER_ROLE_BINDINGS = Resource(
    _RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", False, created_by_update=True
)
ROLES = Resource(_RBAC, "v1", "roles", "Role", created_by_update=True)
ROLE_BINDINGS = Resource(_RBAC, "v1", "rolebindings", "RoleBinding", created_by_update=True)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease", created_by_update=True)

TABLE: tuple[Resource, ...] = (
    PODS,
    NODES,
    NAMESPACES,
    EVENTS,
    SERVICE_ACCOUNTS,
    CONFIG_MAPS,
    SECRETS,
    SERVICES,
    QUOTAS,
    Resource("", "v1", "replicationcontrollers", "ReplicationController", short=("rc",)),
    CLAIMS,
    VOLUMES,
    DEPLOYMENTS,
    REPLICA_SETS,
    STATEFUL_SETS,
    DAEMON_SETS,
    BUDGETS,
    CLUSTER_ROLES,
    CLUSTER_ROLE_BINDINGS,
    ROLES,
    ROLE_BINDINGS,
    LEASES,
    Resource(
        _STORAGE, "v1", "storageclasses", "StorageClass", False, ("sc",), singular="storageclass"
    ),
    Resource(_STORAGE, "v1", "csinodes", "CSINode", namespaced=False),
    VOLUME_ATTACHMENTS,
    Resource(
        "scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",),
        singular="priorityclass",
    ),
    Resource("batch", "v1", "jobs", "Job", subresources=_STATUS, generation=True),
    Resource(
        "autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler",
        short=("hpa",), subresources=_STATUS,
    ),
)  # fmt: skip

BY_PATH = {(r.group, r.version, r.plural): r for r in TABLE}
BY_KIND = {(r.api_version, r.kind): r for r in TABLE}
GROUPS = frozenset(r.group for r in TABLE)
GROUP_VERSIONS = tuple(dict.fromkeys((r.group, r.version) for r in TABLE if r.group))


def find(kind: str) -> Resource:
    """The resource of a kind (`Pod`), plural (`pods`) or short name (`po`).

    Raises LookupError (the kind is not served).
    """
    for resource in TABLE:
        if kind in (resource.kind, resource.plural, resource.qualified, *resource.short):
            return resource
    message = f"Add this kind to kubesim/resources.py: {kind!r}"
    raise LookupError(message)


def of(obj: Obj) -> Resource:
    """The resource of an object with kind and apiVersion.

    Raises LookupError (as in `find`).
    """
    try:
        return BY_KIND[obj["apiVersion"], obj["kind"]]
    except KeyError:
        message = (
            f"Add this kind to kubesim/resources.py: {obj.get('apiVersion')} {obj.get('kind')}"
        )
        raise LookupError(message) from None


def singular(resource: Resource) -> str:
    return resource.singular or resource.kind.lower()
