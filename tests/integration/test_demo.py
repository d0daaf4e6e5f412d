"""`make demo` without a terminal, as in a pipeline: the whole story, as the README shows it.

With the least privilege; `.ci/run` plays it with the managed policies, which are the default.
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
LIMIT = 600  # s: a stuck demo must not keep the tests for ever


def test_the_whole_story_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(  # noqa: S603 - this very program
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
    said = {masked(line) for line in done.stdout.splitlines()}
    shown = pages.between(pages.README, "demo").splitlines()[1:-1]  # without the fences
    unsaid = [line for line in shown if masked(line) not in said]
    assert not unsaid, "Take the README's extract anew from the output of make demo"


def masked(line: str) -> str:
    """The line without what differs from run to run: figures, names with hashes, alignment."""
    return " ".join(re.sub(r"[\w.-]*\d[\w.-]*", "#", line).split())
