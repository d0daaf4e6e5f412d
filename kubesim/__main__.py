"""`python -m kubesim`: the simulated cluster as a process.

It prints its endpoint on one line when it is ready. It ends on SIGTERM or SIGINT.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import secrets
import signal
import ssl
import sys
import tempfile
from pathlib import Path

import yaml

from kubesim.authentication import Authenticator, EksTokenReview
from kubesim.certificates import Certificates
from kubesim.cluster import SimulatedCluster
from kubesim.serve import https, kubeconfig


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    asyncio.run(_serve(_options()))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m kubesim", description="A simulated Kubernetes API server."
    )
    parser.add_argument("--port", type=int, default=0, help="default: a free port")
    parser.add_argument("--kubeconfig", type=Path, help="file for the administrator's kubeconfig")
    parser.add_argument(
        "--state-file", type=Path, help="JSON file for endpoint, ca_pem, kubeconfig and pid"
    )
    parser.add_argument("--token-review-url", help="TokenReview webhook for all other tokens")
    parser.add_argument("--token-review-ca", type=Path, help="PEM file: the CA of that URL")
    parser.add_argument(
        "--objects", type=Path, action="append", default=[],
        help="YAML or JSON file of objects to create at the start; repeat it for more files",
    )  # fmt: skip
    return parser.parse_args()


def _authenticators(options: argparse.Namespace) -> tuple[Authenticator, ...]:
    if not options.token_review_url:
        return ()
    authority = options.token_review_ca
    context = ssl.create_default_context(cafile=authority) if authority else True
    return (EksTokenReview(options.token_review_url, verify=context),)


async def _serve(options: argparse.Namespace) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    token = secrets.token_urlsafe(32)
    with tempfile.TemporaryDirectory(prefix="kubesim-") as folder:
        certificates = Certificates.ensure(Path(folder))
        authority = certificates.ca.read_text()
        async with (
            SimulatedCluster(admin_token=token, authenticators=_authenticators(options)) as cluster,
            https(cluster, certificates, options.port) as endpoint,
        ):
            for path in options.objects:
                _load(cluster, path)
            admin = kubeconfig(endpoint, authority, token)
            if options.kubeconfig:
                _write(options.kubeconfig, admin)
            if options.state_file:
                known = {
                    "endpoint": endpoint,
                    "ca_pem": authority,
                    "kubeconfig": admin,
                    "pid": os.getpid(),
                }
                _write(options.state_file, json.dumps(known))
            sys.stdout.write(f"{endpoint}\n")
            sys.stdout.flush()
            await stop.wait()
    if options.state_file:
        options.state_file.unlink(missing_ok=True)


def _load(cluster: SimulatedCluster, path: Path) -> None:
    for document in yaml.load_all(path.read_text(), yaml.CSafeLoader):
        for obj in document.get("items", [document]) if document else ():
            cluster.create(obj)


def _write(path: Path, text: str) -> None:
    """Write a file atomically; only its owner can read it."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    draft.replace(path)


if __name__ == "__main__":
    main()
