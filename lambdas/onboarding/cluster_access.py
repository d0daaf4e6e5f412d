"""Who may do what in the cluster: nodes, the user of user mode, the spot handler.

By access entries where the cluster has them, else by aws-auth. The cross-account role gets no
access to the Kubernetes API, and neither way is taken for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import yaml

from lambdas.common.eks import Cluster
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_objects import Kube, WrittenMeanwhileError
from lambdas.common.names import CLUSTER_ID_TAG, OWNER_ANNOTATION, TEMPORARY_TAG
from lambdas.onboarding import aws_auth, names, ownership, spot_rbac
from lambdas.onboarding.aws_auth import AwsAuthError, Entry
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role, User
from lambdas.onboarding.policies import onboarder
from lambdas.onboarding.policies.scope import USER_CLUSTER_CHARACTERS, Mode
from lambdas.onboarding.properties import ClusterAccess, Onboarding

GONE: Final = ("ResourceNotFoundException",)
# EKS checks that the principal exists, and may not have heard of it yet.
_SETTLING: Final = ("InvalidParameterException", *GONE)
_NAMESPACE, _NAME = aws_auth.CONFIG_MAP.split("/")
_TRIES: Final = 10  # conflicts in a row; each means that somebody else has written


@dataclass(frozen=True)
class Grant:
    """What one principal gets, whichever way."""

    arn: str
    type: str  # EKS CreateAccessEntry, parameter type
    groups: tuple[str, ...]
    admin: bool
    mapping: Entry


def has_entries(cluster: Cluster) -> bool:
    """Whether the cluster looks at access entries at all."""
    return "API" in cluster.authentication_mode


def admin_policy(partition: str) -> str:
    """ARN of EKS's policy that lets an access entry do everything in the cluster."""
    return f"arn:{partition}:eks::aws:cluster-access-policy/{onboarder.ADMIN_ACCESS_POLICY}"


def grants(ctx: Context) -> Iterator[Grant]:
    """What the principals of this onboarding get."""
    nodes = ctx.facts.node_role_arn
    yield Grant(nodes, "EC2_LINUX", (), admin=False, mapping=aws_auth.node_entry(nodes))
    if ctx.onboarding.mode is Mode.USER:
        user = ctx.scope.user_arn
        yield Grant(user, "STANDARD", (), admin=True, mapping=aws_auth.user_entry(user))
    if spot := ctx.onboarding.spot_handler_role_arn:
        groups = aws_auth.SPOT_HANDLER_GROUPS
        mapping = aws_auth.spot_handler_entry(spot)
        yield Grant(spot, "STANDARD", groups, admin=False, mapping=mapping)


def method(ctx: Context, wish: Onboarding) -> ClusterAccess:
    """Which way it goes on this cluster; AUTO is resolved."""
    if wish.cluster_access is not ClusterAccess.AUTO:
        return wish.cluster_access
    return ClusterAccess.ENTRIES if has_entries(ctx.cluster) else ClusterAccess.AWS_AUTH


def ensure(ctx: Context) -> None:
    """Make the principals known to the cluster."""
    way = method(ctx, ctx.onboarding)
    mode = ctx.cluster.authentication_mode or "CONFIG_MAP"
    ctx.facts.access_method = way.value
    if way is ClusterAccess.ENTRIES:
        if not has_entries(ctx.cluster):
            raise PermanentError(
                f"Set ClusterAccess to aws-auth, or give the cluster access entries "
                f"(eks update-cluster-config): its authentication mode is {mode}"
            )
        for grant in grants(ctx):
            if _is_ours_to_make(ctx.onboarding, grant.arn):
                _ensure_entry(ctx, grant)
    elif way is ClusterAccess.AWS_AUTH:
        if "CONFIG_MAP" not in mode:
            raise PermanentError(
                "Set ClusterAccess to access-entries: the cluster does not read aws-auth, its "
                f"authentication mode is {mode}"
            )
        _ensure_mapped(ctx, [grant.mapping for grant in grants(ctx)])


# Access entries -----------------------------------------------------------------------------------


