"""Starting the simulated CAST AI API as a process of its own."""

import os
import sys
from pathlib import Path

import msgspec

from sandbox import processes
from sandbox.state import CastAi

ROOT = Path(__file__).parents[1]


class _Known(msgspec.Struct):
    """What the process writes into its state file."""

    url: str
    api_key: str


def start(folder: Path) -> tuple[CastAi, str]:
    """Start it and wait until it answers; where it is, and its API key."""
    process, written = processes.start_with_file(
        [sys.executable, "-m", "sandbox.castai_api", "--state-file", folder / "castai.json"],
        log=folder / "castai.log",
        env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "LANG": "C.UTF-8"},
        ready=folder / "castai.json",
    )
    known = msgspec.json.decode(written, type=_Known)
    return CastAi(process, known.url), known.api_key
