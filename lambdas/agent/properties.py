"""The properties of `Custom::CastEksAgent`, typed: every fault in one error. Pure.

CloudFormation sends every scalar as a string; lists and maps arrive as they are. The command line
gives the same names.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.errors import CastaiError, PermanentError
from lambdas.common.names import CLUSTER_NAME_PATTERN

# Published in us-docker.pkg.dev by CAST AI, and by Kubernetes SIGs for every processor.
AGENT_IMAGE: Final = "us-docker.pkg.dev/castai-hub/library/agent:v0.48.1"
AUTOSCALER_IMAGE: Final = "registry.k8s.io/cpa/cpvpa:v0.8.4"
READY_WITHIN: Final = 600  # s: a new node may have to come first
LONGEST_READY_WITHIN: Final = 2700  # s: CloudFormation gives a custom resource an hour in all

# CodeVersion makes CloudFormation send an Update when a release's code does something else.
_NOT_OURS: Final = frozenset({"ServiceToken", "ServiceTimeout", "CodeVersion"})

_ClusterName = Annotated[str, Meta(pattern=CLUSTER_NAME_PATTERN)]
_Secret = Annotated[str, Meta(pattern=r"^(arn:aws[a-z-]*:secretsmanager:.+|[\w/+=.@-]{1,512})$")]
# A tag other than latest, or a digest: what runs must not change by itself.
_Image = Annotated[
    str,
    Meta(pattern=r"^[\w.-]+(:\d+)?(/[\w.-]+)+(:(?!latest$)[\w.-]{1,128}|@sha256:[0-9a-f]{64})$"),
]
_Registry = Annotated[str, Meta(pattern=r"^([\w.-]+(:\d+)?(/[\w.-]+)*)$")]
_ObjectName = Annotated[str, Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$")]
_LabelKey = Annotated[str, Meta(pattern=r"^([a-z0-9.-]{1,253}/)?[\w.-]{1,63}$")]
_LabelValue = Annotated[str, Meta(pattern=r"^[\w.-]{0,63}$")]
_Quantity = Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
# User and password would be readable in the template and in the Deployment.
_Proxy = Annotated[str, Meta(pattern=r"^https?://[^\s@/]+/?$")]
_Resources = dict[Literal["cpu", "memory"], _Quantity]


class Toleration(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A toleration as in a pod; the field names are Kubernetes' own."""

    key: _LabelKey | UnsetType = UNSET
    operator: Literal["Exists", "Equal"] | UnsetType = UNSET
    value: _LabelValue | UnsetType = UNSET
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | UnsetType = UNSET
    toleration_seconds: int | UnsetType = UNSET


class Agent(Struct, frozen=True, kw_only=True, rename="pascal"):
    """The wish; field names are pascal-cased in CloudFormation."""

    cluster_name: _ClusterName
    api_key_secret: _Secret
    """Name or ARN of the Secrets Manager secret with CAST AI's API key; never the key."""
    api_url: str = DEFAULT_URL
    key_version: Annotated[str, Meta(pattern=r"^[\w .:/=+@-]{0,256}$")] = ""
    """Any text; changing it reads the secret anew and restarts the agent if the key is new."""
    image: _Image = AGENT_IMAGE
    autoscaler_image: _Image = AUTOSCALER_IMAGE
    registry: _Registry = ""
    """Private registry (`host/path`) that takes the place of the images' own hosts."""
    image_pull_secrets: tuple[_ObjectName, ...] = ()
    """Secrets of the agent's namespace, made by someone else."""
    replicas: Annotated[int, Meta(ge=1, le=3)] = 1
    autoscaler: bool = True
    """Size the agent's memory by the number of nodes."""
    requests: _Resources = field(default_factory=lambda: {"cpu": "100m"})
    limits: _Resources = field(default_factory=lambda: {"cpu": "1000m"})
    node_selector: dict[_LabelKey, _LabelValue] = field(default_factory=dict)
    tolerations: tuple[Toleration, ...] = ()
    http_proxy: _Proxy = ""
    https_proxy: _Proxy = ""
    no_proxy: Annotated[str, Meta(pattern=r"^[\w.:/,*-]*$")] = ""
    """What to reach without the proxy; the cluster itself is always among it."""
    ca_certificates: str = ""
    """PEM certificates that the agent trusts besides the system's, for a proxy that inspects."""
    ready_within: Annotated[int, Meta(ge=60, le=LONGEST_READY_WITHIN)] = READY_WITHIN
    """Seconds until the agent has to be available and seen by CAST AI."""


