"""Deletion of the dependents of a deleted owner and of the contents of a namespace."""

from __future__ import annotations

from collections import defaultdict

from kubesim.controllers.base import Controller, Key
from kubesim.registry import Deletion, Registry
from kubesim.resources import BY_KIND, NAMESPACES, TABLE, Obj, Resource
from kubesim.store import Change

_Place = tuple[Resource, str, str]


class GarbageCollector(Controller):
    """Implements the propagation policies of DELETE.

    Background: deletes objects whose owners are all deleted. Foreground: keeps the owner until its
    dependents are deleted. Orphan: removes the owner references of the dependents.
    """

    name = "garbage-collector"

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        self._dependents: dict[str, set[_Place]] = defaultdict(set)
        self._deleting: dict[str, _Place] = {}

    def on_change(self, change: Change) -> None:
        metadata = change.new["metadata"]
        place = change.resource, metadata.get("namespace", ""), metadata["name"]
        owners = [owner["uid"] for owner in metadata.get("ownerReferences", ())]
        if change.kind == "DELETED":
            for uid in owners:
                self._dependents[uid].discard(place)
                self._wake(uid)
            self._deleting.pop(metadata["uid"], None)
            self._wake(metadata["uid"])
            return
        for uid in owners:
            self._dependents[uid].add(place)
            if change.kind == "ADDED":
                self.enqueue((uid,))
        if metadata.get("finalizers") and "deletionTimestamp" in metadata:
            self._deleting[metadata["uid"]] = place
            self.enqueue((metadata["uid"],))

    def _wake(self, uid: str) -> None:
        if self._dependents.get(uid) or uid in self._deleting:
            self.enqueue((uid,))

    def sync(self, key: Key) -> None:
        uid = key[0]
        owner = self._deleting.get(uid)
        if owner is None:
            self._collect(uid)
            return
        obj = self.store.get(*owner)
        if obj is None:
            return
        finalizers = obj["metadata"].get("finalizers") or ()
        if "orphan" in finalizers:
            self._orphan(uid)
            self._unfinalize(owner[0], obj, "orphan")
        elif "foregroundDeletion" in finalizers:
            self._collect(uid, owned_too=True)
            if not self._dependents.get(uid):
                self._unfinalize(owner[0], obj, "foregroundDeletion")

    def _collect(self, uid: str, *, owned_too: bool = False) -> None:
        """Delete the dependents of an owner; with `owned_too` also those with another owner."""
        for resource, namespace, name in sorted(
            self._dependents.get(uid, ()), key=lambda place: (place[0].kind, *place[1:])
        ):
            obj = self.store.get(resource, namespace, name)
            if obj is None:
                self._dependents[uid].discard((resource, namespace, name))
            elif "deletionTimestamp" not in obj["metadata"] and (owned_too or not self._owned(obj)):
                how = Deletion(uid=obj["metadata"]["uid"])
                self.registry.delete(resource, namespace, name, how)

    def _owned(self, obj: Obj) -> bool:
        """Whether an owner of the object still exists."""
        for owner in obj["metadata"].get("ownerReferences", ()):
            resource = BY_KIND.get((owner["apiVersion"], owner["kind"]))
            if resource is None:
                return True  # the kind is not served: the owner may exist
            namespace = obj["metadata"].get("namespace", "") if resource.namespaced else ""
            found = self.store.get(resource, namespace, owner["name"])
            if found is not None and found["metadata"]["uid"] == owner["uid"]:
                return True
        return False

    def _orphan(self, uid: str) -> None:
        for place in list(self._dependents.pop(uid, ())):
            obj = self.store.get(*place)
            if obj is not None:
                owners = [o for o in obj["metadata"]["ownerReferences"] if o["uid"] != uid]
                metadata = {**obj["metadata"], "ownerReferences": owners}
                self.registry.update(place[0], obj, {**obj, "metadata": metadata})

    def _unfinalize(self, resource: Resource, obj: Obj, finalizer: str) -> None:
        left = [f for f in obj["metadata"].get("finalizers", ()) if f != finalizer]
        metadata = {**obj["metadata"], "finalizers": left}
        self.registry.update(resource, obj, {**obj, "metadata": metadata})


class NamespaceController(Controller):
    """Deletes the contents of a terminating namespace, then the namespace."""

    name = "namespace"
    latency = 0.2

    def on_change(self, change: Change) -> None:
        if change.resource is NAMESPACES and change.kind != "DELETED":
            self.enqueue((change.new["metadata"]["name"],))
        elif change.kind == "DELETED" and change.resource.namespaced:
            self._wake(change.new["metadata"]["namespace"])

    def _wake(self, name: str) -> None:
        namespace = self.store.get(NAMESPACES, "", name)
        if namespace is not None and "deletionTimestamp" in namespace["metadata"]:
            self.enqueue((name,))

    def sync(self, key: Key) -> None:
        name = key[0]
        namespace = self.store.get(NAMESPACES, "", name)
        if namespace is None or "deletionTimestamp" not in namespace["metadata"]:
            return
        for resource in TABLE:
            for obj in list(self.store.objects(resource, name)) if resource.namespaced else ():
                if "deletionTimestamp" not in obj["metadata"]:
                    self.registry.delete(resource, name, obj["metadata"]["name"])
        if not self._contents(name) and not namespace["metadata"].get("finalizers"):
            self.store.remove(NAMESPACES, "", name)

    def _contents(self, name: str) -> bool:
        return any(True for r in TABLE if r.namespaced for _ in self.store.objects(r, name))
