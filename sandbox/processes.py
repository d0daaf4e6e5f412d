"""Processes of the sandbox: started detached, known by id and start time, ended only if ours."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped] # its stubs are a package of their own

from sandbox.errors import SandboxError

START_TIME_TOLERANCE = 1.0  # s: the boot time that start times are computed from drifts
GRACE = 10.0  # s between SIGTERM and SIGKILL
TAIL = 20  # lines of a log that an error shows


class Process(msgspec.Struct, frozen=True):
    """An id alone may name another process by now; with the start time it is unmistakable."""

    pid: int
    started: float  # epoch seconds

    @classmethod
    def of(cls, pid: int) -> "Process":
        """The running process of that id. Raises SandboxError when there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess as error:
            raise SandboxError(f"Look into the logs: process {pid} has ended") from error

    def alive(self) -> bool:
        """Whether this very process still runs."""
        return self._find() is not None

    def end(self) -> None:
        """SIGTERM, then SIGKILL after a grace, for it and its children; nothing if it is gone."""
        process = self._find()
        if process is None:
            return
        family = [process, *_children(process)]
        process.terminate()
        _gone, left = psutil.wait_procs([process], timeout=GRACE)
        # Children that outlive their parent (functions in the middle of something) go with it.
        stragglers = [child for child in family[1:] if child.is_running()] + left
        for straggler in stragglers:
            try:
                straggler.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(stragglers, timeout=GRACE)

    def _find(self) -> psutil.Process | None:
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > START_TIME_TOLERANCE:
                return None
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        except psutil.NoSuchProcess:
            return None


def start(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str], stdin: str = ""
) -> subprocess.Popen[str]:
    """Start detached from this terminal: Ctrl-C here must not reach it. Output goes to ``log``.

    Standard output stays a pipe, for one line by which the process may say that it is ready.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as sink:
        process = subprocess.Popen(
            [os.fspath(part) for part in command],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            start_new_session=True,
        )
    if process.stdin is not None:
        try:
            process.stdin.write(stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has ended already: whoever waits for it says so, with the log
    return process


def tail(log: Path) -> str:
    """The last lines of a log, for an error message."""
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-TAIL:])


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children