_ALLOWED: Final[Mapping[str, str]] = {
    "cluster_name": "the name of an EKS cluster",
    "api_key_secret": "the name or ARN of a Secrets Manager secret",
    "image": "an image with registry and a fixed tag or digest (not latest)",
    "autoscaler_image": "an image with registry and a fixed tag or digest (not latest)",
    "registry": "a registry's host, with a path if need be, without https://",
    "replicas": "1, 2 or 3",
    "requests": 'cpu and memory as Kubernetes writes them, {"cpu": "100m"}',
    "limits": 'cpu and memory as Kubernetes writes them, {"cpu": "1000m"}',
    "node_selector": "a map of labels",
    "tolerations": "a list of tolerations as in a pod",
    "http_proxy": "http://host:port; a password would be readable by everyone",
    "https_proxy": "http://host:port; a password would be readable by everyone",
    "no_proxy": "hosts, domains and ranges with commas between them",
    "ready_within": f"60 to {LONGEST_READY_WITHIN} seconds",
}


Fault = tuple[str, str]
"""A property and what is wrong with it."""


class RequestRefusedError(PermanentError):
    """The properties are wrong. The message lists every fault, one a line."""


def parse(properties: Mapping[str, Any]) -> Agent:
    """Check the properties and give them types.

    Raises:
        RequestRefusedError: lists every fault.
    """
    agent, faults = _checked(properties)
    if agent is None:
        raise RequestRefusedError(
            "Correct these properties:\n" + "\n".join(f"- {name}: {what}" for name, what in faults)
        )
    return agent


def faults_of(properties: Mapping[str, Any]) -> list[Fault]:
    """Every fault that `parse` would name: what a synth can say before anything is deployed."""
    return _checked(properties)[1]


def cluster_of(properties: Mapping[str, Any]) -> str:
    """The cluster's name alone: all that a removal needs, whichever release wrote the rest.

    Raises:
        RequestRefusedError: there is none.
    """
    try:
        return msgspec.convert(properties.get("ClusterName"), _ClusterName)
    except msgspec.ValidationError as error:
        raise RequestRefusedError(
            f"ClusterName: give {_ALLOWED['cluster_name']} ({error})"
        ) from error


def _checked(properties: Mapping[str, Any]) -> tuple[Agent | None, list[Fault]]:
    values, faults = _converted(properties)
    faults = [*_unknown(properties), *faults]
    if faults:
        return None, faults
    agent = Agent(**values)
    faults = list(_contradictions(agent))
    return None if faults else agent, faults


def _converted(properties: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Each property by itself, because msgspec stops at the first fault of a struct."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    for each in msgspec.structs.fields(Agent):
        given = properties.get(each.encode_name)
        if given is None or given == "":
            if each.required:
                faults.append((each.encode_name, "is missing"))
            continue
        try:
            value = msgspec.convert(given, each.type, strict=False)
            values[each.name] = _CHECKS[each.name](value) if each.name in _CHECKS else value
        except msgspec.ValidationError as error:
            allowed = _ALLOWED.get(each.name) or ("true or false" if each.type is bool else "text")
            faults.append((each.encode_name, f"give {allowed} ({error})"))
        except CastaiError as error:
            faults.append((each.encode_name, str(error)))
    return values, faults


def _checked_certificates(pem: str) -> str:
    """Certificates and nothing else: a private key must not end in a ConfigMap."""
    kinds = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", pem)
    if not kinds or set(kinds) != {"CERTIFICATE"}:
        raise RequestRefusedError("give PEM certificates and nothing else")
    return pem.strip() + "\n"


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "api_url": checked_url,
    "ca_certificates": _checked_certificates,
}


def _unknown(properties: Mapping[str, Any]) -> Iterator[Fault]:
    known = [each.encode_name for each in msgspec.structs.fields(Agent)]
    for name in properties:
        if name in known or name in _NOT_OURS:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        yield name, f"there is no such property{hint}"


def _contradictions(agent: Agent) -> Iterator[Fault]:
    """What each property allows and all together do not."""
    sized = [name for name in ("requests", "limits") if "memory" in getattr(agent, name)]
    if agent.autoscaler and sized:
        why = "set it to false to give memory yourself: the autoscaler would change it"
        yield "Autoscaler", why
    if not agent.autoscaler and "memory" not in agent.requests:
        yield "Requests", "give memory: without the autoscaler nothing sets it"
    if agent.no_proxy and not (agent.http_proxy or agent.https_proxy):
        yield "NoProxy", "give HttpProxy or HttpsProxy too, or leave it out"
