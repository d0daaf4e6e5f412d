"""The demo: a cluster from its creation to offboarding, in chapters."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from sandbox.demo import steps
from sandbox.demo.session import DemoSession
from sandbox.errors import SandboxError


@dataclass(frozen=True)
class Chapter:
    """One part of the demo; `act` raises SandboxError when a check fails."""

    name: str
    title: str
    sentence: str
    act: Callable[[DemoSession], None]
    needs: str = ""
    """The chapter that has to run before."""


CHAPTERS = (
    Chapter(
        "account",
        "An account with an EKS cluster",
        "An AWS emulator, a Kubernetes API server and CAST AI's API, all simulated on this "
        "machine; nothing leaves it.",
        steps.account,
    ),
    Chapter(
        "connect",
        "Connect: CAST AI looks, and touches nothing",
        "An agent in the cluster reads what runs there and reports it to CAST AI. It may read, and "
        "change nothing but its own size.",
        steps.connect,
        needs="account",
    ),
    Chapter(
        "onboard",
        "Onboard: CAST AI may add and remove nodes of this cluster",
        "CAST AI gets a role in the account, bound to this cluster and its VPC. It may manage the "
        "cluster's instances; it cannot look into the cluster.",
        steps.onboard,
        needs="connect",
    ),
    Chapter(
        "handler",
        "The spot handler waits",
        "A function of yours, in your account, that EventBridge wakes when EC2 takes a spot "
        "instance back. It may empty nodes; it runs on none.",
        steps.handler,
        needs="onboard",
    ),
    Chapter(
        "notice",
        "A spot notice, two minutes to go",
        "EC2 says that it takes an instance back; its node is cordoned and drained in time.",
        steps.notice,
        needs="onboard",
    ),
    Chapter(
        "log",
        "What CAST AI got to know",
        "Every call that reached CAST AI's API: the agent, the role, the interruption. The API key "
        "is nowhere to be read.",
        steps.log,
        needs="notice",
    ),
    Chapter(
        "offboard",
        "Offboard: as if nothing had been",
        "cdk destroy disconnects CAST AI and takes away exactly what cdk deploy made.",
        steps.offboard,
        needs="onboard",
    ),
)


def play(session: DemoSession, chapters: Sequence[Chapter]) -> None:
    """Run the chapters in order and print the duration of each."""
    began = time.monotonic()
    for number, chapter in enumerate(chapters, 1):
        started = time.monotonic()
        session.view.chapter(number, chapter.title, chapter.sentence)
        chapter.act(session)
        session.view.done(time.monotonic() - started)
    session.view.end(time.monotonic() - began)


def selected(name: str | None) -> list[Chapter]:
    """All chapters, or one and those that it needs. Raises SandboxError for an unknown one."""
    if name is None:
        return list(CHAPTERS)
    by_name = {chapter.name: chapter for chapter in CHAPTERS}
    if name not in by_name:
        raise SandboxError(f"Choose a chapter of {', '.join(by_name)}: there is no {name}")
    wanted = [by_name[name]]
    while wanted[0].needs:
        wanted.insert(0, by_name[wanted[0].needs])
    return wanted
