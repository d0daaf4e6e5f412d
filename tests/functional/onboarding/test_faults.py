"""Each write of a request fails once: it is refused, or its answer is lost.

No resource is orphaned, no resource of others is changed, and CloudFormation's next request
succeeds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from lambdas.common.errors import CastaiError
from tests.functional.onboarding.conftest import SPOT_ROLE, Fault, OnboardingTestbed

SPOT = {"SpotHandlerRoleArn": SPOT_ROLE}
USER: dict[str, Any] = {"Mode": "user", **SPOT}
ROLE: dict[str, Any] = {"Mode": "cross-account-role", **SPOT}
REFUSED, ANSWER_LOST = ("AccessDenied", False), ("Timeout", True)

# In each case every write fails once, in parts that run in parallel. `make test` runs the first
# part of some pairs of mode and kind of fault; `make long`, as in CI, runs the rest.
PARTS = 3
CREATES = {
    "user-refused": (USER, REFUSED, "access-entries"),
    "role-answer-lost": (ROLE, ANSWER_LOST, "access-entries"),
    "role-refused-aws-auth": (ROLE, REFUSED, "aws-auth"),
}
MORE_CREATES = {
    "user-answer-lost": (USER, ANSWER_LOST, "access-entries"),
    "role-refused": (ROLE, REFUSED, "access-entries"),
    "user-refused-aws-auth": (USER, REFUSED, "aws-auth"),
}
DELETES = {"user-refused": (USER, REFUSED)}
MORE_DELETES = {
    "role-refused": (ROLE, REFUSED),
    "user-answer-lost": (USER, ANSWER_LOST),
    "role-answer-lost": (ROLE, ANSWER_LOST),
}
UPDATES = {"to-user-answer-lost": (ROLE, USER, ANSWER_LOST)}
MORE_UPDATES = {
    "to-role-answer-lost": (USER, ROLE, ANSWER_LOST),
    "to-role-refused": (USER, ROLE, REFUSED),
    "to-user-refused": (ROLE, USER, REFUSED),
}


def cases(names: str, few: Mapping[str, Any], more: Mapping[str, Any]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        f"{names}, part",
        [
            pytest.param(
                *values,
                part,
                id=f"{case}-{part}",
                marks=() if case in few and part == 0 else pytest.mark.long,
            )
            for case, values in {**few, **more}.items()
            for part in range(PARTS)
        ],
    )


def create_resources_of_others(testbed: OnboardingTestbed) -> None:
    """Create resources of other teams, with names like ours and an aws-auth."""
    trust = '{"Version":"2012-10-17","Statement":[]}'
    testbed.iam.create_role(RoleName="cast-prod-eks-deadbeef", AssumeRolePolicyDocument=trust)
    testbed.iam.create_user(UserName="cast-eks-prod-2")
    testbed.iam.create_access_key(UserName="cast-eks-prod-2")
    testbed.eks.create_access_entry(
        clusterName="prod", principalArn="arn:aws:iam::123456789012:role/admins"
    )
    testbed.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "aws-auth", "namespace": "kube-system"},
            "data": {"mapRoles": "- rolearn: arn:aws:iam::123456789012:role/nodes  # ours\n"
                     "  username: system:node:{{EC2PrivateDNSName}}\n"
                     "  groups: [system:bootstrappers, system:nodes]\n"},
        }
    )  # fmt: skip


def writes_of(testbed: OnboardingTestbed) -> int:
    """Count the writes of the last request, and reset the count."""
    count = len(testbed.writes.done)
    testbed.writes.done.clear()
    return count


def set_fault(testbed: OnboardingTestbed, at: int, kind: tuple[str, bool]) -> None:
    testbed.writes.done.clear()
    testbed.writes.fault = Fault(at, *kind)


def check_failures(testbed: OnboardingTestbed, faults: int, failed: int, kind: Any) -> None:
    """Each fault was met. A request with a lost answer may succeed: its write is retried."""
    assert testbed.writes.met == faults > 0
    if kind == REFUSED:
        assert failed


def clear_fault(testbed: OnboardingTestbed) -> None:
    testbed.writes.done.clear()
    testbed.writes.fault = None


@cases("mode, kind, access", CREATES, MORE_CREATES)
def test_a_create_that_fails_leaves_the_account_as_it_was(
    testbed: OnboardingTestbed,
    mode: dict[str, Any],
    kind: tuple[str, bool],
    access: str,
    *,
    part: int,
) -> None:
    create_resources_of_others(testbed)
    before = testbed.snapshot()
    wanted = {**mode, "ClusterAccess": access}
    testbed.create(**wanted)
    total = writes_of(testbed)
    testbed.delete(**wanted)
    assert testbed.snapshot() == before
    failed = 0
    for at in range(part, total, PARTS):
        set_fault(testbed, at, kind)
        try:
            testbed.create(**wanted)
        except CastaiError:
            failed += 1
            clear_fault(testbed)
            assert testbed.snapshot() == before, f"write {at}"
        else:  # the write was retried, or it was a clean-up
            clear_fault(testbed)
            testbed.delete(**wanted)
            assert testbed.snapshot() == before, f"write {at}"
    check_failures(testbed, len(range(part, total, PARTS)), failed, kind)


@cases("mode, kind", DELETES, MORE_DELETES)
def test_a_delete_that_fails_is_finished_by_the_next(
    testbed: OnboardingTestbed, mode: dict[str, Any], kind: tuple[str, bool], *, part: int
) -> None:
    create_resources_of_others(testbed)
    before = testbed.snapshot()
    testbed.create(**mode)
    clear_fault(testbed)
    testbed.delete(**mode)
    total = writes_of(testbed)
    failed = 0
    for at in range(part, total, PARTS):
        testbed.create(**mode)
        set_fault(testbed, at, kind)
        try:
            testbed.delete(**mode)
        except CastaiError:
            failed += 1
            clear_fault(testbed)
            testbed.delete(**mode)
        clear_fault(testbed)
        assert testbed.snapshot() == before, f"write {at}"
    check_failures(testbed, len(range(part, total, PARTS)), failed, kind)


@cases("old, new, kind", UPDATES, MORE_UPDATES)
def test_an_update_that_fails_is_rolled_back_by_an_update_to_the_old_properties(
    testbed: OnboardingTestbed,
    old: dict[str, Any],
    new: dict[str, Any],
    kind: tuple[str, bool],
    *,
    part: int,
) -> None:
    create_resources_of_others(testbed)
    clean = testbed.snapshot()
    new = {**new, "Tags": {"team": "platform"}, "Permissions": "strict", "SsmOnNodes": "true"}
    testbed.create(**old)
    clear_fault(testbed)
    testbed.update(old, **new)
    total = writes_of(testbed)
    testbed.update(new, **old)
    failed = 0
    for at in range(part, total, PARTS):
        before = _without_keys(testbed.snapshot())
        set_fault(testbed, at, kind)
        try:
            testbed.update(old, **new)
        except CastaiError:
            failed += 1
            clear_fault(testbed)
            testbed.update(new, **old)  # CloudFormation's second Update
        else:
            clear_fault(testbed)
            testbed.update(old, **new)
            testbed.update(new, **old)
        assert _without_keys(testbed.snapshot()) == before, f"write {at}"
    check_failures(testbed, len(range(part, total, PARTS)), failed, kind)
    testbed.delete(**old)
    assert testbed.snapshot() == clean


def _without_keys(snapshot: dict[str, Any]) -> dict[str, Any]:
    """Leave out the access key, which may differ. It is one key, and the secret holds it."""
    keys = snapshot["users"].get("cast-eks-prod")
    if keys is None:
        return snapshot
    *rest, ids = keys
    secrets = {
        name: ("…" if name.endswith("credentials") else value)
        for name, value in snapshot["secrets"].items()
    }
    assert len(ids) == 1
    assert ids[0] in snapshot["secrets"]["castai-eks/prod/credentials"][0]
    return {
        **snapshot,
        "users": {**snapshot["users"], "cast-eks-prod": tuple(rest)},
        "secrets": secrets,
    }
