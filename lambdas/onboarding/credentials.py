"""The access key of user mode: one key, in our secret; a new key only on request.

The secret access key is in AWS's answer, in the secret and in the call to CAST AI, and in no log,
error, tag or attribute. The key's id is not secret.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import msgspec

from lambdas.common import aws
from lambdas.common.errors import AwsRefusedError
from lambdas.common.names import ROTATION_TAG
from lambdas.onboarding import identity, names, ownership
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import SETTLING, Ensured
from lambdas.onboarding.policies.scope import Mode
from lambdas.onboarding.tags import correct_tags, tag_list, tag_map

if TYPE_CHECKING:
    from mypy_boto3_iam.type_defs import CreateAccessKeyResponseTypeDef

# Secrets Manager deletes in the background, also without a recovery window. The name stays in use
# until then. AWS advises to back off and retry (DeleteSecret, ForceDeleteWithoutRecovery).
_BEING_DELETED: Final = ("InvalidRequestException",)
_DEFAULT_KMS_KEY: Final = "alias/aws/secretsmanager"
MAX_KEYS: Final = 2  # IAM quotas: access keys of one user


@dataclass(frozen=True)
class Key:
    """The user's access key. Its repr does not show the secret access key."""

    id: str
    secret: str = field(repr=False)


@dataclass(frozen=True)
class Credentials:
    """The access key that CAST AI gets, and the secret that holds it."""

    secret_arn: str = ""
    """Empty while the secret does not exist."""
    key: Key | None = None
    """None in role mode, and while a new key is only planned."""
    is_new: bool = False
    replaced_keys: tuple[str, ...] = ()
    """Ids of access keys to remove once CAST AI has the new one."""


class _Stored(msgspec.Struct, rename="camel"):
    """What the secret holds, with the field names that CAST AI uses."""

    access_key_id: str
    secret_access_key: str


@dataclass(frozen=True)
class _Secret:
    """The secret as it is, without its value."""

    arn: str
    tags: Mapping[str, str]
    kms_key: str | None
    is_being_deleted: bool


def label(name: str) -> str:
    """A secret in rows and messages."""
    return f"secret {name}"


def ensure(ctx: Context, user: Ensured) -> Credentials:
    """Ensure one access key of the wanted rotation, in the secret. Role mode has none."""
    if ctx.onboarding.mode is not Mode.USER:
        return Credentials()
    name = names.credentials_secret_name(ctx.onboarding.cluster_name)
    user_name = names.user_name(ctx.onboarding.cluster_name)
    secret = _found(ctx, name)
    if secret and not ctx.may_take(label(name), secret.tags):
        return Credentials()
    stored = _stored(ctx, name) if secret and not secret.is_being_deleted else None
    keys = identity.key_ids(ctx, user_name)
    wanted = ctx.onboarding.rotation_id
    if secret and stored and stored.id in keys and secret.tags.get(ROTATION_TAG, "") == wanted:
        ctx.ledger.keep(identity.key_label(user_name, stored.id))
        _correct(ctx, name, secret)
        return Credentials(secret.arn, stored)
    if not _make_room(ctx, user_name, keys, stored):
        return Credentials()
    replaced = _replaced_keys(ctx, user, keys, stored)
    new = _create_key(ctx, user_name)
    arn = _store(ctx, name, secret, new, stored)
    return Credentials(arn, new, is_new=True, replaced_keys=replaced)


def _replaced_keys(
    ctx: Context, user: Ensured, keys: list[str], stored: Key | None
) -> tuple[str, ...]:
    """Ids of the keys to remove once CAST AI has the new one.

    Without the API a person gives the new key to CAST AI later, so the old key works until the
    next rotation.
    """
    if ctx.api is None:
        return ()
    if user.is_adopted:
        return tuple(keys)
    return (stored.id,) if stored and stored.id in keys else ()


def _make_room(ctx: Context, user: str, keys: list[str], stored: Key | None) -> bool:
    """Delete the key that an earlier rotation replaced, if IAM allows no further key.

    The deleted key is removed from `keys`. Returns False with a conflict if no key may be deleted.
    """
    if len(keys) < MAX_KEYS:
        return True
    if stored is None or stored.id not in keys:
        ctx.ledger.conflict(
            f"access keys of IAM user {user}",
            f"{' and '.join(keys)} exist and IAM allows no third: delete the unused one",
        )
        return False
    replaced = next(key_id for key_id in keys if key_id != stored.id)
    ctx.ledger.delete(
        identity.key_label(user, replaced),
        lambda: identity.delete_key(ctx, user, replaced),
        "replaced by a former rotation",
    )
    keys.remove(replaced)
    return True


def _create_key(ctx: Context, user: str) -> Key | None:
    """The new key; None while planning."""
    before = set(identity.key_ids(ctx, user))

    def create() -> Key:
        created = ctx.retrying(SETTLING).run(create_once)["AccessKey"]
        return Key(created["AccessKeyId"], created["SecretAccessKey"])

    def create_once() -> CreateAccessKeyResponseTypeDef:
        delete_new()  # of a try whose answer was lost: its secret is not known
        with aws.translated_errors("iam:CreateAccessKey"):
            return ctx.clients.iam.create_access_key(UserName=user)

    def delete_new() -> None:
        for key_id in identity.key_ids(ctx, user):
            if key_id not in before:
                identity.delete_key(ctx, user, key_id)

    key = ctx.ledger.create(f"new access key of IAM user {user}", create, undo=delete_new)
    if key:
        ctx.ledger.keep(identity.key_label(user, key.id), "new")
    return key


