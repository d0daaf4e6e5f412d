"""The world of a day: an account, its clusters, CAST AI, and one virtual clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any, Final, TypeVar
from unittest import mock

import httpx2
import lightkube
from httpx2 import _urlparse, _urls
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster as ClusterConfig

from kubesim import SimulatedCluster
from kubesim.authentication import User
from kubesim.controllers import ALL
from kubesim.virtual import AsgiApp, Message, VirtualLoop, scope_of
from lambdas.common.castai import CastaiApi
from lambdas.common.clock import Clock
from lambdas.common.eks import Cluster, Token
from lambdas.common.kubernetes_objects import REQUEST_TIMEOUT, Kube, config_of
from sandbox.castai_api.app import App
from sandbox.castai_api.state import State
from simulation.resources import account
from simulation.resources.account import Moto, sdk_client
from simulation.resources.calls import Gate, GatedClient, GatedTransport
from simulation.resources.eks import ACCOUNT, FakeEks, FakeLambda, refusal

START: Final = 1_800_000_000.0  # epoch seconds
API_URL: Final = "https://castai.invalid"
API_KEY: Final = "castai-api-key-of-the-days"
API_KEY_SECRET: Final = "castai/api-key"  # noqa: S105 - a name
KUBERNETES_TOKEN: Final = "k8s-aws-v1.of-the-days"  # noqa: S105 - of a simulated cluster only
OWN_ROLE: Final = f"arn:aws:iam::{ACCOUNT}:role/castai-function"
SECRETS: Final = (API_KEY, KUBERNETES_TOKEN)
"""What no log line, answer or error may contain; access keys are added."""
CA: Final = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"

_parse_url: Final = lru_cache(4096)(_urlparse.urlparse)
"""A day sends its requests to the same URLs again and again, and httpx2 parses each three times."""

T = TypeVar("T")


@dataclass(frozen=True)
class Place:
    """A cluster of the account."""

    region: str
    name: str


PLACES: Final = (
    Place("eu-central-1", "prod"),
    Place("eu-central-1", "shop"),
    Place("us-east-1", "prod"),
)
REGIONS: Final = tuple(dict.fromkeys(place.region for place in PLACES))


class _Admitted:
    """Authenticates the function's token while its access entry exists, as EKS does.

    A cluster without access entries has a mapping of the function's role, made by hand.
    """

    def __init__(self, eks: FakeEks) -> None:
        self._eks = eks

    async def authenticate(self, token: str) -> User | None:
        entry = self._eks.entries.get(OWN_ROLE)
        has_entry = self._eks.admits(OWN_ROLE) and bool(entry and entry.policies)
        if token != KUBERNETES_TOKEN or not (has_entry or "API" not in self._eks.mode):
            return None
        return User(OWN_ROLE, ("system:masters", "system:authenticated"))


class RegionalEks:
    """EKS's client of a region with several clusters."""

    def __init__(self, clusters: dict[str, FakeEks]) -> None:
        self._clusters = clusters

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """The method of an operation."""

        def call(**arguments: Any) -> Any:
            arn = str(arguments.get("resourceArn", "//"))
            cluster = arguments.get("clusterName") or arguments.get("name") or arn.split("/")[1]
            if cluster not in self._clusters:
                raise refusal("ResourceNotFoundException", f"No cluster found for name: {cluster}.")
            return getattr(self._clusters[cluster], name)(**arguments)

        return call


