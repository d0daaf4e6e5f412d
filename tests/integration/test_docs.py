"""The README's tour of the sandbox, as it is written."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import lifecycle
from sandbox.state import State
from tests.support import pages
from tests.support.pages import README, ROOT

pytestmark = pytest.mark.long


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose sandbox, if any, ends with the test."""
    yield tmp_path / "sandbox"
    lifecycle.down(tmp_path / "sandbox")


def test_the_tour_of_the_readme(folder: Path) -> None:
    tour = pages.between(README, "sandbox").splitlines()[1:-1]
    environment = {**os.environ, "CASTAI_SANDBOX": str(folder)}
    for line in tour:
        if (folder / "state.json").exists():
            state = State.load(folder)
            assert state is not None
            environment["INSTANCE"] = next(node.instance for node in state.nodes if node.spot)
        done = subprocess.run(  # noqa: S603 - the README's own words
            ["/bin/bash", "-euc", line.replace(".venv/bin/python", sys.executable)],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    assert not folder.exists()
