"""The role of the nodes that CAST AI adds, and the instance profile of the same name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from lambdas.common.errors import PermanentError
from lambdas.common.names import FORMER_IDS_TAG
from lambdas.onboarding import iam_principals, names, ownership
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import CONFLICT, SETTLING, Role, Wanted
from lambdas.onboarding.policies import document, node_role
from lambdas.onboarding.tags import correct_tags, tag_list, tag_map


@dataclass(frozen=True)
class NodeRole:
    """The role and its instance profile. Both ARNs are also set in a plan."""

    arn: str = ""
    profile_arn: str = ""


def ensure(ctx: Context) -> NodeRole:
    """Create or correct the role and the instance profile."""
    properties = ctx.onboarding
    partition = ctx.place.partition
    name = names.node_role_name(properties.cluster_name, ctx.facts.cluster_id)
    wanted = Wanted(
        name=name,
        path=properties.path,
        tags=ctx.tags | _former_ids_tag(ctx),
        managed=node_role.node_managed_policies(
            partition, ssm=properties.ssm_on_nodes, ebs_csi=properties.ebs_csi_on_nodes
        ),
        inline=_ipv6_policy(ctx),
        boundary=properties.permissions_boundary,
        trust=node_role.node_trust(partition),
    )
    role = iam_principals.ensure(ctx, Role(ctx, name), wanted)
    return NodeRole(role.arn, _ensure_profile(ctx, name))


def _former_ids_tag(ctx: Context) -> dict[str, str]:
    """The tag with the former ids, until the resources with these ids are removed.

    Raises PermanentError if the tag cannot hold all of them.
    """
    former = ctx.replaced_ids
    if len(former) > names.MAX_FORMER_IDS:
        raise PermanentError(
            f"Remove the resources with former ids of {ctx.onboarding.cluster_name} first: "
            f"{', '.join(former)}"
        )
    return {FORMER_IDS_TAG: " ".join(former)} if former else {}


def forget_former_ids(ctx: Context) -> None:
    """Remove the tag with the former ids, after the resources with these ids were removed."""
    if not ctx.replaced_ids:
        return
    name = names.node_role_name(ctx.onboarding.cluster_name, ctx.facts.cluster_id)
    role = Role(ctx, name)
    ctx.ledger.update(role.label, lambda: role.untag([FORMER_IDS_TAG]), detail="tags")


def remembers_ids(ctx: Context) -> bool:
    """Whether a removal would lose the role's tag while former ids are still in use."""
    return bool(ctx.replaced_ids) and not ctx.ledger.protected


def _ipv6_policy(ctx: Context) -> dict[str, document.Document]:
    if ctx.cluster.ip_family != "ipv6":
        return {}
    place = ctx.place
    document = node_role.node_ipv6_policy(place.partition, place.region, place.account)
    return {names.IPV6_POLICY: document}


# Instance profile ---------------------------------------------------------------------------------


def profile_label(name: str) -> str:
    """An instance profile in rows and messages."""
    return f"instance profile {name}"


def profile(ctx: Context, name: str) -> Mapping[str, Any] | None:
    """The instance profile as IAM describes it; None where it does not exist."""
    answer = ctx.find(ctx.clients.iam.get_instance_profile, InstanceProfileName=name)
    return answer["InstanceProfile"] if answer else None


def _ensure_profile(ctx: Context, name: str) -> str:
    """Create or correct the profile with the role in it; returns its ARN."""
    ledger, label = ctx.ledger, profile_label(name)
    arn = ctx.scope.iam(f"instance-profile{ctx.onboarding.path}{name}")
    found = profile(ctx, name)
    if found is None:
        ledger.create(
            label, lambda: _create_profile(ctx, name), undo=lambda: _undo_create(ctx, name)
        )
    elif not ctx.may_take(label, tag_map(found.get("Tags"))):
        return arn
    else:
        arn = found["Arn"]
        _correct_profile_tags(ctx, name, tag_map(found.get("Tags")))
    roles = [role["RoleName"] for role in found["Roles"]] if found else []
    inside = f"role {name} in {label}"
    if roles == [name]:
        ledger.keep(inside)
    elif roles:
        ledger.conflict(inside, f"holds role {', '.join(roles)} instead")
    else:
        ledger.create(
            inside, lambda: _add_role(ctx, name), undo=lambda: _remove_role(ctx, name, name)
        )
    return arn


def _create_profile(ctx: Context, name: str) -> None:
    ctx.call(
        ctx.clients.iam.create_instance_profile,
        InstanceProfileName=name,
        Path=ctx.onboarding.path,
        Tags=tag_list(ctx.tags),
    )


def _correct_profile_tags(ctx: Context, name: str, found: Mapping[str, str]) -> None:
    iam, label = ctx.clients.iam, profile_label(name)
    corrected = correct_tags(
        ctx,
        label,
        found,
        ctx.tags,
        put=lambda tags: ctx.call(
            iam.tag_instance_profile, InstanceProfileName=name, Tags=tag_list(tags)
        ),
        drop=lambda keys: ctx.call(
            iam.untag_instance_profile, InstanceProfileName=name, TagKeys=keys
        ),
    )
    if not corrected:
        ctx.ledger.keep(label)


def _add_role(ctx: Context, name: str) -> None:
    ctx.retrying(SETTLING).call(
        ctx.clients.iam.add_role_to_instance_profile, InstanceProfileName=name, RoleName=name
    )


def _remove_role(ctx: Context, name: str, role: str) -> None:
    ctx.find(
        ctx.clients.iam.remove_role_from_instance_profile, InstanceProfileName=name, RoleName=role
    )


def _delete_profile(ctx: Context, name: str) -> None:
    ctx.retrying(CONFLICT).find(ctx.clients.iam.delete_instance_profile, InstanceProfileName=name)


def _undo_create(ctx: Context, name: str) -> None:
    found = profile(ctx, name)
    if found and ctx.owner.owns(tag_map(found.get("Tags"))):
        _delete_profile(ctx, name)


# Remove -------------------------------------------------------------------------------------------


def remove(ctx: Context) -> None:
    """Remove profile and role if they are ours; the role with the tag of former ids is last.

    Raises PermanentError if a policy or role of others is still on one of them.
    """
    attachable = node_role.node_managed_policies(ctx.place.partition, ssm=True, ebs_csi=True)
    for cluster_id in reversed(ctx.known_ids):
        name = names.node_role_name(ctx.onboarding.cluster_name, cluster_id)
        _remove_profile(ctx, name)
        iam_principals.remove(
            ctx, Role(ctx, name), attachable=attachable, inline=[names.IPV6_POLICY]
        )


def _remove_profile(ctx: Context, name: str) -> None:
    label = profile_label(name)
    found = profile(ctx, name)
    if found is None or label in ctx.ledger.protected:
        return
    tags = tag_map(found.get("Tags"))
    if not ctx.owner.owns(tags):
        ctx.ledger.leave(label, ownership.described(tags))
        return
    roles = [role["RoleName"] for role in found["Roles"]]
    foreign = [role for role in roles if role != name]
    if foreign and not ctx.onboarding.detach_foreign_policies:
        raise PermanentError(f"Take role {', '.join(foreign)} out of {label}: it is not ours")
    for role in roles:
        ctx.ledger.delete(f"role {role} in {label}", partial(_remove_role, ctx, name, role))
    ctx.ledger.delete(label, lambda: _delete_profile(ctx, name))
