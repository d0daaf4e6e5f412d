from __future__ import annotations

import base64
from urllib.parse import parse_qs, urlsplit

import pytest
from botocore.credentials import Credentials

from lambdas.common import aws, eks
from lambdas.common.clock import Clock
from lambdas.common.eks import Token

CREDENTIALS = Credentials("AKIDEXAMPLE", "secret", "session-token")


def url(token: str) -> str:
    body = token.removeprefix("k8s-aws-v1.")
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)).decode()


def test_a_token_is_a_presigned_get_caller_identity_that_names_the_cluster() -> None:
    token = eks.sign_token(
        CREDENTIALS, region="eu-central-1", dns_suffix="amazonaws.com", cluster="shop"
    )
    assert token.startswith("k8s-aws-v1.")
    assert "=" not in token
    parts = urlsplit(url(token))
    query = parse_qs(parts.query)
    assert parts.netloc == "sts.eu-central-1.amazonaws.com"
    assert query["Action"] == ["GetCallerIdentity"]
    assert query["X-Amz-Expires"] == ["60"]
    assert query["X-Amz-SignedHeaders"] == ["host;x-k8s-aws-id"]
    assert "secret" not in url(token)


def test_the_signature_depends_on_the_cluster() -> None:
    one, other = (
        eks.sign_token(CREDENTIALS, region="eu-central-1", dns_suffix="amazonaws.com", cluster=name)
        for name in ("a", "b")
    )
    assert parse_qs(url(one))["X-Amz-Signature"] != parse_qs(url(other))["X-Amz-Signature"]


@pytest.mark.parametrize(
    ("region", "suffix"),
    [
        ("eu-central-1", "amazonaws.com"),
        ("us-gov-west-1", "amazonaws.com"),
        ("cn-north-1", "amazonaws.com.cn"),
        ("us-iso-east-1", "c2s.ic.gov"),
        ("us-isob-east-1", "sc2s.sgov.gov"),
        ("eu-south-9", "amazonaws.com"),  # a region that the SDK does not have
    ],
)
def test_the_dns_suffix_is_that_of_the_partition(region: str, suffix: str) -> None:
    assert aws.dns_suffix(aws.session(), region) == suffix


def test_a_token_is_signed_again_before_it_expires_and_is_not_in_the_repr() -> None:
    now = 0.0
    signed: list[str] = []

    def sign() -> str:
        signed.append(f"token-{len(signed)}")
        return signed[-1]

    token = Token(sign, clock=Clock(now=lambda: now))
    assert (token.get(), token.get()) == ("token-0", "token-0")
    now = 599.0
    assert token.get() == "token-0"
    now = 600.0
    assert token.get() == "token-1"
    assert token.get(fresh=True) == "token-2"
    assert token.get() == "token-2"
    assert "token-2" not in repr(token)
