"""The look around before anything is made: the cluster, CAST AI's id of it, its agent."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final, TypeVar

from msgspec.structs import replace

from lambdas.common import eks as clusters
from lambdas.common.errors import AwsRefusedError, CastaiError, PermanentError
from lambdas.common.names import CLUSTER_ID_TAG, FORMER_IDS_TAG
from lambdas.onboarding import cluster_access, identity, names, security_group
from lambdas.onboarding.context import Context, tag_map
from lambdas.onboarding.iam_principals import GONE, Principal, Role, User
from lambdas.onboarding.ledger import first_line
from lambdas.onboarding.policies.scope import USER_CLUSTER_CHARACTERS, Mode

ACTIVE: Final = ("ACTIVE", "UPDATING")
UNREGISTERED: Final = "00000000-0000-0000-0000-000000000000"
"""Stands for CAST AI's id in the plan for a cluster that is not registered yet."""
CLUSTER: Final = "cluster"
"""The thing that a row about the cluster itself names."""
T = TypeVar("T")
_UNUSED: Final = ("connecting", "waiting-connection")


def inspect(ctx: Context) -> None:
    """Find out what the steps need to know, and refuse what cannot end well.

    Raises:
        CastaiError: no such cluster, not active, no agent, or names that AWS would refuse.
    """
    wish, facts = ctx.onboarding, ctx.facts
    facts.cluster = _cluster(ctx)
    if ctx.cluster.status not in ACTIVE:
        raise PermanentError(
            f"Wait until cluster {wish.cluster_name} is active: it is {ctx.cluster.status} now"
        )
    facts.cluster_id = wish.cluster_id or ""
    facts.former_ids = _former_ids(ctx)
    if not facts.cluster_id and ctx.api is not None and not ctx.plan_only:
        facts.cluster_id = _register(ctx)
    elif not facts.cluster_id and facts.former_ids:
        facts.cluster_id = facts.former_ids[0]
    elif not facts.cluster_id:
        facts.cluster_id = UNREGISTERED
        ctx.ledger.create("registration at CAST AI", lambda: None, undo=lambda: None)
    facts.former_ids = _with_remembered(ctx)
    if wish.mode is Mode.ROLE:
        facts.principal = wish.principal_arn or _principal(ctx)
    if wish.require_agent:
        _check_agent(ctx)


def look_back(ctx: Context) -> None:
    """What a removal, or a look at what is there, needs to know. Nothing missing stops one with
    properties.

    Raises:
        PermanentError: a removal goes by what is found, finds no id of CAST AI's, and may not list
            the roles that carry one in their names.
    """
    wish, facts = ctx.onboarding, ctx.facts
    facts.cluster = _seen(ctx, CLUSTER, _cluster, None)
    no_ids: set[str] = set()
    found: set[str] | None = no_ids
    if ctx.discover:
        found = _seen(ctx, "roles", _ids_in_role_names, found)
        entries = _seen(ctx, "access entries", cluster_access.remembered_ids, no_ids)
        others = {*(found or ()), *entries}
        path = _seen(ctx, "IAM path", partial(_own_path, found_ids=others), "")
        ctx.onboarding = replace(wish, path=path or wish.path)
        former: tuple[str, ...] = _seen(ctx, "CAST AI's id of the cluster", _former_ids, ())
        facts.former_ids = tuple(dict.fromkeys([*former, *sorted(others)]))
    else:
        facts.former_ids = _former_ids(ctx)
    facts.cluster_id = wish.cluster_id or next(iter(facts.former_ids), "")
    if not facts.cluster_id and ctx.api is not None and not ctx.discover:
        try:
            facts.cluster_id = _registered(ctx)
        except CastaiError as error:
            ctx.ledger.leave("CAST AI's id of the cluster", str(error))
    facts.former_ids = _seen(ctx, "former ids", _with_remembered, facts.former_ids)
    if found is None and ctx.plan_only:
        ctx.ledger.leave("roles", "not looked for: allow iam:ListRoles")
    elif found is None and not facts.cluster_id:
        raise PermanentError(
            "Give --cluster-id, or allow iam:ListRoles: nothing else here carries CAST AI's id of "
            "the cluster, and the roles are named by it. Nothing was changed."
        )


def own_modes(ctx: Context) -> tuple[Mode, ...]:
    """The modes of which an identity of ours is there, as far as it can be read."""
    return _seen(ctx, "user and role", identity.own_modes, ())


def _seen(ctx: Context, what: str, look: Callable[[Context], T], default: T) -> T:
    """What a look gives. A mere look at what is there goes on where one source cannot be read."""
    try:
        return look(ctx)
    except CastaiError as error:
        if not (ctx.plan_only and ctx.discover):
            raise
        ctx.ledger.leave(what, f"could not be read: {first_line(error)}")
        return default


def _cluster(ctx: Context) -> clusters.Cluster | None:
    name, region = ctx.onboarding.cluster_name, ctx.place.region
    try:
        return ctx.ask(
            "eks:DescribeCluster",
            lambda: clusters.describe(ctx.clients.eks, name, region=region),
        )
    except AwsRefusedError as error:
        if error.code == "ResourceNotFoundException":
            return None
        raise


