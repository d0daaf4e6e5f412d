"""`castai:python`: the runtime of every function, and the warning where its bytecode is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from aws_cdk import App

import app
from stacks.constructs import bundling
from stacks.constructs.bundling import LAMBDA_PLATFORMS, LAMBDA_PYTHON
from stacks.settings import FunctionSettings
from tests.infra.conftest import CONTEXT, Assembly, Synthesise

EVERY_STACK: dict[str, Any] = {
    "castai:apiKeySecret": "castai/api-key",
    "castai:agentClusters": ["blue"],
    "castai:onboardClusters": ["blue"],
}
ALLOWED = get_args(get_type_hints(FunctionSettings)["python"])


def runtimes(assembly: Assembly) -> set[str]:
    """The runtimes of our functions; CDK's Provider framework has its own."""
    return {
        function["Runtime"]
        for name in assembly.templates
        for function in assembly.stack(name.removeprefix("castai-"))
        .all("AWS::Lambda::Function")
        .values()
        if function["Handler"].startswith("lambdas.")
    }


def warnings(context: dict[str, Any], folder: Path) -> list[str]:
    """The warnings that `cdk synth` prints."""
    no_bundling = {"aws:cdk:bundling-stacks": []}
    cdk_app = App(outdir=str(folder), context=CONTEXT | EVERY_STACK | context | no_bundling)
    app.build(cdk_app)
    stacks = cdk_app.synth().stacks
    return [
        str(message.entry.data)
        for stack in stacks
        for message in stack.messages
        if message.level.name == "WARNING"
    ]


def test_every_allowed_python_has_a_platform_and_the_default_is_the_newest() -> None:
    assert set(ALLOWED) == set(LAMBDA_PLATFORMS)
    assert FunctionSettings().python == LAMBDA_PYTHON == max(ALLOWED)


@pytest.mark.parametrize("python", LAMBDA_PLATFORMS)
def test_every_function_runs_on_the_chosen_python(python: str, synthesise: Synthesise) -> None:
    assembly = synthesise(EVERY_STACK | {"castai:python": python})
    assert len(assembly.templates) == 3
    assert runtimes(assembly) == {f"python{python}"}
    (nag,) = assembly.json("validation-report.json")["pluginReports"][:1]
    found = {finding["ruleName"] for finding in nag["suppressedViolations"]}
    assert ("AwsSolutions-L1" in found) == (python != LAMBDA_PYTHON)


def test_without_an_interpreter_one_warning_says_that_the_zips_have_no_bytecode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bundling, "interpreter", lambda _: None)
    (warning,) = warnings({"castai:python": "3.13"}, tmp_path)
    assert "no Python 3.13 was found" in warning
    assert "uv python install 3.13" in warning


@pytest.mark.parametrize("bundled_for", ["lambda", "local"])
def test_with_an_interpreter_there_is_no_warning(
    bundled_for: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = "/usr/bin/python3.14" if bundled_for == "lambda" else None
    monkeypatch.setattr(bundling, "interpreter", lambda _: found)
    assert warnings({"castai:bundling": bundled_for}, tmp_path) == []
