"""Lists in pages: the continue token. All pages of a list show the same version."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable
from dataclasses import dataclass

from kubesim import errors
from kubesim.options import Paging
from kubesim.resources import PODS, Obj, Resource
from kubesim.selectors import FieldSelector
from kubesim.store import Store

_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You must start"
    " a new list without the continue parameter."
)
_TOO_OLD = "The resourceVersion for the provided list is too old."


@dataclass(frozen=True)
class Listing:
    """The parameters of a list request."""

    resource: Resource
    namespace: str
    fields: FieldSelector
    matches: Callable[[Obj], bool]
    selective: bool
    """Whether it has a selector: then kube-apiserver sets no remainingItemCount."""
    paging: Paging


def encode_token(version: int, obj: Obj) -> str:
    """The token of the page after `obj`, in kube-apiserver's format."""
    metadata = obj["metadata"]
    parts = [part for part in (metadata.get("namespace"), metadata["name"]) if part]
    start = "/" + "/".join(parts) + "\0"
    text = json.dumps({"v": "meta.k8s.io/v1", "rv": version, "start": start}, separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).rstrip(b"=").decode()


def decode_token(token: str) -> tuple[int, tuple[str, ...]]:
    """The version and the key of the last object of the previous page.

    Raises ApiError (400: the token is invalid).
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
    """The first byte, in the format of Go's %q for a character."""
    if not raw:
        return "''"
    char = chr(raw[0])
    return f"'{char}'" if char.isprintable() else f"'\\u{raw[0]:04x}'"


def page(store: Store, listing: Listing, version: int | None = None) -> tuple[list[Obj], Obj]:
    """One page and the list's metadata. `version`: show the state at this version.

    Raises ApiError (400 for an invalid token, 410 for a version that is too old, 504 for a version
    that the store has not reached).
    """
    asked, after = listing.paging, None
    if version is None:
        version = store.version
    if asked.token:
        version, after = decode_token(asked.token)
    elif asked.version is not None:
        store.check_reached(asked.version)
        if asked.exact:
            version = asked.version
    objects = candidates(store, listing)
    if version != store.version:
        objects = _as_of(store, listing, version)
    found = [obj for obj in objects if listing.matches(obj)]
    if after is not None:
        found = [obj for obj in found if _place(obj) > after]
    metadata: Obj = {"resourceVersion": str(version)}
    if asked.limit and len(found) > asked.limit:
        metadata["continue"] = encode_token(version, found[asked.limit - 1])
        if not listing.selective:
            metadata["remainingItemCount"] = len(found) - asked.limit
        found = found[: asked.limit]
    return found, metadata


def _as_of(store: Store, listing: Listing, version: int) -> list[Obj]:
    try:
        return store.at(listing.resource, version, store.objects(listing.resource))
    except errors.ApiError as fault:
        raise errors.expired(_EXPIRED if listing.paging.token else _TOO_OLD) from fault


def candidates(store: Store, listing: Listing) -> list[Obj]:
    """The objects that may match. For the pods of a node, the index of the store is used."""
    node = listing.fields.equals.get("spec.nodeName")
    if listing.resource is PODS and node:
        return [
            pod
            for pod in store.pods_on(node)
            if not listing.namespace or pod["metadata"]["namespace"] == listing.namespace
        ]
    return list(store.objects(listing.resource, listing.namespace))


def _place(obj: Obj) -> tuple[str, ...]:
    metadata = obj["metadata"]
    namespace = metadata.get("namespace")
    return (namespace, metadata["name"]) if namespace else (metadata["name"],)
