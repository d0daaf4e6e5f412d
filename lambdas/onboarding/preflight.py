"""Preflight checks: the cluster, CAST AI's id of it, its agent. Writes nothing in AWS.

They set `ctx.facts`, which the steps only read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Final, TypeVar

from msgspec import structs

from lambdas.common import eks as clusters
from lambdas.common.aws_calls import MISSING
from lambdas.common.errors import AwsRefusedError, CastaiError, PermanentError
from lambdas.common.names import CLUSTER_ID_TAG, FORMER_IDS_TAG
from lambdas.onboarding import access_entries, identity, names, policy, security_group
from lambdas.onboarding.context import Context, Facts
from lambdas.onboarding.iam_principals import Principal, Role
from lambdas.onboarding.ledger import first_line
from lambdas.onboarding.policies.scope import Mode
from lambdas.onboarding.tags import tag_map

ACTIVE: Final = ("ACTIVE", "UPDATING")
UNREGISTERED: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for CAST AI's id in the plan for a cluster that is not registered yet."""
CLUSTER: Final = "cluster"
"""Label of the cluster itself in a row."""
T = TypeVar("T")
_UNUSED: Final = ("connecting", "waiting-connection")
"""Status of cluster and agent at CAST AI while no agent has reported."""


def before_onboarding(ctx: Context) -> None:
    """Set the facts that the steps need, and refuse an onboarding that cannot succeed.

    Raises CastaiError if the cluster does not exist or is not active, if its agent is not
    available, or if AWS would refuse a name.
    """
    properties = ctx.onboarding
    ctx.facts = Facts(cluster=_cluster(ctx))
    if ctx.cluster.status not in ACTIVE:
        raise PermanentError(
            f"Wait until cluster {properties.cluster_name} is active: it is {ctx.cluster.status} "
            "now"
        )
    _set(ctx, cluster_id=properties.cluster_id or "")
    _set(ctx, former_ids=_former_ids(ctx))
    if not ctx.facts.cluster_id and ctx.api is not None and not ctx.plan_only:
        _set(ctx, cluster_id=_register(ctx))
    elif not ctx.facts.cluster_id and ctx.facts.former_ids:
        _set(ctx, cluster_id=ctx.facts.former_ids[0])
    elif not ctx.facts.cluster_id:
        _set(ctx, cluster_id=UNREGISTERED)
        ctx.ledger.create("registration at CAST AI", lambda: None, undo=lambda: None)
    _set(ctx, former_ids=_with_ids_in_tags(ctx))
    if properties.mode is Mode.ROLE:
        _set(ctx, principal=properties.principal_arn or _principal(ctx))
    if properties.require_agent:
        _check_agent(ctx)


def before_removal(ctx: Context) -> None:
    """Set the facts that a removal, or a report of what exists, needs.

    A removal by properties does not fail if something is missing. A removal by what exists may
    change the path in `ctx.onboarding` to the path that it finds.

    Raises PermanentError if a removal by what exists finds no id of CAST AI's and may not list the
    roles, whose names contain the id.
    """
    properties = ctx.onboarding
    ctx.facts = Facts(cluster=_reported(ctx, CLUSTER, _cluster, None))
    no_ids: set[str] = set()
    in_names: set[str] | None = no_ids
    if ctx.discover:
        in_names = _reported(ctx, "roles", _ids_in_role_names, in_names)
        in_entries = _reported(ctx, "access entries", access_entries.ids_in_tags, no_ids)
        others = {*(in_names or ()), *in_entries}
        path = _reported(ctx, "IAM path", partial(_own_path, found_ids=others), "")
        ctx.onboarding = structs.replace(properties, path=path or properties.path)
        former: tuple[str, ...] = _reported(ctx, "CAST AI's id of the cluster", _former_ids, ())
        _set(ctx, former_ids=tuple(dict.fromkeys([*former, *sorted(others)])))
    else:
        _set(ctx, former_ids=_former_ids(ctx))
    _set(ctx, cluster_id=properties.cluster_id or next(iter(ctx.facts.former_ids), ""))
    if not ctx.facts.cluster_id and ctx.api is not None and not ctx.discover:
        try:
            _set(ctx, cluster_id=_registered(ctx))
        except CastaiError as error:
            ctx.ledger.leave("CAST AI's id of the cluster", str(error))
    former = _reported(ctx, "former ids", _with_ids_in_tags, ctx.facts.former_ids)
    _set(ctx, former_ids=former)
    if in_names is None and ctx.plan_only:
        ctx.ledger.leave("roles", "not looked for: allow iam:ListRoles")
    elif in_names is None and not ctx.facts.cluster_id:
        raise PermanentError(
            "Give --cluster-id, or allow iam:ListRoles: CAST AI's id of the cluster was not found, "
            "and the names of the roles contain it. Nothing was changed."
        )


