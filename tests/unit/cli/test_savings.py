"""`castai-eks savings` from files: neither a cluster nor an account is asked."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from cli import session
from cli.main import app
from lambdas.common.errors import ClusterForbiddenError, PermanentError
from savings import files, read_cluster
from savings.rights import MissingRightsError
from tests.unit.savings.test_files import PRICES, SNAPSHOT, edited

Run = Callable[..., Result]


@pytest.fixture
def snapshot(tmp_path: Path) -> Path:
    files.write_snapshot(tmp_path / "snapshot.json", SNAPSHOT)
    return tmp_path / "snapshot.json"


@pytest.fixture
def prices(tmp_path: Path) -> Path:
    files.write_prices(tmp_path / "prices.json", PRICES)
    return tmp_path / "prices.json"


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the command; it fails if it asks for an AWS client."""

    def refused(_: object) -> None:
        raise AssertionError("AWS was asked")

    monkeypatch.setattr(session, "dependencies", refused)

    def invoke(*arguments: Any) -> Result:
        words = ["savings", *map(str, arguments)]
        return CliRunner().invoke(app, words, catch_exceptions=False)

    return invoke


def test_a_table_from_files(run: Run, snapshot: Path, prices: Path) -> None:
    done = run("--snapshot", snapshot, "--prices", prices)
    assert done.exit_code == 0
    assert "m5.large" in done.stdout
    assert "written" not in done.stdout


def test_json_and_page_from_files(run: Run, snapshot: Path, prices: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = run("demo", "--snapshot", snapshot, "--prices", prices, "--json", "--html", page)
    assert json.loads(done.stdout)["cluster"] == "demo"
    assert page.read_text().startswith("<!")
    again = run("--snapshot", snapshot, "--prices", prices, "--json")
    assert again.stdout == done.stdout


def cut(path: Path) -> None:
    path.write_text(path.read_text()[:-20])


def elsewhere(path: Path) -> None:
    edited(path, lambda content: content.update(region="us-east-1"))


@pytest.mark.parametrize(
    ("broken", "change", "cluster", "said"),
    [
        ("snapshot", None, "other", "Name cluster demo"),
        ("snapshot", cut, "", "snapshot.json"),
        ("prices", cut, "", "prices.json"),
        ("prices", elsewhere, "", "us-east-1"),
    ],
)
def test_wrong_files_are_one_error_and_no_page(  # noqa: PLR0917 - cases and fixtures
    run: Run,
    snapshot: Path,
    prices: Path,
    tmp_path: Path,
    broken: str,
    change: Callable[[Path], None] | None,
    cluster: str,
    said: str,
) -> None:
    if change:
        change({"snapshot": snapshot, "prices": prices}[broken])
    page = tmp_path / "page.html"
    arguments = [cluster] if cluster else []
    with pytest.raises(PermanentError, match=said):
        run(*arguments, "--snapshot", snapshot, "--prices", prices, "--html", page)
    assert not page.exists()


def test_neither_a_cluster_nor_a_file(run: Run, tmp_path: Path) -> None:
    for arguments in ([], ["--snapshot", tmp_path / "missing.json"]):
        with pytest.raises(PermanentError, match="Name the cluster, or a --snapshot that exists"):
            run(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_right_leaves_no_file(
    run: Run, prices: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*_: object, rights: Any, **__: object) -> Any:
        for kind in ("pods", "nodes"):
            with rights.read():
                raise ClusterForbiddenError(f"listing {kind}: 403")
        return SNAPSHOT

    monkeypatch.setattr(read_cluster, "read", read)
    monkeypatch.setattr(read_cluster, "open_kubeconfig", lambda *_, **__: nullcontext())
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.touch()
    new, page = tmp_path / "new.json", tmp_path / "page.html"
    arguments = ["demo", "--kubeconfig", kubeconfig, "--prices", prices]
    with pytest.raises(MissingRightsError) as missing:
        run(*arguments, "--snapshot", new, "--html", page)
    assert len(str(missing.value).splitlines()) == 3  # the policy's command, and a line for each
    assert (new.exists(), page.exists()) == (False, False)

    monkeypatch.setattr(read_cluster, "read", lambda *_, **__: SNAPSHOT)
    done = run(*arguments, "--snapshot", new, "--html", page)
    assert (done.exit_code, files.read_snapshot(new)) == (0, SNAPSHOT)
    assert [line for line in done.stdout.splitlines() if line.startswith("written: ")] == [
        f"written: {new}",
        f"written: {page}",
    ]
