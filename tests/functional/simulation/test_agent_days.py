"""Days of the agent keep their promises, and find faults of the code."""

from __future__ import annotations

import pytest

from simulation.engine import draw
from simulation.resources import agent
from simulation.resources.agent_edits import AGENT_EDITS
from simulation.resources.calls import Fault
from simulation.resources.days import Day, Deploy, Edit

DAYS = agent.story()
CONTESTS = (
    "scales the Deployment",
    "changes the image",
    "changes the command",
    "changes a label",
    "changes the autoscaler's data",
    "adds a rule",
    "forces fields",
)


def deploy(*changes: str, faults: tuple[Fault, ...] = ()) -> Deploy:
    return Deploy(0, changes, faults)


def lasting(kind: str, at: int) -> tuple[Fault, ...]:
    return (Fault(kind, "kubernetes", at=at, times=1000),)


@pytest.mark.parametrize("seed", range(3))
def test_a_day_of_the_agent_keeps_the_promises(seed: int) -> None:
    verdict = DAYS.run(draw(DAYS, seed))
    assert verdict.faults == [], "\n".join(verdict.timeline)


@pytest.mark.parametrize("edit", AGENT_EDITS)
def test_each_kind_of_edit_is_made_and_keeps_the_promises(edit: str) -> None:
    before = edit == "makes the namespace"
    steps = (Edit(edit, 0), deploy()) if before else (deploy(), Edit(edit, 0))
    verdict = DAYS.run(Day((*steps, deploy("two agents"))))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen[edit] == 1


@pytest.mark.parametrize("edit", CONTESTS)
def test_fields_of_others_are_refused_until_they_release_them(edit: str) -> None:
    verdict = DAYS.run(Day((deploy(), Edit(edit, 0), deploy("two agents"), deploy("a proxy"))))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen["Update failed"] == 2  # the Update, and the first rollback
    assert verdict.seen["Update done"] == 2


# Found by days ------------------------------------------------------------------------------------


def test_an_object_whose_creation_was_not_answered_is_removed_by_the_undo() -> None:
    # The namespace is created, each answer is a failure, and then the right is refused.
    lost = (Fault("failing after its effect", "kubernetes", times=5),)
    refused = (Fault("refused", "kubernetes", at=5),)
    verdict = DAYS.run(Day((deploy(faults=lost + refused),)))
    assert verdict.faults == [], "\n".join(verdict.timeline)


def test_what_several_tries_created_and_could_not_remove_is_named() -> None:
    verdict = DAYS.run(Day((deploy(faults=lasting("failing", 4)),)))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen["Create failed"] == 1


def test_a_rollback_removes_the_agent_from_the_cluster_of_the_failed_update() -> None:
    verdict = DAYS.run(Day((deploy(), deploy("another cluster", "no node fits"))))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen["Update failed"] == 1


def test_what_earlier_tries_created_is_named_also_if_the_last_one_reads_nothing() -> None:
    faults = (
        *lasting("failing", 4),
        Fault("failing", "kubernetes", writes=False, at=40, times=1000),
    )
    verdict = DAYS.run(Day((deploy(faults=faults),)))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen["Create failed"] == 1


def test_a_create_is_undone_also_if_the_last_list_is_refused() -> None:
    refused = (Fault("refused", "kubernetes", writes=False, at=27),)
    verdict = DAYS.run(Day((deploy(faults=refused),)))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen["Create failed"] == 1


@pytest.mark.parametrize("kind", ["refused", "failing"])
def test_an_access_that_stays_fails_no_create_whose_objects_would_stay(kind: str) -> None:
    verdict = DAYS.run(Day((deploy(faults=(Fault(kind, "eks", at=2, times=1000),)),)))
    assert verdict.faults == [], "\n".join(verdict.timeline)
    assert verdict.seen["Delete done"] == 1


# Known faults, put back ---------------------------------------------------------------------------

TWO = (deploy(), Deploy(1))
FOUND_BY = {
    "a Delete takes objects of others along": Day((deploy(), Edit("adds a ConfigMap", 0))),
    "a Delete takes a namespace that others made": Day((Edit("makes the namespace", 0), deploy())),
    "a Delete does not wait for the end": Day((deploy(), Edit("holds the Secret", 0))),
    "the owner's mark is not checked": Day(TWO, resources=(0, 0)),
    "fields of others are taken over": Day(
        (deploy(), Edit("scales the Deployment", 0), deploy("new code"))
    ),
    "an Update keeps an object that is no longer wanted": Day(
        (deploy("two agents"), deploy("one agent"))
    ),
    "an Update to another cluster answers the former id": Day(
        (deploy(), deploy("another cluster"))
    ),
    "an Update of nothing changes the physical id": Day((deploy(), deploy("new code"))),
    "a rollback leaves the other cluster": Day(
        (deploy(), deploy("another cluster", "no node fits"))
    ),
    "a failed Create is not undone": Day((deploy(faults=(Fault("refused", "kubernetes", at=5),)),)),
    "an object that was not answered stays": Day(
        (
            deploy(
                faults=(
                    Fault("failing after its effect", "kubernetes", times=5),
                    Fault("refused", "kubernetes", at=5),
                )
            ),
        )
    ),
    "the access of the wait stays": Day((deploy(),)),
    "an agent that does not run counts as ready": Day((deploy("no node fits"),)),
    "a log line has the API key": Day((deploy(),)),
    "the libraries log at DEBUG": Day((deploy(),), log_level="DEBUG"),
}
