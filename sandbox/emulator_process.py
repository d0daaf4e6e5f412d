"""Start the AWS emulator in its own virtual environment."""

import json
import os
import secrets
import socket
import sys
from pathlib import Path

from kubesim.certificates import Certificates
from sandbox import processes
from sandbox.errors import SandboxError
from sandbox.external import Review
from sandbox.state import Emulator

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / ".venv-emulator" / "bin" / "python"
LAUNCHER = Path(__file__).parent / "emulator" / "launcher.py"
CONCURRENCY = 3  # asynchronous invocations at the same time; each takes 60 MB
RETRY_PAUSE = 1.0  # s before an asynchronous retry; Lambda waits a minute


def start(
    folder: Path,
    certificates: Certificates,
    *,
    account: str,
    region: str,
    concurrency: int = CONCURRENCY,
    retry_pause: float = RETRY_PAUSE,
    review: Review | None = None,
) -> Emulator:
    """Start it and wait until it listens. Raises SandboxError with its log if it ends before.

    review: the port and the secret of a TokenReview that an API server was started with.
    """
    if not PYTHON.exists():
        raise SandboxError("Install the emulator: make setup")
    token, root_secret = secrets.token_urlsafe(32), secrets.token_urlsafe(30)
    config = {
        "account": account,
        "region": region,
        "root_key": account,  # the emulator's access key of the root user is the account's id
        "root_secret": root_secret,
        "token": token,
        "certificate": str(certificates.certificate),
        "key": str(certificates.key),
        "ca": str(certificates.ca),
        "tmp": str(folder / "functions"),
        "concurrency": concurrency,
        "retry_pause": retry_pause,
        **(_checked(review)._asdict() if review else {}),
    }
    process, line = processes.start(
        [PYTHON, LAUNCHER],
        log=folder / "emulator.log",
        env=_environment(folder),
        stdin=json.dumps(config),
    )
    return Emulator(process, json.loads(line)["endpoint"], token, root_secret)


def _checked(review: Review) -> Review:
    """Return it unchanged. Raises SandboxError if its port is in use."""
    try:
        socket.create_server(("127.0.0.1", review.port)).close()
    except OSError as error:
        raise SandboxError(
            f"Free port {review.port}: the API server asks for its TokenReview there ({error})"
        ) from error
    return review


def _environment(folder: Path) -> dict[str, str]:
    """Return variables for the emulator, none from this shell: functions inherit them."""
    node = Path(sys.executable).with_name("node")  # of the project's environment
    if not node.exists():
        raise SandboxError("Install Node beside Python: make setup")
    return {
        # The CDK's own functions are written in JavaScript.
        "PATH": os.pathsep.join([os.fspath(node.resolve().parent), "/usr/bin", "/bin"]),
        "HOME": str(folder),
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
