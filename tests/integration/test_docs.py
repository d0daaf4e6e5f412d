"""The commands in the README's section on the sandbox."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.state import State
from tests.support import pages
from tests.support.pages import README, ROOT

pytestmark = pytest.mark.long


def test_the_sandbox_commands_of_the_readme_succeed(folder: Path) -> None:
    commands = pages.between(README, "sandbox").splitlines()[1:-1]
    environment = {**os.environ, "CASTAI_SANDBOX": str(folder)}
    for line in commands:
        if (folder / "state.json").exists():
            state = State.load(folder)
            assert state is not None
            environment["INSTANCE"] = next(node.instance for node in state.nodes if node.spot)
        done = subprocess.run(  # noqa: S603 - commands of the README
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
