"""Authentication: the user of a bearer token."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2
import msgspec

REVIEW_CACHE_SECONDS = 5.0
"""Short, so that an expired token or a deleted access entry is noticed soon."""

REVIEW_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class User:
    """An authenticated caller."""

    name: str
    groups: tuple[str, ...] = ()


ANONYMOUS = User("system:anonymous", ("system:unauthenticated",))
ADMIN = User("kubernetes-admin", ("system:masters", "system:authenticated"))


class Authenticator(Protocol):
    """Turns a token into a user; None: the token is unknown."""

    async def authenticate(self, token: str) -> User | None: ...


class StaticTokens:
    """Tokens from a table, like kube-apiserver's --token-auth-file."""

    def __init__(self, tokens: dict[str, tuple[str, tuple[str, ...]]]) -> None:
        """`tokens`: token → (user name, groups)."""
        self.tokens = {
            token: User(name, (*groups, "system:authenticated"))
            for token, (name, groups) in tokens.items()
        }

    async def authenticate(self, token: str) -> User | None:
        return self.tokens.get(token)


class EksTokenReview:
    """Authenticates a token by POST of a TokenReview to a webhook, as an EKS control plane does.

    Each answer is cached for a few seconds. If the webhook cannot be reached, no token is
    authenticated.
    """

    def __init__(self, url: str, *, verify: ssl.SSLContext | bool = True) -> None:
        self._url = url
        self._verify = verify
        self._cache: dict[str, tuple[float, User | None]] = {}

    async def authenticate(self, token: str) -> User | None:
        now = asyncio.get_running_loop().time()
        self._cache = {t: entry for t, entry in self._cache.items() if entry[0] > now}
        if token not in self._cache:
            self._cache[token] = now + REVIEW_CACHE_SECONDS, await self._review(token)
        return self._cache[token][1]

    async def _review(self, token: str) -> User | None:
        review = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token},
        }
        try:
            async with httpx2.AsyncClient(
                verify=self._verify, timeout=REVIEW_TIMEOUT_SECONDS, trust_env=False
            ) as client:
                answer = await client.post(self._url, json=review)
            status: dict[str, Any] = msgspec.json.decode(answer.content).get("status") or {}
        except (httpx2.HTTPError, msgspec.DecodeError):
            return None
        if not status.get("authenticated"):
            return None
        user = status.get("user") or {}
        groups = dict.fromkeys([*(user.get("groups") or ()), "system:authenticated"])
        return User(user.get("username", ""), tuple(groups))
