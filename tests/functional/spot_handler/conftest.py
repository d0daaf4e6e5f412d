"""The handler against moto's EC2 and EKS and the simulated cluster, in virtual time."""

from __future__ import annotations

import asyncio
import base64
import inspect
import logging
import sys
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml
from moto import mock_aws
from moto.eks.models import eks_backends
from msgspec import structs

from kubesim import SimulatedCluster
from kubesim.authentication import User
from kubesim.virtual import VirtualLoop, run_virtual
from lambdas.common import aws, eks
from lambdas.common.clock import Clock
from lambdas.common.names import METRICS_SERVICE
from lambdas.spot_handler import handler, interruption, lean_sdk, notices, report
from lambdas.spot_handler.interruption import Dependencies
from lambdas.spot_handler.nodes import Clusters
from lambdas.spot_handler.result import Result
from lambdas.spot_handler.settings import Environment
from tests.support.aws_environment import aws_environment
from tests.support.events import spot_notice
from tests.support.lambda_context import LambdaContext

REGION = "eu-central-1"
CLUSTER = "shop"
RBAC = Path(__file__).parents[3] / "manifests" / "spot-handler-rbac.yaml"
REMAINING = 147.0  # s: the function's time-out less its start


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run an asynchronous test on an event loop with virtual time."""

    @wraps(test)
    def run(**arguments: Any) -> None:
        run_virtual(test(**arguments))

    run.__signature__ = inspect.signature(test)  # type: ignore[attr-defined]
    return run


@dataclass
class Account:
    """An account with one EKS cluster and one instance of it."""

    ec2: Any
    eks: Any
    instance: str
    dns_name: str

    def tag(self, tags: dict[str, str]) -> None:
        """Replace the instance's tags."""
        found = self.ec2.describe_instances(InstanceIds=[self.instance])
        old = found["Reservations"][0]["Instances"][0].get("Tags", [])
        if old:
            self.ec2.delete_tags(Resources=[self.instance], Tags=old)
        new = [{"Key": key, "Value": value} for key, value in tags.items()]
        if new:
            self.ec2.create_tags(Resources=[self.instance], Tags=new)


def point_cluster_at(endpoint: str, ca_pem: str) -> None:
    """Give moto's cluster this endpoint and CA: moto's own are not usable."""
    cluster = eks_backends["123456789012"][REGION].clusters[CLUSTER]
    cluster.endpoint = endpoint
    cluster.certificate_authority = {"data": base64.b64encode(ca_pem.encode()).decode()}


def open_account() -> Iterator[Account]:
    with aws_environment(REGION), mock_aws():
        lean_sdk.session.cache_clear()
        ec2 = boto3.client("ec2", region_name=REGION)
        eks = boto3.client("eks", region_name=REGION)
        subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
        eks.create_cluster(
            name=CLUSTER,
            roleArn="arn:aws:iam::123456789012:role/cluster",
            resourcesVpcConfig={"subnetIds": [subnet]},
        )
        point_cluster_at("https://cluster.invalid", "-----BEGIN CERTIFICATE-----\n")
        image = ec2.register_image(Name="node")["ImageId"]
        launched = ec2.run_instances(ImageId=image, MinCount=1, MaxCount=1)["Instances"][0]
        account = Account(ec2, eks, launched["InstanceId"], launched["PrivateDnsName"])
        account.tag({f"kubernetes.io/cluster/{CLUSTER}": "owned"})
        yield account
    lean_sdk.session.cache_clear()


@pytest.fixture(scope="module")
def shared_account() -> Iterator[Account]:
    """For tests that leave the account as it is: moto takes longer to set up than a drain."""
    yield from open_account()


@pytest.fixture
def account() -> Iterator[Account]:
    """For tests that change the account."""
    yield from open_account()


class EksUsers:
    """Authenticates the function's tokens, as a cluster does with an EKS access entry."""

    def __init__(self) -> None:
        self.groups = ["castai:spot-handler"]
        self.refuse_next = 0.0
        self.seen: list[str] = []

    def accept(self) -> None:
        self.refuse_next = 0.0

    async def authenticate(self, token: str) -> User | None:
        if not token.startswith(eks.TOKEN_PREFIX):
            return None
        self.seen.append(token)
        if self.refuse_next:
            self.refuse_next -= 1
            return None
        return User("castai-spot", (*self.groups, "system:authenticated"))


