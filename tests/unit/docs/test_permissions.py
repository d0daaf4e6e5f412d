"""The generated documents are current, and the manual onboarding does what the onboarding does."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from lambdas.onboarding.policies import castai_identity, node_role, onboarder
from lambdas.onboarding.policies.equality import same
from lambdas.onboarding.policies.scope import Mode, Permissions, Scope
from tools.docs import manual, permissions

SCOPE = Scope(
    "aws-us-gov",
    "us-gov-west-1",
    "111122223333",
    "c" * 50,
    "1a2b3c4d-0000-4000-8000-000000000001",
    "vpc-1",
)
WRITTEN = permissions.written() | manual.written()
PRINCIPAL = "arn:aws-us-gov:iam::809060229965:user/cast"

# A stub of the AWS CLI, curl and jq: it records each call and answers some.
STUB = """#!/bin/bash
printf '%s %s\\n' "${0##*/}" "$*" >> calls
[[ -p /dev/stdin ]] && cat > /dev/null
case "${0##*/} $*" in
  "aws sts"*) echo arn:aws-us-gov:iam::111122223333:user/admin ;;
  "aws eks describe-cluster"*) echo vpc-1 ;;
  "aws ec2 create-security-group"*) echo sg-1 ;;
  "jq --raw-output .arn") echo arn:aws-us-gov:iam::809060229965:user/cast ;;
  "aws iam create-access-key"*) echo '{"accessKeyId": "AKIA"}' ;;
  *) echo - ;;
esac
"""


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: path.name)
def test_a_generated_document_is_current(path: Path) -> None:
    assert path.read_text(encoding="utf-8") == WRITTEN[path], "Run make docs"


def test_every_permission_of_every_document_is_in_the_table() -> None:
    text = permissions.permissions()
    for level in Permissions:
        for document in (
            castai_identity.cast_eks_policy(
                permissions.EXAMPLE, level, manage_spot_lambda=False, boundary=None
            ),
            castai_identity.restricted_access(permissions.EXAMPLE, level),
        ):
            for statement in document["Statement"]:
                assert statement["Sid"] in text
                assert all(action in text for action in statement["Action"])


def run_manual(mode: Mode, folder: Path) -> list[str]:
    """Run every command of this mode in bash. Returns the calls of programs, in order."""
    blocks = re.findall(r"```bash ?([a-z-]*)\n(.*?)```", manual.manual(), re.DOTALL)
    script = "\n".join(text for wanted, text in blocks if wanted in {"", mode.value})
    programs = folder / "bin"
    programs.mkdir()
    for name in ("aws", "curl", "jq"):
        stub = programs / name
        stub.write_text(STUB)
        stub.chmod(0o755)
    subprocess.run(  # noqa: S603 - our own text, with stubs
        ["/bin/bash", "-c", script],
        cwd=folder,
        env={
            "PATH": f"{programs}:{os.defpath}",
            "CLUSTER": SCOPE.cluster,
            "CLUSTER_ID": SCOPE.cluster_id,
            "REGION": SCOPE.region,
            "CASTAI_API_KEY": "the-key",
        },
        check=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    return (folder / "calls").read_text().splitlines()


@pytest.mark.parametrize("mode", Mode)
def test_the_commands_write_the_policies_of_the_onboarding(mode: Mode, tmp_path: Path) -> None:
    run_manual(mode, tmp_path)
    expected = {
        "cast-eks-policy.json": castai_identity.cast_eks_policy(
            SCOPE, Permissions.FULL, manage_spot_lambda=False, boundary=None
        ),
        "restricted-access.json": castai_identity.restricted_access(SCOPE, Permissions.FULL),
        "node-trust.json": node_role.node_trust(SCOPE.partition),
    }
    if mode is Mode.ROLE:
        expected["trust.json"] = castai_identity.cross_account_trust(PRINCIPAL, SCOPE.cluster_id)
    found = {path.name: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert found.keys() == expected.keys()
    for name, document in expected.items():
        assert same(found[name], document), name


@pytest.mark.parametrize("mode", Mode)
def test_the_commands_use_the_names_of_the_onboarding(mode: Mode, tmp_path: Path) -> None:
    calls = "\n".join(run_manual(mode, tmp_path))
    role = SCOPE.node_role_arn.rpartition("/")[2]
    for name in (
        "--policy-name CastEKSPolicy-" + SCOPE.cluster,
        f"--role-name {role} --assume-role-policy-document file://node-trust.json",
        f"--instance-profile-name {role} --role-name {role}",
        f"--group-name cast-{SCOPE.cluster}-cluster/CastNodeSecurityGroup",
        f"--principal-arn {SCOPE.node_role_arn}",
        *node_role.node_managed_policies(SCOPE.partition, ssm=False, ebs_csi=False),
        *castai_identity.identity_managed_policies(SCOPE.partition, Permissions.FULL),
    ):
        assert name in calls
    identity = SCOPE.user_arn if mode is Mode.USER else SCOPE.role_arn
    flag = "--user-name" if mode is Mode.USER else "--role-name"
    assert f"{flag} {identity.rpartition('/')[2]}" in calls


@pytest.mark.parametrize("mode", Mode)
def test_the_administrators_policies_allow_the_commands(mode: Mode, tmp_path: Path) -> None:
    granted = {
        action
        for document in onboarder.administrator(SCOPE, modes=[mode]).values()
        for statement in document["Statement"]
        for action in statement["Action"]
    }
    for call in run_manual(mode, tmp_path):
        program, service, command, *_ = call.split(" ", 3)
        if program == "aws":
            action = "".join(word.capitalize() for word in command.split("-"))
            assert f"{service}:{action}" in granted


@pytest.mark.parametrize("mode", Mode)
def test_no_secret_is_on_a_command_line_or_left_in_a_file(mode: Mode, tmp_path: Path) -> None:
    calls = run_manual(mode, tmp_path)
    assert not any("the-key" in call for call in calls)
    assert not {"castai-header", "key.json"} & {path.name for path in tmp_path.iterdir()}
