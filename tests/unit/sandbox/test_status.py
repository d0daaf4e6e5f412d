"""`python -m sandbox status`: results of events, on a terminal of 80 characters."""

from __future__ import annotations

from io import StringIO
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from sandbox import __main__ as sandbox

WIDTH = 80
REFUSED = "Give the function's role access to the cluster: " + "and the reason " * 16 + "is cut."


def delivery(event: str, state: str, result: object) -> dict[str, Any]:
    return {
        "event": event,
        "function": "castai-spot-handler",
        "state": state,
        "attempts": 2,
        "result": result,
    }


def test_long_texts_are_below_the_table_in_whole_words(monkeypatch: pytest.MonkeyPatch) -> None:
    done = delivery(
        "762e3b58-6682-409c-96ec-7917ccf3db44", "succeeded", {"outcome": "node_not_found"}
    )
    failed = delivery(
        "1b2c3d4e-6682-409c-96ec-7917ccf3db44", "failed", {"errorMessage": f"{REFUSED}\n- [b]: x"}
    )
    state = SimpleNamespace(processes=dict, nodes=(), external=False)
    client = SimpleNamespace(deliveries=lambda: [done, failed])
    written = StringIO()
    terminal = Console(
        file=written, width=WIDTH, force_terminal=True, color_system=None, soft_wrap=True
    )
    monkeypatch.setattr(sandbox.lifecycle, "running", lambda _folder: state)
    monkeypatch.setattr(sandbox.aws, "Aws", lambda _state: client)
    monkeypatch.setattr(sandbox.aws, "isolate", lambda: None)
    monkeypatch.setattr(sandbox, "console", terminal)
    CliRunner().invoke(sandbox.app, ["status"], catch_exceptions=False)
    lines = written.getvalue().splitlines()
    assert len(REFUSED) > 250
    assert all(len(line) <= WIDTH for line in lines), lines
    [row] = [line.split() for line in lines if "762e3b58" in line]
    assert row == ["762e3b58", "castai-spot-handler", "succeeded", "2", "node_not_found"]
    assert any(line.split()[:3] == ["1b2c3d4e", "castai-spot-handler", "failed"] for line in lines)
    [at] = [number for number, line in enumerate(lines) if failed["event"] in line]
    assert " ".join(" ".join(lines[at:]).split()).endswith(f"{REFUSED} - [b]: x")
