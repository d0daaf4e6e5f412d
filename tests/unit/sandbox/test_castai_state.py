"""The simulated CAST AI: it refuses what CAST AI refuses, and shows no secret."""

from __future__ import annotations

import json

import pytest

from sandbox.castai_api import page
from sandbox.castai_api.state import Refusal, State, fingerprint

EKS = {"clusterName": "prod", "region": "eu-central-1", "accountId": "123456789012"}


@pytest.fixture
def state() -> State:
    return State("castai-key-for-tests")


@pytest.fixture
def cluster_id(state: State) -> str:
    return state.register({"name": "prod", "eks": EKS}).id


@pytest.mark.parametrize("field", sorted(EKS))
def test_a_registration_names_the_missing_field(state: State, field: str) -> None:
    with pytest.raises(Refusal, match=field):
        state.register({"name": "prod", "eks": {**EKS, field: ""}})


def test_a_role_before_its_principal_is_refused(state: State, cluster_id: str) -> None:
    with pytest.raises(Refusal, match="principal must be created"):
        state.hand_over(cluster_id, {"eks": {"assumeRoleArn": "arn:aws:iam::1:role/x"}})


@pytest.mark.parametrize(
    "body", [{}, {"credentials": {}}, {"credentials": "no json"}, {"credentials": "{}"}]
)
def test_credentials_must_be_a_json_string(
    state: State, cluster_id: str, body: dict[str, object]
) -> None:
    with pytest.raises(Refusal, match="as a JSON string"):
        state.hand_over(cluster_id, body)


def test_only_a_disconnected_cluster_is_deleted(state: State, cluster_id: str) -> None:
    with pytest.raises(Refusal, match="must be disconnected first"):
        state.delete(cluster_id)
    state.disconnect(cluster_id)
    state.delete(cluster_id)
    with pytest.raises(Refusal, match="not found"):
        state.read(cluster_id)


@pytest.mark.parametrize(
    ("region", "partition"), [("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_principals_follow_the_partition(state: State, region: str, partition: str) -> None:
    cluster = state.register({"name": "prod", "eks": {**EKS, "region": region}})
    assert state.principal(cluster.id, create=True).startswith(f"arn:{partition}:iam::")


def test_no_secret_is_shown(state: State, cluster_id: str) -> None:
    state.propagation = 0
    credentials = json.dumps({"accessKeyId": "AKIAEXAMPLE", "secretAccessKey": "s3cr3t-value"})
    state.hand_over(cluster_id, {"credentials": credentials})
    state.record("POST", "/v1/x", 200, "key accepted", {"credentials": credentials})
    for text in (json.dumps(state.shown()), page.render(state.shown()), repr(state)):
        assert "s3cr3t-value" not in text
        assert state.api_key not in text
    assert fingerprint("AKIAEXAMPLEs3cr3t-value") in json.dumps(state.shown())


def test_the_page_escapes_what_it_was_sent(state: State) -> None:
    state.record("GET", "/v1/<script>", 404, "<script>", {"<script>": "<script>"})
    assert "<script>" not in page.render(state.shown())
