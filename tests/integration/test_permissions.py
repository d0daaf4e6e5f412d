"""Every permission is needed, and the lack of any says which one: IAM, RBAC, and the way in."""

from __future__ import annotations

import base64
import copy
import json
import ssl
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import botocore.auth
import httpx2
import pytest
from lightkube import Client
from lightkube.resources.core_v1 import Event
from lightkube.resources.rbac_authorization_v1 import ClusterRole

from lambdas.common import eks
from sandbox import kubernetes, wait
from sandbox.aws import Aws
from sandbox.cdk import Cdk
from sandbox.state import State
from tests.integration.pool import FUNCTION, SOON, Pool

ROLE = "CastLambdaRoleForSpot"
POLICY = "SpotHandler"
CLUSTER_ROLE = "castai-spot-handler"

# What the least-privilege policy grants, by what happens without it.
CALLED = ("ec2:DescribeInstances", "eks:DescribeCluster")  # the drain fails
LOGGING = ("logs:CreateLogStream", "logs:PutLogEvents")  # nothing is logged
KEEPING = ("sqs:SendMessage",)  # a notice that failed is lost
TELLING = ("secretsmanager:GetSecretValue",)


def policy_of(account: Aws) -> dict[str, Any]:
    document: Any = account.iam.get_role_policy(RoleName=ROLE, PolicyName=POLICY)["PolicyDocument"]
    decoded: dict[str, Any] = document if isinstance(document, dict) else json.loads(document)
    return decoded


def actions_of(statement: dict[str, Any]) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else actions


@contextmanager
def without_permission(account: Aws, action: str) -> Iterator[None]:
    """The role as deployed, less one action."""
    before = policy_of(account)
    changed = copy.deepcopy(before)
    for statement in changed["Statement"]:
        statement["Action"] = [kept for kept in actions_of(statement) if kept != action]
    changed["Statement"] = [found for found in changed["Statement"] if found["Action"]]
    assert changed != before, f"the policy has no {action}"
    _put(account, changed)
    try:
        yield
    finally:
        _put(account, before)


def _put(account: Aws, document: dict[str, Any]) -> None:
    account.iam.put_role_policy(
        RoleName=ROLE, PolicyName=POLICY, PolicyDocument=json.dumps(document)
    )


@contextmanager
def without_rule(admin: Client, resource: str, verb: str) -> Iterator[None]:
    """The ClusterRole as shipped, less one verb on one resource."""
    role = admin.get(ClusterRole, CLUSTER_ROLE)
    before = copy.deepcopy(role.rules or [])
    for rule in role.rules or []:
        if resource in (rule.resources or []):
            rule.verbs = [kept for kept in rule.verbs if kept != verb]
    assert role.rules != before, f"the ClusterRole has no {verb} on {resource}"
    admin.replace(role)
    try:
        yield
    finally:
        role = admin.get(ClusterRole, CLUSTER_ROLE)
        role.rules = before
        admin.replace(role)


def kept(account: Aws, event: str) -> list[dict[str, Any]]:
    """Records of the event in the failure queue."""
    url = account.sqs.get_queue_url(QueueName=f"{FUNCTION}-failures")["QueueUrl"]
    found = account.sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=0
    )
    records = [json.loads(message["Body"]) for message in found.get("Messages", [])]
    return [record for record in records if record["requestPayload"]["id"] == event]


def test_the_policy_holds_what_is_tried_here_and_nothing_else(stack: Cdk, account: Aws) -> None:
    del stack
    granted = [action for found in policy_of(account)["Statement"] for action in actions_of(found)]
    assert sorted(granted) == sorted((*CALLED, *LOGGING, *KEEPING, *TELLING))
    attached = account.iam.list_attached_role_policies(RoleName=ROLE)["AttachedPolicies"]
    assert attached == []


@pytest.mark.parametrize("action", CALLED)
def test_without_a_call_the_drain_fails_names_it_and_is_kept(
    pool: Pool, account: Aws, action: str
) -> None:
    node = pool.node()
    pool.pod(node)
    with without_permission(account, action):
        delivery = pool.drained(node)
        [record, *_] = wait.until(
            lambda: kept(account, delivery.event), "the failed notice in the queue", timeout=SOON
        )
    assert delivery.state in ("failed", "expired")
    assert action in delivery.error
    assert action in record["responsePayload"]["errorMessage"]
    assert pool.pods(node) == ["lone"]


@pytest.mark.parametrize("action", TELLING)
def test_without_the_key_the_drain_goes_on_and_castai_is_not_told(
    pool: Pool, account: Aws, action: str
) -> None:
    node = pool.node()
    pool.belongs_to_castai(node)
    pool.pod(node)
    with without_permission(account, action):
        result = pool.drained(node).result
    assert (result["outcome"], result["castai"]) == ("drained", "failed")
    assert action in result["castai_reason"]


