"""Telling CAST AI who it is in this account, and taking leave of it."""

from __future__ import annotations

from lambdas.common.castai import UnknownClusterError
from lambdas.onboarding import identity
from lambdas.onboarding.context import Context
from lambdas.onboarding.policies.scope import Mode
from lambdas.onboarding.preflight import UNREGISTERED

READY = "ready"
_WITH_CREDENTIALS = (READY, "warning", "failed")


def principal_thing(ctx: Context) -> str:
    """The thing that CAST AI's principal for the role is."""
    return f"CAST AI's principal for cluster {ctx.facts.cluster_id}"


def thing(ctx: Context) -> str:
    """The thing that the cluster is at CAST AI."""
    return f"cluster {ctx.facts.cluster_id} at CAST AI"


def ensure(ctx: Context) -> None:
    """Hand the identity over unless CAST AI has it already.

    CAST AI answers 400 until IAM has propagated; its client waits for that, within the time left.
    """
    api, facts = ctx.api, ctx.facts
    user = ctx.onboarding.mode is Mode.USER
    if ctx.onboarding.mode is Mode.ROLE:
        ctx.ledger.keep(principal_thing(ctx))
    if api is None:
        ctx.ledger.keep(thing(ctx), "no ApiKeySecret: hand over by hand")
        facts.next_step = _by_hand(ctx)
        return
    is_new = facts.identity_is_new or facts.identity_is_adopted or facts.key_is_new
    if not is_new and not _switched(ctx) and _is_ready(ctx):
        ctx.ledger.keep(thing(ctx))
        return

    def hand_over() -> None:
        if user:
            if facts.key is None:
                raise AssertionError("the step before has made or read the key")
            api.hand_over_key(facts.cluster_id, facts.key.id, facts.key.secret)
        else:
            api.hand_over_role(facts.cluster_id, facts.identity_arn)

    ctx.ledger.update(
        thing(ctx), hand_over, detail="hand over " + ("access key" if user else "role")
    )


def _switched(ctx: Context) -> bool:
    return ctx.previous is not None and ctx.previous.mode is not ctx.onboarding.mode


def _is_ready(ctx: Context) -> bool:
    if ctx.api is None or ctx.facts.cluster_id == UNREGISTERED:
        return False
    return ctx.api.get(ctx.facts.cluster_id).status == READY


def _has_credentials(ctx: Context) -> bool:
    """Whether CAST AI goes on with an identity that is gone: its API failed at the last removal."""
    if ctx.api is None:
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
    """Let CAST AI go: disconnect, and drop its principal where the role was its way in.

    Nodes stay, and so does what runs in Kubernetes. Without the API key this is left to people. A
    cluster that CAST AI reaches through someone else's identity is not ours to disconnect.
    """
    api, facts = ctx.api, ctx.facts
    if not facts.cluster_id:
        return
    if api is None:
        if thing(ctx) not in ctx.ledger.protected:
            ctx.ledger.leave(thing(ctx), "no ApiKeySecret: disconnect in CAST AI's console")
        return
    stranger = identity.stranger(ctx)
    if stranger:
        ctx.ledger.leave(thing(ctx), stranger)
        return
    if ctx.discover and not identity.own_modes(ctx) and not _has_credentials(ctx):
        return
    ctx.ledger.delete(thing(ctx), lambda: api.disconnect(facts.cluster_id), "disconnect")
    if ctx.discover or any(
        wish and wish.mode is Mode.ROLE for wish in (ctx.onboarding, ctx.previous)
    ):
        ctx.ledger.delete(principal_thing(ctx), lambda: api.delete_principal(facts.cluster_id))
