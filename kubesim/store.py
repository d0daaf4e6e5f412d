"""The objects, their versions, and the history for watches and for later pages of a list.

No I/O. Objects are replaced, never changed: each object is a snapshot.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import Literal, NamedTuple

from kubesim import errors
from kubesim.resources import PODS, Json, Obj, Resource

HISTORY = 20_000
"""Changes kept per resource. A list of an older version is answered with 410, as after a compaction
in etcd."""

WINDOW = 100
WINDOW_SECONDS = 75.0
"""A watch starts from the last 100 changes of its resource and from all of the last 75 seconds. Of
kube-apiserver's watch cache this is the least (storage/cacher: defaultLowerBoundCapacity,
DefaultEventFreshDuration)."""

ChangeKind = Literal["ADDED", "MODIFIED", "DELETED"]


class Change(NamedTuple):
    """One write: its version, and the object after and before it.

    For a deletion `new` is the object's last state with the version of the deletion.
    """

    version: int
    kind: ChangeKind
    resource: Resource
    new: Obj
    old: Obj | None
    time: float = 0.0


class Store:
    """Versioned objects by resource, namespace and name."""

    def __init__(self, history: int = HISTORY, now: Callable[[], float] = lambda: 0.0) -> None:
        """`now`: the time in seconds."""
        self.version = 0
        self._now = now
        self._history = history
        self._objects: dict[Resource, dict[str, dict[str, Obj]]] = defaultdict(dict)
        self._sorted: dict[tuple[Resource, str], list[str]] = {}
        self._changes: dict[Resource, deque[Change]] = {}
        self._compacted: dict[Resource, int] = {}
        self._floor = 0
        self._by_node: dict[str, dict[tuple[str, str], Obj]] = defaultdict(dict)
        self._by_owner: dict[str, dict[tuple[str, str], Obj]] = defaultdict(dict)
        self._subscribers: list[Callable[[Change], None]] = []

    def get(self, resource: Resource, namespace: str, name: str) -> Obj | None:
        return self._objects[resource].get(namespace, {}).get(name)

    def objects(self, resource: Resource, namespace: str = "") -> Iterator[Obj]:
        """All objects, or those of one namespace, in order of namespace and name."""
        spaces = self._objects[resource]
        for space in [namespace] if namespace else sorted(spaces):
            objects = spaces.get(space)
            if objects:
                for name in self._names(resource, space, objects):
                    yield objects[name]

    def pods_on(self, node: str) -> list[Obj]:
        """The pods bound to a node, in order."""
        pods = self._by_node.get(node, {})
        return [pods[key] for key in sorted(pods)]

    def pods_bound(self, node: str) -> int:
        return len(self._by_node.get(node, ()))

    def pods_of(self, owner_uid: str) -> list[Obj]:
        """The pods whose controller has this UID, in order."""
        pods = self._by_owner.get(owner_uid, {})
        return [pods[key] for key in sorted(pods)]

    def put(self, resource: Resource, obj: Obj) -> Obj:
        """Create or replace an object; returns it with its new resourceVersion."""
        metadata = obj["metadata"]
        namespace, name = metadata.get("namespace", ""), metadata["name"]
        space = self._objects[resource].setdefault(namespace, {})
        old = space.get(name)
        new = self._versioned(obj)
        space[name] = new
        if old is None:
            self._sorted.pop((resource, namespace), None)
        kind: ChangeKind = "ADDED" if old is None else "MODIFIED"
        self._record(Change(self.version, kind, resource, new, old, self._now()))
        return new

    def remove(self, resource: Resource, namespace: str, name: str) -> Obj:
        """Remove an object; returns its last state with the version of the removal.

        Raises KeyError (there is none).
        """
        space = self._objects[resource][namespace]
        old = space.pop(name)
        if not space:
            del self._objects[resource][namespace]
        self._sorted.pop((resource, namespace), None)
        last = self._versioned(old)
        self._record(Change(self.version, "DELETED", resource, last, old, self._now()))
        return last

    def check_reached(self, version: int) -> None:
        """Check that the store has a version.

        Raises ApiError (504: it is in the future).
        """
        if version > self.version:
            raise errors.version_too_large(version, self.version)

    def since(self, resource: Resource, version: int) -> list[Change]:
        """The changes after `version`, for a watch.

        Raises ApiError (410: the window of watches starts after `version`).
        """
        found = self._after(resource, version)
        if len(found) > WINDOW and self._now() - found[0].time > WINDOW_SECONDS:
            raise errors.too_old(version, found[-WINDOW - 1].version)
        return found

    def _after(self, resource: Resource, version: int) -> list[Change]:
        """The changes after `version`.

        Raises ApiError (410: the history starts after `version`).
        """
        self._check_age(resource, version)
        found: list[Change] = []
        for change in reversed(self._changes.get(resource, ())):
            if change.version <= version:
                break
            found.append(change)
        found.reverse()
        return found

    def at(self, resource: Resource, version: int, current: Iterable[Obj]) -> list[Obj]:
        """The objects of a resource at `version`. `current`: the objects now.

        This keeps the pages of one list consistent.

        Raises ApiError (410: the history starts after `version`).
        """
        changes = self._after(resource, version)
        if not changes:
            return list(current)
        objects: dict[tuple[str, str], Obj] = {_key(obj): obj for obj in current}
        for change in reversed(changes):
            if change.old is None:
                objects.pop(_key(change.new), None)
            else:
                objects[_key(change.new)] = change.old
        return [objects[key] for key in sorted(objects)]

    def version_before(self, resource: Resource, changes: int) -> int:
        """The version before the last `changes` changes of a resource; 0: the version now."""
        if not changes:
            return self.version
        kept = self._changes.get(resource, ())
        return kept[-min(changes, len(kept))].version - 1 if kept else self.version

    def compact(self) -> None:
        """Clear the history: every earlier resourceVersion is now too old (410)."""
        for changes in self._changes.values():
            changes.clear()
        self._compacted.clear()
        self._floor = self.version

    def subscribe(self, subscriber: Callable[[Change], None]) -> Callable[[], None]:
        """Call `subscriber` with every change, inside the write; it must not write.

        Return the function that ends the subscription.
        """
        self._subscribers.append(subscriber)
        return lambda: self._subscribers.remove(subscriber)

    def _names(self, resource: Resource, namespace: str, objects: dict[str, Obj]) -> list[str]:
        key = resource, namespace
        if key not in self._sorted:
            self._sorted[key] = sorted(objects)
        return self._sorted[key]

    def _versioned(self, obj: Obj) -> Obj:
        self.version += 1
        return {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}

    def _record(self, change: Change) -> None:
        changes = self._changes.get(change.resource)
        if changes is None:
            changes = self._changes[change.resource] = deque(maxlen=self._history)
        if len(changes) == self._history:
            self._compacted[change.resource] = changes[0].version
        changes.append(change)
        if change.resource is PODS:
            self._index(change)
        for subscriber in list(self._subscribers):
            subscriber(change)

    def _index(self, change: Change) -> None:
        key = _key(change.new)
        if change.old is not None:
            _forget(self._by_node, node_of(change.old), key)
            _forget(self._by_owner, controller_uid(change.old), key)
        if change.kind != "DELETED":
            if node := node_of(change.new):
                self._by_node[node][key] = change.new
            if owner := controller_uid(change.new):
                self._by_owner[owner][key] = change.new

    def _check_age(self, resource: Resource, version: int) -> None:
        oldest = self._compacted.get(resource, self._floor)
        if version < oldest:
            raise errors.too_old(version, oldest)


def _key(obj: Obj) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def _forget(index: dict[str, dict[tuple[str, str], Obj]], group: str, key: tuple[str, str]) -> None:
    if group and group in index:
        index[group].pop(key, None)
        if not index[group]:
            del index[group]


def node_of(pod: Obj) -> str:
    """The node that a pod is bound to, or an empty string."""
    node: str = pod.get("spec", {}).get("nodeName", "")
    return node


def controller_uid(obj: Obj) -> str:
    """The UID of the controller that owns an object, or an empty string."""
    for owner in obj["metadata"].get("ownerReferences", ()):
        if owner.get("controller"):
            uid: str = owner["uid"]
            return uid
    return ""


def version_of(text: Json) -> int:
    """A resourceVersion as a number; 0: none is given.

    Raises ApiError (500: it is no number).
    """
    if not text:
        return 0
    if not str(text).isascii() or not str(text).isdigit():
        why = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise errors.internal(f'resourceVersion: Invalid value: "{text}": {why}')
    return int(text)
