"""Outputs, alarms, names, services, permissions and cdk options in the documents."""

from __future__ import annotations

import json
import re
import subprocess
from typing import Any

import pytest

from tests.infra.conftest import Assembly, Synthesise
from tests.support import pages
from tests.support.pages import README, ROOT, WRITTEN

PERMISSIONS = ROOT / "docs" / "permissions.md"
OPERATIONS = ROOT / "docs" / "operations.md"
USAGE = ROOT / "docs" / "aws-usage.md"

SHOWN: list[dict[str, Any]] = [
    json.loads(each.text) for page in (README, OPERATIONS) for each in pages.blocks(page, "json")
]
# The settings in the documents, in both modes, with and without a key, with every option.
CONTEXTS: list[dict[str, Any]] = [
    *SHOWN,
    SHOWN[-1] | {"castai:onboardMode": "user"},
    {
        "castai:onboardClusters": "prod",
        "castai:onboardByCluster": {"prod": {"ClusterId": "12345678-1234-1234-1234-123456789012"}},
        "castai:alarmEmail": "ops@example.org",
    },
]

# The names of the services by their names in CloudFormation's types.
SERVICES = {
    "Lambda": "Lambda",
    "IAM": "IAM",
    "Logs": "CloudWatch Logs",
    "CloudWatch": "CloudWatch",
    "Events": "EventBridge",
    "SQS": "SQS",
    "SNS": "SNS",
    "EKS": "EKS",
    "StepFunctions": "Step Functions",
}


@pytest.fixture
def assemblies(synthesise: Synthesise) -> list[Assembly]:
    return [synthesise(context) for context in CONTEXTS]


def test_the_table_of_outputs_has_those_of_the_stacks(assemblies: list[Assembly]) -> None:
    written: dict[str, set[str]] = {}
    for assembly in assemblies:
        for stack, template in assembly.templates.items():
            written.setdefault(stack, set()).update(template["Outputs"])
    said: dict[str, set[str]] = {}
    stack = ""
    for row in pages.rows(OPERATIONS.read_text().split("### Outputs")[1].split("\n##")[0]):
        stack = row[0].strip("`") or stack
        said.setdefault(stack, set()).update(re.findall(r"`(\w+)`", row[1]))
    assert said == written


def test_the_table_of_alarms_has_those_of_the_stack(assemblies: list[Assembly]) -> None:
    stack = assemblies[0].stack("spot-handler")
    names = {alarm["AlarmName"] for alarm in stack.all("AWS::CloudWatch::Alarm").values()}
    said = {row[0].strip("`") for row in pages.rows(pages.section(OPERATIONS, "Alarms"))}
    assert said == names


def test_the_names_of_functions_queues_and_logs_are_in_the_templates(
    assemblies: list[Assembly],
) -> None:
    templates = json.dumps([assembly.templates for assembly in assemblies])
    for page in WRITTEN:
        text = page.read_text()
        for name in re.findall(r"/aws/lambda/[\w-]+|castai-spot-handler-[\w-]+", text):
            assert f'"{name.rstrip("-")}' in templates, f"{page.name}: {name}"


def test_the_table_of_services_has_those_of_the_templates(assemblies: list[Assembly]) -> None:
    used = {
        resource["Type"].split("::")[1]
        for assembly in assemblies
        for template in assembly.templates.values()
        for resource in template["Resources"].values()
        if resource["Type"].startswith("AWS::")
    }
    said = {row[0] for row in pages.rows(pages.between(USAGE, "services"))}
    assert said == {SERVICES[each] for each in used}


COMMANDS = sorted(
    {
        (words[2], word)
        for page in WRITTEN
        for block in pages.blocks(page, "bash")
        for words in block.commands()
        if words[:2] == ["npx", "cdk"]
        for word in words[3:]
        if word.startswith("-")
    }
)


@pytest.mark.parametrize(("command", "option"), COMMANDS)
def test_the_pinned_cdk_has_these_options(command: str, option: str) -> None:
    program = ROOT / "node_modules" / ".bin" / "cdk"
    if not program.exists():
        pytest.skip("make setup installs the CDK's command line")
    done = subprocess.run(  # noqa: S603 - the pinned command line
        [program, command, "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert re.search(rf"(?m)^ .*(?<![\w-]){option}(?![\w-])", done.stdout)


# Every setting that adds a statement to a role.
EVERYTHING: dict[str, Any] = SHOWN[-1] | {
    "castai:rolePolicies": "least-privilege",
    "castai:apiKeyKmsKey": "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d",
    "castai:onboardProperties": {"KmsKey": "arn:aws:kms:eu-central-1:111122223333:key/0a1b2c3d"},
    "castai:tracing": "true",
    "castai:subnetIds": ["subnet-0a1b2c3d"],
    "castai:securityGroupIds": ["sg-0a1b2c3d"],
}


def test_every_statement_of_every_role_is_on_the_permissions_page(synthesise: Synthesise) -> None:
    text = PERMISSIONS.read_text()
    rows = {(row[0], *sorted(row[1].split("<br>"))) for row in pages.rows(text) if len(row) == 4}
    seen = set()
    for template in synthesise(EVERYTHING).templates.values():
        for statement in statements(template):
            actions = _listed(statement["Action"])
            seen.update(actions)
            denied = " (Deny)" if statement["Effect"] == "Deny" else ""
            if "Sid" in statement:
                assert (statement["Sid"] + denied, *sorted(actions)) in rows
            else:  # of CDK's Provider framework
                assert all(action in text for action in actions), statement
    assert {"sqs:SendMessage", "xray:PutTraceSegments", "kms:Decrypt"} <= seen


def statements(template: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of every policy of the roles in the template."""
    documents = []
    for resource in template["Resources"].values():
        properties = resource.get("Properties", {})
        if resource["Type"] in {"AWS::IAM::ManagedPolicy", "AWS::IAM::Policy"}:
            documents.append(properties["PolicyDocument"])
        if resource["Type"] == "AWS::IAM::Role":
            documents += [each["PolicyDocument"] for each in properties.get("Policies", ())]
    return [statement for document in documents for statement in document["Statement"]]


def _listed(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value
