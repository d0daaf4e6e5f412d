"""Notices through EventBridge's rule to the deployed function: the node, its pods, the outcome."""

from __future__ import annotations

import json
import os
import signal
import threading
from datetime import UTC, datetime, timedelta
from typing import Any

from lightkube import Client
from lightkube.resources.core_v1 import Node as NodeResource

from sandbox import wait
from sandbox.aws import Aws
from sandbox.demo import checks
from sandbox.demo.timeline import PodState, Timeline
from sandbox.state import Node, State
from tests.integration.conftest import assert_no_secret_is_logged
from tests.integration.pool import FUNCTION, SOON, Pool


def cordoned(admin: Client, node: Node) -> bool:
    spec = admin.get(NodeResource, node.name).spec
    return spec is not None and bool(spec.unschedulable)


def begun(timeline: Timeline) -> bool:
    """Whether the eviction of a pod has begun."""
    return any(pod.state is not PodState.RUNNING for pod in timeline.leaving)


def test_no_key_token_or_signature_is_logged_at_debug(pool: Pool, account: Aws) -> None:
    """The deployed function logs at DEBUG, and reads the key to report to CAST AI."""
    node = pool.node()
    pool.tag_with_cluster_id(node)
    assert pool.drained(node).result["castai"] == "failed"  # CAST AI has no such cluster
    assert_no_secret_is_logged(account, FUNCTION)


def test_a_notice_drains_the_node_within_the_budget_and_no_pod_is_lost(
    pool: Pool, admin: Client
) -> None:
    node = pool.node()
    pool.deployment("checkout", replicas=3, min_available=2, ready=0.5)
    pool.pod(node)
    pool.node()  # where the replacements go
    with pool.watcher(node) as watcher:
        delivery = pool.drained(node)
        wait.until(lambda: watcher.read(Timeline.settled), "every pod to run again", timeout=SOON)
    assert delivery.state == "succeeded", delivery.error
    checks.drained(delivery.result, watcher.timeline)
    assert cordoned(admin, node)
    assert watcher.timeline.count() == (4, 0, 0)
    # Evicting two at once would have left one ready of the two that the budget requires.
    assert min(budget for budget in _healthy(watcher.timeline.lines)) >= 2


def _healthy(lines: list[Any]) -> list[int]:
    words = [
        line.text.split("(")[1] for line in lines if "budget" in line.text and "(" in line.text
    ]
    return [int(text.split()[0]) for text in words] or [0]


def test_a_watcher_leaves_no_thread(pool: Pool) -> None:
    """A thread on a closed connection would read from the next one with its file descriptor."""
    with pool.watcher(pool.node()) as watcher:
        assert watcher.read(Timeline.empty)
    assert "watcher" not in {thread.name for thread in threading.enumerate()}


def test_the_outcome_is_logged_with_the_events_id(pool: Pool) -> None:
    node = pool.node()
    pool.pod(node)
    delivery = pool.drained(node)
    [line] = wait.until(
        lambda: [line for line in pool.logged(delivery.event) if line.get("outcome")],
        "the outcome in the log",
        timeout=SOON,
    )
    assert line["outcome"] == "drained"
    assert line["node"] == node.name
    assert line["pods"] == delivery.result["pods"]


def test_a_pod_whose_budget_never_allows_it_is_forced_before_the_deadline(pool: Pool) -> None:
    node = pool.node()
    # With this grace it has to be forced at once to end before the deadline.
    pool.deployment("ledger", replicas=1, min_available=1, grace=115)
    pool.node()
    with pool.watcher(node) as watcher:
        delivery = pool.drained(node)
        wait.until(lambda: watcher.read(Timeline.settled), "the pod to run again", timeout=SOON)
    assert delivery.result["pods"]["forced"] == 1, delivery.result
    checks.drained(delivery.result, watcher.timeline)


