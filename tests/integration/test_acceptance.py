"""`python -m acceptance` in the sandbox: a run, and every way out of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from lightkube import Client, codecs
from lightkube.resources.core_v1 import Node as NodeResource
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

from acceptance import rights
from acceptance.scope import PREFIX, Scope
from lambdas.common.names import SPOT_HANDLER
from sandbox import kubernetes
from sandbox.aws import NO_ACCOUNT, Aws
from sandbox.demo import inventory
from sandbox.lifecycle import RBAC
from sandbox.state import API_KEY_SECRET, CastAi, Node, State
from tests.integration.pool import Pool
from tests.integration.test_permissions import without_rule

ROOT = Path(__file__).parents[2]
LIMIT = 300  # s: time limit of a run
USER = "jane.doe"
GROUP = "platform"


@contextmanager
def user(state: State, account: Aws, admin: Client, scope: Scope) -> Iterator[dict[str, str]]:
    """The environment of an IAM user with the rights that `--rights` prints, and no other."""
    document = rights.policy(scope, partition="aws", region=account.region, account=account.account)
    iam = account.iam
    arn = iam.create_user(UserName=USER)["User"]["Arn"]
    iam.put_user_policy(UserName=USER, PolicyName="run", PolicyDocument=json.dumps(document))
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    account.eks.create_access_entry(
        clusterName=state.cluster, principalArn=arn, kubernetesGroups=[GROUP]
    )
    role = rights.cluster_role(scope)
    group = role["apiVersion"].partition("/")[0]
    binding = {
        "apiVersion": role["apiVersion"],
        "kind": "ClusterRoleBinding",
        "metadata": {"name": GROUP},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role["metadata"]["name"]},
        "subjects": [{"apiGroup": group, "kind": "Group", "name": GROUP}],
    }
    for each in (role, binding):
        admin.apply(codecs.from_dict(each))
    try:
        yield {
            **{name: value for name, value in os.environ.items() if not name.startswith("AWS_")},
            **NO_ACCOUNT,
            **account.environment(),
            "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
            "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
        }
    finally:
        admin.delete(ClusterRoleBinding, GROUP)
        admin.delete(ClusterRole, role["metadata"]["name"])
        account.eks.delete_access_entry(clusterName=state.cluster, principalArn=arn)
        iam.delete_access_key(UserName=USER, AccessKeyId=key["AccessKeyId"])
        iam.delete_user_policy(UserName=USER, PolicyName="run")
        iam.delete_user(UserName=USER)


@pytest.fixture
def without_rbac(admin: Client) -> Iterator[None]:
    """A cluster without the spot handler's RBAC objects; they are there again after the test."""
    admin.delete(ClusterRoleBinding, SPOT_HANDLER)
    admin.delete(ClusterRole, SPOT_HANDLER)
    yield
    kubernetes.apply(admin, RBAC.read_text())


@dataclass(frozen=True)
class Command:
    """The command with a user's environment, for one node."""

    environment: Mapping[str, str]
    state: State
    node: Node
    report: Path

    def start(self, *options: str) -> subprocess.Popen[str]:
        return subprocess.Popen(  # noqa: S603 - our own program
            [
                *(sys.executable, "-m", "acceptance", self.state.cluster, self.node.instance),
                *("-c", "castai:bundling=local", "--report", str(self.report), *options),
            ],
            cwd=ROOT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, *options: str) -> tuple[int, str]:
        """Exit status and output."""
        with self.start(*options) as process:
            output, _ = process.communicate(timeout=LIMIT)
        return process.returncode, output


@pytest.fixture
def command(
    state: State, account: Aws, admin: Client, pool: Pool, tmp_path: Path
) -> Iterator[Command]:
    """For a node with pods of a Deployment that has room on a second node."""
    node = pool.node()
    pool.deployment("web", replicas=3, min_available=2)
    pool.node()
    with user(state, account, admin, Scope(state.cluster, node.instance)) as environment:
        yield Command(environment, state, node, tmp_path / "report.md")


def marks(admin: Client, node: Node) -> Any:
    found = admin.get(NodeResource, node.name)
    assert found.spec is not None
    assert found.metadata is not None
    return found.spec.unschedulable, found.spec.taints, found.metadata.labels


def everything(account: Aws, admin: Client, state: State) -> set[inventory.Thing]:
    return inventory.account(account, state.cluster) | inventory.cluster(admin)


