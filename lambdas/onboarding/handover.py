"""Hand the identity over to CAST AI; on removal, disconnect the cluster there."""

from __future__ import annotations

from lambdas.common.castai import UnknownClusterError
from lambdas.onboarding import identity
from lambdas.onboarding.context import Context
from lambdas.onboarding.credentials import Credentials
from lambdas.onboarding.iam_principals import Ensured
from lambdas.onboarding.policies.scope import Mode
from lambdas.onboarding.preflight import UNREGISTERED, principal_label

READY = "ready"
_WITH_CREDENTIALS = (READY, "warning", "failed")


def label(ctx: Context) -> str:
    """The cluster at CAST AI in rows and messages."""
    return f"cluster {ctx.facts.cluster_id} at CAST AI"


def ensure(ctx: Context, principal: Ensured, credentials: Credentials) -> str:
    """Hand the identity over unless CAST AI has it already; returns what is left to do by hand.

    CAST AI answers 400 until IAM has propagated the identity. `ctx.api` retries that.
    """
    api, cluster_id = ctx.api, ctx.facts.cluster_id
    is_user = ctx.onboarding.mode is Mode.USER
    if not is_user:
        ctx.ledger.keep(principal_label(ctx))
    if api is None:
        ctx.ledger.keep(label(ctx), "no ApiKeySecret: hand over by hand")
        return _by_hand(ctx)
    is_new = principal.is_new or principal.is_adopted or credentials.is_new
    if not is_new and not _has_switched(ctx) and _is_ready(ctx):
        ctx.ledger.keep(label(ctx))
        return ""

    def hand_over() -> None:
        if not is_user:
            api.hand_over_role(cluster_id, principal.arn)
            return
        if credentials.key is None:
            raise AssertionError("outside of a plan user mode has a key")
        api.hand_over_key(cluster_id, credentials.key.id, credentials.key.secret)

    had_credentials = ctx.previous is not None or _has_credentials(ctx)

    def take_back() -> None:
        """CAST AI may have the identity although its answer was lost."""
        if not had_credentials and _has_credentials(ctx):
            api.disconnect(cluster_id)

    ctx.ledger.update(
        label(ctx),
        hand_over,
        undo=take_back,
        detail="hand over " + ("access key" if is_user else "role"),
    )
    return ""


def _has_switched(ctx: Context) -> bool:
    return ctx.previous is not None and ctx.previous.mode is not ctx.onboarding.mode


def _is_ready(ctx: Context) -> bool:
    if ctx.api is None or ctx.facts.cluster_id == UNREGISTERED:
        return False
    return ctx.api.get(ctx.facts.cluster_id).status == READY


def _has_credentials(ctx: Context) -> bool:
    """Whether CAST AI still has credentials: its API may have failed at an earlier removal."""
    if ctx.api is None or ctx.facts.cluster_id == UNREGISTERED:
        return False
    try:
        return ctx.api.get(ctx.facts.cluster_id).status in _WITH_CREDENTIALS
    except UnknownClusterError:
        return False


def _by_hand(ctx: Context) -> str:
    if ctx.onboarding.mode is Mode.USER:
        return (
            "Paste accessKeyId and secretAccessKey from the secret in CredentialsSecretArn "
            "into CAST AI's console, at Enable CAST AI of this cluster."
        )
    return "Paste RoleArn into CAST AI's console, at Enable CAST AI of this cluster."


def remove(ctx: Context) -> None:
    """Disconnect the cluster at CAST AI, and delete CAST AI's principal where it used the role.

    Nodes and Kubernetes objects stay. Without the API key a person has to disconnect. The cluster
    stays connected if the identity that CAST AI uses is not ours.
    """
    api, cluster_id = ctx.api, ctx.facts.cluster_id
    if not cluster_id:
        return
    if api is None:
        if label(ctx) not in ctx.ledger.protected:
            ctx.ledger.leave(label(ctx), "no ApiKeySecret: disconnect in CAST AI's console")
        return
    foreign = identity.foreign_owner(ctx)
    if foreign:
        ctx.ledger.leave(label(ctx), foreign)
        return
    if ctx.discover and not identity.own_modes(ctx) and not _has_credentials(ctx):
        return
    ctx.ledger.delete(label(ctx), lambda: api.disconnect(cluster_id), "disconnect")
    if ctx.discover or any(each.mode is Mode.ROLE for each in ctx.every_properties):
        ctx.ledger.delete(principal_label(ctx), lambda: api.delete_principal(cluster_id))
