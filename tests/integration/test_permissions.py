"""The effect of each missing permission (IAM, RBAC), and of valid and invalid tokens."""

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
from botocore.credentials import Credentials
from botocore.exceptions import ClientError
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

# The permissions of the least-privilege policy, by the effect of their absence.
CALLED = ("ec2:DescribeInstances", "eks:DescribeCluster")  # the drain fails
LOGGING = ("logs:CreateLogStream", "logs:PutLogEvents")  # nothing is logged
QUEUE = ("sqs:SendMessage",)  # a notice that failed is lost
REPORTING = ("secretsmanager:GetSecretValue",)


def policy_of(account: Aws) -> dict[str, Any]:
    document: Any = account.iam.get_role_policy(RoleName=ROLE, PolicyName=POLICY)["PolicyDocument"]
    decoded: dict[str, Any] = document if isinstance(document, dict) else json.loads(document)
    return decoded


def actions_of(statement: dict[str, Any]) -> list[str]:
    actions = statement["Action"]
    return [actions] if isinstance(actions, str) else actions


@contextmanager
def without_permission(account: Aws, action: str) -> Iterator[None]:
    """The deployed role without one action."""
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
    """The ClusterRole of the manifest without one verb on one resource."""
    role = admin.get(ClusterRole, CLUSTER_ROLE)
    before = copy.deepcopy(role.rules or [])
    for rule in role.rules or []:
        if resource in (rule.resources or []):
            rule.verbs = [kept for kept in rule.verbs if kept != verb]
    assert role.rules != before, f"the ClusterRole has no {verb} on {resource}"
    role.rules = [
        rule for rule in role.rules or [] if rule.verbs
    ]  # Kubernetes refuses an empty one
    admin.replace(role)
    try:
        yield
    finally:
        role = admin.get(ClusterRole, CLUSTER_ROLE)
        role.rules = before
        admin.replace(role)


def failed_notices(account: Aws, event: str) -> list[dict[str, Any]]:
    """The records of the event in the failure queue."""
    url = account.sqs.get_queue_url(QueueName=f"{FUNCTION}-failures")["QueueUrl"]
    found = account.sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=0
    )
    records = [json.loads(message["Body"]) for message in found.get("Messages", [])]
    return [record for record in records if record["requestPayload"]["id"] == event]


def test_the_policy_has_the_permissions_that_are_tested_here_and_no_others(
    stack: Cdk, account: Aws
) -> None:
    del stack
    granted = [action for found in policy_of(account)["Statement"] for action in actions_of(found)]
    assert sorted(granted) == sorted((*CALLED, *LOGGING, *QUEUE, *REPORTING))
    attached = account.iam.list_attached_role_policies(RoleName=ROLE)["AttachedPolicies"]
    assert attached == []


@pytest.mark.parametrize("action", CALLED)
def test_without_a_permission_the_drain_fails_names_it_and_the_notice_is_queued(
    pool: Pool, account: Aws, action: str
) -> None:
    node = pool.node()
    pool.pod(node)
    with without_permission(account, action):
        delivery = pool.drained(node)
        [record, *_] = wait.until(
            lambda: failed_notices(account, delivery.event),
            "the failed notice in the queue",
            timeout=SOON,
        )
    assert delivery.state in ("failed", "expired")
    assert action in delivery.error
    assert action in record["responsePayload"]["errorMessage"]
    assert pool.pods(node) == ["lone"]


@pytest.mark.parametrize("action", REPORTING)
def test_without_the_permission_to_read_the_key_the_node_is_drained_and_not_reported(
    pool: Pool, account: Aws, action: str
) -> None:
    node = pool.node()
    pool.tag_with_cluster_id(node)
    pool.pod(node)
    with without_permission(account, action):
        result = pool.drained(node).result
    assert (result["outcome"], result["castai"]) == ("drained", "failed")
    assert action in result["castai_reason"]


def test_a_deleted_log_group_stays_deleted(pool: Pool, account: Aws) -> None:
    """The function may write its log and not create it, else its stack would leave the group."""
    group = f"/aws/lambda/{FUNCTION}"
    account.logs.delete_log_group(logGroupName=group)
    unlogged = pool.drained(pool.node())  # its lines are written before its delivery has ended
    found = account.logs.describe_log_groups(logGroupNamePrefix=group)["logGroups"]
    account.logs.create_log_group(logGroupName=group)
    assert unlogged.result["outcome"] == "drained"
    assert found == []


@pytest.mark.parametrize("action", LOGGING)
def test_without_a_permission_for_logs_the_node_is_drained_and_not_logged(
    pool: Pool, account: Aws, action: str
) -> None:
    node = pool.node()
    pool.pod(node)
    with without_permission(account, action):
        unlogged = pool.drained(node)
    assert unlogged.result["outcome"] == "drained"
    logged = pool.drained(node)  # the later one: its log is the last to be written
    wait.until(lambda: pool.logged(logged.event), "the log of the second notice", timeout=SOON)
    assert pool.logged(unlogged.event) == []


def test_without_the_permission_for_the_queue_a_failed_notice_is_lost(
    pool: Pool, account: Aws
) -> None:
    node = pool.node()
    with without_permission(account, "ec2:DescribeInstances"):
        with without_permission(account, "sqs:SendMessage"):
            lost = pool.drained(node)
        found = pool.drained(node)
        wait.until(
            lambda: failed_notices(account, found.event),
            "the second notice in the queue",
            timeout=SOON,
        )
    assert lost.state in ("failed", "expired")
    assert failed_notices(account, lost.event) == []


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
def test_without_a_right_of_the_cluster_role_the_drain_fails_and_names_it(
    pool: Pool, admin: Client, resource: str, verb: str
) -> None:
    node = pool.node()
    pool.pod(node, shutdown=4)  # still on the node at Lambda's retry
    with without_rule(admin, resource, verb):
        delivery = pool.drained(node)
    assert delivery.state in ("failed", "expired"), delivery.result
    assert "spot-handler-rbac.yaml" in delivery.error
    assert f'cannot {verb} resource "{resource}"' in delivery.error


