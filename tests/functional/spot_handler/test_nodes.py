"""From an instance id to the node of a cluster, or to the reason why there is none."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from lambdas.common.errors import AwsRefusedError, AwsUnavailableError
from lambdas.spot_handler.result import Outcome
from tests.functional.spot_handler.conftest import Account, Scene, make_scene, virtual


@pytest.fixture
def scene(account: Account) -> Scene:
    return make_scene(account)


@virtual
async def test_an_unknown_instance_is_not_ours(scene: Scene) -> None:
    async with scene.cluster:
        scene.account.instance = "i-0000000000000dead"
        result = await scene.notice()
        assert result.outcome is Outcome.IGNORED
        assert result.reason == "EC2 does not know the instance"


@virtual
async def test_an_instance_without_a_clusters_tag_is_not_ours(scene: Scene) -> None:
    async with scene.cluster:
        scene.account.tag({"Name": "bastion"})
        result = await scene.notice()
        assert (result.outcome, result.cluster) == (Outcome.IGNORED, "")
        assert "no tag" in result.reason


@virtual
async def test_a_cluster_that_is_not_on_the_list_is_not_ours(scene: Scene) -> None:
    async with scene.cluster:
        result = await scene.notice(clusters=frozenset({"blue"}))
        assert (result.outcome, result.reason) == (
            Outcome.IGNORED,
            "cluster shop is not on the list",
        )


@virtual
async def test_a_cluster_that_is_none_of_ekss_is_not_ours(scene: Scene) -> None:
    async with scene.cluster:
        scene.account.tag({"kubernetes.io/cluster/kops": "owned"})
        result = await scene.notice()
        assert (result.outcome, result.reason) == (Outcome.IGNORED, "EKS has no cluster kops")


@virtual
async def test_an_instance_that_is_gone_is_too_late(scene: Scene) -> None:
    async with scene.cluster:
        scene.account.ec2.terminate_instances(InstanceIds=[scene.account.instance])
        result = await scene.notice()
        assert (result.outcome, result.reason) == (Outcome.TOO_LATE, "the instance is terminated")
        assert scene.asked() == {}


@virtual
async def test_a_node_of_another_name_is_found_by_its_provider_id(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build(node="worker-7")
        for number in range(1200):
            cluster.add_node(f"n-{number:04}", f"aws:///a/i-{number:017x}")
        result = await scene.notice()
        assert (result.outcome, result.node) == (Outcome.DRAINED, "worker-7")
        assert scene.asked()["list nodes"] == 3


@virtual
async def test_a_name_that_belongs_to_another_instance_is_not_believed(scene: Scene) -> None:
    async with scene.cluster as cluster:
        cluster.add_node(scene.node, "aws:///eu-central-1a/i-0000000000000beef")
        scene.build(node="worker-7", provider_id=f"aws:///a/{scene.account.instance.upper()}")
        result = await scene.notice()
        assert result.node == "worker-7"
        other = cluster.get("nodes", scene.node)
        assert other is not None
        assert "unschedulable" not in other["spec"]


@virtual
async def test_an_instance_without_a_dns_name_is_found(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        deps = scene.deps()

        def nameless(parsed: Any, **_: Any) -> None:
            parsed["Reservations"][0]["Instances"][0]["PrivateDnsName"] = ""

        deps.ec2.meta.events.register("after-call.ec2.DescribeInstances", nameless)
        result = await scene.notice(deps=deps)
        assert (result.outcome, result.node) == (Outcome.DRAINED, scene.node)


@virtual
async def test_a_node_named_by_its_instance_id_costs_no_list(scene: Scene) -> None:
    async with scene.cluster:
        scene.build(node=scene.account.instance)
        result = await scene.notice()
        assert (result.outcome, result.node) == (Outcome.DRAINED, scene.account.instance)
        assert "list nodes" not in scene.asked()


@virtual
async def test_a_node_that_registers_after_the_notice_is_found(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build(node="other-0", provider_id="aws:///eu-central-1a/i-0000000000000dead")
        provider_id = f"aws:///eu-central-1a/{scene.account.instance}"
        register = partial(cluster.add_node, scene.node, provider_id)
        asyncio.get_running_loop().call_later(17, register)
        result = await scene.notice()
        assert (result.outcome, result.node) == (Outcome.DRAINED, scene.node)


@virtual
async def test_an_instance_that_ends_before_it_registers_is_not_waited_for(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build(provider_id="dummy")
        started = cluster.now()
        ec2, instance = scene.account.ec2, scene.account.instance
        asyncio.get_running_loop().call_later(
            7, lambda: ec2.terminate_instances(InstanceIds=[instance])
        )
        result = await scene.notice()
        assert result.outcome is Outcome.NODE_NOT_FOUND
        assert cluster.now() - started == pytest.approx(10, abs=1)


@virtual
async def test_no_node_is_this_instance(scene: Scene) -> None:
    async with scene.cluster:
        scene.build(provider_id="dummy")
        result = await scene.notice()
        assert result.outcome is Outcome.NODE_NOT_FOUND
        assert scene.account.instance in result.reason
        assert 25 <= result.ended - result.started <= 31


def answering(scene: Scene, call: str, code: int, body: bytes, times: float) -> Any:
    """Dependencies whose AWS client gets `times` answers of this kind before the real ones."""
    deps = scene.deps()
    left = [times]

    def fault(request: Any, **_: Any) -> AWSResponse | None:
        if left[0] <= 0:
            return None
        left[0] -= 1
        return AWSResponse(request.url, code, {}, Raw(body))

    client = deps.ec2 if call.startswith("ec2") else deps.clusters._eks
    client.meta.events.register_first(f"before-send.{call}", fault)
    return deps


class Raw:
    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: Any) -> Any:
        yield self.body


def ec2_error(code: str) -> bytes:
    error = f"<Error><Code>{code}</Code><Message>m</Message></Error>"
    return f"<Response><Errors>{error}</Errors></Response>".encode()


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "InternalError"])
@virtual
async def test_aws_that_throttles_is_asked_again(scene: Scene, code: str) -> None:
    async with scene.cluster:
        scene.build()
        scene.pod("web")
        deps = answering(scene, "ec2.DescribeInstances", 503, ec2_error(code), 4)
        result = await scene.notice(deps=deps)
        assert result.outcome is Outcome.DRAINED
        assert result.ended - result.started > 1


@virtual
async def test_aws_that_never_answers_fails_the_invocation_in_time(scene: Scene) -> None:
    async with scene.cluster as cluster:
        deps = answering(scene, "ec2.DescribeInstances", 503, ec2_error("Unavailable"), 1e9)
        started = cluster.now()
        with pytest.raises(AwsUnavailableError, match="ec2:DescribeInstances"):
            await scene.notice(deps=deps)
        assert 110 < cluster.now() - started < 122


@virtual
async def test_a_missing_permission_is_named_at_once(scene: Scene) -> None:
    async with scene.cluster as cluster:
        deps = answering(
            scene, "ec2.DescribeInstances", 403, ec2_error("UnauthorizedOperation"), 1e9
        )
        started = cluster.now()
        with pytest.raises(AwsRefusedError, match="Allow ec2:DescribeInstances"):
            await scene.notice(deps=deps)
        assert cluster.now() == started


@virtual
async def test_a_cluster_is_described_once_per_container(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        asked = []
        deps = scene.deps()
        deps.clusters._eks.meta.events.register_first(
            "before-send.eks.DescribeCluster", lambda **_: asked.append(1)
        )
        await scene.notice(deps=deps)
        await scene.notice(deps=deps)
        assert len(asked) == 1
