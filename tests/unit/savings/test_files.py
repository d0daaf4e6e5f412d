"""The snapshot's and the prices' files: what is written is read, what is wrong is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lambdas.common.errors import PermanentError
from savings import files
from savings.prices import Prices, SpotPrice
from savings.snapshot import DaemonSet, Demand, Node, Pod, Snapshot, Spread, Workload
from tests.unit.savings.test_instance_types import A, made

REGION = "eu-central-1"
SNAPSHOT = Snapshot(
    cluster="demo",
    region=REGION,
    taken="2026-11-28T12:00:00Z",
    nodes=(
        Node(name="n1", instance_type="m5.large", allocatable={"cpu": 1930}),
        Node(name="n2", instance_type="m9x.large", allocatable={"cpu": 1930}),
    ),
    pods=(Pod(namespace="a", name="p", demand=Demand(requests={"cpu": 100}), node="n1"),),
    daemon_sets=(DaemonSet(namespace="a", name="d", demand=Demand(requests={"cpu": 10})),),
    workloads=(Workload(namespace="a", owner="Deployment/web", replicas=1),),
)
PRICES = Prices(
    region=REGION,
    taken="2026-11-28T12:00:00Z",
    history_days=90,
    types=(
        made("m5.large", on_demand=0.115, spot={A: SpotPrice(now=0.05, low=0.04, high=0.06)}),
        made("g4dn.xlarge", accelerators={"nvidia.com/gpu": 1}),
    ),
)
Edit = Callable[[Any], object]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "file.json"


def edited(path: Path, edit: Edit) -> Path:
    """The file with a change of its JSON."""
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    return path


def test_what_is_written_is_read_again(path: Path) -> None:
    files.write_snapshot(path, SNAPSHOT)
    assert files.read_snapshot(path) == SNAPSHOT
    files.write_prices(path, PRICES)
    assert files.read_prices(path) == PRICES


def test_a_file_is_for_its_owner_only_and_replaces_the_one_before(path: Path) -> None:
    path.write_text("x" * 10_000)
    path.chmod(0o644)
    files.write_snapshot(path, SNAPSHOT)
    assert path.stat().st_mode & 0o777 == 0o600
    assert files.read_snapshot(path) == SNAPSHOT
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_write_that_fails_leaves_the_file_before_and_no_other(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_text("before")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(PermanentError, match=f"can be written: {path}: No space left"):
        files.write_prices(path, PRICES)
    assert path.read_text() == "before"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_a_file_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="Is a directory"):
        files.write_snapshot(tmp_path, SNAPSHOT)
    with pytest.raises(PermanentError, match="No such file or directory"):
        files.write_snapshot(tmp_path / "missing" / "file", SNAPSHOT)


def test_a_file_that_cannot_be_read_is_said(path: Path) -> None:
    with pytest.raises(PermanentError, match=f"--snapshot a file.*{path}: No such file"):
        files.read_snapshot(path)
    with pytest.raises(PermanentError, match=r"--prices a file.*Is a directory"):
        files.read_prices(path.parent)


def test_a_file_without_permission_is_said(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)  # root may read every file
    with pytest.raises(PermanentError, match=f"{path}: Permission denied"):
        files.read_snapshot(path)


def test_a_file_that_was_cut_is_said_at_any_length(path: Path) -> None:
    files.write_snapshot(path, SNAPSHOT)
    whole = path.read_bytes().rstrip()
    for length in (*range(0, len(whole), 7), len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(PermanentError, match=f"Give --snapshot a whole file.*{path}"):
            files.read_snapshot(path)


@pytest.mark.parametrize("content", [b"\xff\xfe{", b"[" * 100_000, b"null", b"{}", b"\0"])
def test_what_is_no_file_of_ours_is_said(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    for read in (files.read_snapshot, files.read_prices):
        with pytest.raises(PermanentError, match=str(path)):
            read(path)


def test_the_other_file_another_format_and_unknown_fields_are_said(path: Path) -> None:
    files.write_prices(path, PRICES)
    with pytest.raises(PermanentError, match="castai-eks-savings-prices/1"):
        files.read_snapshot(path)
    edited(path, lambda content: content.update(format="castai-eks-savings-prices/2"))
    with pytest.raises(PermanentError, match="prices/2"):
        files.read_prices(path)
    files.write_prices(path, PRICES)
    edited(path, lambda content: content["types"][0].update(colour="red"))
    with pytest.raises(PermanentError, match=r"colour.*\$\.types\[0\]"):
        files.read_prices(path)


def test_a_file_that_is_too_large_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write_prices(path, PRICES)
    monkeypatch.setattr(files, "MOST_BYTES", 10)
    with pytest.raises(PermanentError, match="at most 1 GiB"):
        files.read_prices(path)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda s: s["nodes"][1].update(name="n1"), "node 'n1' is there 2 times"),
        (lambda s: s["pods"].append(s["pods"][0]), "pod 'a/p' is there 2 times"),
        (lambda s: s["daemonSets"].append(s["daemonSets"][0]), "DaemonSet 'a/d'"),
        (lambda s: s["workloads"].append(s["workloads"][0]), "workload 'a Deployment/web'"),
        (lambda s: s["nodes"][0].update(name=""), "node '' is there 1 times"),
        (lambda s: s["nodes"][0]["allocatable"].update(cpu=-1), "node n1 has cpu -1"),
        (lambda s: s["pods"][0]["demand"]["requests"].update(memory=-5), "pod a/p has memory -5"),
        (lambda s: s["daemonSets"][0]["demand"]["requests"].update(cpu=-5), "DaemonSet d"),
        (lambda s: s["workloads"][0].update(replicas=-1), "replicas of a Deployment/web are -1"),
        (lambda s: s["nodes"][0]["allocatable"].update(cpu=10**18), "node n1 has cpu 10"),
        (
            lambda s: s.update(
                budgets=[{"namespace": "a", "name": "b", "selector": [], "maxUnavailable": "x%"}]
            ),
            "budget a/b has 'x%'",
        ),
        (lambda s: s.update(region=""), "region is empty"),
        (
            lambda s: s["pods"][0].update(
                spread=[{"topologyKey": "zone", "maxSkew": 0, "selector": []}]
            ),
            "maxSkew of pod a/p",
        ),
    ],
)
def test_a_snapshot_on_which_no_plan_can_rely_is_said(path: Path, edit: Edit, said: str) -> None:
    files.write_snapshot(path, SNAPSHOT)
    with pytest.raises(PermanentError, match=f"Correct {path}") as wrong:
        files.read_snapshot(edited(path, edit))
    assert said in str(wrong.value)


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda t: t.update(vcpus=0), "m5.large has 0 vCPUs"),
        (lambda t: t.update(memory=-1), "-1 bytes of memory"),
        (lambda t: t.update(interfaces=-1), "-1 interfaces"),
        (lambda t: t.update(onDemand=0), "onDemand of m5.large is 0"),
        (lambda t: t.update(onDemand=-0.1), "onDemand of m5.large is -0.1"),
        (lambda t: t.update(onDemand=1e308), "onDemand of m5.large is 1e+308"),
        (lambda t: t["spot"][A].update(low=0), "not above 0"),
        (lambda t: t["spot"][A].update(now=0.03), "low <= now <= high"),
        (lambda t: t["spot"][A].update(high=0.045), "low <= now <= high"),
        (lambda t: t.update(interrupted=5), "interrupted of m5.large is 5"),
        (lambda t: t.update(accelerators={"nvidia.com/gpu": -1}), "nvidia.com/gpu -1"),
        (lambda t: t.update(name="g4dn.xlarge"), "type 'g4dn.xlarge' is there 2 times"),
    ],
)
def test_prices_on_which_no_plan_can_rely_are_said(path: Path, edit: Edit, said: str) -> None:
    files.write_prices(path, PRICES)
    with pytest.raises(PermanentError, match=f"Correct {path}") as wrong:
        files.read_prices(edited(path, lambda content: edit(content["types"][0])))
    assert said in str(wrong.value)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_price_that_is_not_finite_is_said(path: Path, number: str) -> None:
    files.write_prices(path, PRICES)
    path.write_text(path.read_text().replace("0.115", number))
    with pytest.raises(PermanentError, match=str(path)):
        files.read_prices(path)


def test_a_message_has_few_faults(path: Path) -> None:
    files.write_prices(path, PRICES)
    edited(path, lambda content: content.update(types=[content["types"][0] | {"vcpus": 0}] * 50))
    with pytest.raises(PermanentError) as wrong:
        files.read_prices(path)
    assert str(wrong.value).endswith("; and more.")
    assert len(str(wrong.value)) < 600


def test_prices_of_another_region_are_refused() -> None:
    other = Prices(region="eu-west-1", taken="", history_days=90, types=PRICES.types)
    with pytest.raises(PermanentError, match=f"region {REGION}: these are of eu-west-1"):
        files.check(SNAPSHOT, other)


def test_prices_without_a_type_of_the_nodes_are_refused() -> None:
    files.check(SNAPSHOT, PRICES)  # one of its two types is enough
    strange = Prices(region=REGION, taken="", history_days=90, types=(made("c5.large"),))
    with pytest.raises(PermanentError, match=r"m5\.large, m9x\.large.*none of them"):
        files.check(SNAPSHOT, strange)
    empty = Snapshot(cluster="demo", region=REGION, taken="", nodes=(), pods=())
    files.check(empty, strange)


def test_any_spread_and_pod_without_a_node_is_fine(path: Path) -> None:
    spread = Spread(topology_key="zone", max_skew=1, selector=())
    pod = Pod(namespace="a", name="q", demand=Demand(requests={}), node="gone", spread=(spread,))
    found = Snapshot(cluster="demo", region=REGION, taken="", nodes=SNAPSHOT.nodes, pods=(pod,))
    files.write_snapshot(path, found)
    assert files.read_snapshot(path) == found
