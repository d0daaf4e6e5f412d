"""The results and errors of the API server's answers: recorded ones, and long ones."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from kubesim.virtual import run_virtual
from lambdas.common.errors import (
    CastaiError,
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnavailableError,
)
from lambdas.common.names import AGENT, AGENT_METADATA
from lambdas.common.text import LIMIT
from lambdas.onboarding.spot_rbac import RULES
from lambdas.spot_handler.node_api import NodeApi, WatchEndedError
from lambdas.spot_handler.objects import Metadata, Pod

RECORDED = Path(__file__).parents[2] / "recorded" / "kubernetes-1.36"
LONG = "because " * 1500
POD = Pod(Metadata(name="web", namespace="shop", uid="1"))

Ask = Callable[[NodeApi], Awaitable[Any]]


async def watch(api: NodeApi) -> None:
    async for _ in api.watch_pods("n", "1", seconds=60, silence=45):
        pass


ASKS: dict[str, Ask] = {
    "node": lambda api: api.node("n"),
    "patch": lambda api: api.patch_node("n", {}),
    "pods": lambda api: api.pods("n"),
    "watch": watch,
    "event": lambda api: api.create_event({"metadata": {"namespace": "default"}}),
    "config map": lambda api: api.config_map("a", "b"),
}


class Token:
    def get(self, *, fresh: bool = False) -> str:
        return "fresh" if fresh else "token"


Handle = Callable[[httpx2.Request], httpx2.Response]


def ask(ask: Ask, answer: httpx2.Response | Exception | Handle) -> Any:
    """Make a call that gets this answer, in virtual time. Returns its result."""

    def handle(request: httpx2.Request) -> httpx2.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer if isinstance(answer, httpx2.Response) else answer(request)

    async def call() -> Any:
        transport = httpx2.MockTransport(handle)
        async with NodeApi("https://cluster.invalid", Token(), transport) as api:
            return await ask(api)

    return run_virtual(call())


def recorded(name: str) -> httpx2.Response:
    response = json.loads((RECORDED / f"{name}.json").read_text())["response"]
    body = response["body"]
    if isinstance(body, list):  # the lines of a watch
        body = "\n".join(json.dumps(line) for line in body)
    content = body if isinstance(body, str) else json.dumps(body)
    return httpx2.Response(response["status"], headers=response["headers"], text=content)


@pytest.mark.parametrize(
    ("call", "name", "error", "words", "retry_after"),
    [
        ("patch", "node-patch-webhook-fails", ClusterUnavailableError, "webhook", None),
        ("pods", "pod-list-priority-and-fairness", ClusterUnavailableError, "429", 1.0),
        ("watch", "pod-watch-gone", WatchEndedError, "too old resource version", None),
        ("event", "evict-denied-by-policy", ClusterRefusedError, "ValidatingAdmissionPolicy", None),
        ("pods", "evict-forbidden", ClusterForbiddenError, "cannot create resource", None),
    ],
)
def test_the_error_of_a_recorded_refusal(
    call: str, name: str, error: type[CastaiError], words: str, retry_after: float | None
) -> None:
    with pytest.raises(error, match=words) as caught:
        ask(ASKS[call], recorded(name))
    assert getattr(caught.value, "retry_after", None) == retry_after


@pytest.mark.parametrize("call", ["node", "patch", "config map"])
def test_a_missing_object_is_none_and_a_404_of_a_proxy_is_an_error(call: str) -> None:
    assert ask(ASKS[call], recorded("configmap-get-missing")) is None
    with pytest.raises(ClusterUnavailableError, match="404"):
        ask(ASKS[call], httpx2.Response(404, text="404 page not found"))


def status(code: int) -> httpx2.Response:
    body = {"kind": "Status", "status": "Failure", "message": LONG, "code": code}
    return httpx2.Response(code, json=body)


@pytest.mark.parametrize("call", ASKS)
@pytest.mark.parametrize(
    "answer",
    [
        status(400),
        status(422),
        status(500),
        httpx2.Response(503, text=f"<html>{LONG}</html>"),
        httpx2.ReadError(LONG),
    ],
    ids=["400", "422", "500", "a page", "an error"],
)
def test_a_long_message_of_the_server_is_cut(
    call: str, answer: httpx2.Response | Exception
) -> None:
    with pytest.raises(CastaiError) as caught:
        ask(ASKS[call], answer)
    assert "because" in str(caught.value)
    assert len(str(caught.value)) < LIMIT + 150


def test_a_long_message_in_a_watch_is_cut() -> None:
    line = {"type": "ERROR", "object": {"kind": "Status", "message": LONG, "code": 410}}
    with pytest.raises(WatchEndedError) as caught:
        ask(watch, httpx2.Response(200, text=json.dumps(line)))
    assert len(str(caught.value)) < LIMIT + 50


@pytest.mark.parametrize("charset", ["utf-8", "hex", "utf-16", "unknown"])
def test_a_watch_is_read_as_utf_8_and_line_by_line(charset: str) -> None:
    ends_no_line = "\x85 \u2028 \u2029"
    pod = {"metadata": {"name": ends_no_line, "namespace": "shop", "uid": "1"}}
    line = json.dumps({"type": "MODIFIED", "object": pod}, ensure_ascii=False) + "\n"
    third = len(line.encode()) // 3
    chunks = [line.encode()[:third], line.encode()[third:] + line.encode()]

    class Body(httpx2.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

    async def names(api: NodeApi) -> list[str]:
        watched = api.watch_pods("n", "1", seconds=60, silence=45)
        events = [await anext(watched) for _ in range(2)]
        with pytest.raises(WatchEndedError, match="the server closed it"):
            await anext(watched)
        return [event.pod.metadata.name for event in events]

    headers = {"content-type": f"application/json; charset={charset}"}
    answer = httpx2.Response(200, headers=headers, stream=Body())
    assert ask(names, answer) == [ends_no_line] * 2


def test_an_answer_that_is_no_list_is_retryable_and_not_in_the_error() -> None:
    with pytest.raises(ClusterUnavailableError, match="cannot be read") as caught:
        ask(ASKS["pods"], httpx2.Response(200, text=json.dumps({"metadata": LONG})))
    assert len(str(caught.value)) < LIMIT


def test_after_a_401_to_an_eviction_the_next_request_has_a_new_token() -> None:
    seen = []

    def handle(request: httpx2.Request) -> httpx2.Response:
        seen.append(request.headers["authorization"])
        return httpx2.Response(401 if len(seen) == 1 else 201, json={"kind": "Status"})

    async def call() -> list[int]:
        transport = httpx2.MockTransport(handle)
        async with NodeApi("https://cluster.invalid", Token(), transport) as api:
            answers = [await api.evict(POD, grace=1), await api.evict(POD, grace=1)]
            await asyncio.sleep(0)
            return [answer.code for answer in answers]

    assert run_virtual(call()) == [401, 201]
    assert seen == ["Bearer token", "Bearer fresh"]


async def list_nodes(api: NodeApi) -> None:
    async for _ in api.nodes():
        pass


# Every method that sends a request.
REQUESTS: dict[str, Ask] = {
    "node": ASKS["node"],
    "nodes": list_nodes,
    "patch_node": ASKS["patch"],
    "pods": ASKS["pods"],
    "watch_pods": watch,
    "evict": lambda api: api.evict(POD, grace=1),
    "delete": lambda api: api.delete(POD, grace=1),
    "create_event": ASKS["event"],
    "config_map": lambda api: api.config_map(AGENT, AGENT_METADATA),
}
VERBS = {"GET": "get", "POST": "create", "PATCH": "patch", "DELETE": "delete"}
PATH = re.compile(
    r"/api/v1/(?:namespaces/[^/]+/)?(?P<kind>[^/]+)(?:/(?P<name>[^/]+)(?P<part>/.+)?)?"
)


def right_of(request: httpx2.Request) -> tuple[str, str]:
    """The resource and the verb that RBAC decides on."""
    found = PATH.fullmatch(request.url.path)
    assert found is not None
    verb = VERBS[request.method]
    if verb == "get" and not found["name"]:
        verb = "watch" if "watch" in request.url.params else "list"
    return found["kind"] + (found["part"] or ""), verb


def test_the_cluster_role_has_a_right_for_each_request_and_no_other() -> None:
    assert {name for name in vars(NodeApi) if not name.startswith("_")} == REQUESTS.keys()
    needed = set()

    def handle(request: httpx2.Request) -> httpx2.Response:
        needed.add(right_of(request))
        return httpx2.Response(404, json={"kind": "Status", "reason": "NotFound", "code": 404})

    for each in REQUESTS.values():
        with contextlib.suppress(CastaiError, WatchEndedError):
            ask(each, handle)
    assert needed == {(resource, verb) for resource, verbs, _ in RULES for verb in verbs}
