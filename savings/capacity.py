"""What pods can request on a node of an instance type, as EKS's node images compute it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from savings.prices import InstanceType, addressed_pods
from savings.snapshot import CPU, MEMORY, PODS, STORAGE, Amounts, Node

_MIB: Final = 2**20
_SEEN_BY_THE_SYSTEM: Final = 0.925
"""Part of EC2's memory that the operating system sees, at least. Source: Karpenter's default
`vmMemoryOverheadPercent` of 0.075. Nodes that run show their own."""
_RESERVED_PER_POD: Final = 11 * _MIB
_RESERVED: Final = 255 * _MIB
_EVICTION_THRESHOLD: Final = 100 * _MIB
# Reserved millicores: of the first core, of the second, of the next two, of each further one.
# Source: nodeadm of the EKS node images, as are the three amounts of memory above.
_CORES: Final = ((1, 60.0), (2, 10.0), (4, 5.0))
_FURTHER_CORE: Final = 2.5
_PREFIX_PODS, _PREFIX_PODS_LARGE, _LARGE_VCPUS = 110, 250, 30
"""Pods per node where nodes get address prefixes. Source: EKS's max-pods-calculator."""
_WITHOUT_NODES: Final = 17 * 2**30
"""Bytes of ephemeral storage where no node shows any: EKS's root volume of 20 GiB less the image,
1 GiB reserved and a tenth for the eviction threshold."""


@dataclass(frozen=True)
class Seen:
    """What the cluster's own nodes show."""

    types: Mapping[str, Amounts]
    """The least allocatable of the nodes of a type; what one of them does not show is 0."""
    storage: int
    """The least ephemeral storage of all nodes, bytes."""
    prefixes: bool
    """Nodes get address prefixes: a node runs more pods than it has single addresses for."""


def seen(nodes: Iterable[Node], types: Mapping[str, InstanceType]) -> Seen:
    """Read what the nodes show."""
    least: dict[str, Amounts] = {}
    prefixes = False
    for node in nodes:
        so_far = least.setdefault(node.instance_type, dict(node.allocatable))
        for name in (*so_far, *node.allocatable):
            so_far[name] = min(so_far.get(name, 0), node.allocatable.get(name, 0))
        kind = types.get(node.instance_type)
        if kind and node.allocatable.get(PODS, 0) > addressed_pods(kind):
            prefixes = True
    storages = [amounts[STORAGE] for amounts in least.values() if STORAGE in amounts]
    return Seen(least, min(storages, default=_WITHOUT_NODES), prefixes)


def allocatable(kind: InstanceType, seen: Seen) -> Amounts:
    """Of a node of this type: what its like shows, else what EKS would give it."""
    if kind.name in seen.types:
        return dict(seen.types[kind.name])
    pods = _pods(kind) if seen.prefixes else addressed_pods(kind)
    reserved = _RESERVED_PER_POD * pods + _RESERVED + _EVICTION_THRESHOLD
    return {
        CPU: kind.vcpus * 1000 - _reserved_cpu(kind.vcpus),
        MEMORY: max(0, int(kind.memory * _SEEN_BY_THE_SYSTEM) - reserved),
        PODS: pods,
        STORAGE: seen.storage,
        **kind.accelerators,
    }


def _pods(kind: InstanceType) -> int:
    return _PREFIX_PODS if kind.vcpus < _LARGE_VCPUS else _PREFIX_PODS_LARGE


def _reserved_cpu(vcpus: int) -> int:
    reserved, done = 0.0, 0
    for upto, each in _CORES:
        cores = max(0, min(vcpus, upto) - done)
        reserved += cores * each
        done += cores
    return int(reserved + (vcpus - done) * _FURTHER_CORE)
