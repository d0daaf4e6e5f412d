"""The demo: the product's main job from an empty account to an empty node, in chapters."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from sandbox import kubernetes, lifecycle, wait
from sandbox.aws import Aws, spot_notice
from sandbox.cdk import Cdk
from sandbox.errors import SandboxError
from sandbox.following import Following
from sandbox.state import Node, State
from sandbox.story import Story
from sandbox.view import View

NOTICE = 120.0  # s between a spot notice and the end of the instance
ENDED = ("succeeded", "failed", "expired", "discarded")
COMING_BACK = 20.0  # s for replacements to be ready after the drain


class DemoError(SandboxError):
    """The demo ran and showed something that must not be."""


@dataclass
class Stage:
    """What the chapters share."""

    folder: Path
    view: View
    result: dict[str, Any] = field(default_factory=dict)
    _state: State | None = None

    @property
    def state(self) -> State:
        if self._state is None:
            self._state = lifecycle.up(self.folder, self.view.step)
        return self._state

    @cached_property
    def aws(self) -> Aws:
        return Aws(self.state)

    @cached_property
    def cdk(self) -> Cdk:
        return Cdk(self.aws, self.folder)

    @property
    def spot(self) -> Node:
        return next(node for node in self.state.nodes if node.spot)


@dataclass(frozen=True)
class Chapter:
    """One part of the story; `act` raises SandboxError when it does not end well."""

    name: str
    title: str
    sentence: str
    act: Callable[[Stage], None]
    needs: tuple[str, ...] = ()


def play(stage: Stage, chapters: Sequence["Chapter"]) -> None:
    """Every chapter in order, each with its clock."""
    for number, chapter in enumerate(chapters, 1):
        started = time.monotonic()
        stage.view.chapter(number, chapter.title, chapter.sentence)
        chapter.act(stage)
        stage.view.done(time.monotonic() - started)


def selected(name: str | None) -> list["Chapter"]:
    """All chapters, or one with those that it stands on. Raises SandboxError for unknown names."""
    if name is None:
        return list(CHAPTERS)
    by_name = {chapter.name: chapter for chapter in CHAPTERS}
    if name not in by_name:
        raise SandboxError(f"Choose a chapter of {', '.join(by_name)}: there is no {name}")
    wanted = {name, *by_name[name].needs}
    return [chapter for chapter in CHAPTERS if chapter.name in wanted]


def _sandbox(stage: Stage) -> None:
    state = stage.state
    with kubernetes.administrator(state) as client:
        nodes, pods = kubernetes.count(client)
    stage.view.step(f"account {state.account}, region {state.region}, cluster {state.cluster}")
    stage.view.step(f"{nodes} nodes with {pods} pods, all of them ready")


def _deploy(stage: Stage) -> None:
    stage.view.step("cdk synth")
    stage.cdk.synth({"castai:clusters": stage.state.cluster})
    stage.view.step("cdk bootstrap")
    stage.cdk.bootstrap()
    stage.view.step("cdk deploy")
    stage.cdk.deploy()
    for name, value in stage.cdk.outputs().items():
        stage.view.step(f"{name} = {value}")


def _notice(stage: Stage) -> None:
    spot = stage.spot
    connect = partial(kubernetes.administrator, stage.state)
    with Following(connect, spot.name) as following:
        given = datetime.now(UTC)
        # Whole seconds, as EventBridge writes them.
        since = given.replace(microsecond=0).timestamp()
        event = stage.aws.publish(spot_notice(spot.instance, given=given, state=stage.state))
        stage.view.step(f"notice {event} for {spot.instance}, which is node {spot.name}")
        with stage.view.drain(following, since, since + NOTICE) as drawing:

            def ended() -> dict[str, Any] | None:
                drawing.look()
                found = stage.aws.deliveries(event)
                return found[0] if found and found[0]["state"] in ENDED else None

            def back() -> bool:
                drawing.look()
                return following.sees(Story.settled)

            delivery = wait.until(ended, "an end of the drain", timeout=NOTICE + COMING_BACK)
            stage.result = delivery["result"] or {}
            if delivery["state"] != "succeeded":
                why = stage.result.get("errorMessage", delivery)
                raise DemoError(f"The function failed: {why}")
            if stage.result["outcome"] == "drained":
                wait.until(back, "every evicted pod being ready elsewhere", timeout=COMING_BACK)
        stage.view.line(f"   {conclusion(stage.result)}", style="bold green")
        following.sees(partial(check, stage.result))


def conclusion(result: dict[str, Any]) -> str:
    """The one line that says it all, in the handler's own numbers."""
    pods = result["pods"]
    return (
        f"node {result['node']} {result['outcome']} in "
        f"{result.get('seconds_to_drained', result['seconds']):.1f} s of {NOTICE:.0f} s: "
        f"{pods['evicted']} evicted, {pods['forced']} forced, {pods['left']} left"
    )


def check(result: dict[str, Any], story: Story) -> None:
    """The handler's account against what the cluster showed. Raises DemoError where they differ."""
    counted = tuple(result["pods"][word] for word in ("evicted", "forced", "left"))
    faults = []
    if result["outcome"] != "drained":
        faults.append(f"the outcome is {result['outcome']}: {result['left']}")
    if counted != story.count():
        faults.append(
            f"evicted, forced, left: the handler counted {counted}, the cluster shows "
            f"{story.count()}"
        )
    if story.lost():
        faults.append(f"pods that did not come back: {', '.join(story.lost())}")
    if faults:
        raise DemoError("The demo went wrong: " + "; ".join(faults))


def _remove(stage: Stage) -> None:
    stage.view.step("cdk destroy")
    stage.cdk.destroy()
    left = leftovers(stage.aws)
    if left:
        raise DemoError(f"cdk destroy left behind: {', '.join(left)}")
    stage.view.step("no function, role, rule, queue, log group or access entry of ours is left")


def leftovers(aws: Aws) -> list[str]:
    """What of the app is still in the account; CDK's own bootstrap stack is not the app's."""
    cluster = aws.eks.list_clusters()["clusters"][0]
    entries = aws.eks.list_access_entries(clusterName=cluster)["accessEntries"]
    found = [
        *(f["FunctionName"] for f in aws.functions.list_functions()["Functions"]),
        *(r["RoleName"] for r in aws.iam.list_roles()["Roles"] if "Cast" in r["RoleName"]),
        *(r["Name"] for r in aws.events.list_rules()["Rules"]),
        *aws.sqs.list_queues().get("QueueUrls", []),
        *(g["logGroupName"] for g in aws.logs.describe_log_groups()["logGroups"]),
        *(entry for entry in entries if not entry.endswith("user/administrator")),
    ]
    return [str(thing) for thing in found]


CHAPTERS = (
    Chapter(
        "sandbox",
        "An account with an EKS cluster",
        "An AWS emulator and a Kubernetes API server on this machine; nothing leaves it.",
        _sandbox,
    ),
    Chapter(
        "deploy",
        "Deploy the spot handler",
        "One stack: an EventBridge rule, a Lambda function, its role and its way into the cluster.",
        _deploy,
        needs=("sandbox",),
    ),
    Chapter(
        "notice",
        "A spot notice, two minutes to go",
        "EC2 says that it takes an instance back; its node is cordoned and drained in time.",
        _notice,
        needs=("sandbox", "deploy"),
    ),
    Chapter(
        "remove",
        "Remove it",
        "cdk destroy takes away exactly what cdk deploy made.",
        _remove,
        needs=("sandbox", "deploy"),
    ),
)
