"""Reads and writes of objects, by the rules of the API.

The rules: names, versions, preconditions, grace periods, finalizers. All methods are synchronous:
one call is one transaction.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from kubesim import admission, errors, ownership, schema, validation
from kubesim.resources import BUDGETS, LEASES, NAMESPACES, PODS, Obj, Resource
from kubesim.store import Store, node_of, version_of

_SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"  # as in kube-apiserver: no vowels, so no words
_PREFIX_LENGTH = 63 - 5
FINISHED = ("Succeeded", "Failed")


def timestamp(seconds: float) -> str:
    """RFC 3339 with whole seconds, as in metadata."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def seconds_of(stamp: str) -> float:
    """Seconds since 1970 of an RFC 3339 timestamp."""
    return datetime.fromisoformat(stamp).timestamp()


@dataclass(frozen=True)
class Write:
    """The options of a write.

    `manager`: the field manager; empty for the cluster's controllers, whose fields are not tracked.
    """

    manager: str = ""
    dry_run: bool = False
    subresource: str = ""
    applied: bool = False
    """A server-side apply: it has set the managed fields already."""
    check: Callable[[Resource, Obj, Obj | None], None] | None = None
    """Called with the new and the old object before the write. It raises to refuse the write."""


INTERNAL = Write()


@dataclass(frozen=True)
class Deletion:
    """DeleteOptions."""

    grace: int | None = None
    """Seconds; None: the object's own grace period."""
    uid: str | None = None
    resource_version: str | None = None
    propagation: str = ""
    """Empty: the finalizers for garbage collection stay as they are."""
    dry_run: bool = False


