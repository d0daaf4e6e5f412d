"""Inputs from outside, each with changes: only errors of the project come out.

A row of TARGETS is a kind of input. For every input of its corpus, and for changed ones: it is
accepted, or refused by a CastaiError whose text is bounded and repeats no secret; and a refused
input has written nothing. A failing test ends with the text of the smallest input, for a new file
in tests/corpus.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Final

import httpx2
import lightkube
import pytest
from hypothesis import given, settings
from lightkube.config.kubeconfig import SingleConfig
from lightkube.config.models import Cluster, Context, User

from lambdas.agent import handler as agent
from lambdas.agent import lifecycle, properties, read_only
from lambdas.agent.manifest import ClusterRef, render
from lambdas.common import agent_status, custom_resource
from lambdas.common.castai import CastaiApi
from lambdas.common.errors import CastaiError
from lambdas.common.kubernetes_objects import Kube, WrittenMeanwhileError
from lambdas.common.names import AGENT, OWNER_ANNOTATION, STACK_ID_VARIABLE
from lambdas.common.text import REFUSAL_LIMIT
from lambdas.onboarding import aws_auth, aws_auth_map
from lambdas.onboarding import handler as onboarding
from lambdas.onboarding.ledger import Ledger
from lambdas.spot_handler import handler as spot_handler
from lambdas.spot_handler.notify_castai import CastAi
from lambdas.spot_handler.result import CastaiReport
from lambdas.spot_handler.settings import Environment
from tests.support import corpus
from tests.support.corpus import SECRETS, Input
from tests.support.fake_time import FakeTime
from tests.unit.spot_handler.test_node_api import ASKS, ask

STACK: Final = "arn:aws:cloudformation:eu-central-1:123456789012:stack/castai-onboarding/1b2c"
KEY: Final = SECRETS["@API_KEY@"]
ACCESS_KEY: Final = SECRETS["@ACCESS_KEY@"]
LINE: Final = REFUSAL_LIMIT + 400  # characters: what another side said, and what to do


class Reached(Exception):  # noqa: N818 - the input was accepted, and a client is asked
    """A client would be called now."""


class Clients(SimpleNamespace):
    """Dependencies of a function whose clients are not to be used."""

    def __getattr__(self, name: str) -> object:
        raise Reached(name)


@contextmanager
def refused_well(*, secrets: Collection[str] = tuple(SECRETS.values())) -> Iterator[None]:
    """A CastaiError is bounded, and has none of the secrets."""
    try:
        yield
    except Reached:
        return
    except CastaiError as error:
        said = "\n".join([str(error), *getattr(error, "__notes__", ())])
        assert "Report this as a bug: Reached" in said or "Report this as a bug" not in said
        shown(said, secrets=secrets)


def shown(text: str, *, secrets: Collection[str] = tuple(SECRETS.values())) -> None:
    """A text for people: no line is too long, and none has a secret."""
    assert max(map(len, text.splitlines() or [""])) <= LINE
    text.encode()  # a log takes no lone surrogate
    assert not [marker for marker, one in SECRETS.items() if one in secrets and one in text]


def event(given: Input) -> None:
    deps = Clients(clock=FakeTime(1_700_000_000.0).clock, settings=Environment(), castai=None)
    with refused_well():
        result = asyncio.run(spot_handler.respond(given, deps, remaining=100))  # type: ignore[arg-type]
        shown(json.dumps(result, ensure_ascii=False))


def request(respond: Callable[..., Any]) -> Callable[[Input], None]:
    """A request of CloudFormation for a custom resource."""

    def check(given: Input) -> None:
        deps = Clients(clock=FakeTime(1_700_000_000.0).clock)
        of = given.get("ResourceProperties") if isinstance(given, dict) else None
        name = str(of.get("ClusterName")) if isinstance(of, dict) else ""
        with refused_well(secrets=set(SECRETS.values()) - {name}):  # a name may look like a key
            custom_resource.check_stack(given)
            json.dumps(respond(given, deps, remaining=600))

    return check


def agent_properties(given: Input) -> None:
    """What is accepted gives objects that only read, and that can be sent."""
    request(agent.respond)(given)
    of = given.get("ResourceProperties") if isinstance(given, dict) else None
    if not isinstance(of, dict):
        return
    with refused_well(secrets=set(SECRETS.values()) - {str(of.get("ClusterName"))}):
        accepted = properties.parse(of)
        objects = render(accepted, ClusterRef("123456789012", "eu-central-1", "prod"), "key")
        read_only.prove(objects, namespace=AGENT)
        sendable(objects)


def sendable(objects: object) -> None:
    json.dumps(objects, allow_nan=False).encode()


class ConfigMap(SimpleNamespace):
    """A cluster with one ConfigMap, which another client writes before our first write."""

    now: dict[str, Any] | None
    writes: int = 0

    def get(self, *_: str) -> dict[str, Any] | None:
        return self.now

    def replace(self, new: dict[str, Any], *, dry_run: bool = False) -> None:
        self.writes += 1
        if self.writes == 1:
            raise WrittenMeanwhileError("Read it again")
        if not dry_run:
            self.now = new

    def delete(self, *_: str) -> None:
        self.now = None


def aws_auth_text(given: Input) -> None:
    """A map in `mapRoles` and beside it. Our entry comes and goes; the rest stays."""
    if not isinstance(given, str):
        return
    ours = aws_auth.node_entry("arn:aws:iam::123456789012:role/cast-prod-eks-1a2b3c4d")
    for data in ({"mapRoles": given}, {"mapRoles": "[]", "mapAccounts": given}):
        metadata = {"annotations": {OWNER_ANNOTATION: "stack/Prod"}}
        kube = ConfigMap(now={"metadata": metadata, "data": data})
        ctx: Any = SimpleNamespace(
            kube=lambda kube=kube: kube,
            ledger=Ledger(),
            resource="stack/Prod",
            clock=FakeTime().clock,
            deadline=1.0,
        )
        before = kube.now
        try:
            aws_auth_map.ensure(ctx, [ours])
        except CastaiError:
            assert kube.now is before
        with refused_well():
            aws_auth_map.ensure(ctx, [ours])
            aws_auth_map.remove(ctx, [ours])
        if kube.now is not None:
            assert kube.now["data"].keys() <= data.keys()
            assert kube.now["data"].get("mapAccounts") == data.get("mapAccounts")


CALLS: Final[dict[str, Callable[[CastaiApi], object]]] = {
    "register": lambda api: api.register("prod", "eu-central-1", "123456789012"),
    "get": lambda api: api.get("id"),
    "clusters": lambda api: api.clusters(),
    "assume_role_principal": lambda api: api.assume_role_principal("id"),
    "estimated_savings": lambda api: api.estimated_savings("id"),
    "hand_over_key": lambda api: api.hand_over_key("id", "AKIA", ACCESS_KEY),
    "agent_manifest": lambda api: api.agent_manifest(),
}


def answer(given: Input) -> Callable[[httpx2.Request], httpx2.Response] | None:
    """A server that answers with the input's status, headers and body; None if HTTP has none."""
    try:
        status, headers, body = given["status"], given["headers"], given["body"]
        body = (body if isinstance(body, str) else json.dumps(body)).encode(errors="surrogatepass")
        httpx2.Response(status, headers=headers)
    except (KeyError, TypeError, ValueError, AttributeError):
        return None
    if type(status) is not int or not 200 <= status <= 599:
        return None
    return lambda _: httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(body))


