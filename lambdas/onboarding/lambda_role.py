"""The role of the spot function that CAST AI may manage: of its own, and only on request."""

from __future__ import annotations

from typing import Final

from lambdas.onboarding import iam_principals, names, policies
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role, Wanted

_INLINE: Final = "CastSpotFunction"


def ensure(ctx: Context) -> None:
    """The role, where CAST AI may manage a function."""
    wish = ctx.onboarding
    if not wish.manage_spot_lambda:
        return
    wanted = Wanted(
        name=names.lambda_role_name(wish.cluster_name, ctx.facts.cluster_id),
        path=wish.path,
        tags=ctx.tags,
        managed=(),
        inline={_INLINE: policies.lambda_role_policy(ctx.scope)},
        boundary=wish.permissions_boundary,
        trust=policies.lambda_trust(ctx.place.partition),
    )
    iam_principals.ensure(ctx, Role(ctx, wanted.name), wanted)


def remove(ctx: Context) -> None:
    """The role, where it is ours. The function is CAST AI's and stays."""
    for cluster_id in ctx.known_ids:
        name = names.lambda_role_name(ctx.onboarding.cluster_name, cluster_id)
        iam_principals.remove(ctx, Role(ctx, name), attachable=(), inline=[_INLINE])
