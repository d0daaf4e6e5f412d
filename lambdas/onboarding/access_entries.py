"""Access entries of EKS: who may use the cluster's Kubernetes API."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from lambdas.common.aws_calls import MISSING
from lambdas.common.eks import Cluster
from lambdas.common.names import CLUSTER_ID_TAG, TEMPORARY_TAG
from lambdas.common.temporary_access import UNKNOWN_PRINCIPAL
from lambdas.onboarding import identity, names, ownership
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role, User
from lambdas.onboarding.policies import onboarder
from lambdas.onboarding.properties import Onboarding
from lambdas.onboarding.tags import correct_tags

_SETTLING: Final = (*MISSING, UNKNOWN_PRINCIPAL)
"""EKS checks that the principal exists. A new principal may not be visible to EKS yet."""
_STILL_THERE: Final = "ResourceInUseException"
"""For a moment EKS may still have an entry that was deleted."""


@dataclass(frozen=True)
class AccessEntry:
    """The access of one principal."""

    arn: str
    type: str
    """EKS CreateAccessEntry, parameter `type`."""
    groups: tuple[str, ...] = ()
    admin: bool = False


def has_entries(cluster: Cluster) -> bool:
    """Whether the cluster's authentication mode has access entries."""
    return "API" in cluster.authentication_mode


def admin_policy(partition: str) -> str:
    """ARN of EKS's policy that lets an access entry do everything in the cluster."""
    return f"arn:{partition}:eks::aws:cluster-access-policy/{onboarder.ADMIN_ACCESS_POLICY}"


def label(arn: str) -> str:
    """An access entry in rows and messages."""
    return f"access entry of {arn}"


def ensure(ctx: Context, entries: Iterable[AccessEntry]) -> None:
    """Create or correct the entries that are ours to make."""
    for entry in entries:
        if _is_ours_to_make(ctx.onboarding, entry.arn):
            _ensure_entry(ctx, entry)


def _is_ours_to_make(properties: Onboarding, arn: str) -> bool:
    """False for the spot handler's role where the spot handler's stack makes the entry."""
    return properties.spot_handler_entry or arn != properties.spot_handler_role_arn


def _entry(ctx: Context, arn: str) -> Mapping[str, Any] | None:
    answer: Any = ctx.find(
        ctx.clients.eks.describe_access_entry, clusterName=ctx.cluster.name, principalArn=arn
    )
    return answer["accessEntry"] if answer else None


def _ensure_entry(ctx: Context, entry: AccessEntry) -> None:
    found = _entry(ctx, entry.arn)
    if found is None:
        ctx.ledger.create(
            label(entry.arn),
            lambda: _create(ctx, entry),
            undo=lambda: _undo_create(ctx, entry.arn),
        )
        if entry.admin:
            _make_admin(ctx, entry.arn)
        return
    if _is_stale(ctx, entry.arn, found):
        _replace(ctx, entry, found)
        return
    has_policy = not entry.admin or admin_policy(ctx.place.partition) in _policies(ctx, entry.arn)
    groups = sorted(found.get("kubernetesGroups", ()))
    suits = found["type"] == entry.type and set(entry.groups) <= set(groups)
    ours = ctx.owner.owns(found.get("tags", {}))
    if suits and has_policy and not ours and not ctx.onboarding.adopt:
        # EKS itself creates the entry of a node group's role. It is used and never removed.
        ctx.ledger.keep(label(entry.arn), "not ours: a removal keeps it")
        return
    if not ctx.may_take(label(entry.arn), found.get("tags", {})):
        return
    if found["type"] != entry.type:
        ctx.ledger.conflict(
            label(entry.arn), f"is of type {found['type']}, not {entry.type}: delete it first"
        )
        return
    _correct(ctx, entry, found, suits=suits)
    if not has_policy:
        _make_admin(ctx, entry.arn)


def _is_stale(ctx: Context, arn: str, entry: Mapping[str, Any]) -> bool:
    """Whether the entry is older than its principal, and so belongs to a former principal.

    EKS binds an entry to the principal's unique id, which it does not show (EKS API reference,
    AccessEntry, principalArn). IAM's dates have whole seconds. An entry of the same second counts
    as the newer one, because a replacement interrupts the access of running nodes for a moment.
    """
    name = arn.rpartition("/")[2]
    principal = (User if ":user/" in arn else Role)(ctx, name).found()
    if principal is None:
        # Our own principals are still to be created: the entry is of a former one. The spot
        # handler's entry is not replaced: without the role EKS would refuse a new entry.
        return arn != ctx.onboarding.spot_handler_role_arn
    return bool(entry["createdAt"] < principal.created)


def _replace(ctx: Context, entry: AccessEntry, found: Mapping[str, Any]) -> None:
    """Replace the entry by one for the principal that has the name now."""
    tags = found.get("tags", {})
    if not ctx.owner.owns(tags) and not ctx.onboarding.adopt:
        ctx.ledger.conflict(
            label(entry.arn),
            f"{ownership.described(tags)}, of a former principal of this name: EKS gives the "
            "present one no access",
        )
        return
    was_admin = entry.admin and admin_policy(ctx.place.partition) in _policies(ctx, entry.arn)
    former = replace(entry, type=found["type"], groups=tuple(found.get("kubernetesGroups", ())))

    def create_again() -> None:
        _delete(ctx, entry.arn)
        _create(ctx, entry)

    def put_back() -> None:
        _delete(ctx, entry.arn)
        _create(ctx, former, tags)
        if was_admin:
            _associate_admin(ctx, entry.arn)

    ctx.ledger.update(label(entry.arn), create_again, undo=put_back, detail="of a former principal")
    if entry.admin:
        _make_admin(ctx, entry.arn)


