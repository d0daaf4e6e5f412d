"""Checks of a template that the tests of every stack use."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from cfnlint.api import ManualArgs, lint

from tests.infra.conftest import Assembly

REGIONS = ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"]

# Findings of cfn-lint that are accepted.
ACCEPTED = {
    "W3005": "CDK writes every dependency, even if a reference implies it",
}


def acknowledged(assembly: Assembly) -> set[str]:
    """The findings of cdk-nag, each of which has to be acknowledged with a reason."""
    report = assembly.json("validation-report.json")
    (nag,) = (r for r in report["pluginReports"] if r["pluginName"] == "AwsSolutions")
    assert nag["conclusion"] == "success"
    assert all(len(found["reason"]) > 20 for found in nag["suppressedViolations"])
    return {found["ruleName"] for found in nag["suppressedViolations"]}


def lint_findings(template: dict[str, Any], regions: Sequence[str] = tuple(REGIONS)) -> list[str]:
    """The findings of cfn-lint without the accepted ones."""
    matches = lint(json.dumps(template), config=ManualArgs(regions=[*regions]))
    return [str(match) for match in matches if match.rule.id not in ACCEPTED]


def text(value: Any) -> str:
    """A value of a template with its joins and references as text."""
    if isinstance(value, dict) and "Fn::Join" in value:
        return "".join(text(part) for part in value["Fn::Join"][1])
    if isinstance(value, dict) and "Ref" in value:
        return f"<{value['Ref'].removeprefix('AWS::')}>"
    return str(value)