@pytest.mark.usefixtures("without_rbac")
def test_with_the_printed_rights_it_drains_the_node_and_leaves_nothing(
    command: Command, account: Aws, admin: Client, state: State
) -> None:
    before, node = everything(account, admin, state), marks(admin, command.node)
    code, output = command.run("--yes")
    report = command.report.read_text()
    assert code == 0, output
    assert report.startswith("# Acceptance: passed\n")
    assert re.search(r"3 evicted, 0 forced, 0 ended by others, 0 left; .* 3 pods", report)
    assert "FAILED" not in report
    assert account.account not in report
    assert USER not in report
    assert everything(account, admin, state) == before
    assert marks(admin, command.node) == node


def test_without_an_answer_nothing_is_touched(
    command: Command, account: Aws, admin: Client, state: State
) -> None:
    before = everything(account, admin, state)
    code, output = command.run()
    assert code == 1
    assert "Nothing was touched: answer y, or give --yes" in output
    assert f"stack {PREFIX}-spot-handler" in output
    assert everything(account, admin, state) == before
    assert not command.report.exists()


def printed(process: subprocess.Popen[str], pattern: str) -> str:
    """Read the output until a line matches. Returns all lines until then."""
    assert process.stdout is not None
    lines = []
    for line in process.stdout:
        lines.append(line)
        if re.search(pattern, line):
            return "".join(lines)
    raise AssertionError("".join(lines))


@pytest.mark.long
@pytest.mark.usefixtures("without_rbac")
def test_a_run_that_is_ended_in_the_drill_undoes_everything(
    command: Command, account: Aws, admin: Client, state: State, pool: Pool
) -> None:
    pool.pod(command.node, shutdown=4)
    before, node = everything(account, admin, state), marks(admin, command.node)
    with command.start("--yes") as process:
        printed(process, "node cordoned")
        process.send_signal(signal.SIGTERM)
        output, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 1, output
    report = command.report.read_text()
    assert report.startswith("# Acceptance: FAILED\n")
    assert "interrupted" in report
    assert "| node as before | passed |" in report
    assert "| nothing left | passed |" in report
    assert everything(account, admin, state) == before
    assert marks(admin, command.node) == node


@pytest.mark.long
@pytest.mark.usefixtures("without_rbac")
def test_the_next_run_undoes_what_a_killed_run_left(
    command: Command, account: Aws, admin: Client, state: State, pool: Pool
) -> None:
    pool.pod(command.node, shutdown=4)
    before, node = everything(account, admin, state), marks(admin, command.node)
    with command.start("--yes") as process:
        printed(process, "node cordoned")
        process.kill()
    assert everything(account, admin, state) != before
    code, output = command.run()
    assert (code, "An earlier run of this cluster was not undone." in output) == (1, True), output
    assert everything(account, admin, state) != before
    code, output = command.run("--yes", "-c", "castai:mode=dry-run")
    assert code == 0, output
    assert "| nothing written | passed | plan for " in command.report.read_text()
    assert everything(account, admin, state) == before
    assert marks(admin, command.node) == node


@pytest.mark.long
def test_a_drain_that_fails_is_a_report_that_says_why(
    command: Command, account: Aws, admin: Client, state: State
) -> None:
    before = everything(account, admin, state)
    with without_rule(admin, "nodes", "patch"):
        code, output = command.run("--yes")
    assert code == 1, output
    report = command.report.read_text()
    assert report.startswith("# Acceptance: FAILED\n")
    assert re.search(r"The function failed: .*nodes", report)
    assert everything(account, admin, state) == before


@pytest.mark.long
def test_with_an_api_key_it_connects_and_onboards_too(
    state: State, pool: Pool, castai: CastAi, tmp_path: Path, *, account: Aws, admin: Client
) -> None:
    node = pool.node()
    pool.deployment("web", replicas=2, min_available=1)
    pool.node()
    before = everything(account, admin, state)
    scope = Scope(state.cluster, node.instance, api_key_secret=API_KEY_SECRET)
    with user(state, account, admin, scope) as environment:
        command = Command(environment, state, node, tmp_path / "report.md")
        options = ("--api-key-secret", API_KEY_SECRET, "-c", f"castai:apiUrl={castai.url}")
        code, output = command.run("--yes", *options)
    assert code == 0, output
    report = command.report.read_text()
    for check in ("read-only agent", "agent at CAST AI", "trust policy", "no access to Kubernetes"):
        assert f"| {check} | passed |" in report
    assert account.secrets.get_secret_value(SecretId=API_KEY_SECRET)["SecretString"] not in report
    assert everything(account, admin, state) == before