def _create(ctx: Context, entry: AccessEntry, tags: Mapping[str, str] | None = None) -> None:
    more: Any = {"kubernetesGroups": list(entry.groups)} if entry.groups else {}
    ctx.retrying((*_SETTLING, _STILL_THERE)).call(
        ctx.clients.eks.create_access_entry,
        clusterName=ctx.cluster.name,
        principalArn=entry.arn,
        type=entry.type,
        tags=ctx.tags if tags is None else tags,
        **more,
    )


def _correct(ctx: Context, entry: AccessEntry, found: Mapping[str, Any], *, suits: bool) -> None:
    eks, arn = ctx.clients.eks, found["accessEntryArn"]
    retagged = correct_tags(
        ctx,
        label(entry.arn),
        found.get("tags", {}),
        ctx.tags,
        put=lambda tags: ctx.call(eks.tag_resource, resourceArn=arn, tags=tags),
        drop=lambda keys: ctx.call(eks.untag_resource, resourceArn=arn, tagKeys=keys),
    )
    if not suits:
        groups = list(found.get("kubernetesGroups", ()))
        ctx.ledger.update(
            label(entry.arn),
            partial(_put_groups, ctx, entry.arn, sorted({*groups, *entry.groups})),
            undo=partial(_put_groups, ctx, entry.arn, groups),
            detail="groups",
        )
    elif not retagged:
        ctx.ledger.keep(label(entry.arn))


def _put_groups(ctx: Context, arn: str, groups: list[str]) -> None:
    ctx.call(
        ctx.clients.eks.update_access_entry,
        clusterName=ctx.cluster.name,
        principalArn=arn,
        kubernetesGroups=groups,
    )


def _policies(ctx: Context, arn: str) -> list[str]:
    found = ctx.find_items(
        ctx.clients.eks.list_associated_access_policies,
        "associatedAccessPolicies",
        clusterName=ctx.cluster.name,
        principalArn=arn,
    )
    return [each["policyArn"] for each in found]


def _make_admin(ctx: Context, arn: str) -> None:
    ctx.ledger.create(
        f"{onboarder.ADMIN_ACCESS_POLICY} on {label(arn)}",
        lambda: _associate_admin(ctx, arn),
        undo=lambda: ctx.find(
            ctx.clients.eks.disassociate_access_policy,
            clusterName=ctx.cluster.name,
            principalArn=arn,
            policyArn=admin_policy(ctx.place.partition),
        ),
    )


def _associate_admin(ctx: Context, arn: str) -> None:
    ctx.retrying(MISSING).call(
        ctx.clients.eks.associate_access_policy,
        clusterName=ctx.cluster.name,
        principalArn=arn,
        policyArn=admin_policy(ctx.place.partition),
        accessScope={"type": "cluster"},
    )


def _undo_create(ctx: Context, arn: str) -> None:
    found = _entry(ctx, arn)
    if found and ctx.owner.owns(found.get("tags", {})):
        _delete(ctx, arn)


def _delete(ctx: Context, arn: str) -> None:
    ctx.find(ctx.clients.eks.delete_access_entry, clusterName=ctx.cluster.name, principalArn=arn)


# Remove -------------------------------------------------------------------------------------------


def remove(ctx: Context) -> None:
    """Delete the entries that are ours and not protected."""
    for arn in sorted(_candidates(ctx)):
        if label(arn) in ctx.ledger.protected:
            continue
        tags: Mapping[str, str] = (_entry(ctx, arn) or {}).get("tags", {})
        if TEMPORARY_TAG in tags:
            continue  # this run's own access: the KubernetesSession removes it
        if ctx.owner.owns(tags):
            ctx.ledger.delete(label(arn), partial(_delete, ctx, arn))
        elif _is_ours_to_make(ctx.onboarding, arn):
            ctx.ledger.leave(label(arn), "not ours")


def _candidates(ctx: Context) -> set[str]:
    """The principals with an entry in the cluster that may be ours."""
    cluster = ctx.onboarding.cluster_name
    ours = {names.node_role_name(cluster, each) for each in ctx.known_ids}
    if user := identity.user(ctx):
        ours.add(user.name)
    spot = {properties.spot_handler_role_arn for properties in ctx.every_properties}
    named = {arn for arn in _listed(ctx) if arn in spot or arn.rpartition("/")[2] in ours}
    return named | (_owned(ctx).keys() if ctx.discover else set())


def exists_for(ctx: Context, roles: Collection[str]) -> bool:
    """Whether the cluster has an access entry of a role with one of these names."""
    return has_entries(ctx.cluster) and any(arn.rpartition("/")[2] in roles for arn in _listed(ctx))


def _listed(ctx: Context) -> list[str]:
    """The principals of all access entries of the cluster."""
    cluster = ctx.onboarding.cluster_name
    listing = ctx.clients.eks.list_access_entries
    return ctx.items(listing, "accessEntries", clusterName=cluster)


def _owned(ctx: Context) -> dict[str, Mapping[str, str]]:
    """The principals of the access entries with our tags, and these tags."""
    tags = {arn: (_entry(ctx, arn) or {}).get("tags", {}) for arn in _listed(ctx)}
    return {arn: each for arn, each in tags.items() if ctx.owner.owns(each)}


def ids_in_tags(ctx: Context) -> set[str]:
    """CAST AI's ids of the cluster, from the access entries with our tags."""
    if ctx.facts.cluster is None or not has_entries(ctx.cluster):
        return set()
    ids = {tags.get(CLUSTER_ID_TAG, "") for tags in _owned(ctx).values()}
    return ids - {""}
