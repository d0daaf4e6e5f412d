"""The watcher of the demo, whose watches a busy API server ends."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubesim import BreakWatch, ServedCluster
from kubesim.faults import How
from sandbox import kubernetes, wait
from sandbox.demo.timeline import PodState, Timeline
from sandbox.demo.watcher import Watcher

NODE = "node-1"


@pytest.mark.parametrize("how", ["reset", "gone"])
def test_a_pod_that_ends_while_the_watch_is_broken_is_seen(tmp_path: Path, how: How) -> None:
    with ServedCluster() as cluster:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(cluster.kubeconfig())
        cluster.add_node(NODE)
        cluster.add_pod("web", NODE)
        cluster.add_pod("other", NODE)
        # Each watch ends before its first event, so only a list shows a change.
        cluster.faults.add("GET", "/pods$", BreakWatch(0, how), times=float("inf"))
        with Watcher(lambda: kubernetes.connect(kubeconfig), NODE) as watcher:
            cluster.delete("pods", "web", "default")

            def states(timeline: Timeline) -> dict[str, PodState]:
                return {pod.name: pod.state for pod in timeline.leaving}

            wait.until(
                lambda: watcher.read(states)["default/web"] is PodState.GONE, "web", timeout=20
            )
            assert watcher.read(states)["default/other"] is PodState.RUNNING
