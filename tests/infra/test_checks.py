"""Checks of every stack: cdk-nag, cfn-lint, partitions, and a synth without the network."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aws_cdk import App

import app
from tests.infra.checks import REGIONS, acknowledged, lint_findings
from tests.infra.conftest import CONTEXT, ROOT, VARIANTS, Assembly, Synthesise
from tests.infra.policies import policy_findings

HERE = "<AWS::Region>:<AWS::AccountId>"

# Acknowledged findings of cdk-nag by variant: a new acknowledgement has to be added here too.
ACKNOWLEDGED = {
    "default": {
        "AwsSolutions-SQS3",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/CloudWatchLogsFullAccess]",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/service-role/AWSLambdaRole]",
        "AwsSolutions-IAM4[Policy::arn:<AWS::Partition>:iam::aws:policy/AmazonEC2ReadOnlyAccess]",
        f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:eks:{HERE}:cluster/*]",
    },
    "everything": {
        "AwsSolutions-SQS3",
        *(
            f"AwsSolutions-IAM5[Resource::arn:<AWS::Partition>:{resource}]"
            for region in ("eu-central-1", "eu-west-1")
            for resource in (
                f"eks:{region}:<AWS::AccountId>:cluster/*",
                f"logs:{region}:<AWS::AccountId>:log-group:/aws/lambda/acme-spot-handler:*",
            )
        ),
        "AwsSolutions-IAM5[Resource::*]",
    },
    "imported": {"AwsSolutions-SQS3"},
}


@pytest.mark.parametrize("name", VARIANTS)
def test_every_finding_of_cdk_nag_is_acknowledged_with_a_reason(
    synthesise: Synthesise, name: str
) -> None:
    assert acknowledged(synthesise(VARIANTS[name])) == ACKNOWLEDGED[name]


def test_an_unacknowledged_finding_stops_the_synth(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("stacks.constructs.failure_queue.acknowledge", lambda *_: None)
    cdk_app = App(outdir=str(tmp_path), context=CONTEXT | {"aws:cdk:bundling-stacks": []})
    app.build(cdk_app)
    with pytest.raises(RuntimeError, match="ValidationFailed"):
        cdk_app.synth()
    assert "AwsSolutions-SQS3" in (tmp_path / "validation-report.json").read_text()


@pytest.mark.parametrize("name", VARIANTS)
def test_cfn_lint_has_no_finding(synthesise: Synthesise, name: str) -> None:
    # The variant "everything" has SnapStart, which not every partition has.
    regions = REGIONS[:2] if name == "everything" else REGIONS
    for template in synthesise(VARIANTS[name]).templates.values():
        assert lint_findings(template, regions) == []


def test_every_policy_is_valid_in_the_service_reference(variant: Assembly) -> None:
    assert policy_findings(variant) == []


class Templates(NamedTuple):
    """An assembly with these templates."""

    templates: dict[str, Any]


def role(effect: str, action: str | list[str], attached: str) -> Templates:
    """A stack with a role, its inline policy and an attached policy."""
    log = "arn:aws:logs:eu-central-1:111122223333:log-group:own:*"
    statement = {"Effect": effect, "Action": action, "Resource": log}
    inline = {"PolicyName": "Own", "PolicyDocument": {"Statement": [statement]}}
    attachment = {"Fn::Join": ["", ["arn:", {"Ref": "AWS::Partition"}, f":iam::aws:{attached}"]]}
    properties = {"Policies": [inline], "ManagedPolicyArns": [attachment]}
    resource = {"Type": "AWS::IAM::Role", "Properties": properties}
    return Templates({"s": {"Resources": {"R": resource}}})


@pytest.mark.parametrize(
    "action",
    [
        "logs:CreateLogGroup",
        "logs:createloggroup",
        "logs:Create*",
        "logs:*",
        "logs:?reateLogG*",
        "*",
    ],
)
def test_the_service_reference_finds_an_action_that_creates_log_groups(action: str) -> None:
    found = policy_findings(role("Allow", ["logs:PutLogEvents", action], "policy/Own"))
    assert f"R: {action} allows logs:CreateLogGroup" in found
    denied = policy_findings(role("Deny", ["logs:PutLogEvents", action], "policy/Own"))
    assert [each for each in denied if "allows" in each] == []


@pytest.mark.parametrize(
    ("policy", "creates"),
    [
        ("service-role/AWSLambdaBasicExecutionRole", True),
        ("service-role/AWSLambdaVPCAccessExecutionRole", True),
        ("AWSLambdaExecute", True),
        ("service-role/AWSLambdaRole", False),
    ],
)
def test_the_service_reference_finds_a_managed_policy_that_creates_log_groups(
    policy: str, creates: bool
) -> None:
    writes = ["logs:CreateLogStream", "logs:PutLogEvents"]
    found = policy_findings(role("Allow", writes, f"policy/{policy}"))
    name = policy.rpartition("/")[2]
    assert found == [f"s: {name} allows logs:CreateLogGroup"] * creates


@pytest.mark.parametrize(
    ("region", "partition"),
    [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")],
)
@pytest.mark.parametrize("name", ["default", "everything"])
def test_every_arn_has_the_partition_of_the_region(
    synthesise: Synthesise, region: str, partition: str, name: str
) -> None:
    # Not every partition has SnapStart.
    assembly = synthesise(VARIANTS[name] | {"castai:snapStart": False}, region)
    for template in assembly.templates.values():
        assert set(re.findall(r"\barn:([a-z-]+):", json.dumps(template))) == {partition}
    reports = assembly.json("validation-report.json")["pluginReports"]
    assert {report["conclusion"] for report in reports} == {"success"}


@pytest.mark.parametrize("name", ["default", "everything"])
def test_without_a_region_no_arn_has_a_literal_partition(synthesise: Synthesise, name: str) -> None:
    for template in synthesise(VARIANTS[name]).templates.values():
        assert re.findall(r"arn:aws[a-z-]*:", json.dumps(template)) == []


def test_no_source_of_the_stacks_has_a_literal_partition() -> None:
    sources = [ROOT / "app.py", *(ROOT / "stacks").rglob("*.py")]
    assert len(sources) > 5
    assert [path for path in sources if re.search(r"arn:aws\b", path.read_text())] == []


def test_a_template_has_no_analytics_and_no_path_of_the_machine(variant: Assembly) -> None:
    for template in variant.templates.values():
        text = json.dumps(template)
        assert "AWS::CDK::Metadata" not in text
        assert str(ROOT) not in text


# A socket that is opened in Node or in Python ends the process.
NO_NETWORK_IN_NODE = """
const refuse = () => { process.stderr.write("NETWORK\\n"); process.exit(97); };
require("net").Socket.prototype.connect = refuse;
require("dgram").Socket.prototype.send = refuse;
for (const dns of [require("dns"), require("dns").promises])
  for (const name of Object.keys(dns))
    if (/^(lookup|resolve|reverse)/.test(name)) dns[name] = refuse;