def test_a_function_that_is_killed_is_invoked_again_and_drains_the_node(
    pool: Pool, account: Aws
) -> None:
    node = pool.node()
    pool.deployment("checkout", replicas=3, min_available=2, ready=1)
    pool.node()
    with pool.watcher(node) as watcher:
        event = pool.notice(node)
        wait.until(
            lambda: watcher.read(begun),
            "a first eviction",
            timeout=SOON,
        )
        workers = [worker for worker in account.workers() if worker["busy"]]
        assert workers, "the function ended before it could be killed"
        for worker in workers:
            os.kill(worker["pid"], signal.SIGKILL)
        delivery = pool.outcome(event)
        wait.until(lambda: watcher.read(Timeline.settled), "every pod to run again", timeout=SOON)
    assert delivery.state == "succeeded", delivery.error
    assert delivery.attempts == 2
    assert delivery.result["outcome"] == "drained"
    assert watcher.timeline.count() == (3, 0, 0)
    assert pool.pods(node) == []


def test_the_same_event_again_changes_nothing(pool: Pool) -> None:
    node = pool.node()
    pool.deployment("web", replicas=2, min_available=0)
    pool.node()
    first = pool.drained(node)
    pool.settled()
    with pool.watcher(node) as watcher:
        again = pool.drained(node, id=f"again-{first.event}")
    assert again.result["outcome"] == "drained"
    assert again.result["pods"]["evicted"] == 0
    assert watcher.timeline.lines == []


def test_two_notices_at_once_drain_each_node_once(pool: Pool) -> None:
    nodes = [pool.node(), pool.node()]
    pool.deployment("web", replicas=4, min_available=0)
    pool.node()
    events = [pool.notice(node) for node in (*nodes, nodes[0])]
    outcomes = [pool.outcome(event) for event in events]
    assert [outcome.result["outcome"] for outcome in outcomes] == ["drained"] * 3
    assert [pool.pods(node) for node in nodes] == [[], []]
    assert sum(outcome.result["pods"]["left"] for outcome in outcomes) == 0


def test_a_node_whose_name_is_not_the_dns_name_is_found(pool: Pool, admin: Client) -> None:
    node = pool.node(name="i-named-otherwise.internal")
    pool.pod(node)
    delivery = pool.drained(node)
    assert (delivery.result["outcome"], delivery.result["node"]) == ("drained", node.name)
    assert cordoned(admin, node)


def test_an_unknown_instance_is_ignored(pool: Pool) -> None:
    unknown = Node("i-0fffffffffffffff0", "none", "eu-central-1a", spot=True)
    almost_over = datetime.now(UTC) - timedelta(seconds=118)  # else EC2 is asked for 30 s
    delivery = pool.drained(unknown, time=almost_over.isoformat())
    assert (delivery.result["outcome"], delivery.attempts) == ("ignored", 1)


def test_an_instance_of_no_cluster_is_ignored(pool: Pool, account: Aws) -> None:
    launched = account.ec2.run_instances(ImageId="ami-0123", MinCount=1, MaxCount=1)
    instance = launched["Instances"][0]["InstanceId"]
    delivery = pool.drained(Node(instance, "none", "eu-central-1a", spot=True))
    assert (delivery.result["outcome"], delivery.attempts) == ("ignored", 1)


def test_a_malformed_event_is_rejected_and_not_retried(pool: Pool) -> None:
    node = pool.node()
    delivery = pool.drained(node, detail={"instance-id": "not an id"})
    assert (delivery.result["outcome"], delivery.attempts) == ("rejected", 1)
    assert delivery.state == "succeeded"
    [error] = wait.until(
        lambda: [line for line in pool.logged(delivery.event) if line["level"] == "ERROR"],
        "an ERROR line",
        timeout=SOON,
    )
    assert "'not an id' is not an instance id" in error["message"]


def test_only_aws_may_publish_a_notice(account: Aws, state: State) -> None:
    """The bus refuses aws.* sources, as on AWS: the sandbox publishes through its control API."""
    entry = {
        "Source": "aws.ec2",
        "DetailType": "EC2 Spot Instance Interruption Warning",
        "Detail": json.dumps({"instance-id": state.nodes[0].instance}),
    }
    answer = account.events.put_events(Entries=[entry])  # type: ignore[list-item]
    assert answer["Entries"][0].get("ErrorCode") == "NotAuthorizedForSourceException"
