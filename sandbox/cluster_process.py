"""Start the simulated cluster as a separate process."""

import os
import sys
from pathlib import Path

from kubesim.certificates import Certificates
from sandbox import processes
from sandbox.state import Kubernetes

ROOT = Path(__file__).parents[1]


def start(folder: Path, certificates: Certificates, token_review_url: str) -> Kubernetes:
    """Start it and wait until it answers. Raises SandboxError with its log if it ends before."""
    kubeconfig = folder / "kubeconfig"
    process, _endpoint = processes.start(
        [
            *(sys.executable, "-m", "kubesim"),
            *("--token-review-url", token_review_url, "--token-review-ca", certificates.ca),
            *("--kubeconfig", kubeconfig),
        ],
        log=folder / "cluster.log",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
    )
    return Kubernetes(
        kubeconfig=str(kubeconfig), token_review_url=token_review_url, process=process
    )
