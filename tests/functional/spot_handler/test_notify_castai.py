"""CAST AI is told of the interruption, and the drain does not care how that goes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from kubesim import Answer
from kubesim.virtual import InMemoryTransport
from lambdas.common.errors import AwsRefusedError, ClusterForbiddenError
from lambdas.spot_handler.interruption import Dependencies
from lambdas.spot_handler.notify_castai import CastAi
from lambdas.spot_handler.result import Outcome, Result
from lambdas.spot_handler.settings import Mode
from sandbox.castai_api.app import App
from sandbox.castai_api.state import State
from tests.functional.spot_handler.conftest import Account, Scene, make_scene, virtual

KEY = "castai-key-of-the-tests"


class Api(httpx2.AsyncBaseTransport):
    """CAST AI's API in this loop, which may fail `failures` times first."""

    def __init__(self, failures: float = 0, delay: float = 0) -> None:
        self.state = State(api_key=KEY)
        self.cluster = self.state.register(
            {"name": "shop", "eks": {"clusterName": "shop", "region": "eu-central-1",
                                     "accountId": "123456789012"}}
        ).id  # fmt: skip
        self.app = InMemoryTransport(App(self.state))
        self.failures = failures
        self.delay = delay
        self.asked = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if self.failures > 0:
            self.failures -= 1
            raise httpx2.ConnectError("refused", request=request)
        return await self.app.handle_async_request(request)

    @property
    def events(self) -> list[dict[str, Any]]:
        events = self.state.clusters[self.cluster].events
        return [{k: v for k, v in event.items() if k != "time"} for event in events]


def deps(scene: Scene, api: Api, key: Any = lambda: KEY, **settings: Any) -> Dependencies:
    castai = CastAi("https://api.castai.invalid", key, scene.clock(), transport=api)
    return replace(scene.deps(**settings), castai=castai)


@pytest.fixture
def scene(account: Account) -> Scene:
    return make_scene(account)


def tell(scene: Scene, cluster_id: str) -> None:
    scene.account.tag({"kubernetes.io/cluster/shop": "owned", "cast:cluster-id": cluster_id})


@virtual
async def test_the_interruption_is_reported_by_the_instances_tag(scene: Scene) -> None:
    api = Api()
    tell(scene, api.cluster)
    async with scene.cluster as cluster:
        scene.build()
        node = cluster.get("nodes", scene.node)
        assert node is not None
        labels = {**node["metadata"]["labels"], "provisioner.cast.ai/node-id": "n-7"}
        cluster.set({**node, "metadata": {**node["metadata"], "labels": labels}})
        result = await scene.notice(deps=deps(scene, api))
        assert (result.outcome, result.castai) == (Outcome.DRAINED, "reported")
        assert result.as_dict()["castai"] == "reported"
        assert api.events == [
            {
                "event_type": "interrupted",
                "node_id": "n-7",
                "provider_id": f"aws:///eu-central-1a/{scene.account.instance}",
            }
        ]


@virtual
async def test_else_the_agents_config_map_names_the_cluster(scene: Scene) -> None:
    api = Api()
    async with scene.cluster as cluster:
        scene.build()
        cluster.add_namespace("castai-agent")
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "castai-agent-metadata", "namespace": "castai-agent"},
                "data": {"CLUSTER_ID": api.cluster},
            }
        )
        result = await scene.notice(deps=deps(scene, api))
        assert result.castai == "reported"
        assert [event["node_id"] for event in api.events] == [""]


@virtual
async def test_without_an_id_castai_is_not_told_and_the_reason_is_given(scene: Scene) -> None:
    api = Api()
    async with scene.cluster:
        scene.build()
        result = await scene.notice(deps=deps(scene, api))
        assert (result.outcome, result.castai) == (Outcome.DRAINED, "no_cluster_id")
        assert "cast:cluster-id" in result.castai_reason
        assert api.asked == 0