def use_cluster_id(ctx: Context, cluster_id: str) -> None:
    """Set the id from another source, if these checks found none."""
    _set(ctx, cluster_id=ctx.facts.cluster_id or cluster_id)


def own_modes(ctx: Context) -> tuple[Mode, ...]:
    """The modes of the identities that exist and are ours, as far as they can be read."""
    return _reported(ctx, "user and role", identity.own_modes, ())


def _set(
    ctx: Context,
    *,
    cluster_id: str | None = None,
    former_ids: tuple[str, ...] | None = None,
    principal: str | None = None,
) -> None:
    """Set the facts that are given."""
    now = ctx.facts
    ctx.facts = replace(
        now,
        cluster_id=now.cluster_id if cluster_id is None else cluster_id,
        former_ids=now.former_ids if former_ids is None else former_ids,
        principal=now.principal if principal is None else principal,
    )


def _reported(ctx: Context, label: str, read: Callable[[Context], T], default: T) -> T:
    """The result of `read`. A report continues without a source that cannot be read."""
    try:
        return read(ctx)
    except CastaiError as error:
        if not (ctx.plan_only and ctx.discover):
            raise
        ctx.ledger.leave(label, f"could not be read: {first_line(error)}")
        return default


def _cluster(ctx: Context) -> clusters.Cluster | None:
    name, region = ctx.onboarding.cluster_name, ctx.place.region
    try:
        return ctx.aws.run(lambda: clusters.describe(ctx.clients.eks, name, region=region))
    except AwsRefusedError as error:
        if error.code in MISSING:
            return None
        raise


def _former_ids(ctx: Context) -> tuple[str, ...]:
    """The ids in the tags of our things, and the id in the properties before an Update."""
    ids: list[str | None] = [ctx.previous.cluster_id if ctx.previous else None]
    found = policy.find(ctx, ctx.scope.policy_arn(account_wide=False))
    if found:
        ids.append(_own_id(ctx, tag_map(found.get("Tags"))))
    user = identity.user(ctx)
    found_user = user.found() if user else None
    if found_user:
        ids.append(_own_id(ctx, found_user.tags))
    ids += [_own_id(ctx, tag_map(group.get("Tags"))) for group in security_group.owned(ctx)]
    return tuple(dict.fromkeys(each for each in ids if each))


def _ids_in_role_names(ctx: Context) -> set[str] | None:
    """The ids on roles of ours that are named for this cluster; None without iam:ListRoles."""
    cluster = ctx.onboarding.cluster_name
    patterns = [name(cluster, "") for name in (names.node_role_name, names.role_name)]
    try:
        roles = [role["RoleName"] for role in ctx.items(ctx.clients.iam.list_roles, "Roles")]
    except AwsRefusedError as error:
        if error.code != "AccessDenied":
            raise
        return None
    ours = [role for role in roles if any(fnmatchcase(role, pattern) for pattern in patterns)]
    return {each for role in ours if (each := _id_of_role(ctx, role))}


def _id_of_role(ctx: Context, name: str) -> str | None:
    """The id in a role's tag; None if the role is not ours or may not be read.

    A role with another path may not be read, and neither a role of a cluster of this name in
    another region.
    """
    try:
        role = Role(ctx, name).found()
    except AwsRefusedError as error:
        if error.code != "AccessDenied":
            raise
        return None
    return _own_id(ctx, role.tags) if role else None


