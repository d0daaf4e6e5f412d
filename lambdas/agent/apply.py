"""Apply the agent's objects to a cluster, and remove them.

An object is ours if our field manager applied it and it has our label and our owner (the resource
of a stack, or the command line). Other objects are never changed or deleted. One error names every
conflict, before the first write.
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

# The order of application. The order of removal is the reverse, with the namespace last.
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
# Kinds that users may have in the namespace. The deletion of the namespace would delete them.
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
    ("v1", "ResourceQuota"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
)
# Kubernetes creates these in every namespace.
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


class NamespaceTerminatingError(RetryableError):
    """The agent's namespace is still being deleted. It can be created again afterwards."""


@dataclass
class Changes:
    """What was done, in order, for the log and the terminal."""

    created: list[str] = field(default_factory=list)
    updated: list[str] = field(default_factory=list)
    unchanged: list[str] = field(default_factory=list)
    deleted: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What was not removed, with the reason."""


def apply(
    kube: Kube,
    objects: Iterable[Object],
    *,
    owner: str,
    dry_run: bool = False,
    made: list[Reference] | None = None,
) -> Changes:
    """Apply the objects, and remove our objects that are not in `objects`.

    With `dry_run` the API server checks the existing objects and nothing is written. If a call
    fails later, the objects that this one created are removed. `made`: what earlier tries created
    and could not remove; it is removed as well, and what is left afterwards is in it.

    Raises before the first write: NotReadOnlyError if the manifest allows more than reading,
    ForeignObjectsError if an object of the same name is not ours, NamespaceTerminatingError while
    an earlier removal still runs, and ContestedFieldsError if another field manager owns fields of
    our objects. Raises at any time, for the answer of the Kubernetes API: ClusterUnauthorizedError,
    ClusterForbiddenError, ClusterRefusedError and ClusterUnavailableError.
    """
    wanted = [_marked(each, owner) for each in sorted(objects, key=_place)]
    read_only.prove(wanted, namespace=AGENT)
    made = [] if made is None else made
    changes = Changes()
    try:
        found = {_reference(each): kube.get(*_address(_reference(each))) for each in wanted}
        _refuse_foreign(found, owner)
        _skip_foreign_namespace(wanted, found, owner)
        _dry_run(kube, wanted, found)
        if dry_run:
            for each in wanted:
                was = found[_reference(each)]
                (changes.updated if was else changes.created).append(title(_reference(each)))
            return changes
        _write(kube, wanted, found, changes, made)
        keep = {_reference(each) for each in wanted}
        _delete(kube, (each for each in _owned(kube, owner) if each not in keep), changes)
    except CastaiError as error:
        _undo(kube, made, owner, error)
        raise
    return changes


def remove(kube: Kube, *, owner: str, dry_run: bool = False) -> Changes:
    """Delete every object that is ours; the namespace last, if we created it and it is empty.

    It may be called again. `kept` names what stays, with the reason. Raises the errors of the
    Kubernetes API.
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
    """Our objects that still exist after a removal, as text; empty if there are none.

    A deleted object exists until its pods have ended and its finalizers have run.
    """
    rest = []
    for each in _owned(kube, owner):
        obj = kube.get(*_address(each))
        if obj is not None and (each[1] != "Namespace" or _is_terminating(obj)):
            rest.append(f"{title(each)}{_why_it_stays(obj)}")
    return ", ".join(rest)


def _why_it_stays(obj: Object) -> str:
    """The message about remaining content in the namespace's status; empty if there is none."""
    for condition in (obj.get("status") or {}).get("conditions") or ():
        if condition.get("type") == "NamespaceContentRemaining" and condition["status"] == "True":
            return f" ({condition.get('message')})"
    return ""


def title(reference: Reference) -> str:
    """The object in a message: `Role castai-agent/castai-agent`."""
    _, kind, namespace, name = reference
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def _marked(obj: Object, owner: str) -> dict[str, Any]:
    """A copy of the object with our label and owner, by which a removal finds it."""
    marked = copy.deepcopy(dict(obj))
    metadata = marked.setdefault("metadata", {})
    metadata["labels"] = {**(metadata.get("labels") or {}), **OWNED}
    metadata["annotations"] = {**(metadata.get("annotations") or {}), OWNER_ANNOTATION: owner}
    return marked