@virtual
async def test_without_a_key_nothing_is_asked(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        result = await scene.notice()
        assert result.castai == ""
        assert "castai" not in result.as_dict()


async def drained_with(scene: Scene, api: Api, **more: Any) -> tuple[Result, float]:
    """A drain of one pod, and when the pod was gone, in seconds from its start."""
    tell(scene, api.cluster)
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", shutdown=2)
        started = cluster.now()
        result = await scene.notice(deps=deps(scene, api, **more))
        assert result.outcome is Outcome.DRAINED
        assert result.drained_at is not None
        return result, result.drained_at - started


@virtual
async def test_an_api_that_fails_is_asked_again_and_costs_the_drain_nothing(scene: Scene) -> None:
    api = Api(failures=5)
    result, seconds = await drained_with(scene, api)
    assert result.castai == "reported"
    assert seconds < 3
    assert len(api.events) == 1


@virtual
async def test_an_api_that_is_down_changes_nothing(scene: Scene) -> None:
    api = Api(failures=1e9)
    result, seconds = await drained_with(scene, api)
    assert result.castai == "failed"
    assert "can be reached" in result.castai_reason
    assert seconds < 3
    # An invocation that waits holds one of the function's slots, which other notices may need.
    assert result.ended - result.started < 17


@virtual
async def test_a_slow_api_changes_nothing(scene: Scene) -> None:
    result, seconds = await drained_with(scene, Api(delay=9))
    assert result.castai == "reported"
    assert seconds < 3


@virtual
async def test_an_api_that_says_nothing_is_given_up_soon_after_the_drain(scene: Scene) -> None:
    result, _ = await drained_with(scene, Api(delay=1000))
    assert (result.castai, result.castai_reason) == ("failed", "CAST AI's API has not answered")
    assert result.ended - result.started < 17


@pytest.mark.parametrize("code", [400, 503])
@virtual
async def test_an_answer_that_repeats_the_key_does_not_show_it(scene: Scene, code: int) -> None:
    api = Api()
    echo = httpx2.Response(code, json={"message": f"bad header X-API-Key: {KEY}"})
    api.handle_async_request = answering(echo)  # type: ignore[method-assign]
    result, _ = await drained_with(scene, api)
    assert result.castai == "failed"
    assert "bad header X-API-Key: ***" in result.castai_reason


def answering(response: httpx2.Response) -> Any:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(response.status_code, content=response.content, request=request)

    return answer


@virtual
async def test_a_key_that_is_none_is_not_shown(scene: Scene) -> None:
    result, _ = await drained_with(scene, Api(), key=lambda: "kéy with spaces")
    assert result.castai == "failed"
    assert "nothing else, into the secret" in result.castai_reason
    assert "kéy" not in result.castai_reason


@virtual
async def test_castais_wish_to_be_left_alone_is_honoured(scene: Scene) -> None:
    api = Api()
    at: list[float] = []

    async def busy(request: httpx2.Request) -> httpx2.Response:
        at.append(scene.cluster.now())
        return httpx2.Response(429, headers={"retry-after": "2"}, request=request)

    api.handle_async_request = busy  # type: ignore[method-assign]
    await drained_with(scene, api)
    assert at[1] - at[0] >= 2


@virtual
async def test_a_wrong_key_is_said_once_and_not_shown(scene: Scene) -> None:
    api = Api()
    result, _ = await drained_with(scene, api, key=lambda: "secret-but-wrong")
    assert result.castai == "failed"
    assert "API key" in result.castai_reason
    assert "secret-but-wrong" not in str(result.as_dict())
    assert api.asked == 1


@virtual
async def test_a_secret_that_cannot_be_read_is_named(scene: Scene) -> None:
    def refuse() -> str:
        raise AwsRefusedError("Allow secretsmanager:GetSecretValue", code="AccessDenied")

    result, _ = await drained_with(scene, Api(), key=refuse)
    assert result.castai_reason == "Allow secretsmanager:GetSecretValue"


@virtual
async def test_an_unforeseen_error_does_not_touch_the_drain(scene: Scene) -> None:
    def broken() -> str:
        raise RuntimeError("boom: the-key")

    result, _ = await drained_with(scene, Api(), key=broken)
    assert result.castai == "failed"
    assert result.castai_reason.startswith("Report this as a bug: RuntimeError at ")
    assert "the-key" not in result.castai_reason


@virtual
async def test_a_drain_that_fails_does_not_wait_for_castai(scene: Scene) -> None:
    api = Api(failures=1e9)
    tell(scene, api.cluster)
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        words = 'pods "web" is forbidden: User "x" cannot create resource "pods/eviction"'
        denied = {"kind": "Status", "status": "Failure", "code": 403, "message": words}
        cluster.faults.add("POST", "eviction", Answer(403, denied), times=10)
        started = cluster.now()
        with pytest.raises(ClusterForbiddenError):
            await scene.notice(deps=deps(scene, api))
        assert cluster.now() - started < 2


@virtual
async def test_a_dry_run_does_not_tell_castai(scene: Scene) -> None:
    api = Api()
    tell(scene, api.cluster)
    async with scene.cluster:
        scene.build()
        result = await scene.notice(deps=deps(scene, api, mode=Mode.DRY_RUN))
        assert (result.castai, api.asked) == ("", 0)
