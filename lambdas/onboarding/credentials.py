"""User mode's access key: one, in a secret of ours, made anew only when asked for.

The secret half exists in AWS's answer, in the secret and in the call to CAST AI; it is in no log,
error, tag or attribute. The key's id is no secret.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from lambdas.common.names import ROTATION_TAG
from lambdas.onboarding import identity, names, ownership
from lambdas.onboarding.context import Context, Key, tag_list, tag_map
from lambdas.onboarding.iam_principals import SETTLING
from lambdas.onboarding.policies.scope import Mode

GONE: Final = ("ResourceNotFoundException",)
# A policy names a secret by its ARN, which one that does not exist does not have: asking for it by
# name is refused. Where it does exist and is refused, the next write says so.
UNSEEN: Final = (*GONE, "AccessDeniedException")
# Secrets Manager deletes in the background, also without a recovery window: the name is taken until
# then. It asks to back off and try again (DeleteSecret, ForceDeleteWithoutRecovery).
_BEING_DELETED: Final = ("InvalidRequestException",)
MAX_KEYS: Final = 2  # IAM quotas: access keys of one user


class _Stored(msgspec.Struct, rename="camel"):
    """What the secret holds, in the words that CAST AI uses."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class _Secret:
    """The secret as it is, without what is in it."""

    arn: str
    tags: Mapping[str, str]
    kms_key: str | None
    being_deleted: bool


def thing(name: str) -> str:
    """The thing that a secret is."""
    return f"secret {name}"


def ensure(ctx: Context) -> None:
    """See that the user has one key, that it is in the secret and is of the wished rotation."""
    if ctx.onboarding.mode is not Mode.USER:
        return
    name = names.credentials_secret_name(ctx.onboarding.cluster_name)
    user = names.user_name(ctx.onboarding.cluster_name)
    secret = _found(ctx, name)
    if secret and not ctx.may_take(thing(name), secret.tags):
        return
    stored = _stored(ctx, name) if secret and not secret.being_deleted else None
    keys = identity.key_ids(ctx, user)
    wanted = ctx.onboarding.rotation_id
    if secret and stored and stored.id in keys and secret.tags.get(ROTATION_TAG, "") == wanted:
        ctx.ledger.keep(identity.key_thing(user, stored.id))
        ctx.facts.key = stored
        _correct(ctx, name, secret)
    elif _make_room(ctx, user, keys, stored):
        _replace(ctx, keys, stored)
        _make_key(ctx, user)
        _store(ctx, name, secret, stored)


def _replace(ctx: Context, keys: list[str], stored: Key | None) -> None:
    """Note which keys have no use any more once CAST AI has the new one.

    Without the API nobody hands it over: the old one has to go on working, until the rotation
    after this.
    """
    if ctx.api is None:
        return
    if ctx.facts.identity_is_adopted:
        ctx.facts.replaced_keys = tuple(keys)
    elif stored and stored.id in keys:
        ctx.facts.replaced_keys = (stored.id,)


def _make_room(ctx: Context, user: str, keys: list[str], stored: Key | None) -> bool:
    """IAM allows two keys. The one that a former rotation replaced makes room for the new one."""
    if len(keys) < MAX_KEYS:
        return True
    if stored is None or stored.id not in keys:
        ctx.ledger.conflict(
            f"access keys of IAM user {user}",
            f"{' and '.join(keys)} exist and IAM allows no third: delete the one that nobody uses",
        )
        return False
    for key_id in keys:
        if key_id != stored.id:
            ctx.ledger.delete(
                identity.key_thing(user, key_id),
                lambda key_id=key_id: identity.delete_key(ctx, user, key_id),  # type: ignore[misc]
                "replaced by a former rotation",
            )
            keys.remove(key_id)
            break
    return True


def _make_key(ctx: Context, user: str) -> None:
    before = set(identity.key_ids(ctx, user))

    def make() -> None:
        answer = ctx.ask(
            "iam:CreateAccessKey",
            lambda: ctx.clients.iam.create_access_key(UserName=user),
            again_on=SETTLING,
        )
        made = answer["AccessKey"]
        ctx.facts.key = Key(made["AccessKeyId"], made["SecretAccessKey"])

    def take_back() -> None:
        for key_id in identity.key_ids(ctx, user):
            if key_id not in before:
                identity.delete_key(ctx, user, key_id)

    ctx.facts.key_is_new = True
    ctx.ledger.create(f"new access key of IAM user {user}", make, undo=take_back)
    if ctx.facts.key:
        ctx.ledger.keep(identity.key_thing(user, ctx.facts.key.id), "just made")


# The secret ---------------------------------------------------------------------------------------


def _found(ctx: Context, name: str) -> _Secret | None:
    answer: Any = ctx.find(
        "secretsmanager:DescribeSecret",
        lambda: ctx.clients.secrets.describe_secret(SecretId=name),
        missing=UNSEEN,
    )
    if answer is None:
        return None
    return _Secret(
        arn=answer["ARN"],
        tags=tag_map(answer.get("Tags")),
        kms_key=answer.get("KmsKeyId"),
        being_deleted="DeletedDate" in answer,
    )


def _stored(ctx: Context, name: str) -> Key | None:
    """The key in the secret; None where it is empty or holds something else."""
    answer = ctx.find(
        "secretsmanager:GetSecretValue",
        lambda: ctx.clients.secrets.get_secret_value(SecretId=name),
        missing=GONE,
    )
    if answer is None:
        return None
    try:
        stored = msgspec.json.decode(answer.get("SecretString", ""), type=_Stored)
    except msgspec.DecodeError:
        return None
    return Key(stored.access_key_id, stored.secret_access_key)


