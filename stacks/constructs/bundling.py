"""A function's zip, built on this machine without Docker: locked wheels, our sources, bytecode.

It does not use CDK, so that tests and benchmarks can build the same folder that is deployed.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from uv import find_uv_bin

ROOT = Path(__file__).parents[2]

# The Python runtimes of Lambda that our code supports, and the platform of their wheels.
# Amazon Linux 2023 has glibc 2.34. Python 3.11 runs on Amazon Linux 2, which has glibc 2.26.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
LAMBDA_PLATFORMS: Final[Mapping[str, str]] = {
    "3.14": "aarch64-manylinux_2_34",
    "3.13": "aarch64-manylinux_2_34",
    "3.12": "aarch64-manylinux_2_34",
    "3.11": "aarch64-manylinux_2_17",
}
LAMBDA_PYTHON: Final = "3.14"

# The lock of each function's zip. The custom resources have one together.
_CUSTOM_RESOURCES = ROOT / "lambdas" / "onboarding" / "requirements.txt"
LOCKS: Final[Mapping[str, Path]] = {
    "spot_handler": ROOT / "lambdas" / "requirements.txt",
    "onboarding": _CUSTOM_RESOURCES,
    "agent": _CUSTOM_RESOURCES,
}

# Lambda unpacks a zip here. The folder is read-only, so a module without bytecode is compiled at
# each cold start.
LAMBDA_TASK_ROOT: Final = "/var/task"

# Modules of lambdas/common that only the custom resources use. The spot handler's zip has a limit
# (docs/benchmarks.md), because a cold start reads it.
NOT_FOR_THE_DRAIN = frozenset(
    {
        "agent_status.py",
        "aws_calls.py",
        "cloudformation.py",
        "custom_resource.py",
        "kubernetes_objects.py",
        "kubernetes_session.py",
        "property_types.py",
        "temporary_access.py",
    }
)

# Files of wheels that do not run in Lambda, or that name the machine that unpacked them:
# command-line scripts (their first line is this machine's interpreter) and the installer's records.
# Metadata and licences stay. Half of Powertools is also left out: no function imports it, and the
# zip then has room for bytecode.
NOT_DEPLOYED = (
    "aws_lambda_powertools/event_handler",
    "aws_lambda_powertools/utilities/auth_alpha",
    "aws_lambda_powertools/utilities/batch",
    "aws_lambda_powertools/utilities/circuit_breaker",
    "aws_lambda_powertools/utilities/data_classes",
    "aws_lambda_powertools/utilities/data_masking",
    "aws_lambda_powertools/utilities/feature_flags",
    "aws_lambda_powertools/utilities/idempotency",
    "aws_lambda_powertools/utilities/kafka",
    "aws_lambda_powertools/utilities/parameters",
    "aws_lambda_powertools/utilities/parser",
    "aws_lambda_powertools/utilities/streaming",
    "aws_lambda_powertools/utilities/validation",
    "bin",
    ".lock",
    "*.dist-info/RECORD",
    "*.dist-info/INSTALLER",
    "*.dist-info/REQUESTED",
    "*.dist-info/direct_url.json",
    "*.dist-info/uv_cache.json",
    "**/__pycache__",
)


# Modules that no function imports get no bytecode, because it is larger than the source: other
# event loops and operating systems, command lines, Unicode domain names. A wrong line here only
# makes a cold start some milliseconds slower.
NOT_COMPILED = (
    "anyio/(from_thread|functools|itertools|pytest_plugin|to_interpreter|to_process)[.]py",
    "anyio/_backends/_trio[.]py",
    "anyio/_core/_(asyncio_selector_thread|concurrency_utils|contextmanagers|fileio|futures)[.]py",
    "anyio/_core/_(subprocesses|tempfile)[.]py",
    "anyio/streams/(buffered|file|text)[.]py",
    "aws_lambda_powertools/(metrics/provider/datadog|middleware_factory|utilities/metadata)/",
    "aws_lambda_powertools/shared/(cookies|dynamodb_deserializer|headers_serializer)[.]py",
    "httpx2/(_main[.]py|websockets/)",
    "idna/(cli|codec|uts46data)[.]py",
    "truststore/_(macos|windows)[.]py",
)


class BundlingError(RuntimeError):
    """A zip cannot be built. The first line says what to do, the rest is the tool's output."""


@cache
def interpreter(version: str) -> str | None:
    """Path of a CPython of a version ("3.14"): one of this machine, else one that uv downloads.

    uv stores it in its own folder of Pythons. With UV_PYTHON_DOWNLOADS=never or UV_OFFLINE=1 it
    downloads nothing. None if there is no such CPython.
    """
    find = ("python", "find", "--no-python-downloads", f"cpython{version}")
    if found := _uv(*find):
        return found
    sys.stderr.write(f"Python {version}, for the bytecode in the zips: uv python install …\n")
    _uv("python", "install", "--quiet", "--no-progress", "--no-bin", f"cpython{version}")
    return _uv(*find)