def _place(obj: Object) -> int:
    """Position in ORDER. Other kinds come first; `read_only` refuses them."""
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
    """Refuse objects of the same names that are not ours. An existing namespace is accepted."""
    foreign = [
        f"{title(reference)}, made by {_maker(obj)}"
        for reference, obj in found.items()
        if obj is not None and reference[1] != "Namespace" and not _is_ours(obj, owner)
    ]
    if foreign:
        raise ForeignObjectsError(
            "Remove the existing agent with the tool that installed it (helm uninstall, kubectl "
            "delete, castai-eks disconnect, or its stack):\n"
            + "\n".join(f"- {each}" for each in foreign)
        )


def _maker(obj: Object) -> str:
    if other := (obj["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION):
        return str(other)
    managers = [entry.get("manager") for entry in obj["metadata"].get("managedFields") or ()]
    return ", ".join(sorted({str(each) for each in managers if each})) or "an unknown manager"


def _skip_foreign_namespace(
    wanted: list[dict[str, Any]], found: Mapping[Reference, Object | None], owner: str
) -> None:
    """Drop from `wanted` a namespace that others created: it is used and not changed.

    Raises NamespaceTerminatingError while the namespace is being deleted.
    """
    for each in [each for each in wanted if each["kind"] == "Namespace"]:
        was = found[_reference(each)]
        if _is_terminating(was):
            raise NamespaceTerminatingError(
                f"Wait until namespace {each['metadata']['name']} is deleted: it is terminating"
                f"{_why_it_stays(was or {})}"
            )
        if was is None or _is_ours(was, owner):
            continue
        wanted.remove(each)


def _dry_run(
    kube: Kube, wanted: Sequence[Object], found: Mapping[Reference, Object | None]
) -> None:
    """Dry-run the write of every object that exists already.

    New objects cannot conflict, and the API server cannot check objects of a new namespace.

    Raises ContestedFieldsError with all contested fields.
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
            "Undo these changes, or let the other managers release these fields. Nothing was "
            "overwritten:\n" + "\n".join(f"- {each}" for each in contested)
        )


def _write(
    kube: Kube,
    wanted: Sequence[Object],
    found: Mapping[Reference, Object | None],
    changes: Changes,
    made: list[Reference],
) -> None:
    """`made` gets each object before it is created: its answer may be lost."""
    for each in wanted:
        reference = _reference(each)
        was = found[reference]
        if was is None:
            made.append(reference)
        now = kube.apply(each)
        if was is None:
            changes.created.append(title(reference))
        elif _own_part(was, each) == _own_part(now, each):
            changes.unchanged.append(title(reference))
        else:
            changes.updated.append(title(reference))


def _own_part(obj: Object, wanted: Object) -> tuple[object, ...]:
    """The part that we write. Controllers write status and other annotations at any time."""
    metadata = obj["metadata"]
    annotations = metadata.get("annotations") or {}
    return (
        {key: value for key, value in obj.items() if key not in ("metadata", "status")},
        metadata.get("labels"),
        {key: annotations.get(key) for key in wanted["metadata"]["annotations"]},
    )


def _undo(kube: Kube, made: list[Reference], owner: str, error: CastaiError) -> None:
    """Delete the created objects, and take each out of `made`.

    The next call corrects those that were updated.
    """
    try:
        while made:
            obj = kube.get(*_address(made[-1]))
            if obj is not None and _is_ours(obj, owner):
                kube.delete(*_address(made[-1]))
            made.pop()
    except CastaiError as second:
        left = ", ".join(title(each) for each in made)
        error.add_note(f"What was created could not be removed again ({left}): {second}")


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
    """Objects in the namespace that are not ours and do not belong to one of ours."""
    for api_version, kind in _USER_KINDS:
        for each in kube.list(api_version, kind, namespace=namespace):
            default = (kind, each["metadata"]["name"]) in _DEFAULT_OBJECTS
            if not (default or _is_ours(each, owner) or _is_garbage(each)):
                yield _reference(each)


def _is_garbage(obj: Object) -> bool:
    """Whether it is a ReplicaSet or pod of our deleted Deployment: Kubernetes deletes it next."""
    return any(
        owner.get("controller")
        and (owner.get("kind"), obj["kind"]) in _CONTROLLED
        and str(owner.get("name")).startswith(AGENT)
        for owner in obj["metadata"].get("ownerReferences") or ()
    )
