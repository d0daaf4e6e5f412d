"""A run: what it has deployed and checked, and how it is undone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
from lightkube.core.resource import GlobalResource
from lightkube.resources.core_v1 import Namespace
from lightkube.resources.rbac_authorization_v1 import ClusterRole, ClusterRoleBinding

from acceptance import checks, kubernetes
from acceptance.account import Account
from acceptance.errors import FAILURES
from acceptance.journal import Journal, Touched
from acceptance.kubernetes import Found
from acceptance.report import Report
from acceptance.scope import Scope
from lambdas.common import api_key, eks
from lambdas.common.castai import CastaiApi
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import AGENT, SPOT_HANDLER_GROUP
from lambdas.onboarding import names
from sandbox.cdk import Cdk
from sandbox.demo import inventory
from sandbox.demo.console import View
from sandbox.demo.inventory import Thing

KINDS: tuple[type[GlobalResource], ...] = (Namespace, ClusterRole, ClusterRoleBinding)
"""What the run could leave in the cluster: the agent's other objects are in its namespace."""


@dataclass
class Run:
    """One run on an account."""

    account: Account
    scope: Scope
    journal: Journal
    view: View
    report: Report
    touched: Touched = field(init=False)
    before: frozenset[Thing] = frozenset()
    outputs: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.touched = Touched(
            account=self.account.account,
            region=self.account.region,
            cluster=self.scope.cluster,
        )

    @cached_property
    def cdk(self) -> Cdk:
        return Cdk(self.account, self.journal.folder)

    @cached_property
    def cluster(self) -> eks.Cluster:
        """The cluster. Raises CastaiError if it does not exist or has no endpoint."""
        return eks.describe(
            self.account.client("eks"), self.scope.cluster, region=self.account.region
        )

    @cached_property
    def connect(self) -> kubernetes.Connect:
        return kubernetes.connector(self.account, self.cluster)

    @contextmanager
    def kube(self) -> Iterator[Kube]:
        with Kube(self.connect()) as kube:
            yield kube

    def list_before(self) -> None:
        """Take the inventory."""
        self.before = self._inventory()
        self.view.step(f"{len(self.before)} resources: {inventory.counted(sorted(self.before))}")

    def _inventory(self) -> frozenset[Thing]:
        account = inventory.account(self.account, self.scope.cluster)
        with self.connect() as client, kubernetes.translated("listing objects of the cluster"):
            return frozenset(account | inventory.cluster(client, KINDS))

    def touch(self, **what: Any) -> None:  # noqa: ANN401 - fields of Touched
        self.touched = msgspec.structs.replace(self.touched, **what)
        self.journal.write(self.touched)

    def prepare(self, missing_rbac: tuple[str, ...]) -> None:
        """Synthesise the app and create these RBAC objects, which the cluster lacks."""
        self.touch()
        with self.view.doing("cdk synth"):
            self.cdk.synth(self.scope.settings)
        if missing_rbac:
            self.touch(rbac=True)
            with self.kube() as kube:
                kubernetes.apply_rbac(kube, missing_rbac)
            self.view.step(f"created {' and '.join(missing_rbac)} castai-spot-handler")

    def deploy(self, stack: str) -> None:
        """Run `cdk deploy` of a stack."""
        self.touch(stacks=(*self.touched.stacks, stack))
        with self.view.doing(f"cdk deploy {stack}"):
            self.cdk.deploy(stack)
        self.outputs |= self.cdk.outputs()

    def handler(self) -> None:
        """Deploy the spot handler. Check its rule and its access entry."""
        self.deploy(self.scope.spot_handler)
        rule = f"{self.scope.spot_handler}-SpotInterruption"
        targets = self.account.client("events").list_targets_by_rule(Rule=rule)["Targets"]
        called = [target["Arn"].rpartition(":")[2] for target in targets]
        self._check("rule", called == [self.scope.spot_handler], f"{rule} → {', '.join(called)}")
        entry = self.account.client("eks").describe_access_entry(
            clusterName=self.scope.cluster, principalArn=self.outputs["RoleArn"]
        )["accessEntry"]
        groups = entry["kubernetesGroups"]
        self._check(
            "access entry", groups == [SPOT_HANDLER_GROUP], f"groups {', '.join(groups) or 'none'}"
        )

    def agent(self) -> None:
        """Deploy the agent. Check that its role only reads and that CAST AI sees it."""
        self.deploy(self.scope.agent)
        with self.connect() as client, kubernetes.translated("reading the agent's ClusterRole"):
            rules = client.get(ClusterRole, AGENT).rules or []
        verbs = sorted({verb for rule in rules for verb in rule.verbs})
        self._check("read-only agent", verbs == ["get", "list", "watch"], ", ".join(verbs))
        status = self._at_castai().agent_status
        self._check("agent at CAST AI", status == "online", status)

    def onboarding(self) -> None:
        """Deploy the onboarding. Check the role that CAST AI received."""
        self.deploy(self.scope.onboarding)
        name = names.role_name(self.scope.cluster, self._cluster_id)
        role = self.account.client("iam").get_role(RoleName=name)["Role"]
        with self._castai() as api:
            principal = api.assume_role_principal(self._cluster_id)
        self.add(
            checks.of_trust(
                role["AssumeRolePolicyDocument"], principal=principal, cluster_id=self._cluster_id
            )
        )
        entries = self.account.client("eks").get_paginator("list_access_entries")
        arns = [
            entry
            for page in entries.paginate(clusterName=self.scope.cluster)
            for entry in page["accessEntries"]
        ]
        self._check(
            "no access to Kubernetes", role["Arn"] not in arns, "CAST AI's role has no access entry"
        )

    @property
    def _cluster_id(self) -> str:
        return next(value for name, value in self.outputs.items() if name.endswith("ClusterId"))

    @contextmanager
    def _castai(self) -> Iterator[CastaiApi]:
        secret = self.scope.api_key_secret or ""
        key = api_key.read(self.account.client("secretsmanager"), secret)
        with CastaiApi(key, self.scope.api_url) as api:
            yield api

    def _at_castai(self) -> Any:  # noqa: ANN401 - ExternalCluster
        with self._castai() as api:
            return api.get(self._cluster_id)

    # On every way out

    def undo(self, touched: Touched) -> None:
        """Undo what was touched: stacks, node, RBAC. Each is tried, whatever the others do.

        What fails is in the report, with what to do.
        """
        if touched.stacks:
            by_hand = f"Delete the stacks {' '.join(touched.stacks)}"
            self._undone(lambda: self._destroy(touched), by_hand)
        if touched.node:  # after the stacks: a function that still runs may cordon it
            self._undone(
                lambda: self._uncordon(touched.node),
                f"kubectl uncordon {touched.node}, and remove the taint and the labels of a drain "
                "(docs/operations.md, Drill)",
            )
        if touched.rbac:
            self._undone(
                self._remove_rbac,
                "kubectl delete clusterrolebinding,clusterrole castai-spot-handler",
            )
        if not self.report.by_hand:
            self.journal.clear()

    def _undone(self, undo: Callable[[], None], by_hand: str) -> None:
        try:
            undo()
        except FAILURES as error:
            why = str(error) or type(error).__name__  # a time-out may have no text
            self.view.step(f"not undone: {why}")
            self.report.by_hand.append(f"{by_hand} ({why.splitlines()[0]})")

    def _uncordon(self, node: str) -> None:
        with self.connect() as client:
            marked = kubernetes.remove_marks(client, node)
        self.view.step(f"node {node} {'uncordoned' if marked else 'has no marks of a drain'}")

    def _destroy(self, touched: Touched) -> None:
        with self.view.doing(f"cdk destroy {' '.join(reversed(touched.stacks))}"):
            self.cdk.destroy(*touched.stacks)

    def _remove_rbac(self) -> None:
        with self.kube() as kube:
            removed = kubernetes.remove_rbac(kube)
        self.view.step(f"removed {' and '.join(removed) or 'no RBAC object'} castai-spot-handler")

    def compare(self, found: Found) -> None:
        """Take the inventory and read the node again, and compare."""
        with self.connect() as client, kubernetes.translated("reading the node"):
            self.add(checks.of_node(found.state, kubernetes.state_of(client, found.name)))
        for check in checks.of_inventory(self.scope, self.before, self._inventory()):
            self.add(check)

    def _check(self, name: str, good: bool, detail: str) -> None:
        self.add(checks.Check(name, good, detail))

    def add(self, check: checks.Check) -> None:
        self.report.checks.append(check)
        mark = {True: "✓", False: "✗", None: "·"}[check.passed]
        self.view.step(f"{mark} {check.name}: {check.detail}")
