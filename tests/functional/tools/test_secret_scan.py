"""The scan finds planted secrets, and nothing in a file without one."""

from __future__ import annotations

import subprocess
from hashlib import sha256
from pathlib import Path

import pytest

from tools import secret_scan

LETTERS = "Ab1Cd2Ef3Gh4Ij5Kl6Mn7"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("key = 'AKIA" + "Z7Y6X5W4V3U2T1S0'", "AWS Access Key"),
        (f"-----BEGIN RSA {'PRIVATE'} KEY-----\n{LETTERS}\n", "Private Key"),
        (f"api_key = '{sha256(b'x').hexdigest()}'", "Hex High Entropy String"),
        (f"secret = '{LETTERS}/Zz8Yy9XxWwVvUuTtSsRr'", "Base64 High Entropy String"),
        (f"url = 'https://user:{LETTERS}@host.test'", "Basic Auth Credentials"),
    ],
)
def test_a_planted_secret_is_found(text: str, kind: str, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text(f"x = 1\n{text}\n")
    found = secret_scan.findings([str(planted)])
    assert f"Secret Type: {kind}" in found
    assert f"{planted}:2" in found


def test_nothing_is_found_in_a_file_without_a_secret() -> None:
    assert secret_scan.findings(["tools/secret_scan.py", "lambdas/common/names.py"]) == ""


def test_the_sources_are_scanned() -> None:
    files = secret_scan.tracked()
    assert {"app.py", "lambdas/common/castai.py", "docs/security.md", "Makefile"} <= set(files)


@pytest.mark.parametrize(
    ("code", "stdout"), [(3, "Traceback …\nValueError: x\n"), (1, "Potential secrets\n"), (2, "")]
)
def test_a_scanner_that_fails_is_an_error(
    monkeypatch: pytest.MonkeyPatch, code: int, stdout: str
) -> None:
    done = subprocess.CompletedProcess((), code, stdout, "usage: x")
    monkeypatch.setattr("tools.secret_scan.subprocess.run", lambda *_, **__: done)
    with pytest.raises(RuntimeError, match=f"(?s)^Run `.*status {code}.*usage: x"):
        secret_scan.findings(["app.py"])
