"""The routes of the simulated CAST AI API.

`/v1` answers as CAST AI does. `/_sandbox` is for tests: it returns what was received, and sets how
the API behaves. `/` shows what was received as an HTML page.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs, unquote

from sandbox.castai_api import page
from sandbox.castai_api.state import Refusal, State, api_cluster, api_savings

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Manifest = Callable[[str], str]

_CLUSTERS = "/v1/kubernetes/external-clusters"
_REPORTS = "/v1/cost-reports/clusters"
_BODY_LIMIT = 1 << 20  # bytes


@dataclass(frozen=True)
class Request:
    """An HTTP request with decoded body."""

    method: str
    path: str
    query: dict[str, list[str]]
    headers: dict[str, str]
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """An HTTP response."""

    body: object = field(default_factory=dict)
    """Sent as JSON if there is no text."""
    what: str = ""
    """Line in the log."""
    text: str | None = None
    kind: str = "application/json"
    """Content type."""
    status: int = 200


class App:
    """The ASGI application over one :class:`State`.

    `manifest` renders the agent's manifest for an API key: `/v1/agent.yaml` returns it.
    """

    def __init__(self, state: State, manifest: Manifest | None = None) -> None:
        self.state = state
        self._manifest = manifest

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        if scope["type"] != "http":
            return
        answer = self._answer(await _request(scope, receive))
        await _respond(send, answer)

    def _answer(self, request: Request | Refusal) -> Answer:
        if isinstance(request, Refusal):
            return Answer({"message": request.message}, status=request.status)
        if not request.path.startswith("/v1/"):
            try:
                return self._control(request)
            except Refusal as refusal:
                return Answer({"message": refusal.message}, status=refusal.status)
        try:
            self._authenticate(request)
            answer = self._api(request)
        except Refusal as refusal:
            answer = Answer(
                {"message": refusal.message, "fieldViolations": []},
                what=refusal.message,
                status=refusal.status,
            )
        self.state.record(request.method, request.path, answer.status, answer.what, request.body)
        return answer

    def _authenticate(self, request: Request) -> None:
        """Check the API key. Raises Refusal for a wrong key and in an outage."""
        if self.state.outage:
            self.state.outage -= 1
            raise Refusal(503, "upstream connect error")
        given = request.headers.get("x-api-key", "")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if not given and scheme == "Token":
            given = token
        if not hmac.compare_digest(given.encode(), self.state.api_key.encode()):
            raise Refusal(401, "Unauthorized")

    def _api(self, request: Request) -> Answer:
        if (request.method, request.path) == ("GET", "/v1/agent.yaml"):
            return self._agent_yaml(request)
        if request.path == _CLUSTERS and request.method == "POST":
            cluster = self.state.register(request.body)
            return Answer(api_cluster(cluster), f"cluster {cluster.name} registered")
        if request.path == _CLUSTERS and request.method == "GET":
            clusters = [api_cluster(cluster) for cluster in self.state.clusters.values()]
            return Answer({"items": clusters}, "clusters listed")
        if request.path.startswith(_REPORTS + "/") and request.method == "GET":
            return self._report_of(request.path.removeprefix(_REPORTS + "/"))
        head, _, tail = request.path.removeprefix(_CLUSTERS + "/").partition("/")
        if not request.path.startswith(_CLUSTERS + "/") or not head:
            raise Refusal(404, "Not Found")
        handler = _ROUTES.get((request.method, tail))
        if handler is None:
            raise Refusal(404 if not tail else 405, "Method Not Allowed")
        return handler(self.state, unquote(head), request.body)

    def _report_of(self, path: str) -> Answer:
        cluster_id, _, name = path.partition("/")
        if name != "estimated-savings":
            raise Refusal(404, "Not Found")
        cluster = self.state.savings(unquote(cluster_id))
        updated = datetime.fromtimestamp(self.state.now(), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Answer(api_savings(cluster, updated), f"savings of {cluster.name} read")

    def _agent_yaml(self, request: Request) -> Answer:
        if request.query.get("provider") != ["eks"]:
            raise Refusal(400, "provider: must be eks here")
        if self._manifest is None:
            raise Refusal(404, "Not Found")
        text = self._manifest(self.state.api_key)
        return Answer(what="agent manifest fetched", text=text, kind="application/yaml")

    def _control(self, request: Request) -> Answer:
        state = self.state
        match (request.method, request.path.strip("/").split("/")):
            case ("GET", [""]):
                return Answer(text=page.render(state.shown()), kind="text/html; charset=utf-8")
            case ("GET", ["_sandbox", "log"]):
                return Answer(state.shown())
            case ("GET", ["_sandbox", "health"]):
                return Answer({"status": "ok"})
            case ("POST", ["_sandbox", "settings"]):
                for name in ("propagation", "disconnect_reads", "outage"):
                    setattr(state, name, int(request.body.get(name, getattr(state, name))))
                return Answer({"status": "ok"})
            case ("POST", ["_sandbox", "agent"]):
                return self._report(request)
            case ("POST", ["_sandbox", "clusters", cluster_id, "agent"]):
                status = str(request.body.get("status", "online"))
                return Answer(api_cluster(state.agent(cluster_id, status)))
        raise Refusal(404, "Not Found")

    def _report(self, request: Request) -> Answer:
        """Record a report of the agent, which sends its API key. Only a new status is logged."""
        self._authenticate(request)
        cluster = self.state.register(request.body)
        status = str(request.body.get("status", "online"))
        if cluster.agent_status != status:
            self.state.agent(cluster.id, status)
            what = f"agent of cluster {cluster.name}: {status}"
            self.state.record(request.method, request.path, 200, what, request.body)
        return Answer(api_cluster(cluster))


def _get(state: State, cluster_id: str, _: dict[str, Any]) -> Answer:
    cluster = state.read(cluster_id)
    return Answer(api_cluster(cluster), f"cluster {cluster.name} read")


def _hand_over(state: State, cluster_id: str, body: dict[str, Any]) -> Answer:
    cluster = state.hand_over(cluster_id, body)
    return Answer(api_cluster(cluster), f"{cluster.credentials['kind']} accepted")


def _delete(state: State, cluster_id: str, _: dict[str, Any]) -> Answer:
    state.delete(cluster_id)
    return Answer(what="cluster deleted")


def _event(state: State, cluster_id: str, body: dict[str, Any]) -> Answer:
    state.event(cluster_id, body)
    return Answer(what=f"{body['event_type']}: {body['provider_id']}")


def _disconnect(state: State, cluster_id: str, _: dict[str, Any]) -> Answer:
    return Answer(api_cluster(state.disconnect(cluster_id)), "cluster disconnected")


def _read_principal(state: State, cluster_id: str, _: dict[str, Any]) -> Answer:
    return Answer({"arn": state.principal(cluster_id, create=False)}, "principal read")


def _create_principal(state: State, cluster_id: str, _: dict[str, Any]) -> Answer:
    return Answer({"arn": state.principal(cluster_id, create=True)}, "principal created")


def _remove_principal(state: State, cluster_id: str, _: dict[str, Any]) -> Answer:
    state.remove_principal(cluster_id)
    return Answer(what="principal removed")


_ROUTES: dict[tuple[str, str], Callable[[State, str, dict[str, Any]], Answer]] = {
    ("GET", ""): _get,
    ("POST", ""): _hand_over,
    ("DELETE", ""): _delete,
    ("POST", "events"): _event,
    ("POST", "disconnect"): _disconnect,
    ("GET", "assume-role-principal"): _read_principal,
    ("POST", "assume-role-principal"): _create_principal,
    ("DELETE", "assume-role-principal"): _remove_principal,
}


async def _request(scope: Scope, receive: Receive) -> Request | Refusal:
    """Read and decode the request. Returns a Refusal if that is impossible."""
    raw = b""
    more = True
    while more:
        message = await receive()
        raw += message.get("body", b"")
        more = message.get("more_body", False)
        if len(raw) > _BODY_LIMIT:
            return Refusal(413, "Request Entity Too Large")
    try:
        body = json.loads(raw) if raw else {}
    except ValueError:
        return Refusal(400, "body: not JSON")
    if not isinstance(body, dict):
        return Refusal(400, "body: must be an object")
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    # In the raw path, an encoded slash inside an id differs from a separator.
    path = scope["raw_path"].decode("ascii").partition("?")[0]
    query = parse_qs(scope["query_string"].decode("ascii"))
    return Request(scope["method"], path, query, headers, body)


async def _respond(send: Send, answer: Answer) -> None:
    text = answer.text if answer.text is not None else json.dumps(answer.body)
    headers = [(b"content-type", answer.kind.encode())]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
