"""The audit of the locks, with the real tools and a source of advisories on loopback."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tools import audit
from tools.audit import ROOT, Audited

LOCK = ROOT / "lambdas" / "requirements.txt"
NPM = json.loads((ROOT / "package.json").read_text())["devDependencies"]


@dataclass
class Source:
    """OSV's query and npm's bulk endpoint."""

    url: str
    vulnerable: set[str] = field(default_factory=set)
    """Packages with an advisory."""
    status: int = 200

    def answer(self, path: str, asked: Any) -> Any:
        if path == "/v1/query":
            package = asked["package"]
            return {"vulns": self._osv(package)} if package["name"] in self.vulnerable else {}
        return {name: [self._npm()] for name in NPM if name in self.vulnerable}

    def _osv(self, package: dict[str, str]) -> list[Any]:
        events = [{"introduced": "0"}, {"fixed": "999"}]
        affected = {"package": package, "ranges": [{"type": "ECOSYSTEM", "events": events}]}
        return [{"id": "PYSEC-2026-1", "summary": "It breaks", "affected": [affected]}]

    def _npm(self) -> dict[str, Any]:
        return {"id": 1, "url": self.url, "title": "It breaks", "severity": "high",
                "vulnerable_versions": "<9999999"}  # fmt: skip


@pytest.fixture
def source(monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """OSV and npm's registry; it is also the proxy to PyPI, whose address pip-audit fixes."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = json.loads(body) if body[:1] == b"{" else {}
            answer = json.dumps(found.answer(self.path, asked)).encode()
            self.send_response(found.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def do_CONNECT(self) -> None:
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Source(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("https_proxy", found.url)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield found
        server.shutdown()


def audited(source: Source) -> list[Audited]:
    """The audits of a Python lock and of package-lock.json."""
    return [
        audit.python(LOCK, f"--osv-url={source.url}/v1/query"),
        audit.npm(ROOT, f"--registry={source.url}"),
    ]


def test_packages_without_an_advisory_pass(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    assert audit.report(audited(source)) == 0
    python, npm = capsys.readouterr().out.splitlines()
    assert python.endswith("10 packages, none with a vulnerability known to OSV")
    assert npm.endswith("packages, none with a vulnerability known to npm")


def test_a_known_vulnerability_fails_the_audit(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.vulnerable |= {"idna", *NPM}
    for each in audited(source):
        assert audit.report([each]) == 1
    said = capsys.readouterr().out
    assert "lambdas/requirements.txt: idna 3.20: PYSEC-2026-1, fixed in 999" in said
    assert "package-lock.json: aws-cdk: high" in said


@pytest.mark.parametrize("status", [403, 405, 429, 503])
def test_a_source_that_refuses_the_request_leaves_the_audit_not_run(
    source: Source, capsys: pytest.CaptureFixture[str], status: int
) -> None:
    source.status = status
    assert audit.report(audited(source)) == 0
    python, npm = capsys.readouterr().out.splitlines()
    assert "NOT RUN, no advisory source answered (OSV: requests.exceptions.HTTPError: " in python
    assert f"{status} " in python
    assert "; PyPI: requests.exceptions.ProxyError: " in python
    assert f"NOT RUN, no advisory source answered ({status} " in npm


def test_a_source_that_cannot_be_reached_leaves_the_audit_not_run(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.url = "http://127.0.0.1:9"
    assert audit.report(audited(source)) == 0
    python, npm = capsys.readouterr().out.splitlines()
    assert "NOT RUN, no advisory source answered (OSV: requests.exceptions.Conn" in python
    assert "NOT RUN, no advisory source answered (request to http://127.0.0.1:9/" in npm


def test_an_unknown_option_fails_the_audit(capsys: pytest.CaptureFixture[str]) -> None:
    assert audit.report([audit.python(LOCK, "--nope")]) == 1
    line = capsys.readouterr().out
    assert "lambdas/requirements.txt: FAILED, run `" in line
    assert "` and correct what it names: pip-audit: error: unrecognized arguments: --nope" in line


def test_an_unpinned_requirement_fails_the_audit(tmp_path: Path) -> None:
    lock = tmp_path / "requirements.txt"
    lock.write_text("idna>3\n")
    assert "idna is not pinned to an exact version" in audit.python(lock).failed


def test_a_folder_without_a_lock_fails_the_audit(source: Source, tmp_path: Path) -> None:
    found = audit.npm(tmp_path, f"--registry={source.url}")
    assert audit.report([found]) == 1
    assert "npm audit --json" in found.failed


@pytest.mark.parametrize(
    ("name", "value"),
    [("NODE_ENV", "production"), ("npm_config_omit", "dev"), ("npm_config_offline", "true")],
)
def test_npm_asks_about_every_package_whatever_the_environment_says(
    source: Source, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    source.vulnerable |= {*NPM}
    assert audit.npm(ROOT, f"--registry={source.url}").vulnerable == ("aws-cdk: high",)


SKIPPED = "Dependency not found on PyPI and could not be audited: idna (3.20)"
FOUND = {"name": "h11", "version": "0.16.0", "vulns": []}
VULNERABLE = FOUND | {"vulns": [{"id": "PYSEC-2026-1", "fix_versions": []}]}
UNREACHED = "Traceback …\nrequests.exceptions.ConnectionError: Failed to resolve 'api.osv.dev'"


def tool(
    monkeypatch: pytest.MonkeyPatch, *packages: dict[str, Any], code: int = 0, stderr: str = ""
) -> None:
    """Let pip-audit find OSV unreachable, and end in this way when it asks PyPI."""

    def run(command: list[str], _: Path) -> subprocess.CompletedProcess[str]:
        if "--vulnerability-service=osv" in command:
            return subprocess.CompletedProcess(command, 1, "", UNREACHED)
        stdout = json.dumps({"dependencies": packages, "fixes": []}) if packages else ""
        return subprocess.CompletedProcess(command, code, stdout, stderr)

    monkeypatch.setattr(audit, "_run", run)


def test_pypi_is_asked_where_osv_cannot_be_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    tool(monkeypatch, FOUND)
    assert audit.python(LOCK) == Audited("lambdas/requirements.txt", packages=1, source="PyPI")


def test_a_vulnerability_known_to_pypi_fails_the_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    tool(monkeypatch, VULNERABLE, {"name": "idna", "skip_reason": SKIPPED}, code=1)
    found = audit.python(LOCK)
    assert found.vulnerable == ("h11 0.16.0: PYSEC-2026-1",)
    assert found.not_run.endswith(f"; PyPI: 1 of 2 packages: {SKIPPED}")
    assert audit.report([found]) == 1


def test_an_index_without_the_json_api_leaves_the_audit_not_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool(monkeypatch, {"name": "idna", "skip_reason": SKIPPED})
    assert audit.report([audit.python(LOCK)]) == 0
    assert "NOT RUN, no advisory source answered (OSV: requests" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("packages", "code", "stderr"),
    [
        ([], 1, "/usr/bin/python: No module named pip_audit"),
        ([], 1, "Traceback …\nValueError: requests.exceptions.ConnectionError"),
        ([], 1, "requests.exceptions.JSONDecodeError: Expecting value: line 1 column 1 (char 0)"),
        ([], 1, "pip_audit._service.interface.ServiceError"),
        ([], 1, "ERROR:pip_audit._cli:package hashes do not match"),
        ([], 0, ""),
        ([FOUND], 1, "ValueError: closed"),
        ([VULNERABLE], 3, "ValueError: closed"),
        ([{"name": "idna", "skip_reason": "URL requirements cannot be pinned"}], 0, ""),
    ],
)
def test_every_other_end_of_the_tool_fails_the_audit(
    monkeypatch: pytest.MonkeyPatch, packages: list[Any], code: int, stderr: str
) -> None:
    tool(monkeypatch, *packages, code=code, stderr=stderr)
    found = audit.python(LOCK)
    assert "--vulnerability-service=pypi" in found.failed
    assert audit.report([found]) == 1


@pytest.mark.parametrize(
    ("stdout", "code"),
    [
        ("", 1),
        ('{"error": {"code": "ENOLOCK", "summary": "", "detail": ""}}', 1),
        ('{"message": "Cannot read properties of undefined (reading \'x\')"}', 1),
        ('{"vulnerabilities": {}, "metadata": {"dependencies": {"total": 2}}}', 1),
    ],
)
def test_every_other_end_of_npm_fails_the_audit(
    monkeypatch: pytest.MonkeyPatch, stdout: str, code: int
) -> None:
    done = subprocess.CompletedProcess((), code, stdout, "npm error x")
    monkeypatch.setattr(audit, "_run", lambda *_: done)
    found = audit.npm(ROOT)
    assert found.failed.endswith("and correct what it names: npm error x")
    assert audit.report([found]) == 1


def test_every_lock_of_the_project_is_audited() -> None:
    found = {*ROOT.glob("*requirements*.txt"), *(ROOT / "lambdas").rglob("requirements*.txt")}
    found |= set((ROOT / "sandbox").rglob("requirements*.txt"))
    assert {path.relative_to(ROOT).as_posix() for path in found} == set(audit.LOCKS)