@pytest.mark.parametrize("action", LOGGING)
def test_without_logging_nothing_is_logged(pool: Pool, account: Aws, action: str) -> None:
    node = pool.node()
    pool.pod(node)
    with without_permission(account, action):
        silent = pool.drained(node)
    assert silent.result["outcome"] == "drained"
    heard = pool.drained(node)  # after it, so that waiting for it is waiting for both
    wait.until(lambda: pool.logged(heard.event), "the log of the second notice", timeout=SOON)
    assert pool.logged(silent.event) == []


def test_without_the_queue_a_failed_notice_is_lost(pool: Pool, account: Aws) -> None:
    node = pool.node()
    with without_permission(account, "ec2:DescribeInstances"):
        with without_permission(account, "sqs:SendMessage"):
            lost = pool.drained(node)
        found = pool.drained(node)
        wait.until(
            lambda: kept(account, found.event), "the second notice in the queue", timeout=SOON
        )
    assert lost.state in ("failed", "expired")
    assert kept(account, lost.event) == []


@pytest.mark.parametrize(
    ("resource", "verb"),
    [
        ("nodes", "get"),
        ("nodes", "patch"),
        ("pods", "list"),
        ("pods", "watch"),
        ("pods/eviction", "create"),
    ],
)
def test_without_a_right_in_the_cluster_the_drain_fails_and_names_it(
    pool: Pool, admin: Client, resource: str, verb: str
) -> None:
    node = pool.node()
    pool.pod(node, shutdown=4)  # still there when Lambda tries again
    with without_rule(admin, resource, verb):
        delivery = pool.drained(node)
    assert delivery.state in ("failed", "expired"), delivery.result
    assert "spot-handler-rbac.yaml" in delivery.error
    assert f'cannot {verb} resource "{resource}"' in delivery.error


def test_without_listing_nodes_a_node_of_another_name_is_not_found(
    pool: Pool, admin: Client
) -> None:
    node = pool.node(name="i-unlisted.internal")
    with without_rule(admin, "nodes", "list"):
        delivery = pool.drained(node)
    assert 'cannot list resource "nodes"' in delivery.error


def test_without_deletion_a_blocked_pod_is_left_and_the_log_names_the_right(
    pool: Pool, admin: Client
) -> None:
    node = pool.node()
    pool.deployment("ledger", replicas=1, min_available=1)
    pool.node()
    almost_over = datetime.now(UTC) - timedelta(seconds=112)
    with without_rule(admin, "pods", "delete"):
        delivery = pool.drained(node, time=almost_over.isoformat())
        faults = wait.until(
            lambda: [line["fault"] for line in pool.logged(delivery.event) if "fault" in line],
            "the fault in the log",
            timeout=SOON,
        )
    assert 'cannot delete resource "pods"' in faults[0]
    assert len(pool.pods(node)) == 1


def test_without_events_the_drain_goes_on(pool: Pool, admin: Client) -> None:
    node = pool.node()
    pool.pod(node)
    with without_rule(admin, "events", "create"):
        delivery = pool.drained(node)
    assert delivery.result["outcome"] == "drained"
    told = [
        event
        for event in admin.list(Event, namespace="*")
        if event.involvedObject.name == node.name
        and event.source is not None
        and event.source.component == "castai-spot-handler"
    ]
    assert told == []


def ask(state: State, token: str) -> int:
    """The status that the cluster answers this bearer with."""
    assert state.kubernetes is not None
    endpoint, authority = kubernetes.server(Path(state.kubernetes.kubeconfig))
    tls = ssl.create_default_context(cadata=authority)
    with httpx2.Client(verify=tls, trust_env=False) as client:
        answer = client.get(
            f"{endpoint}/api/v1/nodes", headers={"Authorization": f"Bearer {token}"}
        )
    return answer.status_code


def token(account: Aws, cluster: str) -> str:
    credentials = account.session.get_credentials()
    assert credentials is not None
    return eks.sign_token(
        credentials, region=account.region, dns_suffix="amazonaws.com", cluster=cluster
    )


def test_a_token_for_this_cluster_is_let_in(state: State, account: Aws) -> None:
    """The cluster's creator, who has an access entry."""
    assert ask(state, token(account, state.cluster)) in (200, 403)


def test_a_token_for_another_cluster_is_refused(state: State, account: Aws) -> None:
    assert ask(state, token(account, "another")) == 401


def test_a_tampered_token_is_refused(state: State, account: Aws) -> None:
    good = token(account, state.cluster)
    url = base64.urlsafe_b64decode(good.removeprefix(eks.TOKEN_PREFIX) + "==").decode()
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    [signature] = query["X-Amz-Signature"]
    forged = url.replace(signature, signature[::-1])
    encoded = base64.urlsafe_b64encode(forged.encode()).decode().rstrip("=")
    assert ask(state, eks.TOKEN_PREFIX + encoded) == 401


def test_an_expired_token_is_refused(
    state: State, account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=20)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: long_ago)
    assert ask(state, token(account, state.cluster)) == 401


@pytest.mark.parametrize("garbage", ["k8s-aws-v1.", "k8s-aws-v1.!!!", "not a token", "x" * 20_000])
def test_garbage_is_refused(state: State, garbage: str) -> None:
    assert ask(state, garbage) == 401