def _with_ids_in_tags(ctx: Context) -> tuple[str, ...]:
    """The former ids, and those in the tags of the node roles, which are still in use."""
    in_tags: list[str] = []
    for each in ctx.known_ids:
        role = Role(ctx, names.node_role_name(ctx.onboarding.cluster_name, each)).found()
        if role and ctx.owner.owns(role.tags):
            in_tags += role.tags.get(FORMER_IDS_TAG, "").split()
    return tuple(dict.fromkeys([*ctx.facts.former_ids, *in_tags]))


def _own_path(ctx: Context, found_ids: Collection[str]) -> str:
    """The IAM path of our identities and node roles; empty where none is found."""
    cluster = ctx.onboarding.cluster_name
    groups = (tag_map(group.get("Tags")) for group in security_group.owned(ctx))
    ids = {ctx.onboarding.cluster_id, *found_ids, *(_own_id(ctx, tags) for tags in groups)}
    principals: list[Principal] = [
        Role(ctx, name(cluster, each))
        for each in sorted(filter(None, ids))
        for name in (names.node_role_name, names.role_name)
    ]
    if user := identity.user(ctx):
        principals.append(user)
    for principal in principals:
        found = principal.found()
        if found and ctx.owner.owns(found.tags):
            return found.path
    return ""


def _own_id(ctx: Context, tags: Mapping[str, str]) -> str | None:
    return tags.get(CLUSTER_ID_TAG) if ctx.owner.owns(tags) else None


def _registered(ctx: Context) -> str:
    """CAST AI's id; a cluster that is registered already keeps its id."""
    if ctx.api is None:
        return ""
    place = ctx.place
    return ctx.api.register(ctx.onboarding.cluster_name, place.region, place.account)


def _register(ctx: Context) -> str:
    """Register the cluster; the registration is undone only where it is new and unused."""
    cluster_id = _registered(ctx)
    api = ctx.api
    if api is None or ctx.facts.former_ids:
        return cluster_id
    known = api.get(cluster_id)
    if (known.status, known.agent_status) == _UNUSED:

        def undo() -> None:
            if _names_a_role(ctx, cluster_id):
                return  # an earlier run left it: a later run finds it by this registration
            api.disconnect(cluster_id)
            api.delete(cluster_id)

        # The registration is already done: only its answer shows whether it is unused.
        label = f"registration {cluster_id} at CAST AI"
        # The names of all resources contain the id.
        ctx.ledger.create(label, lambda: None, undo=undo, leads_to_the_rest=True)
    return cluster_id


def _names_a_role(ctx: Context, cluster_id: str) -> bool:
    """Whether a role, or an access entry of a role, has the id in its name."""
    cluster = ctx.onboarding.cluster_name
    roles = {name(cluster, cluster_id) for name in (names.node_role_name, names.role_name)}
    return access_entries.exists_for(ctx, roles) or any(
        Role(ctx, each).found() for each in sorted(roles)
    )


def principal_label(ctx: Context) -> str:
    """CAST AI's principal for the role in rows and messages."""
    return f"CAST AI's principal for cluster {ctx.facts.cluster_id}"


def _principal(ctx: Context) -> str:
    """CAST AI's principal; one that this run created is deleted if the run fails."""
    api, cluster_id = ctx.api, ctx.facts.cluster_id
    if api is None or ctx.plan_only or cluster_id == UNREGISTERED:
        return ""
    existing = api.existing_principal(cluster_id)
    if existing:
        return existing
    created = ctx.ledger.create(
        principal_label(ctx),
        lambda: api.assume_role_principal(cluster_id),
        undo=lambda: api.delete_principal(cluster_id),
    )
    return created or ""


def _check_agent(ctx: Context) -> None:
    problem = ctx.agent_problem(ctx.kube())
    if problem:
        raise PermanentError(
            f"Connect the cluster first (castai-eks connect, or the agent stack), or set "
            f"RequireAgent to false: {problem}"
        )
