"""A Kubernetes API server of our own, for the sandbox and the tests: state in memory, answers like
kube-apiserver 1.36, a kubelet and just enough controllers that evicted pods come back.

`SimulatedCluster` is the machine (in one event loop, real or virtual time), `ServedCluster` the
same machine behind HTTPS, `python -m kubesim` the same as a process.
"""

from kubesim.authentication import EksTokenReview, StaticTokens
from kubesim.cluster import SimulatedCluster
from kubesim.faults import (
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
from kubesim.serve import ServedCluster

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