def castai_answer(given: Input) -> None:
    """An answer to one call."""
    if (handle := answer(given)) is None or not isinstance(call := given.get("call"), str):
        return
    transport = httpx2.MockTransport(handle)
    clock = FakeTime().clock
    api = CastaiApi(KEY, "https://api.test", clock=clock, transport=transport)
    sent = {KEY, *((ACCESS_KEY,) if call == "hand_over_key" else ())}
    with api, refused_well(secrets=sent):
        CALLS.get(call, CALLS["get"])(api)


def cluster_answer(given: Input) -> None:
    """An answer to each request of the drain, and of the custom resources."""
    if (handle := answer(given)) is None:
        return
    for each in ASKS.values():
        with refused_well():
            ask(each, handle)
    config = SingleConfig(
        context_name="c", context=Context("c"), cluster=Cluster("https://c.test"), user=User()
    )
    client = lightkube.Client(config, transport=httpx2.MockTransport(handle), trust_env=False)
    kube = Kube(client, clock=FakeTime().clock)
    name = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "y"}}
    calls: tuple[Callable[[], object], ...] = (
        lambda: kube.get("v1", "ConfigMap", "x", "y"),
        lambda: kube.list("v1", "Pod", namespace="y"),
        lambda: kube.apply(name),
        lambda: kube.replace(name),
        lambda: kube.delete("v1", "ConfigMap", "x", "y"),
    )
    for call in calls:
        with refused_well():
            call()


