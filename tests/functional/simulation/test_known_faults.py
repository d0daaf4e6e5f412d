"""Each fault that is put back into the code is found by its written day, of every story."""

from __future__ import annotations

import pytest

from simulation.drain import known_faults as of_the_drain
from simulation.engine import promises
from simulation.resources import agent_known_faults as of_the_agent
from simulation.resources import known_faults as of_the_onboarding
from tests.functional.simulation import test_agent_days, test_drain_days, test_onboarding_days

STORIES = {
    "drain": (of_the_drain, test_drain_days),
    "onboarding": (of_the_onboarding, test_onboarding_days),
    "agent": (of_the_agent, test_agent_days),
}
FAULTS = [(story, fault) for story, (known, _) in STORIES.items() for fault in known.KNOWN_FAULTS]


@pytest.mark.parametrize("story", STORIES)
def test_each_known_fault_has_its_day(story: str) -> None:
    known, written = STORIES[story]
    assert set(written.FOUND_BY) == set(known.KNOWN_FAULTS)


@pytest.mark.parametrize(("story", "fault"), FAULTS)
def test_a_day_finds_a_fault_that_is_put_back(story: str, fault: str) -> None:
    known, written = STORIES[story]
    day = written.FOUND_BY[fault]
    assert written.DAYS.run(day).faults == []
    with known.put_back(fault):
        assert promises(written.DAYS.run(day))
