"""Put the agent's objects into a cluster, and take them out again.

An object is ours when our field manager applied it and it carries our label and our owner (the
resource of a stack, or the command line). Other objects are never changed or deleted. One error
names every conflict, before the first write.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from lambdas.agent import read_only
from lambdas.agent.manifest import OWNED
from lambdas.common.errors import CastaiError, PermanentError, RetryableError
from lambdas.common.kubernetes_objects import FIELD_MANAGER, FieldConflictError, Kube
from lambdas.common.names import AGENT, OWNER_ANNOTATION

# Each needs those before it. Removal goes backwards, the namespace last.
ORDER: Final[tuple[tuple[str, str], ...]] = (
    ("v1", "Namespace"),
    ("v1", "ResourceQuota"),
    ("v1", "ServiceAccount"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("policy/v1", "PodDisruptionBudget"),
    ("apps/v1", "Deployment"),
)
# Kinds that users may keep in the namespace, and that its deletion would delete.
_USER_KINDS: Final[tuple[tuple[str, str], ...]] = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "ReplicaSet"),
    ("batch/v1", "Job"),
    ("v1", "Pod"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Service"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
)
# Kubernetes makes these in every namespace.
_DEFAULT_OBJECTS: Final = frozenset(
    {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
)
_CONTROLLED: Final = frozenset({("Deployment", "ReplicaSet"), ("ReplicaSet", "Pod")})
_ANYWHERE: Final = frozenset(
    {"Namespace", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"}
)

Object = Mapping[str, Any]
Reference = tuple[str, str, str | None, str]
"""apiVersion, kind, namespace, name."""


class ForeignObjectsError(PermanentError):
    """Objects of the same names exist and are not ours."""


class ContestedFieldsError(PermanentError):
    """Another field manager owns fields of our objects."""


class NamespaceLeavingError(RetryableError):
    """The agent's namespace is still being deleted. It can be made again afterwards."""


@dataclass
class Changes:
    """What was done, in order, for the log and the terminal."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What was not removed, with the reason."""


def apply(kube: Kube, objects: Iterable[Object], *, owner: str, dry_run: bool = False) -> Changes:
    """Apply the objects, and remove ours that are no longer among them.

    With `dry_run` the server checks everything and nothing is written. An application that fails
    removes the objects that it created.

    Raises before the first write: NotReadOnlyError when the manifest could do more than read,
    ForeignObjectsError when an object of these names is not ours, NamespaceLeavingError while an
    earlier removal still runs, and ContestedFieldsError when another manager owns fields of ours.
    Raises ClusterUnauthorizedError, ClusterForbiddenError, ClusterRefusedError and
    ClusterUnavailableError at any time: the cluster's answer.
    """
    wanted = [_marked(each, owner) for each in sorted(objects, key=_place)]
    read_only.prove(wanted, namespace=AGENT)
    found = {_reference(each): kube.get(*_address(_reference(each))) for each in wanted}
    _refuse_foreign(found, owner)
    _settle_namespace(wanted, found, owner)
    _rehearse(kube, wanted, found)
    changes = Changes()
    if dry_run:
        for each in wanted:
            was = found[_reference(each)]
            (changes.updated if was else changes.created).append(title(_reference(each)))
        return changes
    try:
        _write(kube, wanted, found, changes)
    except CastaiError as error:
        _undo(kube, [_reference(each) for each in wanted], changes, error)
        raise
    keep = {_reference(each) for each in wanted}
    _delete(kube, (each for each in _owned(kube, owner) if each not in keep), changes)
    return changes


