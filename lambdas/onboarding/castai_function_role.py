"""The role of the spot function that CAST AI may manage itself; created only on request."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from lambdas.onboarding import iam_principals, names
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role, Wanted
from lambdas.onboarding.policies import castai_function
from lambdas.onboarding.policies.functions import lambda_trust

_INLINE: Final = "CastSpotFunction"


def ensure(ctx: Context) -> None:
    """Create or correct the role, if CAST AI may manage a function."""
    properties = ctx.onboarding
    if not properties.manage_spot_lambda:
        return
    _check_function(ctx)
    wanted = Wanted(
        name=names.castai_function_role_name(properties.cluster_name, ctx.facts.cluster_id),
        path=properties.path,
        tags=ctx.tags,
        managed=(),
        inline={_INLINE: castai_function.castai_function_policy(ctx.scope)},
        boundary=properties.permissions_boundary,
        trust=lambda_trust(ctx.place.partition),
    )
    iam_principals.ensure(ctx, Role(ctx, wanted.name), wanted)


def _check_function(ctx: Context) -> None:
    """Refuse a function that runs as another role: CAST AI could write its code and use that role.

    A role of another cluster's onboarding is accepted: it may only find instances and write a log.
    """
    found = ctx.find(
        ctx.clients.functions.get_function_configuration, FunctionName=names.SPOT_FUNCTION
    )
    role = found["Role"] if found else ""
    if role and not fnmatchcase(role.rpartition("/")[2], names.ANY_CASTAI_FUNCTION_ROLE):
        ctx.ledger.conflict(
            f"Lambda function {names.SPOT_FUNCTION}",
            f"runs as {role}, and ManageSpotLambda lets CAST AI write its code: delete the "
            "function, or set ManageSpotLambda to false; Adopt does not take it over",
        )


def remove(ctx: Context) -> None:
    """Remove the role if it is ours. The function is CAST AI's and stays."""
    for cluster_id in ctx.known_ids:
        name = names.castai_function_role_name(ctx.onboarding.cluster_name, cluster_id)
        iam_principals.remove(ctx, Role(ctx, name), attachable=(), inline=[_INLINE])
