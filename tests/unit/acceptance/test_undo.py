"""The undo of a run: one failure stops no other part."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import httpx2
import pytest
from botocore.exceptions import UnauthorizedSSOTokenError

from acceptance.account import Account
from acceptance.journal import Journal, Touched
from acceptance.report import Report
from acceptance.run import Run
from acceptance.scope import Scope
from sandbox.demo.console import View
from sandbox.errors import SandboxError

WHERE = {"account": "1" * 12, "region": "eu-west-1", "cluster": "prod"}
TOUCHED = Touched(**WHERE, stacks=("a",), node="node-1", rbac=True)


@pytest.mark.parametrize(
    "failure",
    [SandboxError("cdk"), UnauthorizedSSOTokenError(), httpx2.ReadTimeout("")],
    ids=["cdk", "credentials that ended", "no answer"],
)
def test_a_part_that_fails_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    tried: list[str] = []

    def failing(part: str) -> Any:
        def fail(*_: object) -> None:
            tried.append(part)
            raise failure

        return fail

    parts = ("_destroy", "_uncordon", "_remove_rbac")
    for part in parts:
        monkeypatch.setattr(Run, part, failing(part))
    account = Account(cast("Any", None), "aws", WHERE["account"], WHERE["region"], "arn")
    journal = Journal(tmp_path, "prod")
    journal.write(TOUCHED)
    run = Run(account, Scope("prod", "i-1"), journal, View(plain=True), Report({}))
    run.undo(TOUCHED)
    assert tried == list(parts)
    assert len(run.report.by_hand) == len(parts)
    assert journal.read() == TOUCHED  # the next run tries again
