"""Look for secrets in the tracked files, offline: `make audit`.

detect-secrets knows the forms of keys, and finds strings without order. Its search for words such
as "password" is off: this project's code has them in every second file.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[1]
# Hashes of packages and of assets, and answers of a cluster whose keys are gone.
_WITHOUT: Final = (
    "*requirements*.txt",
    "package-lock.json",
    "tests/infra/__snapshots__",
    "tests/recorded",
)
_HARMLESS: Final = (
    "bcdfghjklmnpqrstvwxz2456789",  # the letters of kube-apiserver's random names
    "fedcba9876543210",  # the hash of a code that does not exist
    "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",  # the example of AWS's documentation
    "password",
    "pa55",
)


def tracked() -> list[str]:
    """The tracked files that are scanned."""
    command = ["git", "ls-files", "-z", "--", ".", *(f":!{each}" for each in _WITHOUT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S603 - a fixed command, no shell
    return [name for name in done.stdout.split("\0") if name]


def findings(files: Sequence[str]) -> str:
    """What is found in the files, as text for people; empty if there is nothing.

    Raises RuntimeError if the scanner fails.
    """
    command = [sys.executable, "-m", "detect_secrets.pre_commit_hook"]
    harmless = f"^({'|'.join(map(re.escape, _HARMLESS))})$"
    options = ("--disable-plugin", "KeywordDetector", "--exclude-secrets", harmless, "--")
    done = subprocess.run(  # noqa: S603 - a fixed command, no shell
        [*command, *options, *files], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = done.stdout.splitlines()
    found = [line for line in lines if line.startswith(("Secret Type", "Location"))]
    if done.returncode and not found:
        raise RuntimeError(
            f"Run `{shlex.join([*command, *options])}` with a file, and correct what it names. "
            f"It found no secret and ended with status {done.returncode}:\n"
            f"{done.stdout}{done.stderr}"
        )
    return "\n".join(found)


def main() -> int:
    """Scan every tracked file."""
    files = tracked()
    if found := findings(files):
        print(found)
        return 1
    print(f"No secret in {len(files)} files")
    return 0


if __name__ == "__main__":
    sys.exit(main())
