"""Nodes and pods, with the few fields that the rules read. Pure."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lambdas.common.names import INSTANCE_ID_PATTERN


class OwnerReference(msgspec.Struct, frozen=True, gc=False):
    kind: str
    name: str = ""
    controller: bool | None = None


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    uid: str = ""
    namespace: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    owner_references: tuple[OwnerReference, ...] | None = None
    deletion_timestamp: str | None = None


class Taint(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    key: str
    effect: str
    value: str = ""


class NodeSpec(msgspec.Struct, frozen=True, rename={"provider_id": "providerID"}):
    provider_id: str = ""
    unschedulable: bool = False
    taints: tuple[dict[str, Any], ...] | None = None
    """As the API server sends them: a patch replaces the list, and must keep every field."""


class Node(msgspec.Struct, frozen=True):
    metadata: Metadata
    spec: NodeSpec = NodeSpec()

    @property
    def instance(self) -> str:
        """The id of the node's EC2 instance, in lower case; empty where it has none.

        The AWS cloud provider writes aws:///<availability zone>/<instance id>. Any other provider
        id, such as Fargate's, is no instance.
        """
        scheme, _, rest = self.spec.provider_id.lower().partition(":///")
        zone, _, instance = rest.partition("/")
        if scheme != "aws" or "/" in zone or not re.fullmatch(INSTANCE_ID_PATTERN, instance):
            return ""
        return instance


class Toleration(msgspec.Struct, frozen=True, gc=False):
    key: str = ""
    operator: str = "Equal"
    value: str = ""
    effect: str = ""


class PodSpec(msgspec.Struct, frozen=True, rename="camel"):
    priority_class_name: str = ""
    termination_grace_period_seconds: int | None = None
    tolerations: tuple[Toleration, ...] | None = None


class PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""


class Pod(msgspec.Struct, frozen=True):
    metadata: Metadata
    spec: PodSpec = PodSpec()
    status: PodStatus = PodStatus()

    @property
    def uid(self) -> str:
        return self.metadata.uid

    @property
    def name(self) -> str:
        return f"{self.metadata.namespace}/{self.metadata.name}"