"""
NO_NETWORK_IN_PYTHON = """
import os, sys
def hook(event, args):
    if event in ("socket.connect", "socket.getaddrinfo", "socket.sendto"):
        sys.stderr.write("NETWORK\\n")
        os._exit(97)
sys.addaudithook(hook)
"""


@pytest.fixture
def offline(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that exits with 97 if it or its Node uses the network."""
    (tmp_path / "no_network.js").write_text(NO_NETWORK_IN_NODE)
    (tmp_path / "sitecustomize.py").write_text(NO_NETWORK_IN_PYTHON)
    return {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "HOME": os.environ["HOME"],  # where jsii keeps what it has unpacked
        "PYTHONPATH": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NODE_OPTIONS": f"--require {tmp_path / 'no_network.js'}",
        "CDK_OUTDIR": str(tmp_path / "cdk.out"),
    }


def run(*command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - commands of this file
        command, cwd=ROOT, env=env, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize(
    "command",
    [
        (sys.executable, "-c", "import socket; socket.create_connection(('127.0.0.1', 9))"),
        ("node", "-e", "require('net').connect(9, '127.0.0.1')"),
        ("node", "-e", "fetch('http://127.0.0.1:65530')"),
        ("node", "-e", "require('dns').promises.resolve('localhost')"),
    ],
)
def test_a_process_that_uses_the_network_exits_with_97(
    offline: dict[str, str], command: tuple[str, ...]
) -> None:
    done = run(*command, env=offline)
    assert (done.returncode, done.stderr) == (97, "NETWORK\n")


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name == "everything" else pytest.mark.long)
        for name in VARIANTS
    ],
)
def test_a_synth_uses_no_network_and_needs_no_context_lookup(
    offline: dict[str, str], name: str
) -> None:
    context = CONTEXT | VARIANTS[name] | {"aws:cdk:bundling-stacks": []}
    done = run(sys.executable, "app.py", env=offline | {"CDK_CONTEXT_JSON": json.dumps(context)})
    assert done.returncode == 0, done.stderr
    # "missing" lists the values that the CLI has to look up in the account.
    manifest = Assembly(Path(offline["CDK_OUTDIR"])).json("manifest.json")
    assert manifest.get("missing", []) == []


def test_wrong_settings_stop_the_synth_with_one_message(offline: dict[str, str]) -> None:
    context = CONTEXT | {"castai:mode": "drian", "castai:cluster": "blue"}
    done = run(sys.executable, "app.py", env=offline | {"CDK_CONTEXT_JSON": json.dumps(context)})
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "Correct these settings (context in cdk.json, or cdk -c key=value):",
        "  castai:cluster: there is no such setting; did you mean castai:clusters?",
        '  castai:mode: give drain, cordon or dry-run, not "drian"; did you mean drain?',
        "All settings: docs/settings.md",
    ]
    assert not (Path(offline["CDK_OUTDIR"]) / "manifest.json").exists()