@dataclass
class World:
    """Everything outside the functions."""

    loop: VirtualLoop
    castai: State
    castai_app: AsgiApp
    eks: dict[Place, FakeEks] = field(default_factory=dict)
    kubernetes: dict[Place, SimulatedCluster] = field(default_factory=dict)
    functions: FakeLambda = field(default_factory=FakeLambda)
    aws_auth: dict[Place, dict[str, str] | None] = field(default_factory=dict)
    """The data of aws-auth as it would be without us."""
    keys_of_others: set[str] = field(default_factory=set)
    """Ids of the access keys that others made."""
    secrets: list[str] = field(default_factory=list)
    """The secret access keys that IAM made."""
    writes: int = 0
    """Calls to moto that may have changed its tables."""
    read: dict[str, tuple[object, dict[str, Any]]] = field(default_factory=dict)
    """What `facts.of` read last, and at which state."""

    @property
    def clock(self) -> Clock:
        """The virtual clock."""
        return Clock(now=self.loop.wall_time, sleep=self.sleep)

    def sleep(self, seconds: float) -> None:
        """Let time pass: timers of the clusters end."""
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def act(self, change: Callable[[], T]) -> T:
        """Change a cluster from outside its API: its controllers need the running loop."""

        async def acting() -> T:
            return change()

        return self.loop.run_until_complete(acting())

    def client(self, service: str, region: str) -> Any:
        """A client of AWS without faults."""
        if service == "eks":
            return RegionalEks({p.name: eks for p, eks in self.eks.items() if p.region == region})
        if service == "lambda":
            return self.functions
        return Moto(service, region, self.secrets.append, self._note_write)

    def _note_write(self) -> None:
        self.writes += 1

    def gated(self, service: str, region: str, gate: Gate) -> Any:
        """A client of AWS behind a gate."""
        client = self.client(service, region)
        return GatedClient(client, service, sdk_client(service).meta, gate)

    def open_kube(self, gate: Gate) -> Callable[[Cluster, Clock, float, float], Kube]:
        """Connects to the clusters through a gate."""

        def connect(
            cluster: Cluster, clock: Clock, until: float, refusals_pass_until: float
        ) -> Kube:
            at = Place(cluster.region, cluster.name)
            app = self.kubernetes[at].app
            client = lightkube.Client(
                _without_tls(config_of(cluster, Token(lambda: KUBERNETES_TOKEN))),
                timeout=httpx2.Timeout(REQUEST_TIMEOUT),
                trust_env=False,
                transport=GatedTransport("kubernetes", lambda r: self._send(app, r), gate),
            )
            return Kube(client, clock=clock, until=until, refusals_pass_until=refusals_pass_until)

        return connect

    def open_api(self, gate: Gate) -> Callable[[str, str, Clock, float], CastaiApi]:
        """Connects to CAST AI through a gate."""

        def connect(key: str, url: str, clock: Clock, until: float) -> CastaiApi:
            transport = GatedTransport("castai", lambda r: self._send(self.castai_app, r), gate)
            return CastaiApi(key, url, clock=clock, deadline=until, transport=transport)

        return connect

    def _send(self, app: AsgiApp, request: httpx2.Request) -> httpx2.Response:
        """Let the application answer in the loop. An answer is read as a whole."""
        body = request.read()
        messages: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Message) -> None:
            messages.append(message)

        self.loop.run_until_complete(app(scope_of(request), receive, send))
        start, *parts = messages
        content = b"".join(part.get("body", b"") for part in parts)
        return httpx2.Response(
            start["status"], headers=start.get("headers", []), content=content, request=request
        )

    def vpc(self, region: str) -> str:
        """The VPC of a region."""
        return str(next(iter(account.ec2_tables(region).vpcs)))


def _without_tls(config: SingleConfig) -> SingleConfig:
    """The transport has no TLS; to read certificates takes longer than all requests of a run."""
    server = ClusterConfig(server=config.cluster.server, insecure=True)
    return config._replace(cluster=server)  # a named tuple


@contextmanager
def opened(
    places: Sequence[Place], modes: Sequence[str], *, controllers: bool = False
) -> Iterator[World]:
    """A world with an empty account and these clusters; `modes`: their authentication modes.

    `controllers`: whether the clusters' controllers run.
    """
    before = random.getstate()
    random.seed(0)  # for the waits of lambdas/common/retry.py
    loop = VirtualLoop(START)
    castai = State(API_KEY, now=loop.wall_time)
    world = World(loop, castai, App(castai))
    account.reset(REGIONS)
    without = () if controllers else tuple(each.name for each in ALL)
    try:
        with (
            account.as_aws(loop.wall_time),
            mock.patch.object(_urls, "urlparse", _parse_url),
            mock.patch.object(_urlparse, "urlparse", _parse_url),
        ):
            for place, mode in zip(places, modes, strict=True):
                eks = FakeEks(place.name, region=place.region, vpc=world.vpc(place.region))
                eks.mode, eks.ca_pem, eks.now = mode, CA, loop.wall_time
                eks.unique_id = account.unique_id
                cluster = SimulatedCluster(
                    authenticators=(_Admitted(eks),), without=without, now=loop.wall_time
                )
                loop.run_until_complete(cluster.__aenter__())
                world.eks[place], world.kubernetes[place] = eks, cluster
                if controllers:
                    world.act(partial(cluster.add_node, "node-1"))
            for region in REGIONS:
                world.client("secretsmanager", region).create_secret(
                    Name=API_KEY_SECRET, SecretString=API_KEY
                )
            yield world
    finally:
        for cluster in world.kubernetes.values():
            loop.run_until_complete(cluster.__aexit__(None, None, None))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()
        random.setstate(before)
