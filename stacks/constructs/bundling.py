"""A function's zip, built on this machine without Docker: locked wheels and our own sources.

Pure of CDK, so that tests and benchmarks can build the same folder that is deployed.
"""

from __future__ import annotations

import hashlib
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

ROOT = Path(__file__).parents[2]

# The runtime's Python and processor. Amazon Linux 2023, on which it stands, has glibc 2.34.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
LAMBDA_PYTHON = "3.14"
LAMBDA_PLATFORM = "aarch64-manylinux_2_34"

# What wheels bring that does not run in Lambda, or says on which machine it was unpacked:
# command-line scripts (their first line is this machine's interpreter) and the installer's notes.
# Metadata and licences stay. Nothing is cut out of a package: all of them together are less than
# half of the limit that the zip has.
NOT_DEPLOYED = (
    "bin",
    ".lock",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    "**/__pycache__",
)


class BundlingError(RuntimeError):
    """A zip cannot be built. The first line says what to do, the rest is uv's own answer."""


@dataclass(frozen=True)
class Target:
    """Where a zip runs. python_platform and python_version None: this interpreter, this machine."""

    name: str
    architecture: str
    python_platform: str | None = None
    python_version: str | None = None

    def __str__(self) -> str:
        if self.python_platform:
            return f"Python {self.python_version} on {self.python_platform}"
        return f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"


LAMBDA = Target("lambda", "arm64", LAMBDA_PLATFORM, LAMBDA_PYTHON)
LOCAL = Target("local", "arm64" if platform.machine() in ("arm64", "aarch64") else "x86_64")
TARGETS = {target.name: target for target in (LAMBDA, LOCAL)}


@dataclass(frozen=True)
class Bundle:
    """One function's zip: package, a folder of lambdas/; requirements, its hashed lock."""

    package: str
    requirements: Path
    target: Target

    def fingerprint(self) -> str:
        """SHA-256 of all that goes in and of the recipe: the same on every machine and checkout."""
        digest = hashlib.sha256()
        for path in (Path(__file__), self.requirements, *self.sources()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        digest.update(str(self.target).encode())
        return digest.hexdigest()

    def code_version(self) -> str:
        """What the function would do, as 16 hexadecimal digits: our sources, whatever the target.

        The same on every machine, and whichever line ends a checkout has.
        """
        digest = hashlib.sha256()
        for path in self.sources():
            content = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()[:16]

    def sources(self) -> list[Path]:
        """Our own files, sorted: lambdas/__init__.py, lambdas/common/**, lambdas/<package>/**."""
        lambdas = ROOT / "lambdas"
        return [
            lambdas / "__init__.py",
            *(
                path
                for folder in ("common", self.package)
                for path in sorted((lambdas / folder).rglob("*"))
                if path.is_file()
                and "__pycache__" not in path.parts
                and not path.name.startswith("requirements.")
            ),
        ]

    def build(self, output: Path) -> None:
        """Fill an empty folder. Raises BundlingError where uv cannot install the lock."""
        self._install(output)
        for pattern in NOT_DEPLOYED:
            for path in list(output.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for source in self.sources():
            copy = output / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)

    def _install(self, output: Path) -> None:
        command = [
            find_uv_bin(), "pip", "install", "--quiet", "--no-progress",
            "--target", str(output), "--python", sys.executable,
            "--require-hashes", "--only-binary", ":all:", "--requirements", str(self.requirements),
            "--link-mode", "copy", "--no-compile-bytecode",
        ]  # fmt: skip
        if self.target.python_platform and self.target.python_version:
            command += ["--python-platform", self.target.python_platform]
            command += ["--python-version", self.target.python_version]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command, no shell
        if done.returncode:
            raise BundlingError(
                f"Check that {self.requirements.relative_to(ROOT)} has a wheel of every package "
                f"for {self.target} and that its index can be reached (make lock writes it anew); "
                f"lambdas.{self.package} cannot be bundled without:\n{done.stderr.strip()}"
            )
