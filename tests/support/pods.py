"""Pods and nodes for pure tests."""

from __future__ import annotations

from typing import Any

import msgspec

from lambdas.spot_handler.objects import Node, Pod

NODE = "ip-10-0-0-10.eu-central-1.compute.internal"


def pod(name: str = "web-1", **changes: Any) -> Pod:
    """A running pod; `changes` are merged into metadata, spec and status by their JSON names."""
    shape: dict[str, Any] = {
        "metadata": {
            "name": name,
            "namespace": "shop",
            "uid": f"uid-{name}",
            "resourceVersion": "7",
        },
        "spec": {"terminationGracePeriodSeconds": 30},
        "status": {"phase": "Running"},
    }
    for part, fields in changes.items():
        shape[part] |= fields
    return msgspec.convert(shape, Pod)


def owned_by(kind: str, *, controller: bool = True) -> dict[str, Any]:
    return {
        "ownerReferences": [
            {"apiVersion": "apps/v1", "kind": kind, "name": "x", "controller": controller}
        ]
    }


def node(
    provider_id: str = "aws:///eu-central-1a/i-0123456789abc0001",
    *,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    taints: list[dict[str, str]] | None = None,
    unschedulable: bool = False,
    version: str = "315",
) -> Node:
    return msgspec.convert(
        {
            "metadata": {
                "name": NODE,
                "resourceVersion": version,
                "labels": labels,
                "annotations": annotations,
            },
            "spec": {
                "providerID": provider_id,
                "taints": taints,
                "unschedulable": unschedulable,
            },
        },
        Node,
    )
