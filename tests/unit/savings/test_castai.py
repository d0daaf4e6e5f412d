"""CAST AI's estimate, read of the simulated API and of answers that it does not give."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx2
import msgspec
import pytest

from lambdas.common.castai import BadAnswerError, CastaiApi, EstimatedSavings, KeyRefusedError
from sandbox.castai_api.app import App
from sandbox.castai_api.state import State
from savings import castai
from savings.estimate import Castai
from tests.support.fake_time import FakeTime
from tests.unit.common.conftest import KEY, START, AppTransport

ACCOUNT, REGION = "123456789012", "eu-central-1"
UPDATED = "2023-11-14T22:13:20Z"


@pytest.fixture
def state() -> State:
    return State(KEY, now=lambda: START)


def connected(state: State, name: str = "prod", account: str = ACCOUNT) -> str:
    """Register a cluster whose agent reports. Returns its id."""
    eks = {"clusterName": name, "region": REGION, "accountId": account}
    cluster = state.register({"eks": eks})
    state.agent(cluster.id, "online")
    return cluster.id


@pytest.fixture
def api(state: State) -> Iterator[CastaiApi]:
    transport = AppTransport(App(state))
    clock = FakeTime(START).clock
    with CastaiApi(KEY, "https://api.test", clock=clock, transport=transport) as client:
        yield client


def answering(*answers: Any) -> CastaiApi:
    given = list(answers)
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, json=given.pop(0)))
    return CastaiApi(KEY, "https://api.test", clock=FakeTime(START).clock, transport=transport)


def estimates(**recommendation: Any) -> list[Castai]:
    answer = {"recommendations": {"Layman": recommendation}, "lastUpdatedAt": UPDATED}
    return list(castai.estimates_of(msgspec.convert(answer, EstimatedSavings)))


def test_the_recommendations_are_per_hour_the_cheapest_last(api: CastaiApi, state: State) -> None:
    connected(state, "other")
    connected(state)
    found = castai.read(api, "prod", REGION, ACCOUNT)
    assert [(each.name, each.cost, each.cost_after, each.percentage) for each in found] == [
        ("Layman", 1.0, 0.75, 25.0),
        ("SpotInstances", 1.0, 0.5, 50.0),
        ("SpotOnly", 1.0, 0.3, 70.0),
    ]
    assert {each.updated for each in found} == {UPDATED}


def test_only_reads_are_sent(api: CastaiApi, state: State) -> None:
    connected(state)
    castai.read(api, "prod", REGION, ACCOUNT)
    castai.read(api, "unknown", REGION, ACCOUNT)
    assert {entry.method for entry in state.log} == {"GET"}
    assert [each.name for each in state.clusters.values()] == ["prod"]


@pytest.mark.parametrize(
    ("cluster", "region", "account"),
    [("dev", REGION, ACCOUNT), ("prod", "eu-west-1", ACCOUNT), ("prod", REGION, "210987654321")],
)
def test_another_cluster_has_no_estimate(
    api: CastaiApi, state: State, cluster: str, region: str, account: str
) -> None:
    connected(state)
    assert castai.read(api, cluster, region, account) == ()


def test_a_cluster_without_an_agent_has_no_estimate_yet(api: CastaiApi, state: State) -> None:
    cluster_id = connected(state)
    state.agent(cluster_id, "waiting-connection")
    assert castai.read(api, "prod", REGION, ACCOUNT) == ()
    assert [entry.status for entry in state.log] == [200, 404]


def test_without_an_account_the_one_cluster_of_the_name_is_taken(
    api: CastaiApi, state: State
) -> None:
    connected(state)
    assert len(castai.read(api, "prod", REGION, "")) == 3
    connected(state, account="210987654321")
    assert castai.read(api, "prod", REGION, "") == ()


def test_a_wrong_key_is_refused_without_the_key(state: State) -> None:
    other = "another-key-of-castai"
    transport = AppTransport(App(state))
    with (
        CastaiApi(other, "https://api.test", transport=transport) as api,
        pytest.raises(KeyRefusedError) as refused,
    ):
        castai.read(api, "prod", REGION, ACCOUNT)
    assert other not in str(refused.value)


def test_clusters_of_another_provider_are_passed_over() -> None:
    listing = {"items": [{"id": "1", "providerType": "gke", "gke": {}}, {"id": "2", "eks": None}]}
    assert castai.read(answering(listing), "prod", REGION, ACCOUNT) == ()


def test_the_month_has_730_hours_where_the_hour_is_not_stated() -> None:
    (found,) = estimates(monthly={"priceBefore": "7300.00", "priceAfter": "3650.0"})
    assert (found.cost, found.cost_after, found.percentage) == (10.0, 5.0, 50.0)
    (stated,) = estimates(
        hourly={"priceBefore": 2, "priceAfter": "1"},
        monthly={"priceBefore": "7300", "priceAfter": "3650"},
        savingsPercentage="49.9",
    )
    assert (stated.cost, stated.cost_after, stated.percentage) == (2.0, 1.0, 49.9)


@pytest.mark.parametrize(
    "prices",
    [{}, {"priceBefore": "1"}, {"priceBefore": "x", "priceAfter": "1"}, {"priceBefore": "0"}],
)
def test_a_recommendation_without_prices_is_left_out(prices: dict[str, str]) -> None:
    assert estimates(monthly=prices) == []


def test_an_estimate_without_any_price_is_not_castais() -> None:
    eks = {"clusterName": "prod", "region": REGION, "accountId": ACCOUNT}
    listing = {"items": [{"id": "1", "eks": eks}]}
    api = answering(listing, {"recommendations": {"Layman": {}}})
    with pytest.raises(BadAnswerError, match="has no price"):
        castai.read(api, "prod", REGION, ACCOUNT)
    assert castai.read(answering(listing, {}), "prod", REGION, ACCOUNT) == ()
    with pytest.raises(BadAnswerError, match="the answer is not CAST AI's"):
        castai.read(answering({"items": [{"name": "no id"}]}), "prod", REGION, ACCOUNT)
