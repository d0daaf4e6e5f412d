"""The demo: a cluster from its creation to offboarding, in chapters."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.demo import steps
from sandbox.demo.session import DemoSession
from sandbox.errors import SandboxError


@dataclass(frozen=True)
class Chapter:
    """A part of the demo. `run` raises SandboxError if a check fails."""

    name: str
    title: str
    description: str
    run: Callable[[DemoSession], None]
    needs: str = ""
    """The chapter that must run before."""


CHAPTERS = (
    Chapter(
        "account",
        "An account with an EKS cluster",
        "An AWS emulator, a Kubernetes API server and CAST AI's API, all simulated on this "
        "machine. No request leaves it.",
        steps.account,
    ),
    Chapter(
        "connect",
        "Connect: a read-only agent reports to CAST AI",
        "The agent in the cluster reads objects and reports them to CAST AI. It can change nothing "
        "except the resources of its own Deployment.",
        steps.connect,
        needs="account",
    ),
    Chapter(
        "savings",
        "What could be saved: an estimate that only reads",
        "The command reads nodes, pods and prices, packs the same pods anew, and says which "
        "workloads tolerate spot instances. CAST AI has no right to change anything yet.",
        steps.savings,
        needs="connect",
    ),
    Chapter(
        "onboard",
        "Onboard: CAST AI may add and remove nodes of this cluster",
        "CAST AI gets an IAM role that is restricted to this cluster and its VPC. The role may "
        "manage the cluster's instances. It has no access to the Kubernetes API.",
        steps.onboard,
        needs="connect",
    ),
    Chapter(
        "handler",
        "The spot handler: a Lambda function in the account",
        "EventBridge invokes it when EC2 interrupts a spot instance. It may drain nodes. It does "
        "not run on a node.",
        steps.handler,
        needs="onboard",
    ),
    Chapter(
        "notice",
        "A spot notice: drain the node within two minutes",
        "EC2 announces that it interrupts an instance. Its node is cordoned and drained before the "
        "deadline.",
        steps.notice,
        needs="onboard",
    ),
    Chapter(
        "log",
        "What CAST AI received",
        "All calls to CAST AI's API except reads: the agent, the role, the interruption. The API "
        "key is in no log, template, output or file.",
        steps.log,
        needs="notice",
    ),
    Chapter(
        "offboard",
        "Offboard: account and cluster as before",
        "cdk destroy disconnects CAST AI and removes exactly what cdk deploy created.",
        steps.offboard,
        needs="onboard",
    ),
)


def run(session: DemoSession, chapters: Sequence[Chapter]) -> None:
    """Run the chapters in order and print the duration of each."""
    began = time.monotonic()
    for number, chapter in enumerate(chapters, 1):
        started = time.monotonic()
        session.view.chapter(number, chapter.title, chapter.description)
        chapter.run(session)
        session.view.done(time.monotonic() - started)
    session.view.end(time.monotonic() - began)


def selected(name: str | None) -> list[Chapter]:
    """Return all chapters, or one and those it needs. Raises SandboxError for an unknown one."""
    if name is None:
        return list(CHAPTERS)
    by_name = {chapter.name: chapter for chapter in CHAPTERS}
    if name not in by_name:
        raise SandboxError(f"Choose one of the chapters {', '.join(by_name)}: there is no {name}")
    wanted = [by_name[name]]
    while wanted[0].needs:
        wanted.insert(0, by_name[wanted[0].needs])
    return wanted
