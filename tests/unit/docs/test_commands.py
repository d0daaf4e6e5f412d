"""The commands in the documents: programs, subcommands and options exist.

A block that begins with `# Needs …` needs an account, a cluster or the network: its words are
checked. tests/integration/test_docs.py or .ci/run runs every other block.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from typing import Any

import botocore.session
import pytest
import typer
from botocore import xform_name

import cli.main
import sandbox.__main__
from lambdas.common import names
from lambdas.spot_handler import notices, taint
from sandbox.demo.chapters import CHAPTERS
from stacks.settings import Settings
from tests.support import pages
from tests.support.pages import README, ROOT, WRITTEN, Block

OPERATIONS = ROOT / "docs" / "operations.md"


BLOCKS = [block for page in WRITTEN for block in pages.blocks(page, "bash")]
COMMANDS = [(block, words) for block in BLOCKS for words in block.commands()]
STACKS = {"castai-agent", "castai-onboarding", "castai-spot-handler"}
APPS = {"cli": cli.main.app, "sandbox": sandbox.__main__.app}

# Commands of the AWS CLI that are no operation of a service, with the options used here.
AWS_CUSTOM = {
    ("logs", "tail"): {"since", "format"},
    ("eks", "update-kubeconfig"): {"name"},
}
AWS_GLOBAL = {"query", "output", "region"}
KUBECTL = {"annotate", "apply", "delete", "describe", "label", "taint", "uncordon"}


def of(*programs: str) -> list[Any]:
    """Test parameters: the commands of these programs."""
    return [
        pytest.param(words, id=f"{block.page.name}: {' '.join(words)[:60]}")
        for block, words in COMMANDS
        if words[0] in programs
    ]


def options(words: Sequence[str]) -> Iterator[str]:
    """The names of the options, without dashes and values."""
    for word in words:
        if word.startswith("--"):
            yield word.removeprefix("--").partition("=")[0]


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: block.text.splitlines()[0])
def test_a_block_begins_with_needs_or_is_run_by_a_test(block: Block) -> None:
    if block.needs:
        return
    ci = (ROOT / ".ci" / "run").read_text()
    if block.text in pages.between(README, "sandbox"):
        return  # tests/integration/test_docs.py
    for words in block.commands():
        assert words[0] == "make", "begin the block with '# Needs …', or run it in a test"
        assert " ".join(words) in ci


def test_make_targets_in_the_documents_exist() -> None:
    for page in WRITTEN:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"`make ([a-z-]+)", text):
            assert target in targets(), f"{page.name}: make {target}"
    for _, words in COMMANDS:
        if words[0] == "make":
            assert words[1] in targets()


@pytest.mark.parametrize("words", of("python3", ".venv/bin/python", "castai-eks"))
def test_our_commands_have_these_options(words: list[str]) -> None:
    if words[0] == "castai-eks":
        words = ["python3", "-m", "cli", *words[1:]]
    assert words[1] == "-m"
    module, *rest = words[2:]
    if module == "venv":
        return
    command: Any = typer.main.get_command(APPS[module])
    while hasattr(command, "commands"):
        command = command.commands[rest.pop(0)]
    known = {option for parameter in command.params for option in parameter.opts}
    assert {f"--{option}" for option in options(rest)} <= known


def test_subcommands_of_castai_eks_in_the_text_exist() -> None:
    command: Any = typer.main.get_command(cli.main.app)
    for page in WRITTEN:
        for words in re.findall(r"`castai-eks ([a-z -]+)`", pages.prose(page)):
            found = command
            for word in words.split(" --")[0].split():
                if hasattr(found, "commands"):  # else an argument
                    found = found.commands[word]


def test_chapters_in_the_documents_exist() -> None:
    names = {chapter.name for chapter in CHAPTERS}
    for page in WRITTEN:
        assert set(re.findall(r"--chapter (\w+)", page.read_text(encoding="utf-8"))) <= names


@pytest.mark.parametrize("words", of("npx"))
def test_cdk_commands_have_our_stacks_and_valid_settings(words: list[str]) -> None:
    assert words[1] == "cdk"
    context = dict(
        after.split("=", 1) for before, after in pairwise(words) if before in {"-c", "--context"}
    )
    Settings.from_context(context)
    assert {word for word in words if word.startswith("castai-")} <= STACKS


@pytest.mark.parametrize("words", of("aws"))
def test_aws_commands_have_existing_operations_and_all_required_options(words: list[str]) -> None:
    service, operation = words[1:3]
    used = set(options(words[3:])) - AWS_GLOBAL
    if (service, operation) in AWS_CUSTOM:
        assert used <= AWS_CUSTOM[service, operation]
        return
    model = session().get_service_model(service)
    names = {xform_name(name, "-"): name for name in model.operation_names}
    members = model.operation_model(names[operation]).input_shape.members
    assert used <= {xform_name(name, "-") for name in members}
    required = model.operation_model(names[operation]).input_shape.required_members
    assert {xform_name(name, "-") for name in required} <= used


@cache
def session() -> botocore.session.Session:
    return botocore.session.Session()


@pytest.mark.parametrize("words", of("kubectl"))
def test_kubectl_commands_have_known_verbs_and_existing_files(words: list[str]) -> None:
    assert words[1] in KUBECTL
    for before, after in pairwise(words):
        if before == "-f":
            assert (ROOT / after).exists()


@pytest.mark.parametrize("words", of("pip", "npm", "source", "git"))
def test_commands_of_other_tools_are_these(words: list[str]) -> None:
    text = " ".join(words)
    assert text in {
        "source .venv/bin/activate",
        "pip install --require-hashes -r requirements.txt",
        "pip install --no-deps -e .",
        "npm ci",
        "git pull",
    }
    if "-r" in words:
        assert (ROOT / words[-1]).exists()


def test_every_program_in_the_documents_is_checked() -> None:
    checked = {"make", "python3", ".venv/bin/python", "castai-eks", "alias", "npx", "aws"}
    checked |= {"kubectl", "pip", "npm", "source", "git"}
    assert {words[0] for _, words in COMMANDS} <= checked


DRILLS = [words for _, words in COMMANDS if words[:3] == ["aws", "events", "put-events"]]


@pytest.mark.parametrize("words", DRILLS, ids=" ".join)
def test_the_event_of_a_drill_is_parsed_as_a_notice(words: list[str]) -> None:
    (entry,) = json.loads(words[words.index("--entries") + 1])
    now = datetime(2026, 11, 21, tzinfo=UTC)
    event = {
        "source": entry["Source"],
        "detail-type": entry["DetailType"],
        "detail": json.loads(entry["Detail"]),
        "time": now.isoformat(),
    }
    shown = [
        json.loads(block.text)
        for page in (README, OPERATIONS)
        for block in pages.blocks(page, "json")
    ]
    sources = Settings.from_context(shown[0]).spot_handler.drill_sources
    notice = notices.parse(event, now=now.timestamp(), drill_sources=sources)
    assert notice is not None
    assert notice.deadline == now.timestamp() + notices.NOTICE_PERIOD


def test_the_commands_after_a_drill_remove_taint_and_labels() -> None:
    page = ROOT / "docs" / "operations.md"
    (block,) = (each for each in pages.blocks(page, "bash") if "uncordon" in each.text)
    taken = {word for words in block.commands() for word in words if word.endswith("-")}
    keys = {taint.DRAIN_TAINT.key, taint.DRAIN_LABEL, taint.NO_BALANCER_LABEL}
    assert taken == {f"{key}-" for key in keys}


def test_the_command_for_a_returned_node_removes_the_annotation() -> None:
    page = ROOT / "docs" / "operations.md"
    (block,) = (each for each in pages.blocks(page, "bash") if "annotate" in each.text)
    ((*_, taken),) = block.commands()
    assert taken == f"{names.MARKS_ANNOTATION}-"
