"""`make demo` without a terminal, as in a pipeline: its output is that in the README.

The test uses the least-privilege policies; `.ci/run` uses the managed policies, the default.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.demo.chapters import CHAPTERS
from tests.support import pages

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LEAST_PRIVILEGE = "castai:rolePolicies=least-privilege"
LIMIT = 600  # s: time limit of the demo


def test_the_demo_succeeds_leaves_nothing_and_prints_what_the_readme_shows(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-m", "sandbox", "demo", "--folder", folder, "-c", LEAST_PRIVILEGE],
        cwd=ROOT,
        env={**os.environ, "CI": "true"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    for number, chapter in enumerate(CHAPTERS, 1):
        assert f"\n{number}  {chapter.title}\n" in done.stdout
    assert re.search(
        r"^   node \S+ drained in \d+\.\d s of 120 s: 14 evicted, 1 forced, 0 left$",
        done.stdout,
        re.MULTILINE,
    )
    assert not folder.exists()
    assert re.search(r"^ +castai:rolePolicies +least-privilege$", done.stdout, re.MULTILINE)
    printed = {masked(line) for line in done.stdout.splitlines()}
    shown = pages.between(pages.README, "demo").splitlines()[1:-1]  # without the fences
    missing = [line for line in shown if masked(line) not in printed]
    assert not missing, "Take the README's extract anew from the output of make demo"


def masked(line: str) -> str:
    """The line without what differs between runs: figures, names with hashes, alignment."""
    return " ".join(re.sub(r"[\w.-]*\d[\w.-]*", "#", line).split())