def test_without_the_right_to_list_nodes_a_node_of_another_name_is_not_found(
    pool: Pool, admin: Client
) -> None:
    node = pool.node(name="i-unlisted.internal")
    with without_rule(admin, "nodes", "list"):
        delivery = pool.drained(node)
    assert 'cannot list resource "nodes"' in delivery.error


def test_without_the_right_to_delete_pods_a_blocked_pod_is_left_and_the_right_is_logged(
    pool: Pool, admin: Client
) -> None:
    node = pool.node()
    pool.deployment("ledger", replicas=1, min_available=1)
    pool.node()
    almost_over = datetime.now(UTC) - timedelta(seconds=105)
    with without_rule(admin, "pods", "delete"):
        delivery = pool.drained(node, time=almost_over.isoformat())
        faults = wait.until(
            lambda: [line["fault"] for line in pool.logged(delivery.event) if "fault" in line],
            "the fault in the log",
            timeout=SOON,
        )
    assert 'cannot delete resource "pods"' in faults[0]
    assert len(pool.pods(node)) == 1


def test_without_the_right_to_create_events_the_node_is_drained(pool: Pool, admin: Client) -> None:
    node = pool.node()
    pool.pod(node)
    with without_rule(admin, "events", "create"):
        delivery = pool.drained(node)
    assert delivery.result["outcome"] == "drained"
    events = [
        event
        for event in admin.list(Event, namespace="*")
        if event.involvedObject.name == node.name
        and event.source is not None
        and event.source.component == "castai-spot-handler"
    ]
    assert events == []


def list_nodes(state: State, token: str) -> int:
    """List the nodes with this token. Returns the HTTP status."""
    assert state.kubernetes is not None
    endpoint, authority = kubernetes.server(Path(state.kubernetes.kubeconfig))
    tls = ssl.create_default_context(cadata=authority)
    with httpx2.Client(verify=tls, trust_env=False) as client:
        answer = client.get(
            f"{endpoint}/api/v1/nodes", headers={"Authorization": f"Bearer {token}"}
        )
    return answer.status_code


def token(account: Aws, cluster: str, credentials: Credentials | None = None) -> str:
    """The EKS token of these credentials, by default of the administrator."""
    credentials = credentials or account.session.get_credentials()
    assert credentials is not None
    return eks.sign_token(
        credentials, region=account.region, dns_suffix="amazonaws.com", cluster=cluster
    )


def test_a_token_for_this_cluster_is_authenticated(state: State, account: Aws) -> None:
    """The token is of the cluster's creator, who has an access entry."""
    assert list_nodes(state, token(account, state.cluster)) in (200, 403)


def test_a_token_for_another_cluster_is_refused(state: State, account: Aws) -> None:
    assert list_nodes(state, token(account, "another")) == 401


def test_a_tampered_token_is_refused(state: State, account: Aws) -> None:
    good = token(account, state.cluster)
    url = base64.urlsafe_b64decode(good.removeprefix(eks.TOKEN_PREFIX) + "==").decode()
    query = urllib.parse.parse_qs(urllib.parse.urlsplit(url).query)
    [signature] = query["X-Amz-Signature"]
    forged = url.replace(signature, signature[::-1])
    encoded = base64.urlsafe_b64encode(forged.encode()).decode().rstrip("=")
    assert list_nodes(state, eks.TOKEN_PREFIX + encoded) == 401


def test_an_expired_token_is_refused(
    state: State, account: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    long_ago = datetime.now(UTC) - timedelta(minutes=20)
    monkeypatch.setattr(botocore.auth, "get_current_datetime", lambda: long_ago)
    assert list_nodes(state, token(account, state.cluster)) == 401


def test_an_access_entry_is_of_one_principal_not_of_its_name(state: State, account: Aws) -> None:
    """A user that was deleted and created again has the same ARN, and no access."""
    iam, name = account.iam, "created-again"
    entry: dict[str, Any] = {
        "clusterName": state.cluster,
        "principalArn": f"arn:aws:iam::{account.account}:user/{name}",
    }

    def status() -> int:
        """The status of a request to the cluster by the user, with a new key."""
        for old in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=name, AccessKeyId=old["AccessKeyId"])
        key = iam.create_access_key(UserName=name)["AccessKey"]
        credentials = Credentials(key["AccessKeyId"], key["SecretAccessKey"])
        return list_nodes(state, token(account, state.cluster, credentials))

    def delete() -> None:
        for key in iam.list_access_keys(UserName=name)["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=name, AccessKeyId=key["AccessKeyId"])
        iam.delete_user(UserName=name)

    with pytest.raises(ClientError, match=r"principalArn is invalid: invalid principal\."):
        account.eks.create_access_entry(**entry)
    iam.create_user(UserName=name)
    assert status() == 401
    account.eks.create_access_entry(**entry)
    assert status() == 403
    delete()
    iam.create_user(UserName=name)
    assert status() == 401
    account.eks.delete_access_entry(**entry)
    account.eks.create_access_entry(**entry)
    assert status() == 403
    account.eks.delete_access_entry(**entry)
    delete()


@pytest.mark.parametrize(
    "malformed", ["k8s-aws-v1.", "k8s-aws-v1.!!!", "not a token", "x" * 20_000]
)
def test_a_malformed_token_is_refused(state: State, malformed: str) -> None:
    assert list_nodes(state, malformed) == 401
