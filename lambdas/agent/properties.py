"""The properties of `Custom::CastEksAgent`, typed: every fault in one error. Pure.

CloudFormation sends every scalar as a string; lists and maps arrive as they are. The command line
and `castai:agentProperties` give the same names. Each annotation is also the documentation in the
table of settings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field

from lambdas.common import properties
from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.errors import PermanentError
from lambdas.common.properties import Fault, PropertiesError
from lambdas.common.property_types import ClusterName, SecretId

# Published in us-docker.pkg.dev by CAST AI, and by Kubernetes SIGs for every processor.
AGENT_IMAGE: Final = "us-docker.pkg.dev/castai-hub/library/agent:v0.48.1"
AUTOSCALER_IMAGE: Final = "registry.k8s.io/cpa/cpvpa:v0.8.4"
READY_WITHIN: Final = 600  # s: a new node may have to come first
LONGEST_READY_WITHIN: Final = 2700  # s: CloudFormation gives a custom resource an hour in all

# Properties that the stack adds for CloudFormation. CodeVersion makes CloudFormation send an
# Update when a release's code does something else.
_OF_THE_STACK: Final = frozenset({"ServiceToken", "ServiceTimeout", "CodeVersion"})


def _checked_certificates(pem: str) -> str:
    """Certificates and nothing else: a private key must not end in a ConfigMap."""
    kinds = re.findall(r"-----BEGIN ([A-Z0-9 ]+)-----", pem)
    if not kinds or set(kinds) != {"CERTIFICATE"}:
        raise PermanentError("give PEM certificates and nothing else")
    return pem.strip() + "\n"


# A tag other than latest, or a digest: what runs must not change by itself.
_PinnedImage = Annotated[
    str,
    Meta(
        pattern=r"^[\w.-]+(:\d+)?(/[\w.-]+)+(:(?!latest$)[\w.-]{1,128}|@sha256:[0-9a-f]{64})$",
        title="an image with registry and a fixed tag or digest (not latest)",
    ),
]
_ObjectName = Annotated[
    str,
    Meta(
        pattern=r"^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$",
        title="the name of a Kubernetes object",
    ),
]
_LabelKey = Annotated[str, Meta(pattern=r"^([a-z0-9.-]{1,253}/)?[\w.-]{1,63}$")]
_LabelValue = Annotated[str, Meta(pattern=r"^[\w.-]{0,63}$")]
_Quantity = Annotated[str, Meta(pattern=r"^\d+(\.\d+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$")]
_Resources = Annotated[
    dict[Literal["cpu", "memory"], _Quantity],
    Meta(title='cpu and memory as Kubernetes writes them, `{"cpu": "100m"}`'),
]
# User and password would be readable in the template and in the Deployment.
_Proxy = Annotated[
    str,
    Meta(
        pattern=r"^https?://[^\s@/]+/?$",
        title="http://host:port without user and password",
    ),
]

Image = Annotated[_PinnedImage, Meta(description="The agent's image, with a fixed tag or digest.")]
Registry = Annotated[
    str,
    Meta(
        pattern=r"^([\w.-]+(:\d+)?(/[\w.-]+)*)?$",
        title="a registry's host, with a path if needed, without https://",
        description="Private registry, `host/path`, that replaces the registries of the images.",
    ),
]
Replicas = Annotated[
    int,
    Meta(
        ge=1,
        le=3,
        description="Number of agents. From two on, one is the leader and a PodDisruptionBudget "
        "keeps one running.",
    ),
]
KeyVersion = Annotated[
    str,
    Meta(
        pattern=r"^[\w .:/=+@-]{0,256}$",
        title="at most 256 letters, digits, spaces and _.:/=+-@",
        description="Any text. Change it when the API key in the secret has changed: the secret "
        "is read again, and the agent restarts with the new key.",
    ),
]


class Toleration(Struct, frozen=True, rename="camel", forbid_unknown_fields=True):
    """A toleration as in a pod; the field names are those of Kubernetes."""

    key: _LabelKey | UnsetType = UNSET
    operator: Literal["Exists", "Equal"] | UnsetType = UNSET
    value: _LabelValue | UnsetType = UNSET
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | UnsetType = UNSET
    toleration_seconds: int | UnsetType = UNSET


class Agent(Struct, frozen=True, kw_only=True, rename="pascal"):
    """The agent of one cluster; field names are pascal-cased in CloudFormation."""

    cluster_name: Annotated[ClusterName, Meta(description="The EKS cluster.")]
    api_key_secret: Annotated[
        SecretId, Meta(description="Secret with CAST AI's API key. It is never the key itself.")
    ]
    api_url: Annotated[
        str, Meta(description="URL of CAST AI's API.", extra={"check": checked_url})
    ] = DEFAULT_URL
    key_version: KeyVersion = ""
    image: Image = AGENT_IMAGE
    autoscaler_image: Annotated[
        _PinnedImage,
        Meta(description="Image of the cluster-proportional vertical autoscaler beside the agent."),
    ] = AUTOSCALER_IMAGE
    registry: Registry = ""
    image_pull_secrets: Annotated[
        tuple[_ObjectName, ...],
        Meta(
            description="Existing secrets of the namespace `castai-agent` with the registry's "
            "credentials."
        ),
    ] = ()
    replicas: Replicas = 1
    autoscaler: Annotated[
        bool, Meta(description="Size the agent's memory by the number of nodes.")
    ] = True
    requests: Annotated[_Resources, Meta(description="The agent's resource requests.")] = field(
        default_factory=lambda: {"cpu": "100m"}
    )
    limits: Annotated[_Resources, Meta(description="The agent's resource limits.")] = field(
        default_factory=lambda: {"cpu": "1000m"}
    )
    node_selector: Annotated[
        dict[_LabelKey, _LabelValue],
        Meta(title="a map of labels", description="Labels of the nodes that the agent may run on."),
    ] = field(default_factory=dict)
    tolerations: Annotated[
        tuple[Toleration, ...],
        Meta(
            title="a list of tolerations as in a pod",
            description="Taints that the agent tolerates.",
        ),
    ] = ()
    http_proxy: Annotated[_Proxy, Meta(description="Proxy for the agent's http requests.")] = ""
    https_proxy: Annotated[_Proxy, Meta(description="Proxy for the agent's https requests.")] = ""
    no_proxy: Annotated[
        str,
        Meta(
            pattern=r"^[\w.:/,*-]*$",
            title="hosts, domains and ranges with commas between them",
            description="What the agent reaches without the proxy, besides the cluster.",
        ),
    ] = ""
    ca_certificates: Annotated[
        str,
        Meta(
            title="PEM certificates",
            description="Certificates that the agent trusts besides the system's, for a proxy "
            "that inspects TLS.",
            extra={"check": _checked_certificates},
        ),
    ] = ""
    ready_within: Annotated[
        int,
        Meta(
            ge=60,
            le=LONGEST_READY_WITHIN,
            description="Seconds until the agent has to be available and seen by CAST AI.",
        ),
    ] = READY_WITHIN


def parse(given: Mapping[str, Any]) -> Agent:
    """Check the properties and give them types. Raises PropertiesError with every fault."""
    agent, faults = _checked(given)
    if agent is None:
        raise PropertiesError(faults)
    return agent


def faults_of(given: Mapping[str, Any]) -> list[Fault]:
    """Every fault that `parse` would name: what a synth can say before anything is deployed."""
    return _checked(given)[1]


def cluster_of(given: Mapping[str, Any]) -> str:
    """The cluster's name alone: a removal needs no other property.

    Another release may have written the others. Raises PropertiesError when there is no name.
    """
    values, faults = properties.read(Agent, given)
    if "cluster_name" not in values:
        raise PropertiesError([each for each in faults if each.name == "ClusterName"])
    return str(values["cluster_name"])


def _checked(given: Mapping[str, Any]) -> tuple[Agent | None, list[Fault]]:
    values, faults = properties.read(Agent, given)
    known = [*properties.names(Agent), *_OF_THE_STACK]
    faults = [*properties.unknown(known, given), *faults]
    if faults:
        return None, faults
    agent = Agent(**values)
    faults = list(_contradictions(agent))
    return None if faults else agent, faults


def _contradictions(agent: Agent) -> Iterator[Fault]:
    """Faults that only several properties together show."""
    sized = [name for name in ("requests", "limits") if "memory" in getattr(agent, name)]
    if agent.autoscaler and sized:
        why = "set it to false to give memory yourself: the autoscaler would change it"
        yield Fault("Autoscaler", why)
    if not agent.autoscaler and "memory" not in agent.requests:
        yield Fault("Requests", "give memory: without the autoscaler nothing sets it")
    if agent.no_proxy and not (agent.http_proxy or agent.https_proxy):
        yield Fault("NoProxy", "give HttpProxy or HttpsProxy too, or leave it out")