# The secret ---------------------------------------------------------------------------------------


def _found(ctx: Context, name: str) -> _Secret | None:
    """The secret; None if it does not exist, or may not be read.

    A policy names a secret by its ARN. A secret that does not exist has no ARN, so AWS refuses a
    call by name. If the secret exists and the read is refused, the next write shows the error.
    """
    try:
        answer: Any = ctx.find(ctx.clients.secrets.describe_secret, SecretId=name)
    except AwsRefusedError as error:
        if error.code != "AccessDeniedException":
            raise
        answer = None
    if answer is None:
        return None
    return _Secret(
        arn=answer["ARN"],
        tags=tag_map(answer.get("Tags")),
        kms_key=answer.get("KmsKeyId"),
        is_being_deleted="DeletedDate" in answer,
    )


def _stored(ctx: Context, name: str) -> Key | None:
    """The key in the secret; None where it is empty or holds something else."""
    answer = ctx.find(ctx.clients.secrets.get_secret_value, SecretId=name)
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


def _store(
    ctx: Context, name: str, secret: _Secret | None, new: Key | None, stored: Key | None
) -> str:
    """Put the new key into the secret; returns the secret's ARN, empty in a plan of a new one."""
    if secret is None:
        arn = ctx.ledger.create(
            label(name), lambda: _create(ctx, name, new), undo=lambda: _undo_create(ctx, name)
        )
        return arn or ""
    if secret.is_being_deleted:
        ctx.ledger.update(
            label(name),
            lambda: ctx.call(ctx.clients.secrets.restore_secret, SecretId=name),
            undo=lambda: _delete(ctx, name, forced=False),
            detail="restored from deletion",
        )
    ctx.ledger.update(
        label(name),
        lambda: _put(ctx, name, new),
        undo=lambda: _put(ctx, name, stored),
        detail="new key",
    )
    _correct(ctx, name, secret)
    return secret.arn


def _create(ctx: Context, name: str, key: Key | None) -> str:
    kms: Any = {"KmsKeyId": ctx.onboarding.kms_key} if ctx.onboarding.kms_key else {}
    answer = ctx.retrying(_BEING_DELETED).call(
        ctx.clients.secrets.create_secret,
        Name=name,
        Description=f"Access key of CAST AI's IAM user for {ctx.onboarding.cluster_name}",
        SecretString=_text(key),
        Tags=tag_list(_tags(ctx)),
        **kms,
    )
    return answer["ARN"]


def _put(ctx: Context, name: str, key: Key | None) -> None:
    ctx.call(ctx.clients.secrets.put_secret_value, SecretId=name, SecretString=_text(key))


def _correct(ctx: Context, name: str, secret: _Secret) -> None:
    """Correct tags and KMS key of a secret that stays."""
    secrets = ctx.clients.secrets
    corrected = correct_tags(
        ctx,
        label(name),
        secret.tags,
        _tags(ctx),
        put=lambda tags: ctx.call(secrets.tag_resource, SecretId=name, Tags=tag_list(tags)),
        drop=lambda keys: ctx.call(secrets.untag_resource, SecretId=name, TagKeys=keys),
    )
    if ctx.onboarding.kms_key and ctx.onboarding.kms_key != secret.kms_key:
        corrected = True
        encrypt = partial(ctx.call, secrets.update_secret, SecretId=name)
        ctx.ledger.update(
            label(name),
            partial(encrypt, KmsKeyId=ctx.onboarding.kms_key),
            undo=partial(encrypt, KmsKeyId=secret.kms_key or _DEFAULT_KMS_KEY),
            detail="KMS key",
        )
    if not corrected:
        ctx.ledger.keep(label(name))


def _delete(ctx: Context, name: str, *, forced: bool = True) -> None:
    """Delete the secret.

    `forced`: without a recovery window, because its key is deleted and its name is needed.
    """
    options: Any = {"ForceDeleteWithoutRecovery": True} if forced else {}
    ctx.find(ctx.clients.secrets.delete_secret, SecretId=name, **options)


def _undo_create(ctx: Context, name: str) -> None:
    found = _found(ctx, name)
    if found and ctx.owner.owns(found.tags):
        _delete(ctx, name)


def remove(ctx: Context) -> None:
    """Delete the secret if it is ours. The key itself is deleted with the user."""
    name = names.credentials_secret_name(ctx.onboarding.cluster_name)
    found = _found(ctx, name)
    if found is None or label(name) in ctx.ledger.protected:
        return
    if ctx.owner.owns(found.tags):
        ctx.ledger.delete(label(name), lambda: _delete(ctx, name))
    else:
        ctx.ledger.leave(label(name), ownership.described(found.tags))