def _is_ours_to_make(wish: Onboarding, arn: str) -> bool:
    """Not so the entry of the spot handler's role where its own stack makes it."""
    return wish.spot_handler_entry or arn != wish.spot_handler_role_arn


def entry_thing(arn: str) -> str:
    """The thing that an access entry is."""
    return f"access entry of {arn}"


def _entry(ctx: Context, arn: str) -> Mapping[str, Any] | None:
    answer: Any = ctx.find(
        "eks:DescribeAccessEntry",
        lambda: ctx.clients.eks.describe_access_entry(
            clusterName=ctx.cluster.name, principalArn=arn
        ),
        missing=GONE,
    )
    return answer["accessEntry"] if answer else None


def _ensure_entry(ctx: Context, grant: Grant) -> None:
    thing = entry_thing(grant.arn)
    found = _entry(ctx, grant.arn)
    if found is None:
        ctx.ledger.create(
            thing, lambda: _create_entry(ctx, grant), undo=lambda: _take_back(ctx, grant.arn)
        )
        if grant.admin:
            _make_admin(ctx, grant.arn)
        return
    if _is_stale(ctx, grant.arn, found):
        _replace_entry(ctx, grant, found)
        return
    has_policy = not grant.admin or admin_policy(ctx.place.partition) in _policies(ctx, grant.arn)
    groups = sorted(found.get("kubernetesGroups", ()))
    suits = found["type"] == grant.type and set(grant.groups) <= set(groups)
    ours = ctx.owner.owns(found.get("tags", {}))
    if suits and has_policy and not ours and not ctx.onboarding.adopt:
        # EKS makes one itself for a node group's role; ours to use, not ours to remove.
        ctx.ledger.keep(thing, "not ours: it stays when we leave")
        return
    if not ctx.may_take(thing, found.get("tags", {})):
        return
    if found["type"] != grant.type:
        ctx.ledger.conflict(thing, f"is of type {found['type']}, not {grant.type}: delete it first")
        return
    _correct_entry(ctx, grant, found, suits=suits)
    if not has_policy:
        _make_admin(ctx, grant.arn)


def _is_stale(ctx: Context, arn: str, entry: Mapping[str, Any]) -> bool:
    """Whether the entry is older than its principal, so that it lets a former one in.

    EKS binds an entry to the principal's unique id, which it does not show (EKS API reference,
    AccessEntry, principalArn). IAM's dates are cut to whole seconds. An entry of the same second
    counts as the newer: to replace one without need shuts running nodes out for a moment.
    """
    name = arn.rpartition("/")[2]
    principal = (User if ":user/" in arn else Role)(ctx, name).found()
    if principal is None:
        # Ours is about to be made. Without the spot handler's role, EKS would take no new entry.
        return arn != ctx.onboarding.spot_handler_role_arn
    return bool(entry["createdAt"] < principal.created)


def _replace_entry(ctx: Context, grant: Grant, found: Mapping[str, Any]) -> None:
    """Make the entry anew for the principal that has the name now."""
    thing, tags = entry_thing(grant.arn), found.get("tags", {})
    if not ctx.owner.owns(tags) and not ctx.onboarding.adopt:
        ctx.ledger.conflict(
            thing,
            f"{ownership.described(tags)}, of a former principal of this name: EKS does not let "
            "the present one in",
        )
        return
    was_admin = grant.admin and admin_policy(ctx.place.partition) in _policies(ctx, grant.arn)

    former = replace(grant, type=found["type"], groups=tuple(found.get("kubernetesGroups", ())))

    def make_anew() -> None:
        _delete_entry(ctx, grant.arn)
        _create_entry(ctx, grant)

    def put_back() -> None:
        _delete_entry(ctx, grant.arn)
        _create_entry(ctx, former, tags)
        if was_admin:
            _associate_admin(ctx, grant.arn)

    ctx.ledger.update(thing, make_anew, undo=put_back, detail="of a former principal")
    if grant.admin:
        _make_admin(ctx, grant.arn)


