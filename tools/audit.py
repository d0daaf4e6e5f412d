"""Look for packages of the locks that have a known vulnerability: `make audit`.

pip-audit asks OSV about Python's packages, and PyPI's JSON API where OSV does not answer.
`npm audit` asks npm's registry. A known vulnerability fails the audit. Where a source cannot be
reached or refuses the request, the audit says that it did not run, and does not fail: a machine
without internet access is no reason for a red build. Every other failure of a tool fails it.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
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
SERVICES: Final[Mapping[str, str]] = {"osv": "OSV", "pypi": "PyPI"}
"""The sources for Python's packages by pip-audit's names, in the order in which they are asked."""
TIMEOUT: Final = 15  # s for one answer

# The last line of pip-audit's traceback where the source cannot be reached.
_PIP_AUDIT_UNREACHED: Final = re.compile(
    r"^(requests\.exceptions\.(ConnectionError|ConnectTimeout|ReadTimeout|ProxyError|SSLError"
    r"|ChunkedEncodingError)|pip_audit\._service\.interface\.ConnectionError): "
)
# It hides the status of a refusal: the exception before the last one has it.
_PIP_AUDIT_REFUSED: Final = "pip_audit._service.interface.ServiceError"
_HTTP_ERROR: Final = re.compile(r"^requests\.exceptions\.HTTPError: ")
# PyPI's service does not fail at the status 404, it skips the package.
_PIP_AUDIT_NOT_FOUND: Final = "Dependency not found on PyPI"
# The messages of npm's HTTP client (minipass-fetch) for errors of the network.
_NPM_UNREACHED: Final = re.compile(
    r"^(request to \S+ failed, reason: |network timeout at: |Response timeout while trying to )"
)


@dataclass(frozen=True)
class Audited:
    """The audit of one lock."""

    lock: str
    vulnerable: tuple[str, ...] = ()
    """A line for each known vulnerability."""
    packages: int = 0
    source: str = ""
    """The source of advisories that was asked."""
    not_run: str = ""
    """Why the source did not answer; empty if it did."""
    failed: str = ""
    """What to do if the tool failed; empty if it did not."""


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


class _NpmError(msgspec.Struct):
    """npm's answer where the request to the registry failed."""

    message: str
    statusCode: int | None = None  # noqa: N815 - npm's own name


def python(lock: Path, *options: str) -> Audited:
    """The audit of a lock with hashes. `options` are further options of pip-audit."""
    reasons = []
    for service in SERVICES:
        found = _python(lock, service, options)
        if not found.not_run:
            return found
        reasons.append(f"{found.source}: {found.not_run}")
    return replace(found, not_run="; ".join(reasons))


def _python(lock: Path, service: str, options: Sequence[str]) -> Audited:
    audit = ("pip_audit", "--disable-pip", "--no-deps", "--progress-spinner=off", "--format=json")
    source = (f"--vulnerability-service={service}", f"--timeout={TIMEOUT}")
    command = [sys.executable, "-m", *audit, *source, "--requirement", str(lock), *options]
    done = _run(command, ROOT)
    name = str(lock.relative_to(ROOT)) if lock.is_relative_to(ROOT) else lock.name
    asked = Audited(name, source=SERVICES[service])
    try:
        found = msgspec.json.decode(done.stdout, type=_PipAudit).dependencies
    except msgspec.DecodeError:
        if reason := _unanswered_by_pip_audit(done.stderr):
            return replace(asked, not_run=cut(reason))
        return replace(asked, failed=_failure(command, done))
    lines = tuple(_of_python(found))
    skipped = [each.skip_reason for each in found if each.skip_reason]
    if _failed(done, lines) or not all(_PIP_AUDIT_NOT_FOUND in each for each in skipped):
        return replace(asked, failed=_failure(command, done, *skipped))
    reason = f"{len(skipped)} of {len(found)} packages: {cut(skipped[0])}" if skipped else ""
    return replace(asked, vulnerable=lines, packages=len(found), not_run=reason)


def _unanswered_by_pip_audit(stderr: str) -> str:
    """Why the source did not answer; empty if pip-audit failed for another reason."""
    lines = stderr.strip().splitlines() or [""]
    if _PIP_AUDIT_UNREACHED.match(lines[-1]):
        return lines[-1]
    refusals = [line for line in lines if _HTTP_ERROR.match(line)]
    return refusals[-1] if refusals and lines[-1] == _PIP_AUDIT_REFUSED else ""


def _of_python(found: Sequence[_Package]) -> Iterator[str]:
    for each in found:
        for one in each.vulns:
            fixed = f", fixed in {', '.join(one.fix_versions)}" if one.fix_versions else ""
            yield f"{each.name} {each.version}: {one.id}{fixed}"


def npm(folder: Path, *options: str) -> Audited:
    """The audit of a folder's package-lock.json. `options` are further options of npm."""
    audit = ("npm", "audit", "--json", "--package-lock-only")
    # The user's settings may leave packages out, and offline npm finds no vulnerability.
    everything = ("--include=dev", "--offline=false")
    limits = ("--fetch-retries=0", f"--fetch-timeout={TIMEOUT}000")
    command = [*audit, *everything, *limits, *options]
    done = _run(command, folder)
    asked = Audited(NPM_LOCK, source="npm")
    try:
        found = msgspec.json.decode(done.stdout, type=_NpmAudit)
    except msgspec.DecodeError:
        if reason := _unanswered_by_npm(done.stdout):
            return replace(asked, not_run=cut(reason))
        return replace(asked, failed=_failure(command, done))
    lines = tuple(f"{each.name}: {each.severity}" for each in found.vulnerabilities.values())
    if _failed(done, lines):
        return replace(asked, failed=_failure(command, done))
    return replace(asked, vulnerable=lines, packages=found.metadata.dependencies.total)


def _unanswered_by_npm(stdout: str) -> str:
    """Why the registry did not answer; empty if npm failed for another reason."""
    try:
        error = msgspec.json.decode(stdout, type=_NpmError)
    except msgspec.DecodeError:
        return ""
    known = error.statusCode is not None or _NPM_UNREACHED.match(error.message)
    return error.message if known else ""


def _failed(done: subprocess.CompletedProcess[str], vulnerable: Sequence[str]) -> bool:
    """Whether the exit status has another reason than a known vulnerability, for which it is 1."""
    return done.returncode != 0 and not (done.returncode == 1 and vulnerable)


def _failure(command: Sequence[str], done: subprocess.CompletedProcess[str], *found: str) -> str:
    """What to do about a failure of the tool."""
    said = [*found, *reversed(done.stderr.strip().splitlines()), "no output"]
    return f"run `{shlex.join(command)}` and correct what it names: {cut(said[0])}"


def _run(command: Sequence[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)  # noqa: S603 - a fixed command, no shell


def report(audits: Sequence[Audited]) -> int:
    """Print each audit. Returns the exit status: 1 for a known vulnerability or a failed tool."""
    for each in audits:
        for line in each.vulnerable:
            print(f"{each.lock}: {line}")
        if each.failed:
            print(f"{each.lock}: FAILED, {each.failed}")
        elif each.not_run:
            print(f"{each.lock}: NOT RUN, no advisory source answered ({each.not_run})")
        elif not each.vulnerable:
            known = f"none with a vulnerability known to {each.source}"
            print(f"{each.lock}: {each.packages} packages, {known}")
    return int(any(each.vulnerable or each.failed for each in audits))


def main() -> int:
    """Audit every lock of the project."""
    return report([*(python(ROOT / lock) for lock in LOCKS), npm(ROOT)])


if __name__ == "__main__":
    sys.exit(main())
