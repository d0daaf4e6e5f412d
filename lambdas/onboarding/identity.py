"""CAST AI's identity in the account: an IAM user with an access key, or a cross-account role."""

from __future__ import annotations

from functools import partial

from lambdas.onboarding import iam_principals, names, ownership
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Ensured, Role, User, Wanted
from lambdas.onboarding.policies import castai_identity, document, scope
from lambdas.onboarding.policies.scope import Mode, Permissions


def ensure(ctx: Context) -> Ensured:
    """Create or correct the user or the role, with its policies."""
    properties = ctx.onboarding
    wanted = Wanted(
        name=_identity_name(ctx, properties.mode),
        path=properties.path,
        tags=ctx.tags,
        managed=(
            *castai_identity.identity_managed_policies(ctx.place.partition, properties.permissions),
            ctx.policy_arn,
        ),
        inline={
            names.INLINE_POLICY: castai_identity.restricted_access(
                ctx.scope,
                properties.permissions,
                mode=properties.mode,
                account_wide=properties.account_wide_policy,
            )
        },
        boundary=properties.permissions_boundary,
        trust=_trust(ctx),
    )
    kind = User if properties.mode is Mode.USER else Role
    return iam_principals.ensure(ctx, kind(ctx, wanted.name), wanted)


def _identity_name(ctx: Context, mode: Mode) -> str:
    cluster = ctx.onboarding.cluster_name
    if mode is Mode.USER:
        return names.user_name(cluster)
    return names.role_name(cluster, ctx.facts.cluster_id)


def _trust(ctx: Context) -> document.Document | None:
    if ctx.onboarding.mode is Mode.USER or not ctx.facts.principal:
        return None
    return castai_identity.cross_account_trust(ctx.facts.principal, ctx.facts.cluster_id)


def foreign_owner(ctx: Context) -> str:
    """The identity that CAST AI uses here and its owner, if it is not ours; else empty.

    Only the identity of the properties' mode is read. A removal by what exists reads every one.
    """
    for mode, principal in principals(ctx):
        if not ctx.discover and principal.name != _identity_name(ctx, mode):
            continue  # an identity of a former id: CAST AI does not use it for this cluster
        if not ctx.discover and mode is not ctx.onboarding.mode:
            continue
        found = principal.found()
        if found and not ctx.owner.owns(found.tags):
            return f"{principal.label} {ownership.described(found.tags)}"
    return ""


def own_modes(ctx: Context) -> tuple[Mode, ...]:
    """The modes of the identities that exist and are ours."""
    found = ((mode, principal.found()) for mode, principal in principals(ctx))
    return tuple(dict.fromkeys(mode for mode, each in found if each and ctx.owner.owns(each.tags)))


def user(ctx: Context) -> User | None:
    """The user of user mode, which may not exist; None if its name would be too long."""
    cluster = ctx.onboarding.cluster_name
    if len(cluster) > scope.USER_CLUSTER_CHARACTERS:
        return None
    return User(ctx, names.user_name(cluster))


def principals(ctx: Context) -> list[tuple[Mode, User | Role]]:
    """The present and former identities of CAST AI for this cluster, existing or not."""
    cluster = ctx.onboarding.cluster_name
    every: list[tuple[Mode, User | Role]] = [
        (Mode.ROLE, Role(ctx, names.role_name(cluster, each))) for each in ctx.known_ids
    ]
    if own_user := user(ctx):
        every.append((Mode.USER, own_user))
    return every


def remove(ctx: Context) -> None:
    """Remove the user and the roles that are not protected."""
    attachable = [
        *castai_identity.identity_managed_policies(ctx.place.partition, Permissions.FULL),
        *(ctx.scope.policy_arn(account_wide=shared) for shared in (False, True)),
    ]
    for _, principal in principals(ctx):
        if isinstance(principal, User):
            _remove_keys(ctx, principal)
        iam_principals.remove(ctx, principal, attachable=attachable, inline=[names.INLINE_POLICY])


def _remove_keys(ctx: Context, user: User) -> None:
    """Delete all keys of a user that is removed, and the replaced keys of a user that stays.

    A key has no tags. An unknown key of a user that stays may not be ours.
    """
    found = user.found()
    if found is None or not ctx.owner.owns(found.tags):
        return
    stays = user.label in ctx.ledger.protected
    for key_id in key_ids(ctx, user.name):
        if stays and key_id not in ctx.replaced_keys:
            continue
        ctx.ledger.delete(key_label(user.name, key_id), partial(delete_key, ctx, user.name, key_id))


def key_label(user: str, key_id: str) -> str:
    """An access key in rows and messages; its id is no secret."""
    return f"access key {key_id} of IAM user {user}"


def key_ids(ctx: Context, user: str) -> list[str]:
    """Ids of the user's access keys, the oldest first; none where the user does not exist."""
    keys = ctx.find_items(ctx.clients.iam.list_access_keys, "AccessKeyMetadata", UserName=user)
    return [key["AccessKeyId"] for key in sorted(keys, key=lambda key: str(key["CreateDate"]))]


def delete_key(ctx: Context, user: str, key_id: str) -> None:
    """Deactivate the key, then delete it."""
    iam = ctx.clients.iam
    ctx.find(iam.update_access_key, UserName=user, AccessKeyId=key_id, Status="Inactive")
    ctx.find(iam.delete_access_key, UserName=user, AccessKeyId=key_id)
