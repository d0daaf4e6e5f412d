"""`castai-eks savings` as a person runs it: with exactly the rights that it needs, and no more."""

from __future__ import annotations

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from lightkube import Client
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

from lambdas.onboarding.policies import savings as savings_policies
from lambdas.onboarding.policies.scope import FunctionScope
from sandbox import kubernetes
from sandbox.aws import Aws
from sandbox.state import State
from tests.integration.test_emulator import User

ROOT = Path(__file__).parents[2]
GROUP = "estimators"
COMMAND = "from cli.main import main; main()"
Done = subprocess.CompletedProcess[str]


class Person:
    """An IAM user with the policy and the ClusterRole of `castai-eks policy savings`."""

    def __init__(self, state: State, account: Aws, admin: Client) -> None:
        self.state, self.account, self.admin = state, account, admin
        self.user = User(account)
        where = FunctionScope("aws", account.account, (account.region,))
        self.document: dict[str, Any] = copy.deepcopy(savings_policies.reader(where, state.cluster))
        self.role: dict[str, Any] = copy.deepcopy(savings_policies.cluster_role())
        arn = account.iam.get_user(UserName=self.user.name)["User"]["Arn"]
        self.entry = {"clusterName": state.cluster, "principalArn": arn}
        account.eks.create_access_entry(**self.entry, kubernetesGroups=[GROUP])
        self.grant()

    def grant(self) -> None:
        """Give the user both, as they are now."""
        self.user.attach(self.document)
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": self.role["metadata"]["name"]},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": self.role["metadata"]["name"],
            },
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP}],
        }
        kubernetes.apply(self.admin, yaml.safe_dump_all([self.role, binding]))

    def run(self, *arguments: str | Path, aws: bool = True) -> Done:
        """`castai-eks savings` with the user's keys, or without any environment of AWS."""
        environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent"}
        if aws:
            environment |= self.account.environment() | {
                "AWS_ACCESS_KEY_ID": self.user._key["AccessKeyId"],
                "AWS_SECRET_ACCESS_KEY": self.user._key["SecretAccessKey"],
            }
        return subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-c", COMMAND, "savings", *arguments],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )


@pytest.fixture
def person(state: State, account: Aws, admin: Client) -> Iterator[Person]:
    made = Person(state, account, admin)
    yield made
    account.eks.delete_access_entry(**made.entry)
    for kind in (ClusterRoleBinding, ClusterRole):
        admin.delete(kind, savings_policies.NAME)


def test_the_rights_suffice_and_the_files_repeat_the_estimate(
    person: Person, state: State, tmp_path: Path
) -> None:
    snapshot, prices = tmp_path / "snapshot.json", tmp_path / "prices.json"
    kept = ["--snapshot", snapshot, "--prices", prices, "--json"]
    done = person.run(state.cluster, *kept)
    assert (done.returncode, done.stderr) == (0, "")
    found = json.loads(done.stdout)
    assert found["cluster"] == state.cluster
    assert "m6i.xlarge" in done.stdout
    assert snapshot.exists()
    assert prices.exists()
    again = person.run(*kept, aws=False)
    assert (again.returncode, again.stderr) == (0, "")
    assert json.loads(again.stdout) == found


def without_pods(person: Person) -> None:
    person.role["rules"][0]["resources"].remove("pods")


def without_prices(person: Person) -> None:
    person.document["Statement"][1]["Action"].remove("ec2:DescribeSpotPriceHistory")


@pytest.mark.parametrize(
    ("take", "named"),
    [(without_pods, "listing Pod: 403"), (without_prices, "ec2:DescribeSpotPriceHistory")],
)
def test_a_missing_right_is_one_line_and_leaves_nothing(
    person: Person, state: State, tmp_path: Path, take: Callable[[Person], None], named: str
) -> None:
    take(person)
    person.grant()
    files = ["--snapshot", tmp_path / "s", "--prices", tmp_path / "p", "--html", tmp_path / "h"]
    done = person.run(state.cluster, *files)
    assert (done.returncode, done.stdout) == (1, "")
    first, *lines = done.stderr.splitlines()
    assert "castai-eks policy savings" in first
    assert len(lines) == 1
    assert named in lines[0]
    assert list(tmp_path.iterdir()) == []
