"""IAM refuses to delete what is in use. The emulator lacks a part of these checks.

Source: IAM API reference, DeleteUser and DeletePolicy.
"""

from collections.abc import Iterator
from typing import Any

import guard
from authorization import Parameters, first

_VERSIONS = (
    "This policy has more than one version. Before you delete a policy, you must delete the "
    "policy's versions. The default version is deleted with the policy."
)


def install() -> None:
    """Patch the emulator's IAM."""
    iam = guard.module("ministack.services.iam")
    actions = guard.value(iam, "_IAM_HANDLERS", dict)
    refusal = guard.function(iam, "_error", "status", "code", "message")
    conflicts = {"DeleteUser": _of_user, "DeletePolicy": _of_policy}
    for store in ("_policies", "_groups", "_user_inline_policies", "_login_profiles"):
        guard.value(iam, store, object)

    def unless_used(action: str, handler: Any) -> Any:
        def handle(params: Parameters) -> Any:
            for conflict in conflicts[action](iam, params):
                return refusal(409, "DeleteConflict", conflict, ns="iam")
            return handler(params)

        return handle

    for action in conflicts:
        actions[action] = unless_used(action, actions[action])


def _of_user(iam: Any, params: Parameters) -> Iterator[str]:
    name = first(params, "UserName")
    if iam._user_inline_policies.get(name):
        yield "Cannot delete entity, must delete policies first."
    if any(name in group.get("Users", ()) for group in iam._groups.values()):
        yield "Cannot delete entity, must remove users from group first."
    if iam._login_profiles.get(name):
        yield "Cannot delete entity, must delete login profile first."


def _of_policy(iam: Any, params: Parameters) -> Iterator[str]:
    policy = iam._policies.get(first(params, "PolicyArn")) or {}
    if len(policy.get("Versions", ())) > 1:
        yield _VERSIONS
