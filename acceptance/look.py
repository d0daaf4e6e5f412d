"""Before anything is touched: what is there, what speaks against the run, what it will do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from botocore.exceptions import ClientError

from acceptance import kubernetes, plan
from acceptance.errors import AcceptanceError
from acceptance.kubernetes import Found
from acceptance.run import Run
from lambdas.common.names import AGENT

NO_ACCESS_ENTRIES = "CONFIG_MAP"
ACTIVE = ("ACTIVE", "UPDATING")


@dataclass(frozen=True)
class Target:
    """The node of the drill, as it was found."""

    kind: str
    """Instance type."""
    market: str
    found: Found
    missing_rbac: tuple[str, ...]


def look(run: Run) -> Target:
    """Read what the run needs. Writes nothing.

    Raises AcceptanceError with everything that speaks against the run.
    """
    problems = [*run.scope.faults(), *_account_problems(run)]
    described, problem = _instance(run)
    problems += problem
    with run.connect() as client, run.kube() as kube:
        found = kubernetes.find(client, run.scope.instance)
        missing = kubernetes.missing_rbac(kube)
        if run.scope.api_key_secret and kube.get("v1", "Namespace", AGENT):
            problems.append(
                "Leave --api-key-secret out: the cluster has an agent already, which the run would "
                "replace"
            )
    problems += found.problems
    if problems:
        raise AcceptanceError("\n".join(problems))
    market = described.get("InstanceLifecycle", "on-demand")
    return Target(described.get("InstanceType", ""), market, found, missing)


def show(run: Run, target: Target) -> None:
    """Print what the run will do and what it costs."""
    scope, view, found = run.scope, run.view, target.found
    view.step(f"account {run.account.account}, region {run.account.region}")
    view.step(f"as {run.account.identity}")
    view.step(f"cluster {scope.cluster} ({found.version}), node {found.name}")
    view.step(f"instance {scope.instance}, {target.kind}, {target.market}; it is not interrupted")
    view.step("it creates, and removes at the end:")
    view.table(plan.creates(scope, target.missing_rbac))
    view.step("the drill, in about two minutes:")
    view.table(plan.pods(found.pods, scope.expected))
    costs = plan.costs()
    view.step(f"it costs at most {sum(cost.dollars for cost in costs):.2f} USD at list prices:")
    view.table([(cost.part, f"{cost.dollars:.4f} USD") for cost in costs])
    view.step("   and what your autoscaler adds for the evicted pods")
    view.step("what stays:")
    view.table([(each,) for each in plan.remains(scope)])
    view.step("every way out undoes it: an error, Ctrl-C, a second run after a kill")


def _account_problems(run: Run) -> Iterator[str]:
    cluster, account = run.cluster, run.account
    if cluster.status not in ACTIVE:
        yield f"Wait until cluster {cluster.name} is active: it is {cluster.status}"
    if cluster.authentication_mode == NO_ACCESS_ENTRIES:
        yield (
            f"Allow access entries in cluster {cluster.name} (authentication mode "
            "API_AND_CONFIG_MAP): the run gives the handler access by one"
        )
    parameter = f"/cdk-bootstrap/{run.scope.qualifier}/version"
    if _missing(partial(account.client("ssm").get_parameter, Name=parameter)):
        yield (
            f"Bootstrap the account first: npx cdk bootstrap "
            f"aws://{account.account}/{account.region}"
        )
    describe = account.client("cloudformation").describe_stacks
    for stack in run.scope.stacks:
        if not _missing(partial(describe, StackName=stack)):
            yield f"Delete stack {stack}, or choose another --prefix: it exists"


def _instance(run: Run) -> tuple[dict[str, Any], list[str]]:
    name = run.scope.instance
    try:
        answer = run.account.client("ec2").describe_instances(InstanceIds=[name])
    except ClientError as error:
        return {}, [f"Name an instance of region {run.account.region}: {error}"]
    found: dict[str, Any] = answer["Reservations"][0]["Instances"][0]
    state = found["State"]["Name"]
    return found, [] if state == "running" else [f"Name an instance that runs: {name} is {state}"]


def _missing(call: Callable[[], object]) -> bool:
    """Whether AWS says that the thing does not exist. Raises ClientError for another refusal."""
    try:
        call()
    except ClientError as error:
        text = f"{error.response['Error']['Code']} {error.response['Error']['Message']}"
        if "NotFound" in text or "does not exist" in text:
            return True
        raise
    return False