def remove(kube: Kube, *, owner: str, dry_run: bool = False) -> Changes:
    """Delete every object that is ours; the namespace last, if we made it and it is empty.

    A second call does no harm. `kept` names what stays and why. Raises the cluster's errors.
    """
    changes = Changes()
    ours = list(_owned(kube, owner))
    rest = [each for each in ours if each[1] != "Namespace"]
    namespaces = [each for each in ours if each[1] == "Namespace"]
    if dry_run:
        changes.deleted = [title(each) for each in (*reversed(rest), *namespaces)]
        return changes
    _delete(kube, reversed(rest), changes)
    for namespace in namespaces:
        _remove_namespace(kube, namespace, owner, changes)
    return changes


def left(kube: Kube, *, owner: str) -> str:
    """Our objects that still exist after a removal, in words; empty when there are none.

    A deleted object exists until its pods have ended and its finalizers have run.
    """
    rest = []
    for each in _owned(kube, owner):
        obj = kube.get(*_address(each))
        if obj is not None and (each[1] != "Namespace" or _is_terminating(obj)):
            rest.append(f"{title(each)}{_why_it_stays(obj)}")
    return ", ".join(rest)


def _why_it_stays(obj: Object) -> str:
    """What the namespace's status says about its remaining content."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "NamespaceContentRemaining" and condition["status"] == "True":
            return f" ({condition.get('message')})"
    return ""


def title(reference: Reference) -> str:
    """The object in a message: `Role castai-agent/castai-agent`."""
    _, kind, namespace, name = reference
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def _marked(obj: Object, owner: str) -> dict[str, Any]:
    """The object with our label and owner, by which a removal finds it."""
    marked = copy.deepcopy(dict(obj))
    metadata = marked.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **OWNED}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), OWNER_ANNOTATION: owner}
    return marked


def _place(obj: Object) -> int:
    """Position in ORDER. Other kinds come first: the proof refuses them."""
    key = (obj.get("apiVersion"), obj.get("kind"))
    return ORDER.index(key) if key in ORDER else -1


def _reference(obj: Object) -> Reference:
    metadata = obj["metadata"]
    return obj["apiVersion"], obj["kind"], metadata.get("namespace"), metadata["name"]


def _address(reference: Reference) -> tuple[str, str, str, str | None]:
    api_version, kind, namespace, name = reference
    return api_version, kind, name, namespace


def _is_ours(obj: Object, owner: str) -> bool:
    metadata = obj["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    marked = OWNED.items() <= labels.items() and annotations.get(OWNER_ANNOTATION) == owner
    return marked and any(
        entry.get("manager") == FIELD_MANAGER and entry.get("operation") == "Apply"
        for entry in metadata.get("managedFields") or ()
    )


def _is_terminating(obj: Object | None) -> bool:
    return obj is not None and bool(obj["metadata"].get("deletionTimestamp"))


def _refuse_foreign(found: Mapping[Reference, Object | None], owner: str) -> None:
    """Refuse objects of our names that are not ours. An existing namespace is used."""
    foreign = [
        f"{title(reference)}, made by {_maker(obj)}"
        for reference, obj in found.items()
        if obj is not None and reference[1] != "Namespace" and not _is_ours(obj, owner)
    ]
    if foreign:
        raise ForeignObjectsError(
            "Remove the existing agent the way it was installed (helm uninstall, kubectl delete, "
            "castai-eks disconnect, or its stack):\n" + "\n".join(f"- {each}" for each in foreign)
        )


def _maker(obj: Object) -> str:
    if other := (obj["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION):
        return str(other)
    managers = [entry.get("manager") for entry in obj["metadata"].get("managedFields") or ()]
    return ", ".join(sorted({str(each) for each in managers if each})) or "an unknown manager"


def _settle_namespace(
    wanted: list[dict[str, Any]], found: Mapping[Reference, Object | None], owner: str
) -> None:
    """Keep a namespace that others made out of the objects; one that we make stays among them."""
    for each in [each for each in wanted if each["kind"] == "Namespace"]:
        was = found[_reference(each)]
        if _is_terminating(was):
            raise NamespaceLeavingError(
                f"Wait until namespace {each['metadata']['name']} is gone: it is being deleted"
                f"{_why_it_stays(was or {})}"
            )
        if was is None or _is_ours(was, owner):
            continue
        wanted.remove(each)


def _rehearse(
    kube: Kube, wanted: Sequence[Object], found: Mapping[Reference, Object | None]
) -> None:
    """Dry-run every object that exists already, and name all contested fields.

    New objects cannot conflict, and the server cannot check those of a new namespace.
    """
    contested = []
    for each in wanted:
        if found[_reference(each)] is None:
            continue
        try:
            kube.apply(each, dry_run=True)
        except FieldConflictError as error:
            contested += [
                f"{title(_reference(each))}: {name} is set by {manager}"
                for name, manager in error.conflicts
            ]
    if contested:
        raise ContestedFieldsError(
            "Undo these changes, or give up these fields. Nothing was overwritten:\n"
            + "\n".join(f"- {each}" for each in contested)
        )


def _write(
    kube: Kube,
    wanted: Sequence[Object],
    found: Mapping[Reference, Object | None],
    changes: Changes,
) -> None:
    for each in wanted:
        reference = _reference(each)
        was = found[reference]
        now = kube.apply(each)
        if was is None:
            changes.created.append(title(reference))
        elif _essence(was, each) == _essence(now, each):
            changes.unchanged.append(title(reference))
        else:
            changes.updated.append(title(reference))


def _essence(obj: Object, wanted: Object) -> tuple[object, ...]:
    """The part that we write. Controllers write status and other annotations at any time."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    return (
        {key: value for key, value in obj.items() if key not in ("metadata", "status")},
        metadata.get("labels"),
        {key: annotations.get(key) for key in wanted["metadata"]["annotations"]},
    )


