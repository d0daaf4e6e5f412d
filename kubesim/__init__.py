"""A simulated Kubernetes API server for the sandbox and the tests.

Its state is in memory. It answers like kube-apiserver 1.36. A kubelet and controllers are simulated
too, so that evicted pods are re-created.

`SimulatedCluster` runs in an event loop, in real or virtual time. `ServedCluster` serves it over
HTTPS from a thread, `python -m kubesim` from a process. README.md has examples.
"""

from kubesim import answers
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
    OldList,
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
    "OldList",
    "Reset",
    "ServedCluster",
    "SimulatedCluster",
    "StaticTokens",
    "answers",
]
