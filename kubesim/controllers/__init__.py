"""The controllers of a cluster, each with only what a drain needs.

All handle the changes of the store: `sync` reads one object and takes the next step. They wait only
with timers of the event loop, so that they run in virtual time.
"""

from kubesim.controllers.base import Controller
from kubesim.controllers.disruption import DisruptionController
from kubesim.controllers.garbage import GarbageCollector, NamespaceController
from kubesim.controllers.kubelet import Kubelets
from kubesim.controllers.nodes import NodeController, PodGarbageCollector
from kubesim.controllers.scheduler import Scheduler
from kubesim.controllers.volumes import AttachDetachController
from kubesim.controllers.workloads import (
    DaemonSetController,
    DeploymentController,
    ReplicaSetController,
    StatefulSetController,
)

ALL: tuple[type[Controller], ...] = (
    Kubelets,
    Scheduler,
    DeploymentController,
    ReplicaSetController,
    StatefulSetController,
    DaemonSetController,
    DisruptionController,
    NodeController,
    PodGarbageCollector,
    AttachDetachController,
    GarbageCollector,
    NamespaceController,
)

__all__ = [
    "ALL",
    "AttachDetachController",
    "Controller",
    "DaemonSetController",
    "DeploymentController",
    "DisruptionController",
    "GarbageCollector",
    "Kubelets",
    "NamespaceController",
    "NodeController",
    "PodGarbageCollector",
    "ReplicaSetController",
    "Scheduler",
    "StatefulSetController",
]