def _uv(*arguments: str) -> str | None:
    """What uv prints; None where it fails."""
    # No retries: on a machine without internet access uv then fails at once.
    environment = {"UV_HTTP_RETRIES": "0", **os.environ}
    command = [find_uv_bin(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - a fixed command, no shell
    return None if done.returncode else done.stdout.strip()


@dataclass(frozen=True)
class Target:
    """The platform on which a zip runs."""

    name: str
    runtime: str
    """The Python version of the function's runtime. An emulator may run another version."""
    architecture: str
    platform: str | None = None
    """The platform of the wheels; None: this machine and its interpreter."""

    def __str__(self) -> str:
        if self.platform:
            return f"Python {self.runtime} on {self.platform}"
        return f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"

    @property
    def compiler(self) -> str | None:
        """The interpreter that compiles this target's bytecode; None if there is none."""
        return interpreter(self.runtime) if self.platform else sys.executable


def lambda_target(python: str = LAMBDA_PYTHON) -> Target:
    """AWS Lambda, with a Python of LAMBDA_PLATFORMS."""
    return Target("lambda", python, "arm64", LAMBDA_PLATFORMS[python])


def local_target(python: str = LAMBDA_PYTHON) -> Target:
    """This machine, for the sandbox. `python` only names the runtime."""
    arm = platform.machine() in ("arm64", "aarch64")
    return Target("local", python, "arm64" if arm else "x86_64")


LAMBDA = lambda_target()
LOCAL = local_target()


@dataclass(frozen=True)
class Bundle:
    """One function's zip."""

    package: str
    """A folder of lambdas/."""
    requirements: Path
    """The hashed lock."""
    target: Target

    def fingerprint(self) -> str:
        """SHA-256 of all inputs and of this module: the same on every machine and checkout.

        A zip without bytecode has another fingerprint. Otherwise CDK would not replace it by a zip
        with bytecode.
        """
        digest = hashlib.sha256()
        for path in (Path(__file__), self.requirements, *self.sources()):
            content = path.read_bytes()
            digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        digest.update(str(self.target).encode())
        digest.update(b"bytecode" if self.target.compiler else b"sources")
        return digest.hexdigest()

    def code_version(self) -> str:
        """A hash of our own sources for every target, as 16 hexadecimal digits.

        It is the same on every machine, and for all line ends of a checkout.
        """
        digest = hashlib.sha256()
        for path in self.sources():
            content = path.read_bytes().replace(b"\r\n", b"\n")
            digest.update(f"{path.relative_to(ROOT).as_posix()} {len(content)}\n".encode())
            digest.update(content)
        return digest.hexdigest()[:16]

    def sources(self) -> list[Path]:
        """Our own files, sorted: lambdas/__init__.py, lambdas/common/**, lambdas/<package>/**.

        The spot handler's zip does not have NOT_FOR_THE_DRAIN.
        """
        lambdas = ROOT / "lambdas"
        return [
            lambdas / "__init__.py",
            *(
                path
                for folder in ("common", self.package)
                for path in sorted((lambdas / folder).rglob("*"))
                if path.is_file()
                and not (self.package == "spot_handler" and path.name in NOT_FOR_THE_DRAIN)
                and "__pycache__" not in path.parts
                and not path.name.startswith("requirements.")
            ),
        ]

    def build(self, output: Path) -> None:
        """Fill an empty folder.

        Raises BundlingError if uv cannot install the lock, or if the target's Python cannot compile
        a source.
        """
        self._install(output)
        for pattern in NOT_DEPLOYED:
            for path in list(output.glob(pattern)):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        for source in self.sources():
            copy = output / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
        if self.target.compiler:
            self._compile(output, self.target.compiler)

    def _compile(self, output: Path, compiler: str) -> None:
        """Write bytecode beside every source. It is valid for every path and time of the files."""
        command = [
            compiler, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
            "-x", "|".join(NOT_COMPILED), "-s", str(output), "-p", LAMBDA_TASK_ROOT, str(output),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command, no shell
        if done.returncode:
            raise BundlingError(
                f"Correct the sources that {self.target} cannot compile; lambdas.{self.package} "
                f"cannot be bundled with them:\n{done.stdout.strip()}"
            )

    def _install(self, output: Path) -> None:
        command = [
            find_uv_bin(), "pip", "install", "--quiet", "--no-progress",
            "--target", str(output), "--python", sys.executable,
            "--require-hashes", "--only-binary", ":all:", "--requirements", str(self.requirements),
            "--link-mode", "copy", "--no-compile-bytecode",
        ]  # fmt: skip
        if self.target.platform:
            command += ["--python-platform", self.target.platform]
            command += ["--python-version", self.target.runtime]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command, no shell
        if done.returncode:
            raise BundlingError(
                f"Check that {self.requirements.relative_to(ROOT)} has a wheel of every package "
                f"for {self.target} and that its index can be reached (make lock writes the file); "
                f"lambdas.{self.package} cannot be bundled without them:\n{done.stderr.strip()}"
            )
