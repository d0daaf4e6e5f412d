"""Pods and what they request, by the rules of `PodRequests` in k8s.io/component-helpers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final


def container(*, sidecar: bool = False, **requests: str) -> dict[str, Any]:
    """A container; `gpu` stands for nvidia.com/gpu."""
    named = {"nvidia.com/gpu" if name == "gpu" else name: each for name, each in requests.items()}
    return {
        "name": "c",
        "image": "registry.invalid/app:1",
        "resources": {"requests": named},
        **({"restartPolicy": "Always"} if sidecar else {}),
    }


_MIB: Final = 1024**2
SPECS: Final[Mapping[str, tuple[dict[str, Any], dict[str, int]]]] = {
    "nothing": ({"containers": [{"name": "c"}]}, {}),
    "null resources": ({"containers": [{"name": "c", "resources": None}]}, {}),
    "the sum of containers": (
        {"containers": [container(cpu="100m", memory="1Mi"), container(cpu="1")]},
        {"cpu": 1100, "memory": _MIB},
    ),
    "init containers one at a time": (
        {
            "containers": [container(cpu="100m")],
            "initContainers": [container(cpu="300m"), container(cpu="200m", memory="5Mi")],
        },
        {"cpu": 300, "memory": 5 * _MIB},
    ),
    "a sidecar runs beside the containers": (
        {"containers": [container(cpu="1")], "initContainers": [container(sidecar=True, cpu="1")]},
        {"cpu": 2000},
    ),
    "a sidecar runs beside later init containers": (  # 100 + 900 > 100 + 500
        {
            "containers": [container(cpu="500m")],
            "initContainers": [container(sidecar=True, cpu="100m"), container(cpu="900m")],
        },
        {"cpu": 1000},
    ),
    "an init container before the sidecar": (  # 900 > 100 + 500
        {
            "containers": [container(cpu="500m")],
            "initContainers": [container(cpu="900m"), container(sidecar=True, cpu="100m")],
        },
        {"cpu": 900},
    ),
    "each resource has its own peak": (
        {
            "containers": [container(cpu="2", memory="1Mi")],
            "initContainers": [container(cpu="1", memory="3Mi")],
        },
        {"cpu": 2000, "memory": 3 * _MIB},
    ),
    "the overhead": (
        {"containers": [container(cpu="1")], "overhead": {"cpu": "250m", "memory": "2Mi"}},
        {"cpu": 1250, "memory": 2 * _MIB},
    ),
    "the pod as a whole, by resource": (  # memory stays the sum
        {"containers": [container(cpu="1", memory="3Mi")], "resources": {"requests": {"cpu": "3"}}},
        {"cpu": 3000, "memory": 3 * _MIB},
    ),
    "the pod as a whole, below the peak, with overhead": (
        {
            "containers": [container(cpu="1")],
            "initContainers": [container(cpu="2")],
            "resources": {"requests": {"cpu": "1500m"}},
            "overhead": {"cpu": "100m"},
        },
        {"cpu": 1600},
    ),
    "no extended resource for the pod as a whole": (  # only cpu, memory and huge pages
        {
            "containers": [container(gpu="1")],
            "resources": {"requests": {"nvidia.com/gpu": "4", "hugepages-2Mi": "4Mi"}},
        },
        {"nvidia.com/gpu": 1, "hugepages-2Mi": 4 * _MIB},
    ),
    "the limits alone count nothing": (
        {"containers": [{"name": "c", "resources": {"limits": {"cpu": "1"}}}]},
        {},
    ),
}
"""By what is shown: a pod's spec, and its requests: processor in millicores, the rest as is."""
