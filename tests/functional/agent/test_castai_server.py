"""The simulated CAST AI over a socket, in a thread and as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import pytest

from lambdas.agent import lifecycle, read_only
from lambdas.common.castai import CastaiApi, KeyRefusedError
from sandbox.castai_api.app import App
from sandbox.castai_api.server import running
from sandbox.castai_api.state import State

ROOT = Path(__file__).parents[3]
START_LIMIT = 20.0  # s


def test_the_api_and_the_control_api_are_served_from_a_thread() -> None:
    state = State("a-key")
    with running(App(state)) as url, CastaiApi("a-key", url) as api:
        cluster_id = api.register("prod", "eu-central-1", "123456789012")
        control = f"{url}/_sandbox/clusters/{cluster_id}/agent"
        assert httpx2.post(control, json={"status": "online"}).status_code == 200
        assert api.get(cluster_id).agent_status == "online"
        assert "prod" in httpx2.get(url).text
        log = httpx2.get(f"{url}/_sandbox/log").json()
        assert [call["status"] for call in log["calls"]] == [200, 200]


def test_an_outage_of_one_request_ends_after_one_request() -> None:
    with running(App(State("a-key"))) as url:
        httpx2.post(f"{url}/_sandbox/settings", json={"outage": 1})
        statuses = [
            httpx2.get(f"{url}/v1/agent.yaml", headers={"X-API-Key": "a-key"}).status_code
            for _ in range(2)
        ]
        assert statuses == [503, 400]


@pytest.mark.parametrize(
    ("body", "status"), [(b"{", 400), (b"[]", 400), (b"x" * (1 << 20) + b"x", 413)]
)
def test_a_body_that_is_no_json_object_or_too_large_is_refused(body: bytes, status: int) -> None:
    with running(App(State("a-key"))) as url:
        answer = httpx2.post(f"{url}/v1/kubernetes/external-clusters", content=body)
        assert answer.status_code == status


def test_a_process_writes_its_state_file_and_removes_it_at_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "castai.json"
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-m", "sandbox.castai_api", "--state-file", str(file)],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"], "CASTAI_API_KEY": "a-key"},
    )
    try:
        known = _read(file, process)
        assert known["pid"] == process.pid
        assert file.stat().st_mode & 0o077 == 0
        with CastaiApi("a-key", known["url"]) as api:
            api.register("prod", "eu-central-1", "123456789012")
            read_only.prove(lifecycle.parse(api.agent_manifest()), namespace="castai-agent")
        with CastaiApi("b-key", known["url"]) as api, pytest.raises(KeyRefusedError):
            api.register("prod", "eu-central-1", "123456789012")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(START_LIMIT)
    assert not file.exists()


def _read(file: Path, process: subprocess.Popen[bytes]) -> dict[str, str | int]:
    """Wait for the state file of the process, in real time, and read it."""
    end = time.monotonic() + START_LIMIT
    while not file.exists():
        assert process.poll() is None, "the process ended before it listened"
        assert time.monotonic() < end, "the process never listened"
        time.sleep(0.02)
    known: dict[str, str | int] = json.loads(file.read_text())
    return known
