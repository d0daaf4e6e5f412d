"""Only processes that the sandbox started are ended."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from sandbox.errors import SandboxError
from sandbox.processes import Process


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


def test_a_process_is_ended(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    assert process.alive()
    process.end()
    sleeper.wait()
    assert not process.alive()


def test_another_process_under_the_same_id_is_left_alone(sleeper: subprocess.Popen[bytes]) -> None:
    earlier = Process(sleeper.pid, Process.of(sleeper.pid).started - 3600)
    assert not earlier.alive()
    earlier.end()
    assert sleeper.poll() is None


def test_ending_twice_is_no_error(sleeper: subprocess.Popen[bytes]) -> None:
    process = Process.of(sleeper.pid)
    process.end()
    sleeper.wait()
    process.end()


def test_children_are_ended_with_their_parent() -> None:
    code = (
        "import subprocess, sys; child = subprocess.Popen([sys.executable, '-c', 'input()'], "
        "stdin=subprocess.PIPE); print(child.pid, flush=True); input()"
    )
    with subprocess.Popen(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = Process.of(int(parent.stdout.readline()))
        Process.of(parent.pid).end()
        parent.wait()
        assert not child.alive()


def test_an_ended_process_is_not_found() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    with pytest.raises(SandboxError, match="has ended"):
        Process.of(process.pid)


def test_this_process_is_alive() -> None:
    assert Process.of(os.getpid()).alive()
