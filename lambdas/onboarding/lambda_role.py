"""The role of the spot function that CAST AI may manage: of its own, and only on request."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Final

from lambdas.onboarding import iam_principals, names
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role, Wanted
from lambdas.onboarding.policies import castai_function, functions

_INLINE: Final = "CastSpotFunction"


def ensure(ctx: Context) -> None:
    """The role, where CAST AI may manage a function."""
    wish = ctx.onboarding
    if not wish.manage_spot_lambda:
        return
    _check_function(ctx)
    wanted = Wanted(
        name=names.lambda_role_name(wish.cluster_name, ctx.facts.cluster_id),
        path=wish.path,
        tags=ctx.tags,
        managed=(),
        inline={_INLINE: castai_function.lambda_role_policy(ctx.scope)},
        boundary=wish.permissions_boundary,
        trust=functions.lambda_trust(ctx.place.partition),
    )
    iam_principals.ensure(ctx, Role(ctx, wanted.name), wanted)


def _check_function(ctx: Context) -> None:
    """Refuse a function of another role: who may write its code acts as its role, passing none.

    A role of another cluster's onboarding will do: it sees instances and writes its log.
    """
    found = ctx.find(
        "lambda:GetFunctionConfiguration",
        lambda: ctx.clients.functions.get_function_configuration(FunctionName=names.SPOT_FUNCTION),
        missing=("ResourceNotFoundException",),
    )
    role = found["Role"] if found else ""
    if role and not fnmatchcase(role.rpartition("/")[2], names.ANY_LAMBDA_ROLE):
        ctx.ledger.conflict(
            f"Lambda function {names.SPOT_FUNCTION}",
            f"runs as {role}, and ManageSpotLambda lets CAST AI write its code: delete the "
            "function, or set ManageSpotLambda to false; Adopt does not take it over",
        )


def remove(ctx: Context) -> None:
    """The role, where it is ours. The function is CAST AI's and stays."""
    for cluster_id in ctx.known_ids:
        name = names.lambda_role_name(ctx.onboarding.cluster_name, cluster_id)
        iam_principals.remove(ctx, Role(ctx, name), attachable=(), inline=[_INLINE])