def _create_entry(ctx: Context, grant: Grant, tags: Mapping[str, str] | None = None) -> None:
    more: Any = {"kubernetesGroups": list(grant.groups)} if grant.groups else {}
    ctx.ask(
        "eks:CreateAccessEntry",
        lambda: ctx.clients.eks.create_access_entry(
            clusterName=ctx.cluster.name,
            principalArn=grant.arn,
            type=grant.type,
            tags=ctx.tags if tags is None else tags,
            **more,
        ),
        again_on=(*_SETTLING, "ResourceInUseException"),  # the one that was deleted just now
    )


def _correct_entry(ctx: Context, grant: Grant, found: Mapping[str, Any], *, suits: bool) -> None:
    eks, thing, cluster = ctx.clients.eks, entry_thing(grant.arn), ctx.cluster.name
    has: dict[str, str] = found.get("tags", {})
    missing, dropped = ctx.tag_changes(has, ctx.tags)
    if missing or dropped:
        before = {k: v for k, v in has.items() if k in {*missing, *dropped}}
        ctx.ledger.update(
            thing,
            lambda: _retag(ctx, found["accessEntryArn"], missing, dropped),
            undo=lambda: _retag(
                ctx, found["accessEntryArn"], before, [k for k in missing if k not in has]
            ),
            detail="tags",
        )
    if not suits:
        groups = list(found.get("kubernetesGroups", ()))

        def put(wanted: list[str]) -> object:
            return ctx.ask(
                "eks:UpdateAccessEntry",
                lambda: eks.update_access_entry(
                    clusterName=cluster, principalArn=grant.arn, kubernetesGroups=wanted
                ),
            )

        ctx.ledger.update(
            thing,
            lambda: put(sorted({*groups, *grant.groups})),
            undo=lambda: put(groups),
            detail="groups",
        )
    elif not (missing or dropped):
        ctx.ledger.keep(thing)


def _retag(ctx: Context, arn: str, tags: Mapping[str, str], keys: list[str]) -> None:
    eks = ctx.clients.eks
    if tags:
        ctx.ask("eks:TagResource", lambda: eks.tag_resource(resourceArn=arn, tags=tags))
    if keys:
        ctx.ask("eks:UntagResource", lambda: eks.untag_resource(resourceArn=arn, tagKeys=keys))


def _policies(ctx: Context, arn: str) -> list[str]:
    pages = ctx.pages(
        "eks:ListAssociatedAccessPolicies",
        ctx.clients.eks.list_associated_access_policies,
        missing=GONE,
        clusterName=ctx.cluster.name,
        principalArn=arn,
    )
    return [each["policyArn"] for page in pages for each in page["associatedAccessPolicies"]]


def _make_admin(ctx: Context, arn: str) -> None:
    eks, cluster, policy = ctx.clients.eks, ctx.cluster.name, admin_policy(ctx.place.partition)
    ctx.ledger.create(
        f"{onboarder.ADMIN_ACCESS_POLICY} on {entry_thing(arn)}",
        lambda: _associate_admin(ctx, arn),
        undo=lambda: ctx.find(
            "eks:DisassociateAccessPolicy",
            lambda: eks.disassociate_access_policy(
                clusterName=cluster, principalArn=arn, policyArn=policy
            ),
            missing=GONE,
        ),
    )


def _associate_admin(ctx: Context, arn: str) -> None:
    ctx.ask(
        "eks:AssociateAccessPolicy",
        lambda: ctx.clients.eks.associate_access_policy(
            clusterName=ctx.cluster.name,
            principalArn=arn,
            policyArn=admin_policy(ctx.place.partition),
            accessScope={"type": "cluster"},
        ),
        again_on=GONE,
    )


def _take_back(ctx: Context, arn: str) -> None:
    found = _entry(ctx, arn)
    if found and ctx.owner.owns(found.get("tags", {})):
        _delete_entry(ctx, arn)


def _delete_entry(ctx: Context, arn: str) -> None:
    ctx.find(
        "eks:DeleteAccessEntry",
        lambda: ctx.clients.eks.delete_access_entry(clusterName=ctx.cluster.name, principalArn=arn),
        missing=GONE,
    )


