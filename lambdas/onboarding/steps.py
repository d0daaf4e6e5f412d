"""The onboarding as an ordered list of steps, and the five things that are done with it.

plan      every step, writing nothing: what would change
onboard   plan, refuse what cannot end well, apply, then remove what the new state replaces;
          a failure is undone write by write before it is raised
offboard  refuse while nodes use what would go; else every step's removal, the security group before
          all, then the last step first; a failure stops those that depend on it
plan_offboard   what that would remove
found     what a removal would come upon, nodes that use it or not; what cannot be read, and why
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from lambdas.common.errors import (
    AwsRefusedError,
    CastaiError,
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    PermanentError,
    RetryableError,
    bug,
)
from lambdas.onboarding import (
    cluster_access,
    credentials,
    handover,
    identity,
    in_use,
    lambda_role,
    policy,
    preflight,
    security_group,
    spot_rbac,
)
from lambdas.onboarding.context import Context, Facts
from lambdas.onboarding.ledger import Action, Ledger, Row, first_line, listed
from lambdas.onboarding.policies import Mode

# s. What a run keeps of its time to take back what it has done.
UNDO_TIME: Final = 90.0


@dataclass(frozen=True)
class Step:
    """One part of the onboarding. Both functions are idempotent and write through the ledger."""

    name: str
    apply: Callable[[Context], None]
    remove: Callable[[Context], None]


HAND_OVER: Final = "hand-over"
STEPS: Final = (
    Step("policy", policy.ensure, policy.remove),
    Step("node role", identity.ensure_node_role, identity.remove_node_role),
    Step("identity", identity.ensure, identity.remove),
    Step("spot function's role", lambda_role.ensure, lambda_role.remove),
    Step("spot handler's rights", spot_rbac.ensure, spot_rbac.remove),
    Step("cluster access", cluster_access.ensure, cluster_access.remove),
    Step("security group", security_group.ensure, security_group.remove),
    Step("credentials", credentials.ensure, credentials.remove),
    Step(HAND_OVER, handover.ensure, handover.remove),
)


# The last step first, but the security group before all: only EC2 refuses to delete what is in use.
# As long as nothing else is removed, CAST AI and the nodes go on as they were.
_FIRST: Final = "security group"
_REMOVALS: Final = (
    *(step for step in STEPS if step.name == _FIRST),
    *(step for step in reversed(STEPS) if step.name != _FIRST),
)
_ALL_AFTER_THE_FIRST: Final = {_FIRST: frozenset(step.name for step in _REMOVALS[1:])}

# Removals that must not be tried where another failed, or was not tried for the same reason. What
# maps a principal is found by the principal alone (that of the spot handler's role by its rights),
# and whoever makes another principal of the name would have its rights. IAM keeps a policy as long
# as an identity has it.
_NOT_AFTER: Final = {
    "cluster access": frozenset({"spot handler's rights", "node role", "identity"}),
    "identity": frozenset({"policy"}),
}


_UNREADABLE: Final = (
    AwsRefusedError,
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    RetryableError,
)


class StepFailedError(PermanentError):
    """A step failed. `left` names what could not be taken back."""

    def __init__(self, step: str, cause: CastaiError, left: list[str]) -> None:
        undone = "everything that this run did was undone"
        if left:
            undone = f"remove by hand what could not be undone: {'; '.join(left)}"
        super().__init__(f"{first_line(cause)} (step {step}; {undone})\n{_rest(cause)}".rstrip())
        self.step = step
        self.left = left


class OffboardError(PermanentError):
    """Something of ours could not be removed; the rest is."""


class InTheWayError(PermanentError):
    """Things that belong to someone else are in the way; nothing was changed."""


def plan(ctx: Context) -> list[Row]:
    """What `onboard` would change. Writes nothing.

    Raises:
        CastaiError: the cluster cannot be onboarded as wished.
    """
    ctx.ledger.dry = True
    preflight.inspect(ctx)
    in_use.refuse(ctx, ctx.replaced_ids, groups=False)
    return [*ctx.ledger.rows, *_preview(ctx)]


def onboard(ctx: Context) -> list[Row]:
    """Bring the account to the wished state; what was done, row by row.

    Raises:
        InTheWayError: someone else's things have the names; nothing was changed.
        InUseError: nodes use the role of a former cluster id; nothing was changed.
        StepFailedError: everything that this run did is undone, or named.
    """
    ctx.ledger.step = "inspect"
    try:
        preflight.inspect(ctx)
        in_use.refuse(ctx, ctx.replaced_ids, groups=False)
        _refuse_conflicts(_preview(ctx))
        for step in STEPS:
            ctx.ledger.step = step.name
            step.apply(ctx)
        retired = _retire(ctx)
        ctx.ledger.step = "leave the cluster"
        ctx.kubernetes.close()
    except CastaiError as error:
        raise _undone(ctx, _explained(ctx, error)) from error
    except Exception as error:
        raise _undone(ctx, bug(error)) from error
    return [*ctx.ledger.rows, *retired]


def offboard(ctx: Context) -> list[Row]:
    """Remove everything that is ours; what was done, row by row.

    Raises:
        InUseError: nodes or other groups use what would be removed; nothing was changed.
        OffboardError: names each thing that stays although it is ours, and why.
    """
    preflight.look_back(ctx)
    in_use.refuse(ctx, ctx.known_ids, groups=True)
    failures = _remove_all(ctx, _NOT_AFTER | _ALL_AFTER_THE_FIRST)
    if failures:
        raise OffboardError(
            f"Clear what stopped the removal and delete again: {first_line(failures[0][1])}\n"
            + "\n".join(f"- {name}: {error}" for name, error in failures)
        )
    return ctx.ledger.rows


def plan_offboard(ctx: Context) -> list[Row]:
    """What `offboard` would remove. Writes nothing. Raises InUseError as `offboard` does."""
    ctx.ledger.dry = True
    preflight.look_back(ctx)
    in_use.refuse(ctx, ctx.known_ids, groups=True)
    for name, error in _remove_all(ctx, _NOT_AFTER | _ALL_AFTER_THE_FIRST):
        ctx.ledger.step = name
        ctx.ledger.leave(name, str(error))
    return ctx.ledger.rows


def found(ctx: Context) -> list[Row]:
    """What is in account and cluster under our names: ours (`delete`), or not (`leave`).

    `ctx` has looked back. Writes nothing and asks CAST AI nothing; a step that cannot be read is a
    row with the reason, and the others are read all the same.
    """
    ctx.ledger.dry = True
    for step in STEPS:
        if step.name == HAND_OVER:
            continue
        ctx.ledger.step = step.name
        try:
            step.remove(ctx)
        except _UNREADABLE as error:
            ctx.ledger.leave(step.name, f"could not be read: {first_line(error)}")
        except CastaiError as error:  # it was read, and something would stop its removal
            ctx.ledger.leave(step.name, first_line(error))
    return ctx.ledger.rows


def _preview(ctx: Context) -> list[Row]:
    """All steps without a write, on a copy of what is known."""
    dry = replace(ctx, ledger=Ledger(dry=True), facts=replace(ctx.facts))
    for step in STEPS:
        dry.ledger.step = step.name
        step.apply(dry)
    return dry.ledger.rows


def _refuse_conflicts(rows: list[Row]) -> None:
    conflicts = [row for row in rows if row.action is Action.CONFLICT]
    if conflicts:
        raise InTheWayError(
            "Remove what is in the way, or set Adopt to take it over:\n" + listed(conflicts)
        )


def _explained(ctx: Context, error: CastaiError) -> CastaiError:
    """The error, or what is behind it: the function's rights are those of the new path."""
    before, now = ctx.previous, ctx.onboarding
    denied = isinstance(error, AwsRefusedError) and error.code == "AccessDenied"
    if not denied or before is None or before.path == now.path:
        return error
    return PermanentError(
        f"Set Path back to {before.path}: IAM cannot move what was made there to {now.path}. "
        "For another path remove the onboarding first"
    )