@dataclass
class SpotTestbed:
    """The handler and a cluster of three nodes; one node is the account's instance."""

    account: Account
    cluster: SimulatedCluster
    users: EksUsers
    settings: Environment = field(default_factory=Environment)

    @property
    def node(self) -> str:
        return self.account.dns_name

    def build(self, *, node: str | None = None, provider_id: str | None = None) -> None:
        for document in yaml.safe_load_all(RBAC.read_text()):
            self.cluster.create(document)
        own = provider_id or f"aws:///eu-central-1a/{self.account.instance}"
        self.cluster.add_node(node or self.node, own)
        for number in (1, 2):
            self.cluster.add_node(
                f"other-{number}", f"aws:///eu-central-1b/i-00000000000000{number:03}"
            )

    def pod(self, name: str, **options: Any) -> dict[str, Any]:
        return self.cluster.add_pod(name, options.pop("node", self.node), **options)

    def names(self, node: str | None = None) -> set[str]:
        """The names of the pods on a node, by default on the interrupted one."""
        return {pod["metadata"]["name"] for pod in self.cluster.pods_on(node or self.node)}

    def clock(self) -> Clock:
        def sleep(seconds: float) -> None:
            loop = asyncio.get_running_loop()
            assert isinstance(loop, VirtualLoop)
            loop.jump(seconds)

        return Clock(now=self.cluster.now, sleep=sleep)

    def deps(self, **settings: Any) -> Dependencies:
        session = lean_sdk.session()
        return Dependencies(
            settings=structs.replace(self.settings, **settings),
            ec2=session.create_client("ec2", config=aws.CONFIG),
            clusters=Clusters(session, self.clock()),
            transport=lambda _ca, _connections: self.cluster.transport(),
            clock=self.clock(),
        )

    def event(self, *, age: float = 0.0, **changes: Any) -> dict[str, Any]:
        given = datetime.fromtimestamp(self.cluster.now() - age, UTC)
        time = given.isoformat().replace("+00:00", "Z")
        return spot_notice(self.account.instance, **({"time": time} | changes))

    async def notice(
        self, *, age: float = 0.0, deps: Dependencies | None = None, action: str = "terminate",
        remaining: float = REMAINING, **settings: Any,
    ) -> Result:  # fmt: skip
        """Deliver a spot notice that is `age` seconds old."""
        event = self.event(age=age, action=action)
        return await self._handle(event, deps or self.deps(**settings), remaining)

    async def running(self, *, age: float = 0.0) -> Result:
        """Deliver a state-change event (running) that is `age` seconds old."""
        detail = {"instance-id": self.account.instance, "state": "running"}
        kind = "EC2 Instance State-change Notification"
        event = self.event(age=age, detail_type=kind, detail=detail)
        return await self._handle(event, self.deps(), REMAINING)

    async def _handle(self, event: dict[str, Any], deps: Dependencies, remaining: float) -> Result:
        notice = notices.parse(event, now=self.cluster.now())
        assert notice is not None
        limit = self.cluster.now() + remaining
        return await interruption.handle(notice, deps, time_limit=limit)

    def requests(self) -> dict[str, int]:
        return dict(self.cluster.log.by_verb())


@pytest.fixture
def testbed(shared_account: Account) -> SpotTestbed:
    """A testbed whose cluster is not started: the test enters `testbed.cluster`."""
    return make_testbed(shared_account)


def make_testbed(account: Account) -> SpotTestbed:
    users = EksUsers()
    return SpotTestbed(account, SimulatedCluster(authenticators=[users]), users)


class Stdout:
    """Writes to the current sys.stdout: `capsys` replaces it in each test."""

    def write(self, text: str) -> int:
        return sys.stdout.write(text)

    def flush(self) -> None:
        sys.stdout.flush()


@pytest.fixture
def container() -> None:
    """A cold Lambda container, whose log goes where `capsys` reads."""
    handler.dependencies.cache_clear()
    report.logger.cache_clear()
    report.logger()
    # logging keeps its handlers between tests, with the stream of an earlier test.
    for known in logging.getLogger(METRICS_SERVICE).handlers:
        assert isinstance(known, logging.StreamHandler)
        known.stream = Stdout()


def call(event: object, *, remaining: int = 150_000) -> dict[str, Any]:
    return handler.lambda_handler(event, LambdaContext(remaining))  # type: ignore[arg-type]
