"""CAST AI's identity in the account, an IAM user or a cross-account role, and the nodes' role."""

from __future__ import annotations

from typing import Any

from lambdas.common.errors import PermanentError
from lambdas.common.names import FORMER_IDS_TAG
from lambdas.onboarding import iam_principals, names, ownership
from lambdas.onboarding.context import Context, tag_list, tag_map
from lambdas.onboarding.iam_principals import CONFLICT, GONE, SETTLING, Role, User, Wanted
from lambdas.onboarding.policies import castai_identity, node_role
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.policies.scope import USER_CLUSTER_CHARACTERS, Mode, Permissions


def ensure(ctx: Context) -> None:
    """The user or the role, with its policies."""
    wish, facts, scope = ctx.onboarding, ctx.facts, ctx.scope
    user = wish.mode is Mode.USER
    wanted = Wanted(
        name=_identity_name(ctx, wish.mode),
        path=wish.path,
        tags=ctx.tags,
        managed=(
            *castai_identity.identity_managed_policies(ctx.place.partition, wish.permissions),
            facts.policy_arn,
        ),
        inline={
            names.INLINE_POLICY: castai_identity.restricted_access(
                scope, wish.permissions, mode=wish.mode, account_wide=wish.account_wide_policy
            )
        },
        boundary=wish.permissions_boundary,
        trust=_trust(ctx),
    )
    principal = (User if user else Role)(ctx, wanted.name)
    ensured = iam_principals.ensure(ctx, principal, wanted)
    facts.identity_arn = ensured.arn
    facts.identity_is_new, facts.identity_is_adopted = ensured.is_new, ensured.is_adopted


def _identity_name(ctx: Context, mode: Mode) -> str:
    cluster = ctx.onboarding.cluster_name
    if mode is Mode.USER:
        return names.user_name(cluster)
    return names.role_name(cluster, ctx.facts.cluster_id)


def _trust(ctx: Context) -> Document | None:
    if ctx.onboarding.mode is Mode.USER or not ctx.facts.principal:
        return None
    return castai_identity.cross_account_trust(ctx.facts.principal, ctx.facts.cluster_id)


def stranger(ctx: Context) -> str:
    """Who owns the identity that CAST AI has here, where it is there and not ours; else empty.

    By the mode of the properties; a removal that goes by what is found looks at every identity.
    """
    for mode, principal in principals(ctx):
        if not ctx.discover and principal.name != _identity_name(ctx, mode):
            continue  # of a former id, by which CAST AI does not reach this cluster
        if not ctx.discover and mode is not ctx.onboarding.mode:
            continue
        found = principal.found()
        if found and not ctx.owner.owns(found.tags):
            return f"{principal.thing} {ownership.described(found.tags)}"
    return ""


def own_modes(ctx: Context) -> tuple[Mode, ...]:
    """The modes of which an identity of ours is there."""
    found = ((mode, principal.found()) for mode, principal in principals(ctx))
    return tuple(dict.fromkeys(mode for mode, each in found if each and ctx.owner.owns(each.tags)))


def principals(ctx: Context) -> list[tuple[Mode, User | Role]]:
    """The identities that CAST AI may have or have had for this cluster, there or not."""
    cluster = ctx.onboarding.cluster_name
    every: list[tuple[Mode, User | Role]] = [
        (Mode.ROLE, Role(ctx, names.role_name(cluster, each))) for each in ctx.known_ids
    ]
    if len(cluster) <= USER_CLUSTER_CHARACTERS:  # else no user can have this name
        every.append((Mode.USER, User(ctx, names.user_name(cluster))))
    return every


def remove(ctx: Context) -> None:
    """The user, the role, or whichever of the two is not protected."""
    attachable = [
        *castai_identity.identity_managed_policies(ctx.place.partition, Permissions.FULL),
        *(ctx.scope.policy_arn(account_wide=shared) for shared in (False, True)),
    ]
    inline = [names.INLINE_POLICY]
    if len(ctx.onboarding.cluster_name) <= USER_CLUSTER_CHARACTERS:
        user = User(ctx, names.user_name(ctx.onboarding.cluster_name))
        _remove_keys(ctx, user)
        iam_principals.remove(ctx, user, attachable=attachable, inline=inline)
    for cluster_id in ctx.known_ids:
        role = Role(ctx, names.role_name(ctx.onboarding.cluster_name, cluster_id))
        iam_principals.remove(ctx, role, attachable=attachable, inline=inline)


