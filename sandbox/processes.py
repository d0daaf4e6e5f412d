"""Start and end the sandbox's processes, which are identified by process id and start time."""

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped] # its stubs are a separate package

from sandbox import wait
from sandbox.errors import SandboxError

START_TIME_TOLERANCE = 1.0  # s: start times are computed from the boot time, which drifts
GRACE = 10.0  # s between SIGTERM and SIGKILL
START = 30.0  # s until a process must have written its file
TAIL = 20  # lines of a log that an error shows


# Started by this process. It must wait for them, or they stay as zombies.
_children: dict[int, subprocess.Popen[str]] = {}


class Process(msgspec.Struct, frozen=True):
    """A process by id and start time. The system may have given its id to another process."""

    pid: int
    started: float
    """Epoch seconds."""

    @classmethod
    def of(cls, pid: int) -> "Process":
        """Return the running process of that id. Raises SandboxError if there is none."""
        try:
            return cls(pid, psutil.Process(pid).create_time())
        except psutil.NoSuchProcess as error:
            raise SandboxError(f"Check the logs: process {pid} has ended") from error

    def alive(self) -> bool:
        """Return whether this process still runs."""
        return self._find() is not None

    def end(self) -> None:
        """Send SIGTERM, then SIGKILL after GRACE, and kill its children, unless it has ended."""
        process = self._find()
        if process is None:
            return
        children = _descendants(process)
        process.terminate()
        _gone, left = psutil.wait_procs([process], timeout=GRACE)
        # Children that still run (functions during an invocation) are killed, too.
        running = [child for child in children if child.is_running()] + left
        for each in running:
            try:
                each.kill()
            except psutil.NoSuchProcess:
                continue
        psutil.wait_procs(running, timeout=GRACE)
        child = _children.pop(self.pid, None)
        if child is not None:
            child.wait()

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
) -> tuple[Process, str]:
    """Start a process in a new session, so that Ctrl-C in this terminal does not reach it.

    Waits for the line on standard output that means that the process is ready. Returns the process
    and that line. Its standard error goes to ``log``.
    Raises SandboxError with the end of the log if the process ends without that line.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as sink:
        child = subprocess.Popen(
            [os.fspath(part) for part in command],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=sink,
            text=True,
            start_new_session=True,
        )
    _children[child.pid] = child
    with child.stdout as output, child.stdin as source:  # type: ignore[union-attr] # both are pipes
        try:
            source.write(stdin)
            source.close()
        except BrokenPipeError:
            pass  # it has ended: the line is missing below
        line = output.readline()
    if not line:
        _children.pop(child.pid).wait()
        raise SandboxError(f"Read {log}: {Path(command[0]).name} did not start\n{_tail(log)}")
    return Process.of(child.pid), line.strip()


def start_with_file(
    command: Sequence[str | Path], *, log: Path, env: Mapping[str, str], ready: Path
) -> tuple[Process, bytes]:
    """Start a process as `start` does. It is ready when it has written the file ``ready``."""
    ready.unlink(missing_ok=True)
    with log.open("w") as sink:
        child = subprocess.Popen(
            [os.fspath(part) for part in command],
            env=dict(env),
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            text=True,
            start_new_session=True,
        )
    _children[child.pid] = child
    wait.until(
        lambda: ready.exists() or child.poll() is not None,
        f"{command[0]} writing {ready}",
        timeout=START,
    )
    if not ready.exists():
        _children.pop(child.pid)
        raise SandboxError(f"Read {log}: {Path(command[0]).name} did not start\n{_tail(log)}")
    return Process.of(child.pid), ready.read_bytes()


def _tail(log: Path) -> str:
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    return "\n".join(lines[-TAIL:])


def _descendants(process: psutil.Process) -> list[psutil.Process]:
    try:
        children: list[psutil.Process] = process.children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return children
