"""Every single write fails once, before it is done and after: nothing is orphaned, nothing foreign
is touched, and CloudFormation's next request ends well."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import pytest

from lambdas.common.errors import CastaiError
from tests.functional.onboarding.conftest import Fault, Scene

SPOT = {"SpotHandlerRoleArn": "arn:aws:iam::123456789012:role/CastLambdaRoleForSpot"}
USER: dict[str, Any] = {"Mode": "user", **SPOT}
ROLE: dict[str, Any] = {"Mode": "cross-account-role", **SPOT}
REFUSED, ANSWER_LOST = ("AccessDenied", False), ("Timeout", True)

# Every write of every request fails once in each. `make test` plays each mode and each kind of
# fault, paired; `make long`, as in CI, each mode with each kind.
EVERY = bool(os.environ.get("EVERY_FAULT"))
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
DELETES = {"user-refused": (USER, REFUSED), "role-answer-lost": (ROLE, ANSWER_LOST)}
MORE_DELETES = {"user-answer-lost": (USER, ANSWER_LOST), "role-refused": (ROLE, REFUSED)}
UPDATES = {
    "to-role-refused": (USER, ROLE, REFUSED),
    "to-user-answer-lost": (ROLE, USER, ANSWER_LOST),
}
MORE_UPDATES = {
    "to-role-answer-lost": (USER, ROLE, ANSWER_LOST),
    "to-user-refused": (ROLE, USER, REFUSED),
}


def cases(names: str, few: Mapping[str, Any], more: Mapping[str, Any]) -> pytest.MarkDecorator:
    chosen = {**few, **(more if EVERY else {})}
    return pytest.mark.parametrize(names, list(chosen.values()), ids=list(chosen))


def furnish(scene: Scene) -> None:
    """Things of other people, some of them close to ours."""
    trust = '{"Version":"2012-10-17","Statement":[]}'
    scene.iam.create_role(RoleName="cast-prod-eks-deadbeef", AssumeRolePolicyDocument=trust)
    scene.iam.create_user(UserName="cast-eks-prod-2")
    scene.iam.create_access_key(UserName="cast-eks-prod-2")
    scene.eks.create_access_entry(
        clusterName="prod", principalArn="arn:aws:iam::123456789012:role/admins"
    )
    scene.cluster.create(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "aws-auth", "namespace": "kube-system"},
            "data": {"mapRoles": "- rolearn: arn:aws:iam::123456789012:role/nodes  # ours\n"
                     "  username: system:node:{{EC2PrivateDNSName}}\n"
                     "  groups: [system:bootstrappers, system:nodes]\n"},
        }
    )  # fmt: skip


def writes_of(scene: Scene) -> int:
    """How many writes the last request made; the counter starts again."""
    count = len(scene.writes.done)
    scene.writes.done.clear()
    return count


def hit(scene: Scene, at: int, kind: tuple[str, bool]) -> None:
    scene.writes.done.clear()
    scene.writes.fault = Fault(at, *kind)


def heal(scene: Scene) -> None:
    scene.writes.done.clear()
    scene.writes.fault = None


@cases("mode, kind, access", CREATES, MORE_CREATES)
def test_a_create_that_fails_leaves_the_account_as_it_was(
    scene: Scene, mode: dict[str, Any], kind: tuple[str, bool], access: str
) -> None:
    furnish(scene)
    before = scene.snapshot()
    wanted = {**mode, "ClusterAccess": access}
    scene.create(**wanted)
    total = writes_of(scene)
    scene.delete(**wanted)
    assert scene.snapshot() == before
    failed = 0
    for at in range(total):
        hit(scene, at, kind)
        try:
            scene.create(**wanted)
        except CastaiError:
            failed += 1
            heal(scene)
            assert scene.snapshot() == before, f"write {at}"
        else:  # it was tried again, or it was the cleaning up
            heal(scene)
            scene.delete(**wanted)
            assert scene.snapshot() == before, f"write {at}"
    assert failed


@cases("mode, kind", DELETES, MORE_DELETES)
def test_a_delete_that_fails_is_finished_by_the_next(
    scene: Scene, mode: dict[str, Any], kind: tuple[str, bool]
) -> None:
    furnish(scene)
    before = scene.snapshot()
    scene.create(**mode)
    heal(scene)
    scene.delete(**mode)
    total = writes_of(scene)
    for at in range(total):
        scene.create(**mode)
        hit(scene, at, kind)
        try:
            scene.delete(**mode)
        except CastaiError:
            heal(scene)
            scene.delete(**mode)
        heal(scene)
        assert scene.snapshot() == before, f"write {at}"


@cases("old, new, kind", UPDATES, MORE_UPDATES)
def test_an_update_that_fails_is_rolled_back_by_the_old_properties(
    scene: Scene, old: dict[str, Any], new: dict[str, Any], kind: tuple[str, bool]
) -> None:
    furnish(scene)
    clean = scene.snapshot()
    new = {**new, "Tags": {"team": "platform"}, "Permissions": "strict", "SsmOnNodes": "true"}
    scene.create(**old)
    heal(scene)
    scene.update(old, **new)
    total = writes_of(scene)
    scene.update(new, **old)
    for at in range(total):
        before = _without_keys(scene.snapshot())
        hit(scene, at, kind)
        try:
            scene.update(old, **new)
        except CastaiError:
            heal(scene)
            scene.update(new, **old)  # CloudFormation's second Update
        else:
            heal(scene)
            scene.update(old, **new)
            scene.update(new, **old)
        assert _without_keys(scene.snapshot()) == before, f"write {at}"
    scene.delete(**old)
    assert scene.snapshot() == clean


def _without_keys(snapshot: dict[str, Any]) -> dict[str, Any]:
    """The access key may be another; there is one all the same, and the secret holds it."""
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
