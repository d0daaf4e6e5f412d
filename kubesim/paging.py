"""Lists in pages: the continue token, and pages that all show one version."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass

from kubesim import errors
from kubesim.resources import PODS, Obj, Resource
from kubesim.selectors import FieldSelector
from kubesim.store import Store

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You must start"
    " a new list without the continue parameter."
)


@dataclass(frozen=True)
class Listing:
    """What a list asks for."""

    resource: Resource
    namespace: str
    fields: FieldSelector
    matches: Callable[[Obj], bool]
    selective: bool
    """Whether a selector narrows it: then kube-apiserver does not count what remains."""
    limit: int = 0
    token: str = ""


def encode_token(version: int, obj: Obj) -> str:
    """The token of the page after `obj`, as kube-apiserver writes it."""
    metadata = obj["metadata"]
    parts = [part for part in (metadata.get("namespace"), metadata["name"]) if part]
    start = "/" + "/".join(parts) + "\0"
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_token(token: str) -> tuple[int, tuple[str, ...]]:
    """The version and the last object of the page before.

    Raises ApiError (400, the token is none of ours).
    """
    try:
        raw = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        if not raw.startswith(b"{"):
            raise _bad_token(f"invalid character {_quoted(raw)} looking for beginning of value")
        content = json.loads(raw)
        key = str(content["start"]).removesuffix("\0").strip("/")
        return int(content["rv"]), tuple(key.split("/"))
    except binascii.Error as fault:
        raise _bad_token("illegal base64 data at input byte 0") from fault
    except (ValueError, KeyError, TypeError) as fault:
        raise _bad_token(str(fault)) from fault


def _bad_token(why: str) -> errors.ApiError:
    return errors.bad_request(f"invalid continue token: continue key is not valid: {why}")


def _quoted(raw: bytes) -> str:
    """A byte as Go's %q shows it as a character."""
    if not raw:
        return "''"
    char = chr(raw[0])
    return f"'{char}'" if char.isprintable() else f"'\\u{raw[0]:04x}'"


def page(store: Store, asked: Listing) -> tuple[list[Obj], Obj]:
    """One page and the list's metadata.

    Raises ApiError (400 for a bad token, 410 for one whose version is gone).
    """
    version, after = store.version, None
    if asked.token:
        version, after = decode_token(asked.token)
    objects = candidates(store, asked)
    if version != store.version:
        objects = _as_of(store, asked, version)
    found = [obj for obj in objects if asked.matches(obj)]
    if after is not None:
        found = [obj for obj in found if _place(obj) > after]
    metadata: Obj = {"resourceVersion": str(version)}
    if asked.limit and len(found) > asked.limit:
        metadata["continue"] = encode_token(version, found[asked.limit - 1])
        if not asked.selective:
            metadata["remainingItemCount"] = len(found) - asked.limit
        found = found[: asked.limit]
    return found, metadata


def _as_of(store: Store, asked: Listing, version: int) -> list[Obj]:
    try:
        return store.at(asked.resource, version, store.objects(asked.resource))
    except errors.ApiError as fault:
        raise errors.expired(_EXPIRED) from fault


def candidates(store: Store, asked: Listing) -> list[Obj]:
    """Objects that may match, by the index of pods by node where it helps."""
    node = asked.fields.equals.get("spec.nodeName")
    if asked.resource is PODS and node:
        return [
            pod
            for pod in store.pods_on(node)
            if not asked.namespace or pod["metadata"]["namespace"] == asked.namespace
        ]
    return list(store.objects(asked.resource, asked.namespace))


def _place(obj: Obj) -> tuple[str, ...]:
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return (namespace, metadata["name"]) if namespace else (metadata["name"],)
