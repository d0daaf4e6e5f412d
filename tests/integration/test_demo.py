"""`make demo` without a terminal, as in a pipeline: the whole story, and an honest end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.demo import CHAPTERS

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[2]
LIMIT = 600  # s: a stuck demo must not keep the tests for ever


def test_the_whole_story_ends_well_and_leaves_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    done = subprocess.run(  # noqa: S603 - this very program
        [sys.executable, "-m", "sandbox", "demo", "--folder", folder],
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
