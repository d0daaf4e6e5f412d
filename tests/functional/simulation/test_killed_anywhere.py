"""A function that is killed at any call leaves nothing behind in the end.

CloudFormation does what it does after the time-out: it rolls back, deploys again, deletes. The
judge compares the account with what a first Create makes, and the end with the beginning.
"""

from __future__ import annotations

import itertools

import pytest
from msgspec import structs

from simulation.resources import agent, onboarding
from simulation.resources.calls import Fault
from simulation.resources.days import Day, Deploy, Edit, Remove

OTHERS = (Edit("maps a role in aws-auth", 0), Edit("gives a role access", 0))
LIVES = {
    "onboarding with a user": (
        onboarding.story(),
        (Deploy(0, ("user",)), Deploy(0, ("strict", "a tag")), Remove(0)),
    ),
    "onboarding with a role": (
        onboarding.story(),
        (Deploy(0, ("role",)), Deploy(0, ("strict", "a tag")), Remove(0)),
    ),
    "agent": (
        agent.story(),
        (Deploy(0, ("two agents",)), Deploy(0, ("one agent", "a proxy")), Remove(0)),
    ),
}
KILLS = ("killed", "killed after its effect")


def is_killed(life: str, request: int, fault: Fault) -> bool:
    """Live it with this fault. Returns whether the fault met a call."""
    story, steps = LIVES[life]
    faulty = structs.replace(steps[request], faults=(fault,))
    day = Day((*OTHERS, *steps[:request], faulty, *steps[request + 1 :]))
    verdict = story.run(day)
    assert verdict.faults == [], f"{fault}\n" + "\n".join(verdict.timeline)
    return bool(verdict.seen[fault.kind])


@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("request_number", range(3))
@pytest.mark.parametrize("life", LIVES)
def test_a_kill_at_a_write_leaves_nothing(life: str, request_number: int, kill: str) -> None:
    assert is_killed(life, request_number, Fault(kill, at=5))


@pytest.mark.long
@pytest.mark.parametrize("kill", KILLS)
@pytest.mark.parametrize("request_number", range(3))
@pytest.mark.parametrize("life", LIVES)
def test_a_kill_at_any_call_leaves_nothing(life: str, request_number: int, kill: str) -> None:
    for at in itertools.count():
        if not is_killed(life, request_number, Fault(kill, writes=False, at=at)):
            break
    assert at > 20
