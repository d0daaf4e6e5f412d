"""The benchmarks' process of a container, with a kubeconfig; their runs are long tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from kubesim import ServedCluster

ROOT = Path(__file__).parents[3]
LONGEST = 60  # s


def test_a_container_with_a_kubeconfig_answers_each_event(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    with ServedCluster() as cluster:
        kubeconfig.write_text(cluster.kubeconfig())
        done = subprocess.run(
            [sys.executable, "-m", "benchmarks.container"],
            cwd=ROOT,
            env={
                "PATH": os.environ["PATH"],
                "AWS_REGION": "eu-central-1",
                "AWS_LAMBDA_FUNCTION_NAME": "spot-handler",
                "BENCHMARK_KUBECONFIG": str(kubeconfig),
            },
            input='{"source": "another"}\n[]\n',
            capture_output=True,
            text=True,
            timeout=LONGEST,
            check=True,
        )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["result"]["outcome"] for answer in answers] == ["rejected"] * 2
