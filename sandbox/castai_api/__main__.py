"""`python -m sandbox.castai_api --state-file FILE`: the simulated CAST AI as a process.

The API key is the environment variable CASTAI_API_KEY, or a new one. When the API answers, the file
contains `{"url", "pid", "api_key"}`. Only its owner can read it. At its end (SIGTERM or SIGINT) the
process removes it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import sys
from contextlib import nullcontext
from pathlib import Path

from sandbox.castai_api.agent_yaml import agent_yaml
from sandbox.castai_api.app import App
from sandbox.castai_api.reporter import reporting_for
from sandbox.castai_api.server import Tls, listen, server, url_of
from sandbox.castai_api.state import State


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _options()
    key = os.environ.get("CASTAI_API_KEY") or secrets.token_hex(32)
    state = State(key, propagation=options.propagation)
    tls = Tls(options.certificate, options.key) if options.certificate else None
    # uvicorn raises the signal again after it has closed. The file must be removed all the same.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    with listen(options.port) as sock:
        content = {"url": url_of(sock, tls), "pid": os.getpid(), "api_key": key}

        def ready() -> None:
            _write(options.state_file, json.dumps(content))

        reports = reporting_for(options.reports_for) if options.reports_for else nullcontext()
        try:
            with reports:
                server(App(state, agent_yaml), ready, tls).run(sockets=[sock])
        finally:
            options.state_file.unlink(missing_ok=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m sandbox.castai_api", description="CAST AI's API, simulated on loopback."
    )
    parser.add_argument("--state-file", type=Path, required=True, help="file for URL and key")
    parser.add_argument("--port", type=int, default=0, help="default: a free one")
    parser.add_argument(
        "--propagation", type=int, default=1, help="number of 400s before new credentials work"
    )
    parser.add_argument(
        "--reports-for", type=Path, help="folder of a sandbox: report for the agent in its cluster"
    )
    parser.add_argument("--certificate", help="PEM file; with --key, the API uses https")
    parser.add_argument("--key", help="PEM file of the certificate's private key")
    options = parser.parse_args()
    if bool(options.certificate) != bool(options.key):
        parser.error("--certificate and --key belong together")
    return options


def _write(file: Path, text: str) -> None:
    """Write atomically, readable by the owner only: the file has the API key."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    draft.touch(mode=0o600)
    draft.write_text(text)
    draft.replace(file)


if __name__ == "__main__":
    main()
