"""Days of the onboarding keep their promises, are repeatable, and find faults of the code."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from lambdas.onboarding import handler
from lambdas.onboarding.ledger import Ledger
from simulation.engine import draw, promises
from simulation.resources import known_faults, onboarding
from simulation.resources.calls import KINDS, Fault
from simulation.resources.days import Day, Deploy, Edit, Remove
from simulation.resources.edits import EDITS
from simulation.resources.facts import is_named, is_of
from simulation.resources.world import API_KEY, PLACES

DAYS = onboarding.story()

# AddRoleToInstanceProfile is refused, and the read of the profile in the undo.
UNDO_REFUSED = (Fault("refused", "iam", at=6), Fault("refused", "iam", writes=False, at=19))


def deploy(*changes: str, faults: tuple[Fault, ...] = (), twice: bool = False) -> Deploy:
    return Deploy(0, changes, faults, twice=twice)


def lasting(service: str, at: int = 0, kind: str = "failing") -> Fault:
    return Fault(kind, service, at=at, times=1000)


@pytest.mark.parametrize("seed", range(5))
def test_a_day_of_the_onboarding_keeps_the_promises(seed: int) -> None:
    verdict = DAYS.run(draw(DAYS, seed))
    assert verdict.faults == [], "\n".join(verdict.timeline)


def test_a_seed_gives_the_same_day_and_the_same_timeline() -> None:
    day = draw(DAYS, 38)
    assert draw(DAYS, 38) == day
    first, second = DAYS.run(day), DAYS.run(day)
    assert first.timeline == second.timeline
    assert first.seen == second.seen


@pytest.mark.parametrize("edit", EDITS)
def test_each_kind_of_edit_is_made_and_keeps_the_promises(edit: str) -> None:
    verdict = DAYS.run(Day((deploy("spot handler"), Edit(edit, 0), deploy("new code"))))
    assert verdict.faults == []
    assert verdict.seen[edit] == (0 if edit.startswith("takes the name") else 1)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_fault_is_met_and_keeps_the_promises(kind: str) -> None:
    verdict = DAYS.run(Day((deploy(faults=(Fault(kind, at=9),), twice=True),)))
    assert verdict.faults == []
    assert verdict.seen[kind] == 1


# Found by days ------------------------------------------------------------------------------------


def test_what_a_failed_create_leaves_is_found_by_the_next() -> None:
    assert DAYS.run(Day((deploy(faults=UNDO_REFUSED),))).faults == []


def test_a_lost_answer_of_a_new_access_key_leaves_no_second_key() -> None:
    lost = (Fault("answer lost", "iam", at=12),)
    verdict = DAYS.run(Day((deploy(faults=lost),)))
    assert verdict.faults == []
    assert any("create_access_key: answer lost" in line for line in verdict.timeline)


def test_castai_keeps_no_key_whose_hand_over_was_not_answered() -> None:
    lost = (lasting("castai", at=1, kind="answer lost"),)
    first = Deploy(0, stack_fails=True)  # the cluster is known at CAST AI afterwards
    verdict = DAYS.run(Day((first, deploy(faults=lost))))
    assert verdict.faults == [], "\n".join(verdict.timeline)


def test_a_failed_create_in_role_mode_leaves_no_principal_at_castai() -> None:
    other = Deploy(1, ("role",))
    assert DAYS.run(Day((deploy("user"), other), resources=(0, 0))).faults == []


def test_a_run_with_slow_calls_ends_within_its_time() -> None:
    slow = Fault("slow", writes=False, times=1000)
    verdict = DAYS.run(Day((deploy(faults=(lasting("castai", at=1), slow)),)))
    assert verdict.faults == []
    assert verdict.seen["Create failed"] == 1


LEFT_BEHIND = {
    "a node role": Day(
        (
            deploy("the shared policy", faults=(Fault("refused", at=5, times=1000),)),
            Deploy(1),
        ),
        resources=(0, 0),
    ),
    "an access entry": Day(
        (
            Deploy(1, faults=(Fault("refused", "eks", at=1, times=1000),)),
            Deploy(0),
            Deploy(1),
        ),
        resources=(0, 2),
    ),
}


@pytest.mark.parametrize("thing", LEFT_BEHIND)
def test_a_refused_create_keeps_the_registration_by_which_a_former_rest_is_found(
    thing: str,
) -> None:
    verdict = DAYS.run(LEFT_BEHIND[thing])
    assert verdict.faults == [], "\n".join(verdict.timeline)


WRITES_REFUSED = Fault("refused", at=15, times=1000)
FAILED_ONCE = {
    "one stack's error names a policy, and the other stack is deployed and deleted": Day(
        (
            deploy(faults=(WRITES_REFUSED,)),
            Deploy(1, faults=(Fault("failing", "iam", at=1, times=1000),)),
        ),
        resources=(0, 1),
    ),
    "an error names an access key, and the next Create succeeds": Day(
        (deploy(faults=(Fault("refused", at=19, times=1000),)), deploy(), deploy("a new key")),
        modes=("API",) * 3,
    ),
    "the properties of a failed Create are wrong for the cluster": Day(
        (deploy("by aws-auth", "role", faults=(Fault("refused", at=2),)),), modes=("API",) * 3
    ),
    "an Update removes an access entry with a group of others, and is rolled back": Day(
        (
            deploy(),
            Edit("adds a group to the access entries", 0),
            Deploy(0, ("no access",), stack_fails=True),
        )
    ),
    "a killed Update to another cluster": Day(
        (deploy(), deploy("another cluster", faults=(Fault("killed after its effect", at=4),)))
    ),
    "two clusters with one policy and different tags": Day(
        (Deploy(1, ("the shared policy",)), Deploy(0, ("another tag", "the shared policy"))),
        resources=(0, 1),
    ),
    "the function's access stays, and the error says so": Day(
        (deploy("spot handler", faults=(Fault("not reached", "eks", at=1, times=1000),)),),
        modes=("API",) * 3,
    ),
    "the removal of the function's access fails the Create, and the error names it": Day(
        (deploy("no access", "spot handler", faults=(Fault("failing", at=23, times=1000),)),),
        modes=("API",) * 3,
    ),
    "a shared policy whose creation was not answered": Day(
        (deploy("the shared policy", faults=(Fault("answer lost", times=4, at=1),)),),
    ),
}
"""Days that failed: the last three by the onboarding, the others by a judge that blamed it for what
it had named, or may do."""


@pytest.mark.parametrize("day", FAILED_ONCE)
def test_a_day_that_once_failed_keeps_the_promises(day: str) -> None:
    verdict = DAYS.run(FAILED_ONCE[day])
    assert verdict.faults == [], "\n".join(verdict.timeline)


# Known faults, put back ---------------------------------------------------------------------------

LATE = (lasting("castai", at=1),)  # the hand-over fails, and so the Create
FOUND_BY = {
    "a Delete keeps the instance profile": Day((deploy(),)),
    "a Delete keeps the access keys' secret": Day((deploy(),)),
    "a Delete takes policies of others along": Day(
        (deploy(), Edit("attaches a policy to the user", 0))
    ),
    "a Delete empties aws-auth": Day((Edit("maps a role in aws-auth", 0), deploy("by aws-auth"))),
    "a Delete removes the role of running nodes": Day(
        (deploy(), Edit("uses the security group", 0))
    ),
    "an Update keeps the identity of the former mode": Day((deploy("user"), deploy("role"))),
    "an Update keeps tags that are no longer wanted": Day((deploy("a tag"), deploy("no tags"))),
    "an Update keeps a policy that is no longer wanted": Day((deploy("full"), deploy("strict"))),
    "an Update of nothing changes the physical id": Day((deploy(), deploy("new code"))),
    "a failed Create leaves the secret": Day((deploy(faults=LATE),)),
    "a failed Create leaves the security group": Day((deploy(faults=LATE),)),
    "a failed Create leaves the principal at CAST AI": Day(
        (deploy("user"), Deploy(1, ("role",))), resources=(0, 0)
    ),
    "a failed Create forgets CAST AI's id": Day((deploy(faults=UNDO_REFUSED),)),
    "a lost answer leaves a second access key": Day(
        (deploy(faults=(Fault("answer lost", "iam", at=12),)),)
    ),
    "an entry of a former principal stays": Day(
        (deploy(), Edit("deletes the node role", 0), deploy("new code"))
    ),
    "the function keeps its own access": Day((deploy("spot handler"),)),
    "a log line has the access key": Day((deploy(),)),
    "the libraries log at DEBUG": Day((deploy(),), log_level="DEBUG"),
}


# The judge ----------------------------------------------------------------------------------------

LEAKS = {
    "a library's logger": lambda: logging.getLogger("botocore").error(API_KEY),
    "the root logger": lambda: logging.error(API_KEY),
    "standard output": lambda: print(API_KEY),
}


@pytest.mark.parametrize("way", LEAKS)
def test_a_secret_is_found_wherever_the_function_writes_it(
    way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = handler.respond

    def respond(*arguments: Any, **more: Any) -> dict[str, Any]:
        LEAKS[way]()
        return shipped(*arguments, **more)

    monkeypatch.setattr(handler, "respond", respond)
    assert promises(DAYS.run(Day((deploy(),)))) == {"secrets"}


@pytest.mark.parametrize("kind", ["instance profile", "security group", "secret"])
def test_an_error_that_names_a_kind_and_no_thing_is_found(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def undo_all(ledger: Ledger) -> list[str]:
        return [kind, *(each.thing for each in ledger._undo if kind not in each.thing)]

    monkeypatch.setattr(Ledger, "undo_all", undo_all)
    assert promises(DAYS.run(Day((deploy(faults=LATE),)))) == {"words"}


NAMES = {
    "user u: tag k": ("IAM user u (Try again: why)", "IAM user u-2"),
    "user u: access key 0 (not in a secret)": ("new access key of IAM user u", "IAM user u"),
    "role r: arn:aws:iam::aws:policy/P": ("policy P on IAM role r", "instance profile r"),
    "policy arn:aws:iam::1:policy/P": ("IAM policy arn:aws:iam::1:policy/P", "IAM policy P-2"),
    "us-east-1 security group c/Nodes: tag k": ("security group c/Nodes;", "security group c"),
    "us-east-1 prod access entry arn:1:role/r: tag k": ("access entry of arn:1:role/r", "role r"),
    "us-east-1 prod ConfigMap kube-system/aws-auth: mapRoles arn:1:role/r": (
        "mapRoles entry of arn:1:role/r in kube-system/aws-auth",
        "access entry of arn:1:role/r",
    ),
    "us-east-1 prod at CAST AI: principal": ("CAST AI's principal for cluster 1", "at CAST AI"),
    "us-east-1 prod at CAST AI: credentials": ("cluster 1 at CAST AI", "registration 1 at CAST AI"),
    "us-east-1 prod ClusterRole /c": ("ClusterRole c;", "ClusterRoleBinding c"),
    "us-east-1 prod Secret castai-agent/s": ("Secret castai-agent/s,", "Secret castai-agent"),
}


@pytest.mark.parametrize("fact", NAMES)
def test_an_error_names_a_thing_by_its_kind_and_its_own_name(fact: str) -> None:
    named, other = NAMES[fact]
    assert is_named(fact, named)
    assert not is_named(fact, other)


def test_an_edit_of_one_cluster_leaves_the_state_of_others_to_be_judged() -> None:
    day = Day(
        (deploy(), Deploy(1), Edit("closes the security group", 0), Remove(1)), resources=(0, 1)
    )
    assert DAYS.run(day).faults == []
    with known_faults.put_back("a Delete keeps the access keys' secret"):
        faults = DAYS.run(day).faults
    assert any(fault.startswith("state: ") and "castai-eks/shop" in fault for fault in faults)


PROD = "eu-central-1 prod"
OF_PROD = {
    f"{PROD} access entry arn:1:role/r: tag k": True,
    f"{PROD} ConfigMap kube-system/aws-auth: mapRoles arn:1:role/r": True,
    f"{PROD} at CAST AI: credentials": True,
    "eu-central-1 security group cast-prod-cluster/CastNodeSecurityGroup: tag k": True,
    "eu-central-1 secret castai-eks/prod/credentials": True,
    "user cast-eks-shop": True,  # the clusters share the account
    "eu-central-1 secret castai-eks/shop/credentials": False,
    "us-east-1 prod Secret castai-agent/castai-agent": False,
}


@pytest.mark.parametrize("fact", OF_PROD)
def test_a_fact_is_of_its_cluster_or_of_the_account(fact: str) -> None:
    assert is_of(fact, {PLACES[0]}) is OF_PROD[fact]
    assert not is_of(fact, ())
