"""Look for packages of the locks that have a known vulnerability: `make audit`.

pip-audit asks OSV about Python's packages, `npm audit` asks npm's registry. A known vulnerability
fails the audit. Where no source answers, the audit says that it did not run, and does not fail:
a machine without internet access is no reason for a red build.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import msgspec

from lambdas.common.text import cut

ROOT: Final = Path(__file__).parents[1]
LOCKS: Final = (
    "lambdas/requirements.txt",
    "lambdas/onboarding/requirements.txt",
    "requirements.txt",
    "requirements-dev.txt",
    "sandbox/emulator/requirements.txt",
)
NPM_LOCK: Final = "package-lock.json"
TIMEOUT: Final = 15  # s for one answer


@dataclass(frozen=True)
class Audited:
    """The audit of one lock."""

    lock: str
    vulnerable: tuple[str, ...] = ()
    """A line for each known vulnerability."""
    packages: int = 0
    not_run: str = ""
    """Why it did not run; empty if it did."""


class _Vulnerability(msgspec.Struct):
    id: str
    fix_versions: list[str] = []


class _Package(msgspec.Struct):
    name: str
    version: str = ""
    vulns: list[_Vulnerability] = []
    skip_reason: str = ""


class _PipAudit(msgspec.Struct):
    dependencies: list[_Package]


class _NpmPackage(msgspec.Struct):
    name: str
    severity: str


class _NpmDependencies(msgspec.Struct):
    total: int


class _NpmMetadata(msgspec.Struct):
    dependencies: _NpmDependencies


class _NpmAudit(msgspec.Struct):
    vulnerabilities: dict[str, _NpmPackage]
    metadata: _NpmMetadata


def python(lock: Path, *options: str) -> Audited:
    """The audit of a lock with hashes. `options` are further options of pip-audit."""
    audit = ("pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json")
    source = ("--vulnerability-service=osv", f"--timeout={TIMEOUT}", "--requirement", str(lock))
    done = _run([sys.executable, "-m", *audit, *source, *options], ROOT)
    name = str(lock.relative_to(ROOT)) if lock.is_relative_to(ROOT) else lock.name
    try:
        found = msgspec.json.decode(done.stdout, type=_PipAudit).dependencies
    except msgspec.DecodeError:
        return Audited(name, not_run=cut((done.stderr.strip().splitlines() or ["no output"])[-1]))
    skipped = next((each.skip_reason for each in found if each.skip_reason), "")
    return Audited(name, tuple(_of_python(found)), len(found), cut(skipped))


def _of_python(found: Sequence[_Package]) -> Iterator[str]:
    for each in found:
        for one in each.vulns:
            fixed = f", fixed in {', '.join(one.fix_versions)}" if one.fix_versions else ""
            yield f"{each.name} {each.version}: {one.id}{fixed}"


def npm(folder: Path, *options: str) -> Audited:
    """The audit of a folder's package-lock.json. `options` are further options of npm."""
    limits = ("--fetch-retries=0", f"--fetch-timeout={TIMEOUT}000")
    done = _run(["npm", "audit", "--json", "--package-lock-only", *limits, *options], folder)
    try:
        found = msgspec.json.decode(done.stdout, type=_NpmAudit)
    except msgspec.DecodeError:
        said = [line for line in done.stderr.splitlines() if " audit " in line]
        return Audited(NPM_LOCK, not_run=cut((said or ["no output"])[0]))
    every = found.vulnerabilities.values()
    lines = tuple(f"{each.name}: {each.severity}" for each in every)
    return Audited(NPM_LOCK, lines, found.metadata.dependencies.total)


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command, no shell


def report(audits: Sequence[Audited]) -> int:
    """Print each audit. Returns the exit status: 1 for a known vulnerability."""
    for each in audits:
        for line in each.vulnerable:
            print(f"{each.lock}: {line}")
        if each.not_run:
            print(f"{each.lock}: NOT RUN, no advisory source answered ({each.not_run})")
        elif not each.vulnerable:
            print(f"{each.lock}: {each.packages} packages, none with a known vulnerability")
    return int(any(each.vulnerable for each in audits))


def main() -> int:
    """Audit every lock of the project."""
    return report([*(python(ROOT / lock) for lock in LOCKS), npm(ROOT)])


if __name__ == "__main__":
    sys.exit(main())
