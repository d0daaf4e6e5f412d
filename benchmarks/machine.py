"""Facts about the machine and the software that were measured."""

from __future__ import annotations

import os
import platform
import shutil
import ssl
import subprocess
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import msgspec
import psutil  # type: ignore[import-untyped] # its stubs are a separate package

PACKAGES = ("boto3", "botocore", "httpx2", "msgspec", "aws-lambda-powertools")


def facts() -> dict[str, str]:
    """Return name → value, for a table."""
    memory = psutil.virtual_memory().total / 2**30
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": f"{os.cpu_count()} processors, {_processor()}, {memory:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": f"{platform.python_version()}, {ssl.OPENSSL_VERSION}",
        "packages": ", ".join(f"{name} {version(name)}" for name in PACKAGES),
        "kubectl": _kubectl(),
        "load before": f"{psutil.getloadavg()[0]:.1f} (other work on the machine slows every peer)",
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.machine()


def _kubectl() -> str:
    tool = shutil.which("kubectl")
    if not tool:
        return "none"
    done = subprocess.run(
        [tool, "version", "--client", "-o", "json"], capture_output=True, check=False
    )
    try:
        return str(msgspec.json.decode(done.stdout)["clientVersion"]["gitVersion"])
    except (msgspec.DecodeError, KeyError):
        return "unknown version"
