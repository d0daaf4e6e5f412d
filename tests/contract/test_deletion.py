"""DELETE of pods: the arithmetic of grace, preconditions, finalizers."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tests.contract.api import Space


def begun(pod: dict[str, Any]) -> float:
    """When the deletion was asked for: its end less its grace."""
    metadata = pod["metadata"]
    end = datetime.fromisoformat(metadata["deletionTimestamp"]).timestamp()
    return end - float(metadata["deletionGracePeriodSeconds"])


def test_a_deletion_takes_the_pods_own_grace(space: Space) -> None:
    space.pod("a", grace=600)

    pod = space.api.delete(f"{space.pods}/a").ok()

    assert pod["kind"] == "Pod"
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 600
    assert pod["metadata"]["generation"] == 2


def test_a_deletion_past_a_budget(space: Space) -> None:
    uid = space.pod("b0", app="b")["metadata"]["uid"]
    space.budget("b", "b", healthy=1, desired=1, allowed=0)

    answer = space.api.delete(f"{space.pods}/b0", gracePeriodSeconds=15, preconditions={"uid": uid})

    assert answer.ok()["metadata"]["deletionGracePeriodSeconds"] == 15


def test_the_grace_of_a_terminating_pod_is_shortened_and_counts_from_the_first_deletion(
    space: Space,
) -> None:
    space.pod("a", grace=600)
    first = space.api.delete(f"{space.pods}/a").ok()

    second = space.api.delete(f"{space.pods}/a", gracePeriodSeconds=300).ok()

    assert second["metadata"]["deletionGracePeriodSeconds"] == 300
    assert begun(second) == begun(first)
    assert second["metadata"]["generation"] == 2


def test_the_grace_of_a_terminating_pod_is_never_lengthened(space: Space) -> None:
    space.pod("a", grace=600)
    space.api.delete(f"{space.pods}/a", gracePeriodSeconds=300).ok()
    before = space.api.get(f"{space.pods}/a").ok()["metadata"]

    space.api.delete(f"{space.pods}/a", gracePeriodSeconds=500).ok()
    space.api.delete(f"{space.pods}/a").ok()

    assert space.api.get(f"{space.pods}/a").ok()["metadata"] == before


def test_an_eviction_shortens_the_grace_too(space: Space) -> None:
    space.pod("a", grace=600)
    space.api.delete(f"{space.pods}/a").ok()

    assert space.evict("a", deleteOptions={"gracePeriodSeconds": 60}).status == 201

    pod = space.api.get(f"{space.pods}/a").ok()
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 60


@pytest.mark.parametrize("terminating", [False, True])
def test_grace_zero_removes_the_object_at_once(space: Space, terminating: bool) -> None:
    space.pod("a")
    if terminating:
        space.api.delete(f"{space.pods}/a").ok()

    pod = space.api.delete(f"{space.pods}/a", gracePeriodSeconds=0).ok()

    assert pod["metadata"]["deletionGracePeriodSeconds"] == 0
    answer = space.api.get(f"{space.pods}/a")
    assert (answer.status, answer.body["reason"]) == (404, "NotFound")


@pytest.mark.parametrize(
    ("precondition", "words"),
    [({"uid": "x"}, "the UID in the precondition (x)"),
     ({"resourceVersion": "1"}, "the ResourceVersion in the precondition (1)")],
)  # fmt: skip
def test_a_precondition_that_does_not_hold(
    space: Space, precondition: dict[str, str], words: str
) -> None:
    space.pod("a")

    answer = space.api.delete(f"{space.pods}/a", preconditions=precondition)

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert words in answer.body["message"]
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


def test_a_pod_that_is_not_there(space: Space) -> None:
    answer = space.api.delete(f"{space.pods}/absent")

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