def _former_ids(ctx: Context) -> tuple[str, ...]:
    """The ids that our own things remember, and the one of the properties before."""
    remembered: list[str | None] = [ctx.previous.cluster_id if ctx.previous else None]
    iam = ctx.clients.iam
    arn = ctx.scope.policy_arn(account_wide=False)
    found: Any = ctx.find("iam:GetPolicy", lambda: iam.get_policy(PolicyArn=arn), missing=GONE)
    if found:
        remembered.append(_own_id(ctx, tag_map(found["Policy"].get("Tags"))))
    if len(ctx.onboarding.cluster_name) <= USER_CLUSTER_CHARACTERS:
        user = User(ctx, names.user_name(ctx.onboarding.cluster_name)).found()
        remembered.append(_own_id(ctx, user.tags) if user else None)
    remembered += [_own_id(ctx, tag_map(group.get("Tags"))) for group in security_group.owned(ctx)]
    return tuple(dict.fromkeys(each for each in remembered if each))


def _ids_in_role_names(ctx: Context) -> set[str] | None:
    """The ids on roles of ours that are named for this cluster; None where none may be listed."""
    cluster, iam = ctx.onboarding.cluster_name, ctx.clients.iam
    patterns = [name(cluster, "") for name in (names.node_role_name, names.role_name)]
    try:
        roles = [
            role["RoleName"]
            for page in ctx.pages("iam:ListRoles", iam.list_roles)
            for role in page["Roles"]
        ]
    except AwsRefusedError as error:
        if error.code != "AccessDenied":
            raise
        return None
    ours = [role for role in roles if any(fnmatchcase(role, pattern) for pattern in patterns)]
    return {each for role in ours if (each := _id_of_role(ctx, role))}


def _id_of_role(ctx: Context, name: str) -> str | None:
    """The id on a role; None where it is not ours, or not ours to read: under another path, or of
    a cluster of this name in another region.
    """
    try:
        role = Role(ctx, name).found()
    except AwsRefusedError as error:
        if error.code != "AccessDenied":
            raise
        return None
    return _own_id(ctx, role.tags) if role else None


def _with_remembered(ctx: Context) -> tuple[str, ...]:
    """The former ids, and those that node roles remember because their things could not go yet."""
    remembered: list[str] = []
    for each in ctx.known_ids:
        role = Role(ctx, names.node_role_name(ctx.onboarding.cluster_name, each)).found()
        if role and ctx.owner.owns(role.tags):
            remembered += role.tags.get(FORMER_IDS_TAG, "").split()
    return tuple(dict.fromkeys([*ctx.facts.former_ids, *remembered]))


def _own_path(ctx: Context, found_ids: Collection[str]) -> str:
    """The IAM path of what we made; empty where nothing tells."""
    cluster = ctx.onboarding.cluster_name
    groups = (tag_map(group.get("Tags")) for group in security_group.owned(ctx))
    ids = {ctx.onboarding.cluster_id, *found_ids, *(_own_id(ctx, tags) for tags in groups)}
    principals: list[Principal] = [
        Role(ctx, name(cluster, each))
        for each in sorted(filter(None, ids))
        for name in (names.node_role_name, names.role_name)
    ]
    if len(cluster) <= USER_CLUSTER_CHARACTERS:
        principals.append(User(ctx, names.user_name(cluster)))
    for principal in principals:
        found = principal.found()
        if found and ctx.owner.owns(found.tags):
            return found.path
    return ""


def _own_id(ctx: Context, tags: Mapping[str, str]) -> str | None:
    return tags.get(CLUSTER_ID_TAG) if ctx.owner.owns(tags) else None


def _registered(ctx: Context) -> str:
    """CAST AI's id; asking for one that is registered gives the same again."""
    if ctx.api is None:
        return ""
    place = ctx.place
    return ctx.api.register(ctx.onboarding.cluster_name, place.region, place.account)


def _register(ctx: Context) -> str:
    """Register, and take that back on failure where nobody has used the registration yet."""
    cluster_id = _registered(ctx)
    api = ctx.api
    if api is None or ctx.facts.former_ids:
        return cluster_id
    known = api.get(cluster_id)
    if (known.status, known.agent_status) == _UNUSED:

        def forget() -> None:
            api.disconnect(cluster_id)
            api.delete(cluster_id)

        # The writing is done: only the answer to it tells that nobody else has use for it.
        thing = f"registration {cluster_id} at CAST AI"
        ctx.ledger.create(thing, lambda: None, undo=forget)
    return cluster_id


def _principal(ctx: Context) -> str:
    if ctx.api is None or ctx.plan_only or ctx.facts.cluster_id == UNREGISTERED:
        return ""
    return ctx.api.assume_role_principal(ctx.facts.cluster_id)


def _check_agent(ctx: Context) -> None:
    problem = ctx.agent_problem(ctx.kube())
    if problem:
        raise PermanentError(
            f"Connect the cluster first (castai-eks connect, or the agent stack), or set "
            f"RequireAgent to false: {problem}"
        )
