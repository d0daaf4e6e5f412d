"""DELETE of pods: grace periods, preconditions, finalizers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.contract.api import Space


def first_deletion(pod: dict[str, Any]) -> float:
    """The time of the first DELETE: the end of the deletion minus its grace period."""
    metadata = pod["metadata"]
    end = datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp()
    return end - float(metadata["deletionGracePeriodSeconds"])


def test_the_grace_period_is_that_of_the_pod_by_default(space: Space) -> None:
    space.pod("a", grace=600)

    pod = space.api.delete(f"{space.pods}/a").ok()

    assert pod["kind"] == "Pod"
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 600
    assert pod["metadata"]["generation"] == 2


def test_a_delete_does_not_check_the_budget(space: Space) -> None:
    uid = space.pod("b0", app="b")["metadata"]["uid"]
    space.budget("b", "b", healthy=1, desired=1, allowed=0)

    answer = space.api.delete(f"{space.pods}/b0", gracePeriodSeconds=15, preconditions={"uid": uid})

    assert answer.ok()["metadata"]["deletionGracePeriodSeconds"] == 15


def test_a_shortened_grace_period_counts_from_the_first_delete(
    space: Space,
) -> None:
    space.pod("a", grace=600)
    first = space.api.delete(f"{space.pods}/a").ok()

    second = space.api.delete(f"{space.pods}/a", gracePeriodSeconds=300).ok()

    assert second["metadata"]["deletionGracePeriodSeconds"] == 300
    assert first_deletion(second) == first_deletion(first)
    assert second["metadata"]["generation"] == 2


def test_a_delete_does_not_lengthen_the_grace_period(space: Space) -> None:
    space.pod("a", grace=600)
    space.api.delete(f"{space.pods}/a", gracePeriodSeconds=300).ok()
    before = space.api.get(f"{space.pods}/a").ok()["metadata"]

    space.api.delete(f"{space.pods}/a", gracePeriodSeconds=500).ok()
    space.api.delete(f"{space.pods}/a").ok()

    assert space.api.get(f"{space.pods}/a").ok()["metadata"] == before


def test_an_eviction_also_shortens_the_grace_period(space: Space) -> None:
    space.pod("a", grace=600)
    space.api.delete(f"{space.pods}/a").ok()

    assert space.evict("a", deleteOptions={"gracePeriodSeconds": 60}).status == 201

    pod = space.api.get(f"{space.pods}/a").ok()
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 60


@pytest.mark.parametrize("terminating", [False, True])
def test_a_grace_period_of_zero_removes_the_object_at_once(space: Space, terminating: bool) -> None:
    space.pod("a")
    if terminating:
        space.api.delete(f"{space.pods}/a").ok()

    pod = space.api.delete(f"{space.pods}/a", gracePeriodSeconds=0).ok()

    assert pod["metadata"]["deletionGracePeriodSeconds"] == 0
    answer = space.api.get(f"{space.pods}/a")
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("precondition", "text"),
    [({"uid": "x"}, "the UID in the precondition (x)"),
     ({"resourceVersion": "1"}, "the ResourceVersion in the precondition (1)")],
)  # fmt: skip
def test_a_failed_precondition_is_a_conflict(
    space: Space, precondition: dict[str, str], text: str
) -> None:
    space.pod("a")

    answer = space.api.delete(f"{space.pods}/a", preconditions=precondition)

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert text in answer.body["message"]
    assert answer.body["details"] == {"name": "a", "kind": "Pod"}
    assert space.api.get(f"{space.pods}/a").status == 200


def test_a_finalizer_keeps_the_object(space: Space) -> None:
    space.pod("a", finalizers=("contract.invalid/hold",))

    space.api.delete(f"{space.pods}/a", gracePeriodSeconds=0).ok()

    assert "deletionTimestamp" in space.api.get(f"{space.pods}/a").ok()["metadata"]
    space.api.patch(f"{space.pods}/a", {"metadata": {"finalizers": None}})
    assert space.api.get(f"{space.pods}/a").status == 404


def test_a_dry_run_deletes_nothing(space: Space) -> None:
    space.pod("a")

    space.api.call("DELETE", f"{space.pods}/a?dryRun=All").ok()

    assert "deletionTimestamp" not in space.api.get(f"{space.pods}/a").ok()["metadata"]


def test_a_missing_pod(space: Space) -> None:
    answer = space.api.delete(f"{space.pods}/absent")

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