def _principals(ctx: Context) -> set[str]:
    """Everyone who may have an access entry of ours, as far as the cluster lists them."""
    cluster = ctx.onboarding.cluster_name
    ours = {names.node_role_name(cluster, each) for each in ctx.known_ids}
    if len(cluster) <= USER_CLUSTER_CHARACTERS:
        ours.add(names.user_name(cluster))
    spot = {w.spot_handler_role_arn for w in (ctx.onboarding, ctx.previous) if w}
    named = {arn for arn in _listed(ctx) if arn in spot or arn.rpartition("/")[2] in ours}
    return named | (_owned(ctx).keys() if ctx.discover else set())


def _listed(ctx: Context) -> list[str]:
    """The principals of all access entries of the cluster."""
    listing, cluster = ctx.clients.eks.list_access_entries, ctx.onboarding.cluster_name
    pages = ctx.pages("eks:ListAccessEntries", listing, clusterName=cluster)
    return [arn for page in pages for arn in page["accessEntries"]]


def _owned(ctx: Context) -> dict[str, Mapping[str, str]]:
    """The principals of the access entries that carry our tags, with these tags."""
    tags = {arn: (_entry(ctx, arn) or {}).get("tags", {}) for arn in _listed(ctx)}
    return {arn: each for arn, each in tags.items() if ctx.owner.owns(each)}


def remembered_ids(ctx: Context) -> set[str]:
    """CAST AI's ids of the cluster on the access entries that carry our tags."""
    if ctx.facts.cluster is None or not has_entries(ctx.cluster):
        return set()
    ids = {tags.get(CLUSTER_ID_TAG, "") for tags in _owned(ctx).values()}
    return ids - {""}


def _remove_entries(ctx: Context) -> None:
    for arn in sorted(_principals(ctx)):
        if entry_thing(arn) in ctx.ledger.protected:
            continue
        tags: Mapping[str, str] = (_entry(ctx, arn) or {}).get("tags", {})
        if TEMPORARY_TAG in tags:
            continue  # our own, which goes when we close the door
        if ctx.owner.owns(tags):
            ctx.ledger.delete(
                entry_thing(arn),
                lambda arn=arn: _delete_entry(ctx, arn),  # type: ignore[misc]
            )
        elif _is_ours_to_make(ctx.onboarding, arn):
            ctx.ledger.leave(entry_thing(arn), "not ours")


# aws-auth -----------------------------------------------------------------------------------------

Change = Callable[[Mapping[str, str] | None], Mapping[str, str] | None]


def mapping_thing(entry: Entry) -> str:
    """The thing that an entry of aws-auth is."""
    return f"{entry.kind} entry of {entry.arn} in {aws_auth.CONFIG_MAP}"


def _ensure_mapped(ctx: Context, entries: list[Entry]) -> None:
    found = _config_map(ctx.kube())
    data: Any = found.get("data") if found else None
    for entry in entries:
        thing = mapping_thing(entry)
        try:
            there = aws_auth.ensure(data, [entry]) is data
        except AwsAuthError as error:
            ctx.ledger.conflict(thing, str(error))
            continue
        if there:
            ctx.ledger.keep(thing)
        else:
            ctx.ledger.create(
                thing,
                lambda e=entry: _edit(ctx, lambda d: aws_auth.ensure(d, [e])),  # type: ignore[misc]
                undo=lambda e=entry: _edit(ctx, lambda d: aws_auth.remove(d, [e])),  # type: ignore[misc]
            )


def _edit(ctx: Context, change: Change) -> None:
    """Read, change, try without effect, write; from the start when somebody wrote in between."""
    kube = ctx.kube()
    for attempt in range(_TRIES):
        try:
            _edit_once(ctx, kube, change)
        except WrittenMeanwhileError:
            if attempt == _TRIES - 1 or ctx.clock.now() >= ctx.deadline:
                raise
        else:
            return


