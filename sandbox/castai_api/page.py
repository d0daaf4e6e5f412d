"""The HTML page of the simulated CAST AI: its clusters and every call that it received."""

from __future__ import annotations

import json
import time
from html import escape
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 72rem }
table { border-collapse: collapse; width: 100%; margin-bottom: 2rem }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem }
td { border-top: 1px solid #8883 }
code { font-size: 90%; overflow-wrap: anywhere }
.bad { color: #b00 }
"""


def render(shown: dict[str, Any]) -> str:
    """Render what `State.shown` returns as HTML."""
    clusters = _table(
        ("cluster", "account, region", "status", "agent", "access", "events"),
        [
            (
                f"{escape(c['name'])}<br><code>{escape(c['id'])}</code>",
                f"{escape(c['account'])}<br>{escape(c['region'])}",
                escape(c["status"]),
                escape(c["agent_status"]),
                _code(c["credentials"]),
                "<br>".join(_code(event) for event in c["events"]),
            )
            for c in shown["clusters"]
        ],
    )
    calls = _table(
        ("time", "call", "answer", "what", "body"),
        [
            (
                time.strftime("%H:%M:%S", time.gmtime(call["time"])),
                f"<code>{escape(call['method'])} {escape(call['path'])}</code>",
                _status(call["status"]),
                escape(call["what"]),
                _code(call["body"]),
            )
            for call in reversed(shown["calls"])
        ],
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>CAST AI, simulated</title>'
        f"<style>{_STYLE}</style><h1>CAST AI, simulated</h1>"
        f"<h2>Clusters</h2>{clusters}<h2>Calls, newest first</h2>{calls}</html>"
    )


def _code(value: object) -> str:
    return f"<code>{escape(json.dumps(value))}</code>" if value else ""


def _status(code: int) -> str:
    return f'<span class="bad">{code}</span>' if code >= 400 else str(code)


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    if not rows:
        return "<p>None yet.</p>"
    header = "".join(f"<th>{name}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{header}</tr>{lines}</table>"
