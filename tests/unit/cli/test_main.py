"""The command `castai-eks`: version, script, and completion in bash."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app

ROOT = Path(__file__).parents[3]


def test_the_version_is_that_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    answer = CliRunner().invoke(app, ["--version"])

    assert answer.exit_code == 0
    assert answer.output == f"castai-eks {project['version']}\n"


def test_the_script_runs_the_main_function() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["scripts"] == {"castai-eks": "cli.main:main"}


@pytest.mark.parametrize(
    ("words", "position", "completed"),
    [
        ("castai-eks pol", "1", {"policy"}),
        ("castai-eks credentials ", "2", {"show"}),
    ],
)
def test_bash_completes_commands_and_subcommands(
    words: str, position: str, completed: set[str]
) -> None:
    environment = {
        "_CASTAI_EKS_COMPLETE": "complete_bash",
        "COMP_WORDS": words,
        "COMP_CWORD": position,
    }

    answer = CliRunner().invoke(app, [], env=environment, prog_name="castai-eks")

    assert set(answer.output.split()) == completed
