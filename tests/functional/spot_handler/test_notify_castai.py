"""The report of the interruption to CAST AI; its failure does not change the drain."""

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
from tests.functional.spot_handler.conftest import Account, SpotTestbed, make_testbed, virtual

KEY = "castai-key-of-the-tests"


class Api(httpx2.AsyncBaseTransport):
    """CAST AI's API in this event loop; the first `failures` requests fail."""

    def __init__(self, failures: float = 0, delay: float = 0) -> None:
        self.state = State(api_key=KEY)
        self.cluster = self.state.register(
            {"name": "shop", "eks": {"clusterName": "shop", "region": "eu-central-1",
                                     "accountId": "123456789012"}}
        ).id  # fmt: skip
        self.app = InMemoryTransport(App(self.state))
        self.failures = failures
        self.delay = delay
        self.requests = 0

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.requests += 1
        await asyncio.sleep(self.delay)
        if self.failures > 0:
            self.failures -= 1
            raise httpx2.ConnectError("refused", request=request)
        return await self.app.handle_async_request(request)

    @property
    def events(self) -> list[dict[str, Any]]:
        events = self.state.clusters[self.cluster].events
        return [{k: v for k, v in event.items() if k != "time"} for event in events]


def deps(testbed: SpotTestbed, api: Api, key: Any = lambda: KEY, **settings: Any) -> Dependencies:
    castai = CastAi("https://api.castai.invalid", key, testbed.clock(), transport=api)
    return replace(testbed.deps(**settings), castai=castai)


@pytest.fixture
def testbed(account: Account) -> SpotTestbed:
    return make_testbed(account)


def tag_with_id(testbed: SpotTestbed, cluster_id: str) -> None:
    testbed.account.tag({"kubernetes.io/cluster/shop": "owned", "cast:cluster-id": cluster_id})


@virtual
async def test_the_cluster_id_is_taken_from_the_instances_tag(testbed: SpotTestbed) -> None:
    api = Api()
    tag_with_id(testbed, api.cluster)
    async with testbed.cluster as cluster:
        testbed.build()
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        labels = {**node["metadata"]["labels"], "provisioner.cast.ai/node-id": "n-7"}
        cluster.set({**node, "metadata": {**node["metadata"], "labels": labels}})
        result = await testbed.notice(deps=deps(testbed, api))
        assert (result.outcome, result.castai) == (Outcome.DRAINED, "reported")
        assert result.as_dict()["castai"] == "reported"
        assert api.events == [
            {
                "event_type": "interrupted",
                "node_id": "n-7",
                "provider_id": f"aws:///eu-central-1a/{testbed.account.instance}",
            }
        ]


@virtual
async def test_without_a_tag_the_cluster_id_is_taken_from_the_agents_config_map(
    testbed: SpotTestbed,
) -> None:
    api = Api()
    async with testbed.cluster as cluster:
        testbed.build()
        cluster.add_namespace("castai-agent")
        cluster.create(
            {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": {"name": "castai-agent-metadata", "namespace": "castai-agent"},
                "data": {"CLUSTER_ID": api.cluster},
            }
        )
        result = await testbed.notice(deps=deps(testbed, api))
        assert result.castai == "reported"
        assert [event["node_id"] for event in api.events] == [""]


@virtual
async def test_without_a_cluster_id_nothing_is_reported_and_the_reason_is_given(
    testbed: SpotTestbed,
) -> None:
    api = Api()
    async with testbed.cluster:
        testbed.build()
        result = await testbed.notice(deps=deps(testbed, api))
        assert (result.outcome, result.castai) == (Outcome.DRAINED, "no_cluster_id")
        assert "cast:cluster-id" in result.castai_reason
        assert api.requests == 0