def _undone(ctx: Context, cause: CastaiError) -> CastaiError:
    """Take back what the run did; the error to raise."""
    step = ctx.ledger.step
    ctx.deadline += UNDO_TIME
    left = ctx.ledger.undo_all()
    if isinstance(cause, InTheWayError | in_use.InUseError) and not left:
        return cause
    return StepFailedError(step, cause, left)


def _retire(ctx: Context) -> list[Row]:
    """Remove what the new state has replaced: the other mode's identity, the old key, …

    Here the new state stands and CAST AI has it, so a failure is a row and not an error: as with
    CloudFormation's own clean-up, there is nothing to go back to. The node role remembers former
    ids until the clean-up has no failure: the next run tries again, a removal finds what is left.
    """
    leaving = replace(ctx, ledger=Ledger(protected=ctx.ledger.claimed), facts=replace(ctx.facts))
    failures = _remove_all(leaving, _NOT_AFTER)
    if not failures:
        leaving.ledger.step = "node role"
        try:
            identity.forget_former_ids(leaving)
        except CastaiError as refused:
            failures = [("node role", refused)]
    for name, error in failures:
        leaving.ledger.step = name
        leaving.ledger.leave(name, f"could not be cleaned up: {first_line(error)}")
    return leaving.ledger.rows


def _remove_all(
    ctx: Context, not_after: Mapping[str, Collection[str]]
) -> list[tuple[str, CastaiError]]:
    """Every removal that `not_after` allows; what failed."""
    failures: list[tuple[str, CastaiError]] = []
    kept: set[str] = set()  # steps that failed or were not tried
    for step in _REMOVALS:
        if any(step.name in not_after.get(each, ()) for each in kept):
            kept.add(step.name)
            continue
        if kept and _remembers(ctx, step):
            kept.add(step.name)
            continue
        ctx.ledger.step = step.name
        try:
            step.remove(ctx)
        except CastaiError as error:
            failures.append((step.name, error))
            kept.add(step.name)
    return failures


def _remembers(ctx: Context, step: Step) -> bool:
    """Whether the step removes what tells CAST AI's ids, by which the next try finds the rest."""
    if step.name == "policy":
        return not ctx.onboarding.cluster_id
    return step.name == "node role" and bool(ctx.replaced_ids) and not ctx.ledger.protected


def _rest(error: CastaiError) -> str:
    return str(error).partition("\n")[2]


def attributes(ctx: Context) -> dict[str, str]:
    """What CloudFormation gets to know. No secret; every attribute is always there."""
    facts: Facts = ctx.facts
    user = ctx.onboarding.mode is Mode.USER
    return {
        "Mode": ctx.onboarding.mode.value,
        "ClusterId": facts.cluster_id,
        "UserArn": facts.identity_arn if user else "",
        "RoleArn": "" if user else facts.identity_arn,
        "PolicyArn": facts.policy_arn,
        "NodeRoleArn": facts.node_role_arn,
        "InstanceProfileArn": facts.instance_profile_arn,
        "SecurityGroupId": ",".join(facts.security_group_ids),
        "CredentialsSecretArn": facts.secret_arn,
        "AccessMethod": facts.access_method,
        "NextStep": facts.next_step,
    }
