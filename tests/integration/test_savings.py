"""What an estimate reads of AWS, by a user with the policy of `castai-eks policy savings` alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from lambdas.common import clock
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.errors import AwsRefusedError
from lambdas.onboarding.policies import savings as savings_policies
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import FunctionScope
from sandbox.aws import Aws
from sandbox.state import State
from savings import files
from savings.prices import Prices
from savings.read_prices import Source, price_list_region
from savings.rights import MissingRightsError
from savings.snapshot import Node, Snapshot
from tests.integration.test_emulator import User, denied

USED = ("m5.xlarge", "t3.large")


@pytest.fixture
def document(account: Aws, state: State) -> Document:
    where = FunctionScope("aws", account.account, (account.region,))
    return savings_policies.reader(where, state.cluster)


@pytest.fixture
def user(account: Aws) -> User:
    return User(account)


def source(user: User, account: Aws, progress: Callable[[str], None] = lambda _: None) -> Source:
    assert price_list_region(account.region) == account.region
    calls = AwsCalls(clock.SYSTEM, lambda: clock.SYSTEM.now() + 30)
    return Source(user.client("ec2"), user.client("pricing"), calls, account.region, progress)


def test_the_policy_is_enough_for_all_prices(
    user: User, account: Aws, document: Document, state: State
) -> None:
    user.attach(document)
    said: list[str] = []
    prices: Prices = source(user, account, said.append).read(USED)
    assert user.client("eks").describe_cluster(name=state.cluster)
    assert user.client("ec2").describe_instances()
    # The emulator's pages are shorter than its lists.
    assert {"instance types, page 2", "list prices, page 2", "spot prices, page 2"} <= set(said)
    found = {each.name: each for each in prices.types}
    m5 = found["m5.xlarge"]
    assert (m5.on_demand, m5.vcpus, m5.memory, m5.arch) == (0.23, 4, 16 << 30, "amd64")
    assert (m5.interfaces, m5.addresses, len(m5.zones)) == (4, 15, 3)
    assert set(m5.spot) == set(m5.zones)
    assert all(price.low < price.high < 0.23 for price in m5.spot.values())
    assert found["t3.2xlarge"].burstable  # a size of a family in use
    assert not {"g4dn.xlarge", "m6g.large"} & found.keys()
    node = Node(name="n", instance_type="m5.xlarge", allocatable={})
    files.check(
        Snapshot(cluster="c", region=account.region, taken="", nodes=(node,), pods=()), prices
    )


def test_the_policy_allows_no_other_read_and_no_write(user: User, document: Document) -> None:
    user.attach(document)
    denied(user.client("iam").list_roles)
    denied(user.client("secretsmanager").get_secret_value, SecretId="castai/api-key")
    ec2 = user.client("ec2")
    denied(ec2.run_instances, ImageId="ami-0123", MinCount=1, MaxCount=1)
    denied(ec2.terminate_instances, InstanceIds=["i-0123456789abcdef0"])


def test_each_missing_right_is_said(user: User, account: Aws, document: Document) -> None:
    user.attach({"Version": "2012-10-17", "Statement": document["Statement"][:1]})
    with pytest.raises(MissingRightsError) as missing:
        source(user, account).read(USED)
    lines = str(missing.value).splitlines()
    assert "castai-eks policy savings" in lines[0]
    assert [
        next(action for action in savings_policies.PRICE_READS if f"{action}: " in line)
        for line in lines[1:]
    ] == [
        "ec2:DescribeInstanceTypes",
        "ec2:DescribeInstanceTypeOfferings",
        "ec2:DescribeSpotPriceHistory",
        "pricing:GetProducts",
    ]


@pytest.mark.parametrize("action", savings_policies.PRICE_READS)
def test_without_one_right_that_one_is_said(
    user: User, account: Aws, document: Document, action: str
) -> None:
    changed: dict[str, Any] = copy.deepcopy(document)
    changed["Statement"][1]["Action"].remove(action)
    user.attach(changed)
    with pytest.raises(MissingRightsError) as missing:
        source(user, account).read(USED)
    (line,) = str(missing.value).splitlines()[1:]
    assert f"{action}: " in line


@pytest.fixture
def _throttled(account: Aws) -> Iterator[None]:
    account.fail("ec2", "DescribeSpotPriceHistory")
    account.fail("pricing", "GetProducts")
    yield
    assert account.faults_left() == []


@pytest.mark.usefixtures("_throttled")
def test_a_throttled_read_is_tried_again(user: User, account: Aws, document: Document) -> None:
    user.attach(document)
    assert source(user, account).read(USED).types


def test_what_ec2_refuses_is_no_missing_right(user: User, account: Aws, document: Document) -> None:
    user.attach(document)
    account.fail("ec2", "DescribeInstanceTypes", "InvalidNextToken")
    with pytest.raises(AwsRefusedError, match="InvalidNextToken"):
        source(user, account).read(USED)
