"""The audit of the locks, with the real tools and a source of advisories on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
def source() -> Iterator[Source]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            asked = json.loads(body) if body[:1] == b"{" else {}
            answer = json.dumps(found.answer(self.path, asked)).encode()
            self.send_response(found.status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Source(f"http://127.0.0.1:{server.server_port}")
        threading.Thread(target=server.serve_forever, daemon=True).start()
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
    for line in capsys.readouterr().out.splitlines():
        assert line.endswith("packages, none with a known vulnerability")


def test_a_known_vulnerability_fails_the_audit(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.vulnerable |= {"idna", *NPM}
    for each in audited(source):
        assert audit.report([each]) == 1
    said = capsys.readouterr().out
    assert "lambdas/requirements.txt: idna 3.20: PYSEC-2026-1, fixed in 999" in said
    assert "package-lock.json: aws-cdk: high" in said


def test_without_an_advisory_source_the_audit_says_that_it_did_not_run(
    source: Source, capsys: pytest.CaptureFixture[str]
) -> None:
    source.status = 405
    assert audit.report(audited(source)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all("NOT RUN, no advisory source answered (" in line for line in lines)


def test_every_lock_of_the_project_is_audited() -> None:
    found = {*ROOT.glob("*requirements*.txt"), *(ROOT / "lambdas").rglob("requirements*.txt")}
    found |= set((ROOT / "sandbox").rglob("requirements*.txt"))
    assert {path.relative_to(ROOT).as_posix() for path in found} == set(audit.LOCKS)
