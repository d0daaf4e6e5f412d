"""Authorization by RBAC, and authentication by a TokenReview webhook."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from kubesim import EksTokenReview, SimulatedCluster
from kubesim.authentication import REVIEW_CACHE_SECONDS, User
from kubesim.rbac import Attributes, Authorizer
from kubesim.store import Store
from tests.unit.kubesim.support import virtual

GROUP = "rbac.authorization.k8s.io"
LIST_NODES = Attributes("list", "nodes")
EVICT = Attributes("create", "pods/eviction", "", "default", "a")


def grant(
    cluster: SimulatedCluster, subject: dict[str, str], *, namespace: str = "", **rule: list[str]
) -> None:
    kind = "Role" if namespace else "ClusterRole"
    place = {"namespace": namespace} if namespace else {}
    metadata = {"name": "granted", **place}
    version = {"apiVersion": f"{GROUP}/v1", "metadata": metadata}
    cluster.create({"kind": kind, **version, "rules": [{"apiGroups": [""], **rule}]})
    reference = {"apiGroup": GROUP, "kind": kind, "name": "granted"}
    cluster.create(
        {"kind": f"{kind}Binding", **version, "roleRef": reference, "subjects": [subject]}
    )


@pytest.mark.parametrize(
    ("subject", "user"),
    [
        ({"kind": "User", "name": "u"}, User("u")),
        ({"kind": "Group", "name": "g"}, User("x", ("g",))),
        (
            {"kind": "ServiceAccount", "name": "s", "namespace": "n"},
            User("system:serviceaccount:n:s"),
        ),
    ],
)
@virtual
async def test_a_binding_applies_to_its_subject_only(subject: dict[str, str], user: User) -> None:
    async with SimulatedCluster() as cluster:
        grant(cluster, subject, resources=["nodes"], verbs=["list"])

        assert cluster.authorizer.allows(user, LIST_NODES)
        assert not cluster.authorizer.allows(User("other", ("others",)), LIST_NODES)
        assert not cluster.authorizer.allows(user, Attributes("delete", "nodes"))


@pytest.mark.parametrize(
    ("rule", "allowed"),
    [
        ({"resources": ["pods/eviction"], "verbs": ["create"]}, True),
        ({"resources": ["*/eviction"], "verbs": ["*"]}, True),
        ({"resources": ["*"], "verbs": ["create"]}, True),
        ({"resources": ["pods"], "verbs": ["create"]}, False),
        ({"resources": ["pods/eviction"], "verbs": ["create"], "resourceNames": ["a"]}, True),
        ({"resources": ["pods/eviction"], "verbs": ["create"], "resourceNames": ["b"]}, False),
        ({"resources": ["pods/eviction"], "verbs": ["create"], "apiGroups": ["apps"]}, False),
    ],
)
@virtual
async def test_what_a_rule_covers(rule: dict[str, list[str]], allowed: bool) -> None:
    async with SimulatedCluster() as cluster:
        grant(cluster, {"kind": "User", "name": "u"}, **rule)

        assert cluster.authorizer.allows(User("u"), EVICT) is allowed


@virtual
async def test_a_role_applies_in_its_namespace_only() -> None:
    async with SimulatedCluster() as cluster:
        subject = {"kind": "User", "name": "u"}
        grant(cluster, subject, namespace="default", resources=["pods/*", "*"], verbs=["create"])

        assert cluster.authorizer.allows(User("u"), EVICT)
        elsewhere = Attributes("create", "pods/eviction", "", "kube-system", "a")
        assert not cluster.authorizer.allows(User("u"), elsewhere)


def test_masters_may_do_everything() -> None:
    assert Authorizer(Store()).allows(User("u", ("system:masters",)), EVICT)


@virtual
async def test_without_a_token_the_version_is_served_and_nodes_are_not() -> None:
    async with (
        SimulatedCluster() as cluster,
        httpx2.AsyncClient(transport=cluster.transport(), base_url="https://c.invalid") as client,
    ):
        assert (await client.get("/version")).status_code == 200
        refused = await client.get("/api/v1/nodes")

        assert refused.status_code == 403
        assert 'User "system:anonymous" cannot list resource "nodes"' in refused.json()["message"]


@virtual
async def test_impersonation_needs_the_right_to_impersonate() -> None:
    tokens: dict[str, tuple[str, tuple[str, ...]]] = {"t": ("u", ())}
    async with SimulatedCluster(tokens=tokens) as cluster, cluster.client("t") as client:
        headers = {"Impersonate-User": "kubernetes-admin", "Impersonate-Group": "system:masters"}

        refused = await client.get("/api/v1/nodes", headers=headers)

        assert refused.status_code == 403
        assert 'cannot impersonate resource "users"' in refused.json()["message"]


@pytest.fixture
def reviewed_tokens(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The tokens that were sent to the webhook. It authenticates the token `good` only."""
    reviewed: list[str] = []
    original: Callable[..., httpx2.AsyncClient] = httpx2.AsyncClient

    def answer(request: httpx2.Request) -> httpx2.Response:
        review = json.loads(request.content)
        token = review["spec"]["token"]
        reviewed.append(token)
        user = {"username": "castai", "groups": ["castai:spot-handler"]}
        status = {"authenticated": True, "user": user} if token == "good" else {}
        if token == "broken":
            return httpx2.Response(500, text="no JSON")
        return httpx2.Response(200, json={**review, "status": status})

    def client(**options: Any) -> httpx2.AsyncClient:
        options["transport"] = httpx2.MockTransport(answer)
        return original(**options)

    monkeypatch.setattr("kubesim.authentication.httpx2.AsyncClient", client)
    return reviewed


@virtual
async def test_a_webhook_authenticates_a_token(reviewed_tokens: list[str]) -> None:
    review = EksTokenReview("https://emulator.invalid/review")

    first = await review.authenticate("good")
    await review.authenticate("good")
    assert await review.authenticate("bad") is None
    assert await review.authenticate("broken") is None
    await asyncio.sleep(REVIEW_CACHE_SECONDS)
    await review.authenticate("good")

    assert first == User("castai", ("castai:spot-handler", "system:authenticated"))
    assert reviewed_tokens == ["good", "bad", "broken", "good"]