def _remove_keys(ctx: Context, user: User) -> None:
    """Deactivate and delete access keys: all of a user that goes, else those that were replaced.

    A key carries no tags; on a user that stays, one that we do not know may be someone else's.
    """
    found = user.found()
    if found is None or not ctx.owner.owns(found.tags):
        return
    stays = user.thing in ctx.ledger.protected
    for key_id in key_ids(ctx, user.name):
        if stays and key_id not in ctx.facts.replaced_keys:
            continue
        ctx.ledger.delete(
            key_thing(user.name, key_id),
            lambda key_id=key_id: delete_key(ctx, user.name, key_id),  # type: ignore[misc]
        )


def key_thing(user: str, key_id: str) -> str:
    """The thing that an access key is; its id is no secret."""
    return f"access key {key_id} of IAM user {user}"


def key_ids(ctx: Context, user: str) -> list[str]:
    """Ids of the user's access keys, the oldest first; none where there is no such user."""
    listing = ctx.clients.iam.list_access_keys
    pages = ctx.pages("iam:ListAccessKeys", listing, missing=GONE, UserName=user)
    keys = [key for page in pages for key in page["AccessKeyMetadata"]]
    return [key["AccessKeyId"] for key in sorted(keys, key=lambda key: str(key["CreateDate"]))]


def delete_key(ctx: Context, user: str, key_id: str) -> None:
    """Deactivate, then delete: a key that is still in use somewhere fails loudly, not half."""
    iam = ctx.clients.iam
    ctx.find(
        "iam:UpdateAccessKey",
        lambda: iam.update_access_key(UserName=user, AccessKeyId=key_id, Status="Inactive"),
        missing=GONE,
    )
    ctx.find(
        "iam:DeleteAccessKey",
        lambda: iam.delete_access_key(UserName=user, AccessKeyId=key_id),
        missing=GONE,
    )


# Node role and instance profile -------------------------------------------------------------------


def ensure_node_role(ctx: Context) -> None:
    """The role of the nodes that CAST AI adds, and the instance profile of the same name."""
    wish, facts = ctx.onboarding, ctx.facts
    name = names.node_role_name(wish.cluster_name, facts.cluster_id)
    partition = ctx.place.partition
    wanted = Wanted(
        name=name,
        path=wish.path,
        tags=ctx.tags | _memory(ctx),
        managed=node_role.node_managed_policies(
            partition, ssm=wish.ssm_on_nodes, ebs_csi=wish.ebs_csi_on_nodes
        ),
        inline=_ipv6_policy(ctx),
        boundary=wish.permissions_boundary,
        trust=node_role.node_trust(partition),
    )
    facts.node_role_arn = iam_principals.ensure(ctx, Role(ctx, name), wanted).arn
    _ensure_profile(ctx, name)


def _memory(ctx: Context) -> dict[str, str]:
    """The tag that keeps the former ids until what carries them is gone.

    Raises:
        PermanentError: more ids than the tag can hold.
    """
    former = ctx.replaced_ids
    if len(former) > names.MAX_FORMER_IDS:
        raise PermanentError(
            f"Remove what carries former ids of {ctx.onboarding.cluster_name} first: "
            f"{', '.join(former)}"
        )
    return {FORMER_IDS_TAG: " ".join(former)} if former else {}


def forget_former_ids(ctx: Context) -> None:
    """Nothing is left that carries a former id."""
    if not ctx.replaced_ids:
        return
    name = names.node_role_name(ctx.onboarding.cluster_name, ctx.facts.cluster_id)
    role = Role(ctx, name)
    ctx.ledger.update(role.thing, lambda: role.retag({}, [FORMER_IDS_TAG]), detail="tags")


def _ipv6_policy(ctx: Context) -> dict[str, Document]:
    if ctx.cluster.ip_family != "ipv6":
        return {}
    place = ctx.place
    document = node_role.node_ipv6_policy(place.partition, place.region, place.account)
    return {names.IPV6_POLICY: document}


def profile_thing(name: str) -> str:
    """The thing that an instance profile is."""
    return f"instance profile {name}"


def _profile(ctx: Context, name: str) -> Any:  # noqa: ANN401 - IAM's own type
    answer = ctx.find(
        "iam:GetInstanceProfile",
        lambda: ctx.clients.iam.get_instance_profile(InstanceProfileName=name),
        missing=GONE,
    )
    return answer["InstanceProfile"] if answer else None