def _undo(kube: Kube, wanted: Sequence[Reference], changes: Changes, error: CastaiError) -> None:
    """Delete what this application created. The next one corrects what it updated."""
    made = [each for each in wanted if title(each) in changes.created]
    try:
        _delete(kube, reversed(made), Changes())
    except CastaiError as second:
        error.add_note(f"Some of the created objects could not be removed again: {second}")


def _owned(kube: Kube, owner: str) -> Iterator[Reference]:
    """References of everything that is ours, in the order of application."""
    for api_version, kind in ORDER:
        namespace = None if kind in _ANYWHERE else AGENT
        for each in kube.list(api_version, kind, namespace=namespace, labels=OWNED):
            if _is_ours(each, owner):
                yield _reference(each)


def _delete(kube: Kube, references: Iterable[Reference], changes: Changes) -> None:
    for each in references:
        kube.delete(*_address(each))
        changes.deleted.append(title(each))


def _remove_namespace(kube: Kube, namespace: Reference, owner: str, changes: Changes) -> None:
    obj = kube.get(*_address(namespace))
    if obj is None or _is_terminating(obj):
        return
    foreign = [title(each) for each in _foreign_in(kube, namespace[3], owner)]
    if foreign:
        changes.kept.append(f"{title(namespace)}: holds {', '.join(foreign)}")
        return
    _delete(kube, [namespace], changes)


def _foreign_in(kube: Kube, namespace: str, owner: str) -> Iterator[Reference]:
    """Objects in the namespace that are not ours, and not made by one of ours."""
    for api_version, kind in _USER_KINDS:
        for each in kube.list(api_version, kind, namespace=namespace):
            default = (kind, each["metadata"]["name"]) in _DEFAULT_OBJECTS
            if not (default or _is_ours(each, owner) or _goes_by_itself(each)):
                yield _reference(each)


def _goes_by_itself(obj: Object) -> bool:
    """ReplicaSets and pods of a Deployment that we deleted: Kubernetes deletes them next."""
    return any(
        owner.get("controller")
        and (owner.get("kind"), obj["kind"]) in _CONTROLLED
        and str(owner.get("name")).startswith(AGENT)
        for owner in obj["metadata"].get("ownerReferences") or ()
    )