@virtual
async def test_without_an_api_key_nothing_is_reported(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        result = await testbed.notice()
        assert result.castai == ""
        assert "castai" not in result.as_dict()


async def drained_with(testbed: SpotTestbed, api: Api, **more: Any) -> tuple[Result, float]:
    """The result of a drain of one pod, and the seconds until the pod was gone."""
    tag_with_id(testbed, api.cluster)
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", shutdown=2)
        started = cluster.now()
        result = await testbed.notice(deps=deps(testbed, api, **more))
        assert result.outcome is Outcome.DRAINED
        assert result.drained_at is not None
        return result, result.drained_at - started


@virtual
async def test_a_failed_report_is_retried_and_does_not_delay_the_drain(
    testbed: SpotTestbed,
) -> None:
    api = Api(failures=5)
    result, seconds = await drained_with(testbed, api)
    assert result.castai == "reported"
    assert seconds < 3
    assert len(api.events) == 1


@virtual
async def test_an_unreachable_api_does_not_delay_the_drain(testbed: SpotTestbed) -> None:
    api = Api(failures=1e9)
    result, seconds = await drained_with(testbed, api)
    assert result.castai == "failed"
    assert "can be reached" in result.castai_reason
    assert seconds < 3
    # A waiting invocation uses concurrency of the function that other notices may need.
    assert result.ended - result.started < 17


@virtual
async def test_a_slow_api_does_not_delay_the_drain(testbed: SpotTestbed) -> None:
    result, seconds = await drained_with(testbed, Api(delay=9))
    assert result.castai == "reported"
    assert seconds < 3


@virtual
async def test_a_report_without_an_answer_ends_soon_after_the_drain(testbed: SpotTestbed) -> None:
    result, _ = await drained_with(testbed, Api(delay=1000))
    assert (result.castai, result.castai_reason) == ("failed", "CAST AI's API has not answered")
    assert result.ended - result.started < 17


@pytest.mark.parametrize("code", [400, 503])
@virtual
async def test_the_key_is_masked_in_an_answer_that_repeats_it(
    testbed: SpotTestbed, code: int
) -> None:
    api = Api()
    echo = httpx2.Response(code, json={"message": f"bad header X-API-Key: {KEY}"})
    api.handle_async_request = answering(echo)  # type: ignore[method-assign]
    result, _ = await drained_with(testbed, api)
    assert result.castai == "failed"
    assert "bad header X-API-Key: ***" in result.castai_reason


def answering(response: httpx2.Response) -> Any:
    async def answer(request: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(response.status_code, content=response.content, request=request)

    return answer


@virtual
async def test_a_secret_that_holds_no_key_is_not_shown(testbed: SpotTestbed) -> None:
    result, _ = await drained_with(testbed, Api(), key=lambda: "kéy with spaces")
    assert result.castai == "failed"
    assert "nothing else, into the secret" in result.castai_reason
    assert "kéy" not in result.castai_reason


@virtual
async def test_a_retry_waits_as_long_as_retry_after_says(testbed: SpotTestbed) -> None:
    api = Api()
    at: list[float] = []

    async def busy(request: httpx2.Request) -> httpx2.Response:
        at.append(testbed.cluster.now())
        return httpx2.Response(429, headers={"retry-after": "2"}, request=request)

    api.handle_async_request = busy  # type: ignore[method-assign]
    await drained_with(testbed, api)
    assert at[1] - at[0] >= 2


@virtual
async def test_a_wrong_key_is_sent_once_and_not_shown(testbed: SpotTestbed) -> None:
    api = Api()
    result, _ = await drained_with(testbed, api, key=lambda: "secret-but-wrong")
    assert result.castai == "failed"
    assert "API key" in result.castai_reason
    assert "secret-but-wrong" not in str(result.as_dict())
    assert api.requests == 1


@virtual
async def test_a_secret_that_cannot_be_read_is_named(testbed: SpotTestbed) -> None:
    def refuse() -> str:
        raise AwsRefusedError("Allow secretsmanager:GetSecretValue", code="AccessDenied")

    result, _ = await drained_with(testbed, Api(), key=refuse)
    assert result.castai_reason == "Allow secretsmanager:GetSecretValue"


@virtual
async def test_a_bug_in_the_report_does_not_fail_the_drain(testbed: SpotTestbed) -> None:
    def broken() -> str:
        raise RuntimeError("boom: the-key")

    result, _ = await drained_with(testbed, Api(), key=broken)
    assert result.castai == "failed"
    assert result.castai_reason.startswith("Report this as a bug: RuntimeError at ")
    assert "the-key" not in result.castai_reason


@virtual
async def test_a_drain_that_fails_does_not_wait_for_castai(testbed: SpotTestbed) -> None:
    api = Api(failures=1e9)
    tag_with_id(testbed, api.cluster)
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        words = 'pods "web" is forbidden: User "x" cannot create resource "pods/eviction"'
        denied = {"kind": "Status", "status": "Failure", "code": 403, "message": words}
        cluster.faults.add("POST", "eviction", Answer(403, denied), times=10)
        started = cluster.now()
        with pytest.raises(ClusterForbiddenError):
            await testbed.notice(deps=deps(testbed, api))
        assert cluster.now() - started < 2


@virtual
async def test_a_dry_run_reports_nothing(testbed: SpotTestbed) -> None:
    api = Api()
    tag_with_id(testbed, api.cluster)
    async with testbed.cluster:
        testbed.build()
        result = await testbed.notice(deps=deps(testbed, api, mode=Mode.DRY_RUN))
        assert (result.castai, api.requests) == ("", 0)