def agent_metadata(given: Input) -> None:
    """The data of the agent's ConfigMap, from which the spot handler takes the cluster's id."""

    async def config_map(*_: str) -> dict[str, str] | None:
        data: dict[str, str] | None = given.get("data")
        return data

    async def interrupted() -> CastaiReport:
        deps = CastAi(
            "https://api.test",
            lambda: KEY,
            FakeTime().clock,
            httpx2.MockTransport(lambda _: httpx2.Response(404, json={"message": "none"})),
        )
        report = CastaiReport()
        instance: Any = SimpleNamespace(tags={})
        node: Any = SimpleNamespace(
            metadata=SimpleNamespace(labels=None), spec=SimpleNamespace(provider_id="aws:///a/i-0")
        )
        api: Any = SimpleNamespace(config_map=config_map)
        await deps.interrupted(api, instance, node, report, until=1.0)
        return report

    shown(asyncio.run(interrupted()).reason)


def agents_status(given: Input) -> None:
    """The objects from which the agent's state is told. An API server has checked them."""
    found = agent_status.diagnose(given["deployment"], given["replicaSets"], given["pods"])
    shown(found.sentence)


def manifest(given: Input) -> None:
    """A manifest of another author: what is accepted can be sent, and is proved or refused."""
    if not isinstance(given, str):
        return
    with refused_well():
        objects = lifecycle.parse(given)
        sendable(objects)
        read_only.prove(objects, namespace=AGENT)


@dataclass(frozen=True)
class Target:
    """A kind of input."""

    check: Callable[[Input], None]
    typed: bool = False
    """An API server has checked its types."""
    secrets: bool = False
    """A person, or CAST AI, may put a key where none belongs."""


TARGETS: Final = {
    "event": Target(event),
    "onboarding-request": Target(request(onboarding.respond), secrets=True),
    "agent-request": Target(agent_properties, secrets=True),
    "aws-auth": Target(aws_auth_text),
    "castai-answer": Target(castai_answer, secrets=True),
    "cluster-answer": Target(cluster_answer),
    "agent-metadata": Target(agent_metadata, typed=True),
    "agent-status": Target(agents_status, typed=True),
    "manifest": Target(manifest),
}


@pytest.fixture(autouse=True)
def stack(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STACK_ID_VARIABLE, STACK)


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in TARGETS for name in corpus.names(kind)]
)
def test_an_input_of_the_corpus_is_accepted_or_refused(kind: str, name: str) -> None:
    TARGETS[kind].check(corpus.load(kind, name))


@pytest.mark.parametrize("examples", [15, pytest.param(1_000, marks=pytest.mark.long)])
@pytest.mark.parametrize("kind", TARGETS)
def test_a_changed_input_is_accepted_or_refused(kind: str, examples: int) -> None:
    target = TARGETS[kind]

    @settings(max_examples=examples)
    @given(corpus.changed(kind, typed=target.typed, secrets=target.secrets))
    def check(given: Input) -> None:
        try:
            target.check(given)
        except BaseException as error:
            error.add_note(f"Keep this input in tests/corpus/{kind}/:\n{corpus.written(given)}")
            raise

    check()