@dataclass
class Registry:
    """The store with the rules of the API. `now`: wall clock in seconds since 1970."""

    store: Store
    now: Callable[[], float]
    # For reproducible UIDs and name suffixes; neither is secret.
    random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311

    def stamp(self) -> str:
        return timestamp(self.now())

    def get(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Return an object.

        Raises ApiError (404).
        """
        obj = self.store.get(resource, namespace, name)
        if obj is None:
            raise errors.not_found(resource, name)
        return obj

    def create(self, resource: Resource, namespace: str, body: Obj, write: Write = INTERNAL) -> Obj:
        """Create an object. `body` may be changed in place.

        Raises ApiError (the object exists or is invalid, the namespace is missing or terminating).
        """
        obj = {k: v for k, v in body.items() if k not in ("kind", "apiVersion")}
        metadata = obj["metadata"] = self._new_metadata(resource, namespace, obj)
        name = metadata.get("name", "")
        if resource.namespaced:
            self.check_namespace(resource, namespace, name)
        if resource.has_status and resource is not NAMESPACES and resource.plural != "nodes":
            obj.pop("status", None)
        admission.set_defaults(resource, obj)
        admission.normalise(resource, obj)
        if write.check is not None:
            write.check(resource, obj, None)
        causes = validation.create_errors(resource, obj)
        if causes:
            raise errors.invalid(resource, name, causes)
        version = metadata.pop("resourceVersion", "")
        if version.isdigit() and int(version) and not write.dry_run:
            raise errors.internal("resourceVersion should not be set on objects to be created")
        existing = self.store.get(resource, namespace, name)
        if existing is not None:
            terminating = "deletionTimestamp" in existing["metadata"]
            raise errors.already_exists(resource, name, terminating=terminating)
        applied = metadata.pop("managedFields", None)
        metadata["uid"] = str(uuid.UUID(int=self.random.getrandbits(128), version=4))
        metadata["creationTimestamp"] = self.stamp()
        if resource.generation:
            metadata["generation"] = 1
        if applied:
            metadata["managedFields"] = applied
        elif write.manager:
            obj = ownership.updated(None, obj, self._manager(resource, write))
        return obj if write.dry_run else self.store.put(resource, obj)

    def _new_metadata(self, resource: Resource, namespace: str, obj: Obj) -> Obj:
        """The metadata of a new object, with its namespace and its name."""
        metadata = {k: v for k, v in (obj.get("metadata") or {}).items() if k not in _RESET}
        check_namespace_of(obj, namespace)
        metadata.pop("namespace", None)
        if resource.namespaced:
            metadata["namespace"] = namespace
        if not metadata.get("name") and metadata.get("generateName"):
            suffix = "".join(self.random.choices(_SUFFIX_ALPHABET, k=5))
            metadata["name"] = metadata["generateName"][:_PREFIX_LENGTH] + suffix
        return metadata

    def check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        """Check that objects may be created in a namespace.

        Raises ApiError (404: it is missing, 403: it is terminating).
        """
        space = self.get(NAMESPACES, "", namespace)
        if "deletionTimestamp" in space["metadata"]:
            raise errors.namespace_terminating(resource, name, namespace)

    def update(self, resource: Resource, old: Obj, body: Obj, write: Write = INTERNAL) -> Obj:
        """Replace `old` with `body`; keep the fields that only the server sets.

        If nothing changes, nothing is written.

        Raises ApiError (the body has another version or UID, or is invalid).
        """
        self._check_version(resource, old, body)
        new = self._prepared(resource, old, body, write)
        if write.manager and not write.applied:
            new = ownership.updated(old, new, self._manager(resource, write))
        if _same(new, old):
            return old
        if write.dry_run:
            return new
        return self._put(resource, new)

    @staticmethod
    def _check_version(resource: Resource, old: Obj, body: Obj) -> None:
        name = old["metadata"]["name"]
        asked = version_of((body.get("metadata") or {}).get("resourceVersion"))
        if not asked and resource in _VERSION_REQUIRED:
            why = "must be specified for an update"
            cause = errors.invalid_value("metadata.resourceVersion", 0, why)
            raise errors.invalid(resource, name, [cause])
        if asked and str(asked) != old["metadata"]["resourceVersion"]:
            raise errors.modified(resource, name)

    def _prepared(self, resource: Resource, old: Obj, body: Obj, write: Write) -> Obj:
        was = old["metadata"]
        obj = {k: v for k, v in body.items() if k not in ("kind", "apiVersion")}
        if write.subresource == "status":
            obj = {**old, "metadata": obj.get("metadata", was), "status": obj.get("status", {})}
        elif resource.has_status:
            obj.pop("status", None)
            if "status" in old:
                obj["status"] = old["status"]
        obj["metadata"] = _kept_metadata(was, dict(obj.get("metadata") or {}))
        admission.normalise(resource, obj)
        if write.check is not None:
            write.check(resource, obj, old)
        causes = validation.update_errors(resource, obj, old) if write.manager else []
        if causes:
            raise errors.invalid(resource, was["name"], causes)
        if resource.generation and obj.get("spec") != old.get("spec"):
            obj["metadata"]["generation"] = was.get("generation", 0) + 1
        return obj

    def _put(self, resource: Resource, new: Obj) -> Obj:
        """Store the object. Remove it if its deletion has no grace period or finalizer left."""
        stored = self.store.put(resource, new)
        metadata = stored["metadata"]
        if (
            "deletionTimestamp" in metadata
            and not metadata.get("finalizers")
            and not metadata.get("deletionGracePeriodSeconds")
            and resource is not NAMESPACES
        ):
            key = metadata.get("namespace", ""), metadata["name"]
            return self.store.remove(resource, *key)
        return stored

    def set_status(self, resource: Resource, obj: Obj, status: dict[str, Any]) -> Obj:
        """Replace the status of an object that the caller has just read."""
        return self.update(resource, obj, {**obj, "status": status}, Write(subresource="status"))

    def apply(
        self, resource: Resource, namespace: str, name: str, body: Obj, write: Write, *, force: bool
    ) -> tuple[Obj, bool]:
        """Server-side apply. Return the object, and whether it is new.

        Raises ApiError (conflicts with other managers, and what `create` and `update` raise).
        """
        applied = {k: v for k, v in body.items() if k not in ("kind", "apiVersion")}
        metadata = applied["metadata"] = dict(applied.get("metadata") or {})
        if resource.has_status and write.subresource != "status":
            applied.pop("status", None)
        manager = self._manager(resource, write, operation="Apply")
        live = self.store.get(resource, namespace, name)
        merged = ownership.apply(live, applied, manager, force=force)
        merged, _unknown = schema.decode(schema.model_of(resource), merged)
        if live is None and metadata.get("uid"):
            why = f"uid mismatch: the provided object specified uid {metadata['uid']}, and no"
            raise errors.conflict(resource, name, f"{why} existing object was found")
        check_namespace_of(applied, namespace)
        if (given := metadata.get("name", "" if live is None else name)) != name:
            raise errors.wrong_name(given, name)
        if live is None:
            version_of(merged["metadata"].pop("resourceVersion", None))
            return self.create(resource, namespace, merged, write), True
        asked = {key: metadata[key] for key in ("uid", "resourceVersion") if key in metadata}
        merged["metadata"] |= asked
        return self.update(resource, live, merged, replace(write, applied=True)), False

    def delete(
        self, resource: Resource, namespace: str, name: str, how: Deletion = Deletion()
    ) -> tuple[Obj, bool]:
        """Delete an object, or start its deletion. Return its state, and whether it is removed.

        Raises ApiError (404, or 409 for a precondition that does not hold).
        """
        obj = self.get(resource, namespace, name)
        self.check_preconditions(resource, obj, how)
        if how.dry_run:
            return obj, resource is not PODS
        return self._delete(resource, obj, how)

    @staticmethod
    def check_preconditions(resource: Resource, obj: Obj, how: Deletion) -> None:
        """Check the preconditions of a deletion.

        Raises ApiError (409: one does not hold).
        """
        metadata = obj["metadata"]
        name, uid, version = (metadata[key] for key in ("name", "uid", "resourceVersion"))
        if how.uid is not None and how.uid != uid:
            raise errors.uid_mismatch(resource, name, how.uid, uid)
        if how.resource_version is not None and how.resource_version != version:
            raise errors.version_mismatch(resource, name, how.resource_version, version)

    def _delete(self, resource: Resource, obj: Obj, how: Deletion) -> tuple[Obj, bool]:
        metadata = obj["metadata"]
        finalizers = list(metadata.get("finalizers") or ())
        if how.propagation:
            finalizers = [each for each in finalizers if each not in _PROPAGATION.values()]
        if how.propagation in _PROPAGATION:
            finalizers.append(_PROPAGATION[how.propagation])
        if resource is PODS:
            changed = self._graceful(obj, how) or obj
            if changed is obj and metadata.get("deletionGracePeriodSeconds"):
                return obj, False  # it is terminating: its finalizers do not change either
        elif "deletionTimestamp" in metadata:
            changed = obj
        elif finalizers or resource is NAMESPACES:
            changed = self._marked(obj, self.now(), 0)
        else:
            return self.store.remove(
                resource, metadata.get("namespace", ""), metadata["name"]
            ), True
        if finalizers != list(metadata.get("finalizers") or ()):
            changed = {**changed, "metadata": {**changed["metadata"], "finalizers": finalizers}}
        if resource is NAMESPACES:
            changed = {**changed, "status": {**changed.get("status", {}), "phase": "Terminating"}}
        left = self._put(resource, changed) if changed != obj else obj
        key = metadata.get("namespace", ""), metadata["name"]
        return left, self.store.get(resource, *key) is None

    def _graceful(self, pod: Obj, how: Deletion) -> Obj | None:
        """The pod with its deletion timestamp and grace period; None: they do not change.

        The grace period of a terminating pod is shortened, never lengthened. It counts from the
        first request.
        """
        metadata = pod["metadata"]
        if "deletionTimestamp" not in metadata:
            grace = self._grace(pod, how.grace)
            return self._marked(pod, self.now() + grace, grace)
        current = metadata.get("deletionGracePeriodSeconds", 0)
        if how.grace is None or how.grace >= current:
            return None
        begun = seconds_of(metadata["deletionTimestamp"]) - current
        end = max(self.now(), begun + how.grace)
        deletion = {"deletionTimestamp": timestamp(end), "deletionGracePeriodSeconds": how.grace}
        return {**pod, "metadata": {**metadata, **deletion}}

    @staticmethod
    def _grace(pod: Obj, asked: int | None) -> int:
        if not node_of(pod) or pod["status"].get("phase") in FINISHED:
            return 0
        own: int = pod["spec"].get("terminationGracePeriodSeconds", admission.DEFAULT_GRACE)
        grace = own if asked is None else asked
        return 1 if grace < 0 else grace

    @staticmethod
    def _marked(obj: Obj, end: float, grace: int) -> Obj:
        metadata = {
            **obj["metadata"],
            "deletionTimestamp": timestamp(end),
            "deletionGracePeriodSeconds": grace,
        }
        if "generation" in metadata:
            metadata["generation"] += 1
        return {**obj, "metadata": metadata}

    def _manager(
        self, resource: Resource, write: Write, operation: str = "Update"
    ) -> ownership.Manager:
        return ownership.Manager(
            name=write.manager,
            operation=operation,
            api_version=resource.api_version,
            paths=frozenset(),
            time=self.stamp(),
            subresource="status" if write.subresource == "status" else "",
        )


_PROPAGATION = {"Foreground": "foregroundDeletion", "Orphan": "orphan"}
"""The finalizers for garbage collection."""

_VERSION_REQUIRED = (BUDGETS, LEASES)
"""Kinds without unconditional updates."""

_SERVER_SET = (
    "name",
    "namespace",
    "resourceVersion",
    "creationTimestamp",
    "generation",
)
_GUARDED = ("uid", "deletionTimestamp", "deletionGracePeriodSeconds")
"""Set by the server only: validation refuses another value."""

_RESET = (*_GUARDED, "creationTimestamp", "generation", "selfLink")


def check_namespace_of(obj: Obj, namespace: str) -> None:
    """Check that an object has the namespace of its request, or none.

    Raises ApiError (400).
    """
    if (obj.get("metadata") or {}).get("namespace", "") not in ("", namespace):
        raise errors.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _kept_metadata(was: Obj, metadata: Obj) -> Obj:
    """The metadata of a write; the fields that only the server sets are unchanged."""
    kept = {key: was[key] for key in (*_SERVER_SET, *_GUARDED) if key in was}
    free = {k: v for k, v in metadata.items() if k not in _SERVER_SET and v not in ({}, [], None)}
    if "managedFields" in was:
        free.setdefault("managedFields", was["managedFields"])
    return {**kept, **free}


def _same(new: Obj, old: Obj) -> bool:
    """Whether the objects are equal, except for the times in managedFields."""
    return {**new, "metadata": _comparable(new)} == {**old, "metadata": _comparable(old)}


def _comparable(obj: Obj) -> Obj:
    entries = [
        {k: v for k, v in entry.items() if k != "time"}
        for entry in obj["metadata"].get("managedFields", ())
    ]
    return {**obj["metadata"], "managedFields": entries}
