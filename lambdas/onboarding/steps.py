"""The onboarding as an ordered list of steps, and what is done with it.

plan      every step, writing nothing: what would change
onboard   plan, refuse what cannot succeed, apply, then remove what the new state replaces;
          a failure is undone write by write before it is raised
offboard  refuse while nodes use what would be removed; else every step's removal, the security
          group first, the others in reverse order; a failure stops the steps that depend on it
plan_offboard   what that would remove
existing  what a removal would find, in use or not; what cannot be read, and why
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
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
    castai_function_role,
    cluster_access,
    credentials,
    handover,
    identity,
    in_use,
    node_role,
    policy,
    preflight,
    security_group,
    spot_rbac,
)
from lambdas.onboarding.context import Context
from lambdas.onboarding.credentials import Credentials
from lambdas.onboarding.iam_principals import Ensured
from lambdas.onboarding.ledger import REMOVE_OR_ADOPT, Action, Ledger, Row, first_line, listed
from lambdas.onboarding.node_role import NodeRole
from lambdas.onboarding.policies.scope import Mode
from lambdas.onboarding.properties import ClusterAccess

# s at the end of a run that are reserved for its undo (`session.context_of`).
UNDO_TIME: Final = 90.0


@dataclass(frozen=True)
class Results:
    """What the steps have made, for later steps and for the attributes. One step sets each field.

    The results of the preflight are in `ctx.facts`; names and ARNs follow from `ctx`. A plan has
    results too, except for ids that AWS gives.
    """

    nodes: NodeRole = field(default_factory=NodeRole)
    identity: Ensured = field(default_factory=Ensured)
    access: ClusterAccess | None = None
    security_groups: tuple[str, ...] = ()
    credentials: Credentials = field(default_factory=Credentials)
    next_step: str = ""
    """What a person still has to do; empty if nothing."""


def _never(_ctx: Context) -> bool:
    return False


@dataclass(frozen=True, kw_only=True)
class Step:
    """One part of the onboarding. Both functions are idempotent and write through the ledger."""

    name: str
    ensure: Callable[[Context, Results], Results]
    """Creates or corrects; returns the results with those of this step."""
    remove: Callable[[Context], None]
    is_removed_first: bool = False
    """Whether it is removed before all others. Where that fails, offboard removes nothing else."""
    stays_with: frozenset[str] = frozenset()
    """Names of steps. Where one of them is not removed, the removal of this one is not tried."""
    remembers_ids: Callable[[Context], bool] = _never
    """Whether tags on this step's resources are the only record of CAST AI's ids of the cluster.
    These resources are removed last: the next removal finds the others by the ids."""
    is_at_castai: bool = False
    """Whether its things are at CAST AI only."""


def _without_result(ensure: Callable[[Context], None]) -> Callable[[Context, Results], Results]:
    """The `ensure` of a step that later steps need nothing from."""

    def ensure_only(ctx: Context, made: Results) -> Results:
        ensure(ctx)
        return made

    return ensure_only


# The step "cluster access" finds a mapping by its principal; it finds the spot handler's mapping by
# the RBAC objects. While a mapping exists, both are kept: a later principal of the same name would
# get the mapping's rights.
_STAYS_WITH_ACCESS: Final = frozenset({"cluster access"})

STEPS: Final = (
    Step(
        name="policy",
        ensure=_without_result(policy.ensure),
        remove=policy.remove,
        stays_with=frozenset({"identity"}),  # IAM keeps a policy as long as an identity has it
        remembers_ids=policy.remembers_id,
    ),
    Step(
        name="node role",
        ensure=lambda ctx, made: replace(made, nodes=node_role.ensure(ctx)),
        remove=node_role.remove,
        stays_with=_STAYS_WITH_ACCESS,
        remembers_ids=node_role.remembers_ids,
    ),
    Step(
        name="identity",
        ensure=lambda ctx, made: replace(made, identity=identity.ensure(ctx)),
        remove=identity.remove,
        stays_with=_STAYS_WITH_ACCESS,
    ),
    Step(
        name="role of CAST AI's function",
        ensure=_without_result(castai_function_role.ensure),
        remove=castai_function_role.remove,
    ),
    Step(
        name="spot handler's rights",
        ensure=_without_result(spot_rbac.ensure),
        remove=spot_rbac.remove,
        stays_with=_STAYS_WITH_ACCESS,
    ),
    Step(
        name="cluster access",
        ensure=lambda ctx, made: replace(made, access=cluster_access.ensure(ctx, made.nodes)),
        remove=cluster_access.remove,
    ),
    Step(
        name="security group",
        ensure=lambda ctx, made: replace(made, security_groups=security_group.ensure(ctx)),
        remove=security_group.remove,
        # EC2 refuses to delete a security group in use; IAM deletes a role in use. A removal that
        # is refused here has changed nothing, and CAST AI and the nodes continue to work.
        is_removed_first=True,
    ),
    Step(
        name="credentials",
        ensure=lambda ctx, made: replace(made, credentials=credentials.ensure(ctx, made.identity)),
        remove=credentials.remove,
    ),
    Step(
        name="hand-over",
        ensure=lambda ctx, made: replace(
            made, next_step=handover.ensure(ctx, made.identity, made.credentials)
        ),
        remove=handover.remove,
        is_at_castai=True,
    ),
)


_REMOVALS: Final = (
    *(step for step in STEPS if step.is_removed_first),
    *(step for step in reversed(STEPS) if not step.is_removed_first),
)

_UNREADABLE: Final = (
    AwsRefusedError,
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    RetryableError,
)


class StepFailedError(PermanentError):
    """A step failed. `left` names what could not be undone, as do the notes of the cause."""

    def __init__(self, step: str, cause: CastaiError, left: list[str]) -> None:
        notes = getattr(cause, "__notes__", ())
        undone = f"everything{' else' if notes else ''} that this run did was undone"
        if left:
            undone = f"remove by hand what could not be undone: {'; '.join(left)}"
        super().__init__(f"{first_line(cause)} (step {step}; {undone})\n{_rest(cause)}".rstrip())
        self.step = step
        self.left = left
        for note in notes:
            self.add_note(note)


class OffboardError(PermanentError):
    """Something of ours could not be removed. What does not depend on it is removed."""


class InTheWayError(PermanentError):
    """Resources of other owners have the names; nothing was changed."""


@dataclass(frozen=True)
class Onboarded:
    """A run of `onboard`: what it did, and the attributes for CloudFormation."""

    rows: list[Row]
    attributes: dict[str, str]


def plan(ctx: Context) -> list[Row]:
    """What `onboard` would change. Writes nothing.

    Raises CastaiError where the cluster cannot be onboarded with these properties.
    """
    ctx.ledger.dry = True
    preflight.before_onboarding(ctx)
    in_use.refuse(ctx, ctx.replaced_ids, groups=False)
    return [*ctx.ledger.rows, *_preview(ctx)]


def onboard(ctx: Context) -> Onboarded:
    """Bring the account to the state of the properties.

    Raises InTheWayError where things of other owners have the names, InUseError where nodes use the
    role of a former cluster id (nothing was changed), and StepFailedError after everything that
    this run did is undone, or named.
    """
    ctx.ledger.step = "preflight"
    try:
        preflight.before_onboarding(ctx)
        in_use.refuse(ctx, ctx.replaced_ids, groups=False)
        _refuse_conflicts(_preview(ctx))
        made = _ensure_all(ctx)
        removed = _remove_replaced(ctx, made.credentials.replaced_keys)
        ctx.ledger.step = "remove own access"
        ctx.kubernetes.close()
    except CastaiError as error:
        raise _undone(ctx, _with_path_as_cause(ctx, error)) from error
    except Exception as error:
        raise _undone(ctx, bug(error)) from error
    return Onboarded([*ctx.ledger.rows, *removed], attributes(ctx, made))


def offboard(ctx: Context) -> list[Row]:
    """Remove everything that is ours; returns what was done, row by row.

    Raises InUseError while nodes or other groups use what would be removed (nothing was changed),
    and OffboardError with each step that failed and the steps that were not tried after it.
    """
    preflight.before_removal(ctx)
    in_use.refuse(ctx, ctx.known_ids, groups=True)
    removal = _remove_all(ctx, stop_if_the_first_fails=True)
    if removal.failures:
        lines = [f"- {name}: {error}" for name, error in removal.failures]
        if removal.not_tried:
            lines.append(f"- not tried after that: {', '.join(removal.not_tried)}")
        raise OffboardError(
            "Clear what stopped the removal and delete again: "
            + "\n".join([first_line(removal.failures[0][1]), *lines])
        )
    return ctx.ledger.rows


def plan_offboard(ctx: Context) -> list[Row]:
    """What `offboard` would remove. Writes nothing. Raises InUseError as `offboard` does."""
    ctx.ledger.dry = True
    preflight.before_removal(ctx)
    in_use.refuse(ctx, ctx.known_ids, groups=True)
    for name, error in _remove_all(ctx, stop_if_the_first_fails=True).failures:
        ctx.ledger.step = name
        ctx.ledger.leave(name, str(error))
    return ctx.ledger.rows


def existing(ctx: Context) -> list[Row]:
    """The resources with our names in account and cluster: ours (`delete`), or not (`leave`).

    Call `preflight.before_removal` first. Writes nothing and does not call CAST AI. A step that
    cannot be read is a row with the reason, and the others are read all the same.
    """
    ctx.ledger.dry = True
    for step in STEPS:
        if step.is_at_castai:
            continue
        ctx.ledger.step = step.name
        try:
            step.remove(ctx)
        except _UNREADABLE as error:
            ctx.ledger.leave(step.name, f"could not be read: {first_line(error)}")
        except CastaiError as error:  # it was read, and its removal would fail
            ctx.ledger.leave(step.name, first_line(error))
    return ctx.ledger.rows


def _ensure_all(ctx: Context) -> Results:
    made = Results()
    for step in STEPS:
        ctx.ledger.step = step.name
        made = step.ensure(ctx, made)
    return made


def _preview(ctx: Context) -> list[Row]:
    """All steps without a write."""
    dry = replace(ctx, ledger=Ledger(dry=True))
    _ensure_all(dry)
    return dry.ledger.rows


def _refuse_conflicts(rows: list[Row]) -> None:
    conflicts = [row for row in rows if row.action is Action.CONFLICT]
    if conflicts:
        raise InTheWayError(f"{REMOVE_OR_ADOPT}\n{listed(conflicts)}")


def _with_path_as_cause(ctx: Context, error: CastaiError) -> CastaiError:
    """The error; for a denied call after a change of Path the error that names this cause.

    The function's permissions are for the new path.
    """
    before, now = ctx.previous, ctx.onboarding
    denied = isinstance(error, AwsRefusedError) and error.code == "AccessDenied"
    if not denied or before is None or before.path == now.path:
        return error
    return PermanentError(
        f"Set Path back to {before.path}: IAM cannot move what was created there to {now.path}. "
        "For another path remove the onboarding first"
    )


def _undone(ctx: Context, cause: CastaiError) -> CastaiError:
    """Undo what the run did; returns the error to raise."""
    step = ctx.ledger.step
    ctx.deadline += UNDO_TIME
    left = ctx.ledger.undo_all()
    if isinstance(cause, InTheWayError | in_use.InUseError) and not left:
        return cause
    return StepFailedError(step, cause, left)


def _remove_replaced(ctx: Context, keys: tuple[str, ...]) -> list[Row]:
    """Remove what the new state replaces: the other mode's identity, former ids, old `keys`.

    The new state is complete and CAST AI has it, so a failure is a row and not an error, as in
    CloudFormation's own clean-up. The node role keeps former ids until the clean-up has no failure:
    the next run tries again, and a removal finds the rest.
    """
    leaving = replace(ctx, ledger=Ledger(protected=ctx.ledger.claimed), replaced_keys=keys)
    failures = _remove_all(leaving, stop_if_the_first_fails=False).failures
    if not failures:
        leaving.ledger.step = "node role"
        try:
            node_role.forget_former_ids(leaving)
        except CastaiError as refused:
            failures = [(leaving.ledger.step, refused)]
    for name, error in failures:
        leaving.ledger.step = name
        leaving.ledger.leave(name, f"could not be cleaned up: {first_line(error)}")
    return leaving.ledger.rows


@dataclass
class _Removal:
    """How the removal of all steps went."""

    failures: list[tuple[str, CastaiError]] = field(default_factory=list)
    not_tried: list[str] = field(default_factory=list)
    """Names of the steps that stay because another one stays."""


def _remove_all(ctx: Context, *, stop_if_the_first_fails: bool) -> _Removal:
    """Try every removal.

    `stop_if_the_first_fails`: where the step that is removed first fails, the others are not tried.
    """
    removal = _Removal()
    kept: set[str] = set()  # steps that failed or were not tried
    stopped = False
    for step in _REMOVALS:
        if stopped or kept & step.stays_with or (kept and step.remembers_ids(ctx)):
            kept.add(step.name)
            removal.not_tried.append(step.name)
            continue
        ctx.ledger.step = step.name
        try:
            step.remove(ctx)
        except CastaiError as error:
            removal.failures.append((step.name, error))
            kept.add(step.name)
            stopped = step.is_removed_first and stop_if_the_first_fails
    return removal


def _rest(error: CastaiError) -> str:
    return str(error).partition("\n")[2]


def attributes(ctx: Context, made: Results) -> dict[str, str]:
    """The attributes for CloudFormation: no secret, and always all of them."""
    is_user = ctx.onboarding.mode is Mode.USER
    return {
        "Mode": ctx.onboarding.mode.value,
        "ClusterId": ctx.facts.cluster_id,
        "UserArn": made.identity.arn if is_user else "",
        "RoleArn": "" if is_user else made.identity.arn,
        "PolicyArn": ctx.policy_arn,
        "NodeRoleArn": made.nodes.arn,
        "InstanceProfileArn": made.nodes.profile_arn,
        "SecurityGroupId": ",".join(made.security_groups),
        "CredentialsSecretArn": made.credentials.secret_arn,
        "AccessMethod": made.access.value if made.access else "",
        "NextStep": made.next_step,
    }