def _ensure_profile(ctx: Context, name: str) -> None:
    iam, ledger, thing = ctx.clients.iam, ctx.ledger, profile_thing(name)
    found = _profile(ctx, name)
    ctx.facts.instance_profile_arn = ctx.scope.iam(f"instance-profile{ctx.onboarding.path}{name}")
    if found is None:
        ledger.create(
            thing,
            lambda: ctx.ask(
                "iam:CreateInstanceProfile",
                lambda: iam.create_instance_profile(
                    InstanceProfileName=name, Path=ctx.onboarding.path, Tags=tag_list(ctx.tags)
                ),
            ),
            undo=lambda: _delete_own_profile(ctx, name),
        )
    elif not ctx.may_take(thing, tag_map(found.get("Tags"))):
        return
    else:
        ctx.facts.instance_profile_arn = found["Arn"]
        _retag_profile(ctx, name, tag_map(found.get("Tags")))
    roles = [role["RoleName"] for role in found["Roles"]] if found else []
    inside = f"role {name} in {thing}"
    if roles == [name]:
        ledger.keep(inside)
    elif roles:
        ledger.conflict(inside, f"holds role {', '.join(roles)} instead")
    else:
        ledger.create(
            inside, lambda: _add_role(ctx, name), undo=lambda: _remove_role(ctx, name, name)
        )


def _retag_profile(ctx: Context, name: str, found: dict[str, str]) -> None:
    iam, thing = ctx.clients.iam, profile_thing(name)
    missing, dropped = ctx.tag_changes(found, ctx.tags)
    if not (missing or dropped):
        ctx.ledger.keep(thing)
        return

    def retag(tags: dict[str, str], keys: list[str]) -> None:
        if tags:
            ctx.ask(
                "iam:TagInstanceProfile",
                lambda: iam.tag_instance_profile(InstanceProfileName=name, Tags=tag_list(tags)),
            )
        if keys:
            ctx.ask(
                "iam:UntagInstanceProfile",
                lambda: iam.untag_instance_profile(InstanceProfileName=name, TagKeys=keys),
            )

    before = {k: v for k, v in found.items() if k in {*missing, *dropped}}
    ctx.ledger.update(
        thing,
        lambda: retag(missing, dropped),
        undo=lambda: retag(before, [key for key in missing if key not in found]),
        detail="tags",
    )


def _add_role(ctx: Context, name: str) -> None:
    ctx.ask(
        "iam:AddRoleToInstanceProfile",
        lambda: ctx.clients.iam.add_role_to_instance_profile(
            InstanceProfileName=name, RoleName=name
        ),
        again_on=SETTLING,
    )


def _remove_role(ctx: Context, name: str, role: str) -> None:
    ctx.find(
        "iam:RemoveRoleFromInstanceProfile",
        lambda: ctx.clients.iam.remove_role_from_instance_profile(
            InstanceProfileName=name, RoleName=role
        ),
        missing=GONE,
    )


def _delete_profile(ctx: Context, name: str) -> None:
    ctx.find(
        "iam:DeleteInstanceProfile",
        lambda: ctx.clients.iam.delete_instance_profile(InstanceProfileName=name),
        missing=GONE,
        again_on=CONFLICT,
    )


def _delete_own_profile(ctx: Context, name: str) -> None:
    found = _profile(ctx, name)
    if found and ctx.owner.owns(tag_map(found.get("Tags"))):
        _delete_profile(ctx, name)


def remove_node_role(ctx: Context) -> None:
    """Profile and role, where they are ours; the one that remembers former ids goes last.

    Raises:
        PermanentError: something of others keeps one of them.
    """
    attachable = node_role.node_managed_policies(ctx.place.partition, ssm=True, ebs_csi=True)
    for cluster_id in reversed(ctx.known_ids):
        name = names.node_role_name(ctx.onboarding.cluster_name, cluster_id)
        _remove_profile(ctx, name)
        iam_principals.remove(
            ctx, Role(ctx, name), attachable=attachable, inline=[names.IPV6_POLICY]
        )


def _remove_profile(ctx: Context, name: str) -> None:
    thing = profile_thing(name)
    found = _profile(ctx, name)
    if found is None or thing in ctx.ledger.protected:
        return
    tags = tag_map(found.get("Tags"))
    if not ctx.owner.owns(tags):
        ctx.ledger.leave(thing, ownership.described(tags))
        return
    foreign = [r["RoleName"] for r in found["Roles"] if r["RoleName"] != name]
    if foreign and not ctx.onboarding.detach_foreign_policies:
        raise PermanentError(f"Take role {', '.join(foreign)} out of {thing}: it is not ours")
    for role in found["Roles"]:
        ctx.ledger.delete(
            f"role {role['RoleName']} in {thing}",
            lambda role=role: _remove_role(ctx, name, role["RoleName"]),  # type: ignore[misc]
        )
    ctx.ledger.delete(thing, lambda: _delete_profile(ctx, name))
