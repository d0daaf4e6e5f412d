"""Connect a cluster and disconnect it, for the custom resource and the command line."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import yaml

from lambdas.agent import apply, read_only
from lambdas.agent.apply import Changes
from lambdas.agent.manifest import ClusterRef, Object, metadata, render
from lambdas.agent.properties import Agent
from lambdas.common import retry
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import SYSTEM, Clock
from lambdas.common.eks import Cluster
from lambdas.common.errors import ClusterUnavailableError, PermanentError
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import AGENT, AGENT_METADATA

SIZE_LIMIT: Final = 1_500_000  # characters of JSON, the largest object that etcd takes

# What PyYAML raises for a value that does not have the type of its tag, and json for one that no
# JSON has: a set, bytes, not a number.
_UNREADABLE: Final = (
    yaml.YAMLError,
    RecursionError,
    ValueError,
    LookupError,
    AttributeError,
    TypeError,
)


class NotAManifestError(PermanentError):
    """The text cannot be read as YAML, or has no Kubernetes objects."""


@dataclass(frozen=True)
class Connected:
    """The result of connect."""

    cluster_id: str
    changes: Changes


def cluster_ref(cluster: Cluster) -> ClusterRef:
    """Account, region and name of the cluster. Raises PermanentError if it is not active."""
    if cluster.status != "ACTIVE":
        raise PermanentError(f"Wait until cluster {cluster.name} is ACTIVE: it is {cluster.status}")
    return ClusterRef(cluster.arn.split(":")[4], cluster.region, cluster.name)


def connect(
    kube: Kube,
    api: CastaiApi,
    ref: ClusterRef,
    objects: Sequence[Object],
    *,
    owner: str,
    until: float,
    clock: Clock = SYSTEM,
) -> Connected:
    """Register the cluster at CAST AI and apply the agent's objects.

    The objects are proved read-only first. The registration uses the API key, so a wrong key fails
    before the first write to the cluster. Raises the errors of `apply.apply` and of CAST AI's API.
    """
    read_only.prove(objects, namespace=AGENT)
    cluster_id = api.register(ref.name, ref.region, ref.account)

    known = any(each["metadata"]["name"] == AGENT_METADATA for each in objects)
    wanted = objects if known else [*objects, metadata(cluster_id, api.url)]

    made: list[apply.Reference] = []

    def put() -> Changes:
        return apply.apply(kube, wanted, owner=owner, made=made)

    # The namespace of an earlier agent may still be terminating.
    return Connected(cluster_id, retry.call(put, until=until, clock=clock))


def disconnect(kube: Kube, *, owner: str, until: float, clock: Clock = SYSTEM) -> Changes:
    """Remove our objects, and return when they no longer exist.

    Raises ClusterUnavailableError if one still exists at `until`.
    """
    changes = apply.remove(kube, owner=owner)

    def check() -> None:
        if rest := apply.left(kube, owner=owner):
            raise ClusterUnavailableError(f"Wait, and try again: these objects still exist: {rest}")

    retry.call(check, until=until, clock=clock)
    return changes


def objects_of(
    agent: Agent, ref: ClusterRef, api_key: str, text: str | None = None
) -> list[Object]:
    """The agent's objects: ours, or those of another manifest (YAML)."""
    return render(agent, ref, api_key) if text is None else parse(text)


class _Loader(yaml.SafeLoader):
    """Reads a date as text, as kubectl does."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - PyYAML's way of configuration
        first: [(tag, form) for tag, form in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _as_sent(documents: list[Any]) -> list[Any]:
    """The documents as the API server will read them: JSON, with text as every key.

    Raises the errors of _UNREADABLE, for instance where aliases make them too large.
    """
    encoder = json.JSONEncoder(allow_nan=False, ensure_ascii=False)
    text, size = [], 0
    for part in encoder.iterencode(documents):
        text.append(part)
        size += len(part)
        if size > SIZE_LIMIT:
            raise ValueError("too large")
    sent: list[Any] = json.loads("".join(text).encode())
    return sent


def parse(text: str) -> list[Object]:
    """The objects of a YAML text; a List gives its items. Raises NotAManifestError.

    The error never quotes the text, because a manifest may hold a key.
    """
    try:
        documents = _as_sent(list(yaml.load_all(text, Loader=_Loader)))
    except _UNREADABLE as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark else ""
        raise NotAManifestError(f"Give a manifest in YAML: it cannot be read{where}") from None
    found: list[Object] = []
    for document in documents:
        items = document.get("items") if isinstance(document, dict) else None
        is_list = isinstance(items, list) and str(document.get("kind", "")).endswith("List")
        found += items if is_list and items else [document] if document else []
    if not found or not all(isinstance(each, dict) for each in found):
        raise NotAManifestError("Give a manifest of Kubernetes objects: there are none in it")
    return found


def to_yaml(objects: Sequence[Object]) -> str:
    """The objects as a manifest for kubectl."""
    return yaml.safe_dump_all(objects, sort_keys=False)


def without_key(objects: Sequence[Object]) -> list[Object]:
    """The same objects to print, with empty values in the Secret."""
    return [
        {**each, "data": dict.fromkeys(each.get("data") or {}, "")}
        if each["kind"] == "Secret"
        else each
        for each in objects
    ]
