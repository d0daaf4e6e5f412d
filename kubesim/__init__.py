"""A Kubernetes API server of our own, for the sandbox and the tests: state in memory, answers like
kube-apiserver 1.36, a kubelet and just enough controllers that evicted pods come back.

`SimulatedCluster` is the machine (in one event loop, real or virtual time), `ServedCluster` the
same machine behind HTTPS, `python -m sandbox.cluster` the same as a process.
"""

from sandbox.cluster.authentication import EksTokenReview, StaticTokens
from sandbox.cluster.cluster import SimulatedCluster
from sandbox.cluster.faults import (
    Answer,
    BreakWatch,
    Delay,
    Down,
    DropAnswer,
    Fault,
    Hook,
    LateAnswer,
    Reset,
)
from sandbox.cluster.serve import ServedCluster

__all__ = [
    "Answer",
    "BreakWatch",
    "Delay",
    "Down",
    "DropAnswer",
    "EksTokenReview",
    "Fault",
    "Hook",
    "LateAnswer",
    "Reset",
    "ServedCluster",
    "SimulatedCluster",
    "StaticTokens",
]
