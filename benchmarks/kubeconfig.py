"""Access to an existing cluster by its kubeconfig, for the handler and for its peers."""

from __future__ import annotations

import base64
import ssl
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx2
import yaml

from lambdas.common.eks import Cluster
from lambdas.spot_handler import handler
from lambdas.spot_handler.interruption import Dependencies


class KubeconfigError(ValueError):
    """The first line of the message says what the file must contain."""


@dataclass(frozen=True)
class Access:
    """The API server's address and our credentials: a token or a client certificate."""

    server: str
    ca_pem: str
    token: str = ""
    certificate: str = ""
    key: str = ""

    @classmethod
    def read(cls, path: Path) -> Access:
        """Read the current context of a kubeconfig. Raises KubeconfigError."""
        config = yaml.safe_load(path.read_text())
        context = _named(config, "contexts", "context", config["current-context"])
        cluster = _named(config, "clusters", "cluster", context["cluster"])
        user = _named(config, "users", "user", context["user"])
        access = cls(
            server=cluster["server"],
            ca_pem=_text(path, cluster, "certificate-authority"),
            token=user.get("token", ""),
            certificate=_text(path, user, "client-certificate"),
            key=_text(path, user, "client-key"),
        )
        if not (access.token or (access.certificate and access.key)):
            raise KubeconfigError(
                f"Give the user in {path} a token (kubectl create token …) or a client "
                "certificate: the benchmarks run no credential plugin"
            )
        return access

    def ssl_context(self) -> ssl.SSLContext:
        """Return a TLS context with this cluster's CA and the client certificate."""
        context = ssl.create_default_context(cadata=self.ca_pem)
        if self.certificate:
            with tempfile.NamedTemporaryFile("w") as file:
                file.write(f"{self.certificate}\n{self.key}")
                file.flush()
                context.load_cert_chain(file.name)
        return context

    @property
    def headers(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.token}"} if self.token else {}


class _Token:
    def __init__(self, token: str) -> None:
        self._token = token

    def get(self, *, fresh: bool = False) -> str:  # noqa: ARG002 - there is only one
        return self._token


class OneCluster:
    """Replaces EKS: it returns this cluster for every name."""

    def __init__(self, access: Access) -> None:
        cluster = Cluster("", access.server, access.ca_pem, "")
        self._found = cluster, _Token(access.token)

    def get(self, name: str, *, until: float, fresh: bool = False) -> Any:  # noqa: ARG002, ANN401
        return self._found


class CountingTransport(httpx2.AsyncBaseTransport):
    """Counts the answers 409 of all instances."""

    conflicts = 0

    def __init__(self, inner: httpx2.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await self._inner.handle_async_request(request)
        if answer.status_code == httpx2.codes.CONFLICT:
            CountingTransport.conflicts += 1
        return answer

    async def aclose(self) -> None:
        await self._inner.aclose()


def dependencies(path: Path) -> Dependencies:
    """Return the handler's dependencies, with this cluster instead of the one in EKS."""
    access = Access.read(path)
    context = access.ssl_context()
    return replace(
        handler.dependencies(),
        clusters=OneCluster(access),  # type: ignore[arg-type] # the one method that is called
        transport=lambda _ca, connections: CountingTransport(
            httpx2.AsyncHTTPTransport(
                verify=context,
                limits=httpx2.Limits(
                    max_connections=connections + 4, max_keepalive_connections=connections + 4
                ),
            )
        ),
    )


def _named(config: dict[str, Any], kind: str, what: str, name: str) -> dict[str, Any]:
    for entry in config.get(kind) or ():
        if entry["name"] == name:
            found: dict[str, Any] = entry[what]
            return found
    raise KubeconfigError(f"Add {what} {name!r} to the kubeconfig: its current context needs it")


def _text(path: Path, entry: dict[str, Any], key: str) -> str:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(data).decode()
    return (path.parent / entry[key]).read_text() if entry.get(key) else ""
