"""Starting the simulated cluster as a process of its own."""

import os
import sys
from pathlib import Path

from sandbox import processes
from sandbox.certificates import Certificates
from sandbox.errors import SandboxError
from sandbox.state import Kubernetes

ROOT = Path(__file__).parents[1]


def start(folder: Path, certificates: Certificates, token_review_url: str) -> Kubernetes:
    """Start it and wait until it answers. Raises SandboxError with its log if it does not."""
    kubeconfig = folder / "kubeconfig"
    log = folder / "cluster.log"
    process = processes.start(
        [
            sys.executable,
            "-m",
            "sandbox.cluster",
            "--token-review-url",
            token_review_url,
            "--token-review-ca",
            certificates.ca,
            "--kubeconfig",
            kubeconfig,
        ],
        log=log,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        process.wait()
        raise SandboxError(f"The simulated cluster did not start. {log}:\n{processes.tail(log)}")
    return Kubernetes(
        kubeconfig=str(kubeconfig),
        token_review_url=token_review_url,
        process=processes.Process.of(process.pid),
    )