def _config_map(kube: Kube) -> dict[str, Any] | None:
    return kube.get("v1", "ConfigMap", _NAME, _NAMESPACE)


def _edit_once(ctx: Context, kube: Kube, change: Change) -> None:
    found = _config_map(kube)
    data: Any = found.get("data") if found else None
    changed: Any = change(data)
    if changed is data:
        return
    changed = {
        key: text for key, text in changed.items() if text == (data or {}).get(key) or _says(text)
    }
    if found is None:
        marks = {OWNER_ANNOTATION: ctx.resource}
        metadata = {"name": _NAME, "namespace": _NAMESPACE, "annotations": marks}
        kube.create(
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": changed}
        )
    elif _is_own(ctx, found) and not any(map(_says, changed.values())):
        kube.delete("v1", "ConfigMap", _NAME, _NAMESPACE)  # we made it, and nobody else uses it
    else:
        kube.replace({**found, "data": changed}, dry_run=True)
        kube.replace({**found, "data": changed})


def _says(text: str) -> bool:
    """Whether a key of the ConfigMap has any entry: an empty list means the same as no key."""
    return bool(yaml.safe_load(text))


def _is_own(ctx: Context, found: Mapping[str, Any]) -> bool:
    return bool((found["metadata"].get("annotations") or {}).get(OWNER_ANNOTATION) == ctx.resource)


def _remove_mapped(ctx: Context, entries: list[Entry]) -> None:
    found = _config_map(ctx.kube())
    data: Any = found.get("data") if found else None
    for entry in entries:
        if aws_auth.remove(data, [entry]) is not data:
            ctx.ledger.delete(
                mapping_thing(entry),
                lambda e=entry: _edit(ctx, lambda d: aws_auth.remove(d, [e])),  # type: ignore[misc]
            )


# Remove -------------------------------------------------------------------------------------------


def remove(ctx: Context) -> None:
    """Take back what this onboarding, and the one before it, gave."""
    if ctx.facts.cluster is None:
        return  # with the cluster went everything in it
    wishes = [wish for wish in (ctx.onboarding, ctx.previous) if wish]
    if has_entries(ctx.cluster):
        _remove_entries(ctx)
    if ctx.discover:
        reads_map = "CONFIG_MAP" in (ctx.cluster.authentication_mode or "CONFIG_MAP")
    else:
        reads_map = any(method(ctx, wish) is ClusterAccess.AWS_AUTH for wish in wishes)
    if reads_map:
        _remove_mapped(ctx, list(_former_mappings(ctx, wishes)))


def _former_mappings(ctx: Context, wishes: list[Onboarding]) -> Iterator[Entry]:
    if ctx.discover:
        yield from _own_mappings(ctx)
        return
    path = ctx.onboarding.path
    for each in ctx.known_ids:
        name = names.node_role_name(ctx.onboarding.cluster_name, each)
        yield aws_auth.node_entry(ctx.scope.iam(f"role{path}{name}"))
    if len(ctx.onboarding.cluster_name) <= USER_CLUSTER_CHARACTERS:
        yield aws_auth.user_entry(ctx.scope.user_arn)
    for arn in {wish.spot_handler_role_arn for wish in wishes}:
        if arn:
            yield aws_auth.spot_handler_entry(arn)


def _own_mappings(ctx: Context) -> Iterator[Entry]:
    """What maps principals that we made, and the spot handler's role where we made its rights."""
    cluster = ctx.onboarding.cluster_name
    for each in ctx.known_ids:
        role = Role(ctx, names.node_role_name(cluster, each)).found()
        if role and ctx.owner.owns(role.tags):
            yield aws_auth.node_entry(role.arn)
    if len(cluster) <= USER_CLUSTER_CHARACTERS:
        user = User(ctx, names.user_name(cluster)).found()
        if user and ctx.owner.owns(user.tags):
            yield aws_auth.user_entry(user.arn)
    if spot_rbac.is_ours(ctx):
        found = _config_map(ctx.kube())
        yield from aws_auth.spot_handler_entries(found.get("data") if found else None)
