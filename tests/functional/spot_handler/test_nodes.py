"""The search for the instance's cluster and node, and the reasons where there is none."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import pytest
from botocore.awsrequest import AWSResponse

from lambdas.common.errors import AwsRefusedError, AwsUnavailableError
from lambdas.spot_handler.result import Outcome
from tests.functional.spot_handler.conftest import Account, SpotTestbed, make_testbed, virtual


@pytest.fixture
def testbed(account: Account) -> SpotTestbed:
    return make_testbed(account)


@virtual
async def test_an_unknown_instance_is_ignored(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.account.instance = "i-0000000000000dead"
        result = await testbed.notice()
        assert result.outcome is Outcome.IGNORED
        assert result.reason == "EC2 does not know the instance"


@virtual
async def test_an_instance_without_a_cluster_tag_is_ignored(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.account.tag({"Name": "bastion"})
        result = await testbed.notice()
        assert (result.outcome, result.cluster) == (Outcome.IGNORED, "")
        assert "no tag" in result.reason


@virtual
async def test_a_cluster_that_is_not_listed_is_ignored(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        result = await testbed.notice(clusters=frozenset({"blue"}))
        assert (result.outcome, result.reason) == (
            Outcome.IGNORED,
            "cluster shop is not on the list",
        )


@virtual
async def test_a_cluster_that_is_not_in_eks_is_ignored(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.account.tag({"kubernetes.io/cluster/kops": "owned"})
        result = await testbed.notice()
        assert (result.outcome, result.reason) == (Outcome.IGNORED, "EKS has no cluster kops")


@virtual
async def test_a_notice_for_a_terminated_instance_is_too_late(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.account.ec2.terminate_instances(InstanceIds=[testbed.account.instance])
        result = await testbed.notice()
        assert (result.outcome, result.reason) == (Outcome.TOO_LATE, "the instance is terminated")
        assert testbed.requests() == {}


@virtual
async def test_a_node_of_another_name_is_found_by_its_provider_id(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build(node="worker-7")
        for number in range(1200):
            cluster.add_node(f"n-{number:04}", f"aws:///a/i-{number:017x}")
        result = await testbed.notice()
        assert (result.outcome, result.node) == (Outcome.DRAINED, "worker-7")
        assert testbed.requests()["list nodes"] == 3


@virtual
async def test_a_node_of_this_name_with_another_provider_id_is_not_cordoned(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        cluster.add_node(testbed.node, "aws:///eu-central-1a/i-0000000000000beef")
        testbed.build(node="worker-7", provider_id=f"aws:///a/{testbed.account.instance.upper()}")
        result = await testbed.notice()
        assert result.node == "worker-7"
        other = cluster.get("nodes", testbed.node)
        assert other is not None
        assert "unschedulable" not in other["spec"]


@virtual
async def test_an_instance_without_a_dns_name_is_found(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        deps = testbed.deps()

        def nameless(parsed: Any, **_: Any) -> None:
            parsed["Reservations"][0]["Instances"][0]["PrivateDnsName"] = ""

        deps.ec2.meta.events.register("after-call.ec2.DescribeInstances", nameless)
        result = await testbed.notice(deps=deps)
        assert (result.outcome, result.node) == (Outcome.DRAINED, testbed.node)


@virtual
async def test_a_node_named_by_its_instance_id_is_found_without_a_list(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster:
        testbed.build(node=testbed.account.instance)
        result = await testbed.notice()
        assert (result.outcome, result.node) == (Outcome.DRAINED, testbed.account.instance)
        assert "list nodes" not in testbed.requests()


@virtual
async def test_a_node_that_registers_after_the_notice_is_found(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build(node="other-0", provider_id="aws:///eu-central-1a/i-0000000000000dead")
        provider_id = f"aws:///eu-central-1a/{testbed.account.instance}"
        register = partial(cluster.add_node, testbed.node, provider_id)
        asyncio.get_running_loop().call_later(17, register)
        result = await testbed.notice()
        assert (result.outcome, result.node) == (Outcome.DRAINED, testbed.node)


@virtual
async def test_the_search_ends_when_the_instance_is_terminated(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build(provider_id="dummy")
        started = cluster.now()
        ec2, instance = testbed.account.ec2, testbed.account.instance
        asyncio.get_running_loop().call_later(
            7, lambda: ec2.terminate_instances(InstanceIds=[instance])
        )
        result = await testbed.notice()
        assert result.outcome is Outcome.NODE_NOT_FOUND
        assert cluster.now() - started == pytest.approx(10, abs=1)


@virtual
async def test_the_search_ends_after_30_s_without_a_node(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build(provider_id="dummy")
        result = await testbed.notice()
        assert result.outcome is Outcome.NODE_NOT_FOUND
        assert testbed.account.instance in result.reason
        assert 25 <= result.ended - result.started <= 31


def answering(testbed: SpotTestbed, call: str, code: int, body: bytes, times: float) -> Any:
    """Dependencies whose AWS client gets `times` answers of this kind before the real ones."""
    deps = testbed.deps()
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
    """The body of an HTTP response, as urllib3 gives it."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def stream(self, **_: Any) -> Any:
        yield self.body


def ec2_error(code: str) -> bytes:
    error = f"<Error><Code>{code}</Code><Message>m</Message></Error>"
    return f"<Response><Errors>{error}</Errors></Response>".encode()


@pytest.mark.parametrize("code", ["RequestLimitExceeded", "InternalError"])
@virtual
async def test_a_throttled_call_to_aws_is_retried(testbed: SpotTestbed, code: str) -> None:
    async with testbed.cluster:
        testbed.build()
        testbed.pod("web")
        deps = answering(testbed, "ec2.DescribeInstances", 503, ec2_error(code), 4)
        result = await testbed.notice(deps=deps)
        assert result.outcome is Outcome.DRAINED
        assert result.ended - result.started > 1


@virtual
async def test_a_call_to_aws_that_always_fails_ends_at_the_deadline(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        deps = answering(testbed, "ec2.DescribeInstances", 503, ec2_error("Unavailable"), 1e9)
        started = cluster.now()
        with pytest.raises(AwsUnavailableError, match="ec2:DescribeInstances"):
            await testbed.notice(deps=deps)
        assert 110 < cluster.now() - started < 122


@virtual
async def test_a_missing_iam_permission_is_named_without_a_retry(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        deps = answering(
            testbed, "ec2.DescribeInstances", 403, ec2_error("UnauthorizedOperation"), 1e9
        )
        started = cluster.now()
        with pytest.raises(AwsRefusedError, match="Allow ec2:DescribeInstances"):
            await testbed.notice(deps=deps)
        assert cluster.now() == started


@virtual
async def test_a_cluster_is_described_once_per_lambda_container(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        calls = []
        deps = testbed.deps()
        deps.clusters._eks.meta.events.register_first(
            "before-send.eks.DescribeCluster", lambda **_: calls.append(1)
        )
        await testbed.notice(deps=deps)
        await testbed.notice(deps=deps)
        assert len(calls) == 1
