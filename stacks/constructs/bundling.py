"""A function's zip, built on this machine without Docker: locked wheels, our sources, bytecode.

Pure of CDK, so that tests and benchmarks can build the same folder that is deployed.
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

# Lambda's Pythons that our code runs on, and the platform that their wheels are chosen for.
# Amazon Linux 2023 has glibc 2.34; Python 3.11 stands on Amazon Linux 2, which has 2.26.
# https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtimes.html
LAMBDA_PLATFORMS: Final[Mapping[str, str]] = {
    "3.14": "aarch64-manylinux_2_34",
    "3.13": "aarch64-manylinux_2_34",
    "3.12": "aarch64-manylinux_2_34",
    "3.11": "aarch64-manylinux_2_17",
}
LAMBDA_PYTHON: Final = "3.14"

# Where Lambda unpacks a zip. It is read-only: what has no bytecode is compiled at each cold start.
LAMBDA_TASK_ROOT: Final = "/var/task"

# Modules of lambdas/common that only the custom resources use. The spot handler's zip has a limit
# (docs/benchmarks.md), because a cold start reads it.
NOT_FOR_THE_DRAIN = frozenset(
    {
        "agent_status.py",
        "aws_calls.py",
        "custom_resource.py",
        "kubernetes_objects.py",
        "kubernetes_session.py",
        "temporary_access.py",
    }
)

# What wheels bring that does not run in Lambda, or says on which machine it was unpacked:
# command-line scripts (their first line is this machine's interpreter) and the installer's notes.
# Metadata and licences stay. Of Powertools a half goes that none of our functions imports: a zip
# without it has room for bytecode.
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


# What no function imports gets no bytecode, which is larger than its source: other event loops and
# systems, command lines, names in Unicode. A wrong line here costs milliseconds and nothing else.
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
    """A zip cannot be built. The first line says what to do, the rest is the tool's own answer."""


@cache
def interpreter(version: str) -> str | None:
    """Path of a CPython of a version ("3.14"): one of this machine, else one that uv fetches.

    uv keeps what it fetches where it keeps its Pythons, and fetches nothing where it is told so
    (UV_PYTHON_DOWNLOADS=never, UV_OFFLINE=1). None where there is none in the end.
    """
    find = ("python", "find", "--no-python-downloads", f"cpython{version}")
    if found := _uv(*find):
        return found
    sys.stderr.write(f"Python {version}, for the bytecode in the zips: uv python install …\n")
    _uv("python", "install", "--quiet", "--no-progress", "--no-bin", f"cpython{version}")
    return _uv(*find)


def _uv(*arguments: str) -> str | None:
    """What uv prints; None where it fails."""
    # One try: a machine without a way out is to learn so at once.
    environment = {"UV_HTTP_RETRIES": "0", **os.environ}
    command = [find_uv_bin(), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)  # noqa: S603 - a fixed command, no shell
    return None if done.returncode else done.stdout.strip()


@dataclass(frozen=True)
class Target:
    """Where a zip runs.

    runtime: the Python of the function's runtime, which an emulator may have in another version.
    platform: what wheels are chosen for; None: this interpreter on this machine.
    """

    name: str
    runtime: str
    architecture: str
    platform: str | None = None

    def __str__(self) -> str:
        if self.platform:
            return f"Python {self.runtime} on {self.platform}"
        return f"Python {platform.python_version()} on {sys.platform} {platform.machine()}"

    @property
    def compiler(self) -> str | None:
        """The interpreter that makes this target's bytecode; None where there is none."""
        return interpreter(self.runtime) if self.platform else sys.executable


def lambda_target(python: str = LAMBDA_PYTHON) -> Target:
    """AWS Lambda, with a Python of LAMBDA_PLATFORMS."""
    return Target("lambda", python, "arm64", LAMBDA_PLATFORMS[python])


def local_target(python: str = LAMBDA_PYTHON) -> Target:
    """This machine, for the sandbox, whatever the runtime is called."""
    arm = platform.machine() in ("arm64", "aarch64")
    return Target("local", python, "arm64" if arm else "x86_64")


LAMBDA = lambda_target()
LOCAL = local_target()


@dataclass(frozen=True)
class Bundle:
    """One function's zip: package, a folder of lambdas/; requirements, its hashed lock."""

    package: str
    requirements: Path
    target: Target

    def fingerprint(self) -> str:
        """SHA-256 of all that goes in and of the recipe: the same on every machine and checkout.

        A zip without bytecode has another one: CDK would not replace it by one that has it.
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
        """Our own files, sorted: lambdas/__init__.py, lambdas/common/**, lambdas/<package>/**.

        The spot handler's zip goes without NOT_FOR_THE_DRAIN.
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

        Raises BundlingError where uv cannot install the lock, and where a source is none of the
        target's Python.
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
        """Bytecode beside every source, valid whatever times and places the files get in Lambda."""
        command = [
            compiler, "-I", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
            "-x", "|".join(NOT_COMPILED), "-s", str(output), "-p", LAMBDA_TASK_ROOT, str(output),
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command, no shell
        if done.returncode:
            raise BundlingError(
                f"Correct the sources that {self.target} does not take; lambdas.{self.package} "
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
                f"for {self.target} and that its index can be reached (make lock writes it anew); "
                f"lambdas.{self.package} cannot be bundled without:\n{done.stderr.strip()}"
            )