def _text(key: Key | None) -> str:
    if key is None:
        return "{}"
    return msgspec.json.encode(_Stored(key.id, key.secret)).decode()


def _tags(ctx: Context) -> dict[str, str]:
    return ctx.tags | {ROTATION_TAG: ctx.onboarding.rotation_id}


def _kms(ctx: Context) -> dict[str, str]:
    return {"KmsKeyId": ctx.onboarding.kms_key} if ctx.onboarding.kms_key else {}


def _store(ctx: Context, name: str, secret: _Secret | None, stored: Key | None) -> None:
    if secret is None:
        ctx.ledger.create(
            thing(name), lambda: _create(ctx, name), undo=lambda: _take_back(ctx, name)
        )
        return
    ctx.facts.secret_arn = secret.arn
    if secret.being_deleted:
        ctx.ledger.update(
            thing(name),
            lambda: _restore(ctx, name),
            undo=lambda: _delete(ctx, name, forced=False),
            detail="restored from deletion",
        )
    ctx.ledger.update(
        thing(name),
        lambda: _put(ctx, name, ctx.facts.key),
        undo=lambda: _put(ctx, name, stored),
        detail="new key",
    )
    _correct(ctx, name, secret)


def _create(ctx: Context, name: str) -> None:
    answer = ctx.ask(
        "secretsmanager:CreateSecret",
        lambda: ctx.clients.secrets.create_secret(
            Name=name,
            Description=f"Access key of CAST AI's IAM user for {ctx.onboarding.cluster_name}",
            SecretString=_text(ctx.facts.key),
            Tags=tag_list(_tags(ctx)),
            **_kms(ctx),  # type: ignore[arg-type]
        ),
        again_on=_BEING_DELETED,
    )
    ctx.facts.secret_arn = answer["ARN"]


def _put(ctx: Context, name: str, key: Key | None) -> None:
    ctx.ask(
        "secretsmanager:PutSecretValue",
        lambda: ctx.clients.secrets.put_secret_value(SecretId=name, SecretString=_text(key)),
    )


def _restore(ctx: Context, name: str) -> None:
    ctx.ask(
        "secretsmanager:RestoreSecret", lambda: ctx.clients.secrets.restore_secret(SecretId=name)
    )


def _correct(ctx: Context, name: str, secret: _Secret) -> None:
    """Tags and KMS key of a secret that stays."""
    ctx.facts.secret_arn = secret.arn
    corrected = False
    wanted = _tags(ctx)
    missing, dropped = ctx.tag_changes(secret.tags, wanted)
    if missing or dropped:
        corrected = True
        before = {k: v for k, v in secret.tags.items() if k in {*missing, *dropped}}
        ctx.ledger.update(
            thing(name),
            lambda: _retag(ctx, name, missing, dropped),
            undo=lambda: _retag(ctx, name, before, [k for k in missing if k not in secret.tags]),
            detail="tags",
        )
    if ctx.onboarding.kms_key and ctx.onboarding.kms_key != secret.kms_key:
        corrected = True
        former = secret.kms_key or "alias/aws/secretsmanager"
        ctx.ledger.update(
            thing(name),
            _encrypted_with(ctx, name, ctx.onboarding.kms_key),
            undo=_encrypted_with(ctx, name, former),
            detail="KMS key",
        )
    if not corrected:
        ctx.ledger.keep(thing(name))


def _encrypted_with(ctx: Context, name: str, key: str) -> Callable[[], object]:
    return lambda: ctx.ask(
        "secretsmanager:UpdateSecret",
        lambda: ctx.clients.secrets.update_secret(SecretId=name, KmsKeyId=key),
    )


def _retag(ctx: Context, name: str, tags: Mapping[str, str], keys: list[str]) -> None:
    secrets = ctx.clients.secrets
    if tags:
        ctx.ask(
            "secretsmanager:TagResource",
            lambda: secrets.tag_resource(SecretId=name, Tags=tag_list(tags)),
        )
    if keys:
        ctx.ask(
            "secretsmanager:UntagResource",
            lambda: secrets.untag_resource(SecretId=name, TagKeys=keys),
        )


def _delete(ctx: Context, name: str, *, forced: bool = True) -> None:
    """Without a recovery window: the key in it is dead, and the name is needed again."""
    ctx.find(
        "secretsmanager:DeleteSecret",
        lambda: ctx.clients.secrets.delete_secret(
            SecretId=name, **({"ForceDeleteWithoutRecovery": True} if forced else {})
        ),
        missing=GONE,
    )


def _take_back(ctx: Context, name: str) -> None:
    found = _found(ctx, name)
    if found and ctx.owner.owns(found.tags):
        _delete(ctx, name)


def remove(ctx: Context) -> None:
    """Delete the secret where it is ours. The key itself goes with the user."""
    name = names.credentials_secret_name(ctx.onboarding.cluster_name)
    found = _found(ctx, name)
    if found is None or thing(name) in ctx.ledger.protected:
        return
    if ctx.owner.owns(found.tags):
        ctx.ledger.delete(thing(name), lambda: _delete(ctx, name))
    else:
        ctx.ledger.leave(thing(name), ownership.described(found.tags))
