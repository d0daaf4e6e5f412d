"""The nine calls to the Kubernetes API that a drain makes, over one HTTP client.

A client of our own and not a library's, because a drain needs what those do not have: UID
preconditions on a DELETE, the body of an accepted eviction, Retry-After, and pods decoded to the
few fields that the rules read (docs/adr/0002-a-thin-kubernetes-client.md).
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import httpx2
import msgspec

from lambdas.common.errors import (
    ClusterRefusedError,
    ClusterUnavailableError,
)
from lambdas.common.kubernetes_answers import (
    Rules,
    Status,
    error_of,
    is_missing,
    lacks_right,
    retry_after,
    status_of,
)
from lambdas.common.names import SPOT_HANDLER_GROUP
from lambdas.common.text import NOT_JSON, cut
from lambdas.spot_handler.objects import Node, Pod

T = TypeVar("T")

NODE_PAGE = 500  # nodes a page: what kubectl asks for
REQUEST_TIMEOUT = 10.0  # s. An eviction whose retries the server has not ended by then is lost
CONNECT_TIMEOUT = 3.0  # s
UNAUTHORIZED_LIMIT = 15.0  # s from the first 401 on, until it counts as missing access
SPARE_CONNECTIONS = 4  # beside the evictions: the watch, a list, an event, the event before it
# s, s, times: idle, interval, count. A watch is often silent, so the kernel probes the peer.
_KEEPALIVE = (10, 3, 3)


class _ListMetadata(msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion"}):
    resource_version: str = ""
    continue_: str = msgspec.field(name="continue", default="")


class _NodeList(msgspec.Struct, frozen=True):
    metadata: _ListMetadata
    items: list[Node] = []


class PodList(msgspec.Struct, frozen=True):
    metadata: _ListMetadata
    items: list[Pod] = []


class ConfigMap(msgspec.Struct, frozen=True):
    data: dict[str, str] | None = None


class _WatchEvent(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


@dataclass(frozen=True)
class Answer:
    """An HTTP answer to a write on a pod, whatever its code."""

    code: int
    status: Status
    retry_after: float | None


@dataclass(frozen=True)
class PodEvent:
    """A change of a pod on the node: type ADDED, MODIFIED or DELETED."""

    type: str
    pod: Pod


class WatchEndedError(ClusterUnavailableError):
    """The watch ended or broke: list again, and watch from there."""


class TokenSource(Protocol):
    def get(self, *, fresh: bool = False) -> str: ...


_node = msgspec.json.Decoder(Node)
_nodes = msgspec.json.Decoder(_NodeList)
_pods = msgspec.json.Decoder(PodList)
_pod = msgspec.json.Decoder(Pod)
_config_map = msgspec.json.Decoder(ConfigMap)
_status = msgspec.json.Decoder(Status)
_watch_event = msgspec.json.Decoder(_WatchEvent)
_encode = msgspec.json.encode

# A 401 may pass: EKS's authenticator is throttled, or the token is refused for a while. What lasts
# is counted by the client.
RULES = Rules(
    unauthorized="Give the function's role access to the cluster (an access entry with the group "
    f"{SPOT_HANDLER_GROUP})",
    forbidden="Apply manifests/spot-handler-rbac.yaml and give the function's role the group "
    f"{SPOT_HANDLER_GROUP}",
    retried=frozenset(
        {
            httpx2.codes.UNAUTHORIZED,
            httpx2.codes.REQUEST_TIMEOUT,
            httpx2.codes.TOO_MANY_REQUESTS,
        }
    ),
)
MERGE_PATCH = "application/merge-patch+json"


def transport(ca_pem: str, *, connections: int) -> httpx2.AsyncHTTPTransport:
    """TLS to the cluster, which trusts its certificate authority and no other."""
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    for name, value in zip(
        ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT"), _KEEPALIVE, strict=True
    ):
        if hasattr(socket, name):  # Linux has all of them, other kernels some
            options.append((socket.IPPROTO_TCP, getattr(socket, name), value))
    return httpx2.AsyncHTTPTransport(
        verify=ssl.create_default_context(cadata=ca_pem),
        limits=httpx2.Limits(
            max_connections=connections + SPARE_CONNECTIONS,
            max_keepalive_connections=connections + SPARE_CONNECTIONS,
        ),
        socket_options=options,
    )


class NodeApi:
    """The Kubernetes API of one cluster, for one invocation.

    Every method raises ClusterUnavailableError (try again), ClusterUnauthorizedError,
    ClusterForbiddenError or ClusterRefusedError. `evict` and `delete` return every answer: the
    drain decides what it means for the pod.
    """

    def __init__(
        self, endpoint: str, token: TokenSource, transport: httpx2.AsyncBaseTransport
    ) -> None:
        self._token = token
        self._http = httpx2.AsyncClient(
            base_url=endpoint,
            transport=transport,
            trust_env=False,  # a proxy for AWS is none for the cluster's own endpoint
            timeout=httpx2.Timeout(None, connect=CONNECT_TIMEOUT),  # the rest: asyncio.timeout
            headers={"user-agent": "castai-eks-spot-handler", "accept": "application/json"},
        )
        self._refused_token = ""
        # s of the loop's clock: the first and the last 401 without another answer between them
        self._refused_since = self._refused_last = -math.inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._http.aclose()

    async def node(self, name: str) -> Node | None:
        """The node of this name, or None."""
        response = await self._request("GET", f"/api/v1/nodes/{name}")
        if is_missing(response):
            return None
        return _decode(_node, _checked(response))

    async def nodes(self) -> AsyncIterator[Node]:
        """Every node of the cluster, page by page. Each call begins a listing of its own."""
        token = ""
        while True:
            query = {"limit": str(NODE_PAGE)} | ({"continue": token} if token else {})
            response = await self._request("GET", "/api/v1/nodes", query=query)
            page = _decode(_nodes, self._listed(response))
            for node in page.items:
                yield node
            token = page.metadata.continue_
            if not token:
                return

    async def patch_node(self, name: str, patch: Mapping[str, Any]) -> Node | None:
        """JSON merge patch; None where the node is gone. Conflict: ClusterRefusedError, 409."""
        response = await self._request(
            "PATCH", f"/api/v1/nodes/{name}", body=patch, content_type=MERGE_PATCH
        )
        if is_missing(response):
            return None
        return _decode(_node, _checked(response))

    async def pods(self, node: str) -> PodList:
        """The pods that are bound to a node, and the resourceVersion to watch from."""
        response = await self._request("GET", "/api/v1/pods", query=_on(node))
        return _decode(_pods, self._listed(response))

    async def watch_pods(
        self, node: str, resource_version: str, *, seconds: float, silence: float
    ) -> AsyncGenerator[PodEvent, None]:
        """Changes of the pods on a node from a list's resourceVersion on, for up to `seconds`.

        Ends by raising WatchEndedError: also on 410, a broken connection, a line that cannot be
        read, the server's own time-out and `silence` seconds without an event.
        """
        query = _on(node) | {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(max(1, int(seconds))),
        }
        try:
            async with self._stream("/api/v1/pods", query) as response:
                lines = _lines(response.aiter_bytes())
                while True:
                    async with asyncio.timeout(silence):
                        line = await anext(lines)
                    event = _decode(_watch_event, line)
                    if event.type == "ERROR":
                        status = _decode(_status, bytes(event.object))
                        raise WatchEndedError(f"The watch ended: {cut(status.message)}")
                    if event.type != "BOOKMARK":
                        yield PodEvent(event.type, _decode(_pod, bytes(event.object)))
        except StopAsyncIteration:
            raise WatchEndedError("The watch ended: the server closed it") from None
        except (TimeoutError, httpx2.HTTPError) as error:
            raise WatchEndedError(f"The watch broke: {_words(error)}") from error

    async def evict(self, pod: Pod, *, grace: int) -> Answer:
        """POST …/eviction of exactly this pod (UID precondition), with `grace` in seconds."""
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
        return await self._answer(
            "POST",
            f"{path}/eviction",
            {
                "apiVersion": "policy/v1",
                "kind": "Eviction",
                "metadata": {"name": pod.metadata.name, "namespace": pod.metadata.namespace},
                "deleteOptions": _delete_options(pod, grace),
            },
        )

    async def delete(self, pod: Pod, *, grace: int) -> Answer:
        """DELETE of exactly this pod: past its budget, or with less grace than it has left."""
        path = f"/api/v1/namespaces/{pod.metadata.namespace}/pods/{pod.metadata.name}"
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **_delete_options(pod, grace)}
        return await self._answer("DELETE", path, body)

    async def config_map(self, namespace: str, name: str) -> dict[str, str] | None:
        """The data of a ConfigMap; None where there is none."""
        path = f"/api/v1/namespaces/{namespace}/configmaps/{name}"
        response = await self._request("GET", path)
        if is_missing(response):
            return None
        return _decode(_config_map, _checked(response)).data or {}

    async def create_event(self, event: Mapping[str, Any]) -> None:
        """Create a core/v1 Event, in the namespace that it names. One that exists is no error."""
        path = f"/api/v1/namespaces/{event['metadata']['namespace']}/events"
        response = await self._request("POST", path, body=event)
        if response.status_code != httpx2.codes.CONFLICT:
            _checked(response)

    async def _answer(self, method: str, path: str, body: Mapping[str, Any]) -> Answer:
        response = await self._request(method, path, body=body)
        status = status_of(response)
        return Answer(response.status_code, status, retry_after(response, status))

    async def _request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
    ) -> httpx2.Response:
        """Send one request; a 401 that may pass is retried.

        Raises ClusterUnavailableError where there is no answer, ClusterUnauthorizedError for a 401
        that lasts.
        """
        content = None if body is None else _encode(body)
        token = self._accepted_token()
        headers = {"authorization": f"Bearer {token}"}
        if content is not None:
            headers["content-type"] = content_type
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT):
                response = await self._http.request(
                    method, path, params=query, content=content, headers=headers
                )
        except (TimeoutError, httpx2.HTTPError) as error:
            raise _unavailable(f"{method} {path}", error) from error
        self._note_authentication(response, token)
        return response

    def _accepted_token(self) -> str:
        """The token, signed anew where the cluster did not accept the last one."""
        token = self._token.get()
        return token if token != self._refused_token else self._token.get(fresh=True)

    def _note_authentication(self, response: httpx2.Response, token: str) -> None:
        """Tolerate a 401 for some seconds, and raise one that lasts.

        EKS answers 401 also while STS throttles its authenticator, and API servers cache the
        refusal of a token for a while. Time counts only while requests are made: an event that was
        refused a minute ago does not count.
        """
        if response.status_code != httpx2.codes.UNAUTHORIZED:
            self._refused_token, self._refused_last = "", -math.inf
            return
        now = asyncio.get_running_loop().time()
        if now - self._refused_last >= UNAUTHORIZED_LIMIT:
            self._refused_since = now
        self._refused_token, self._refused_last = token, now
        if now - self._refused_since >= UNAUTHORIZED_LIMIT:
            raise error_of(_named(response), response, replace(RULES, retried=frozenset()))

    @contextlib.asynccontextmanager
    async def _stream(self, path: str, query: Mapping[str, str]) -> AsyncIterator[httpx2.Response]:
        headers = {"authorization": f"Bearer {self._accepted_token()}"}
        request = self._http.build_request("GET", path, params=query, headers=headers)
        async with asyncio.timeout(REQUEST_TIMEOUT):  # a watch's headers come at once
            response = await self._http.send(request, stream=True)
        try:
            if response.status_code >= httpx2.codes.BAD_REQUEST:
                await response.aread()
                if lacks_right(status_of(response).message):
                    _checked(response)
                raise WatchEndedError(f"The watch was refused: {_words_of(response)}")
            yield response
        finally:
            await response.aclose()

    @staticmethod
    def _listed(response: httpx2.Response) -> bytes:
        """The body of a list.

        Except for RBAC's refusal no answer to a list is final: a proxy's 400 in the middle of a
        drain does not show the pods.
        """
        try:
            return _checked(response)
        except ClusterRefusedError as error:
            raise ClusterUnavailableError(str(error)) from error


def _checked(response: httpx2.Response) -> bytes:
    """The body of a success. Raises the error that another code stands for."""
    if response.status_code < httpx2.codes.BAD_REQUEST:
        return response.content
    raise error_of(_named(response), response, RULES)


def _named(response: httpx2.Response) -> str:
    return f"{response.request.method} {response.request.url.path}"


def _words_of(response: httpx2.Response) -> str:
    return cut(status_of(response).message)


def _unavailable(what: str, error: Exception) -> ClusterUnavailableError:
    unreachable = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
    return ClusterUnavailableError(f"{what}: {_words(error)}", unreachable=unreachable)


def _words(error: Exception) -> str:
    return cut(f"{type(error).__name__} {error}")


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The lines of a watch, each a JSON object.

    Split as bytes and at the newline alone: JSON is UTF-8 whatever a header says, and a value of an
    object may hold what Unicode counts as the end of a line, U+0085 for example.
    """
    begun = b""
    async for chunk in chunks:
        *whole, begun = (begun + chunk).split(b"\n")
        for line in whole:
            yield line
    if begun:
        yield begun


def _decode(decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    try:
        return decoder.decode(data)
    except NOT_JSON as error:  # half an answer, or a proxy's page: a retry may succeed
        raise ClusterUnavailableError(f"The cluster's answer cannot be read: {error}") from error


def _on(node: str) -> dict[str, str]:
    return {"fieldSelector": f"spec.nodeName={node}"}


def _delete_options(pod: Pod, grace: int) -> dict[str, Any]:
    return {"gracePeriodSeconds": grace, "preconditions": {"uid": pod.metadata.uid}}
