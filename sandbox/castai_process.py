"""Start the simulated CAST AI API as a separate process."""

import os
import sys
from pathlib import Path

import msgspec

from sandbox import processes
from sandbox.state import CastAi

ROOT = Path(__file__).parents[1]


class _StateFile(msgspec.Struct):
    """The content of the process's state file."""

    url: str
    api_key: str


def start(folder: Path) -> tuple[CastAi, str]:
    """Start it and wait until it answers. Returns its process and URL, and its API key.

    It also sends the reports of the agent in the sandbox's cluster.
    """
    process, written = processes.start_with_file(
        [
            *(sys.executable, "-m", "sandbox.castai_api"),
            *("--state-file", folder / "castai.json", "--reports-for", folder),
        ],
        log=folder / "castai.log",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
        ready=folder / "castai.json",
    )
    content = msgspec.json.decode(written, type=_StateFile)
    return CastAi(process, content.url), content.api_key
