"""kubesim is never kinder than kube-apiserver, and nearly always gives the same answer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubesim import Answer, ServedCluster
from kubesim.controllers import ALL
from tests.contract.api import Api, unique
from tests.contract.differential import Difference, Draw, Peer, compare

SEEDS = range(1, 5)
REQUESTS = 500
AGREEMENT = 0.98

KNOWN: tuple[tuple[str, str, str], ...] = (
    (
        "list",
        "1",
        "kube-apiserver compacts after five minutes, kubesim after 20,000 changes of a resource",
    ),
)
"""Differences that stay: what is asked, the resourceVersion of the query, and why."""


@pytest.fixture
def simulated() -> Iterator[ServedCluster]:
    with ServedCluster(without=[controller.name for controller in ALL]) as cluster:
        yield cluster


def client(cluster: ServedCluster, folder: Path) -> Api:
    path = folder / "simulated"
    path.write_text(cluster.kubeconfig())
    return Api.of(path)


def is_known(difference: Difference) -> bool:
    request = difference.request
    asked = request.what, request.query.get("resourceVersion", "")
    return any(asked == (what, version) for what, version, _ in KNOWN)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_same_requests_to_both(
    api_server: Api, simulated: ServedCluster, tmp_path: Path, seed: int
) -> None:
    draw = Draw(seed, unique("space"), unique("node"))
    with client(simulated, tmp_path).client as http:
        report = compare(Peer(Api(http)), Peer(api_server), draw, REQUESTS)

    kinder = [each for each in report.differences if each.kinder and not is_known(each)]
    assert not kinder, report.text()
    assert report.agreement >= AGREEMENT, report.text()


def test_two_simulated_servers_agree_until_one_has_a_fault(
    simulated: ServedCluster, tmp_path: Path
) -> None:
    simulated.faults.add("GET", "/pods", Answer(404), times=1)
    with (
        ServedCluster(without=[controller.name for controller in ALL]) as other,
        client(simulated, tmp_path).client as one,
        client(other, tmp_path).client as two,
    ):
        report = compare(Peer(Api(one)), Peer(Api(two)), Draw(1, "space", "node"), 200)

    (difference,) = report.differences
    assert difference.simulated.status == 404
    assert not difference.kinder
