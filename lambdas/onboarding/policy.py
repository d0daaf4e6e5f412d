"""The managed policy of CAST AI's identity; it gets a new version only if the meaning differs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from lambdas.common.errors import AwsRefusedError, PermanentError
from lambdas.common.names import SHARED_AS_TAG
from lambdas.onboarding import identity, ownership
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import CONFLICT, SETTLING, compact
from lambdas.onboarding.ledger import first_line
from lambdas.onboarding.policies import castai_identity, equality
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.properties import Onboarding
from lambdas.onboarding.tags import correct_tags, tag_list, tag_map

MAX_VERSIONS: Final = 5  # IAM quotas: versions of one managed policy


def label(arn: str) -> str:
    """The policy in rows and messages."""
    return f"IAM policy {arn}"


def find(ctx: Context, arn: str) -> Mapping[str, Any] | None:
    """The policy as IAM describes it; None where it does not exist."""
    answer = ctx.find(ctx.clients.iam.get_policy, PolicyArn=arn)
    return answer["Policy"] if answer else None


def ensure(ctx: Context) -> None:
    """Create or correct the policy."""
    properties, arn = ctx.onboarding, ctx.policy_arn
    shared = properties.account_wide_policy
    document = castai_identity.cast_eks_policy(
        ctx.scope,
        properties.permissions,
        manage_spot_lambda=properties.manage_spot_lambda,
        boundary=properties.permissions_boundary,
        account_wide=shared,
    )
    tags = ctx.tags
    if shared:
        tags = ownership.shared_tags(properties.tags, _shared_as(properties))
    found = find(ctx, arn)
    if found is None and not shared:
        ctx.ledger.create(
            label(arn),
            lambda: _create(ctx, arn, document, tags),
            undo=lambda: _undo_create(ctx, arn),
        )
        return
    if found is None:
        if _create_shared(ctx, arn, document, tags):
            return
        found = _created_by_another_run(ctx, arn)
    if shared:
        _refuse_differences(ctx, arn, tag_map(found.get("Tags")))
    if ctx.may_take(label(arn), tag_map(found.get("Tags")), shared=shared):
        _correct(ctx, arn, found, document, tags)


def _create_shared(ctx: Context, arn: str, document: Document, tags: Mapping[str, str]) -> bool:
    """Create the shared policy; False if another run created it first.

    The undo deletes it only if this run surely created it. If the answer was lost, another run may
    have created it: the undo fails then, so that the error names the policy.
    """
    created: list[str] = []

    def create() -> bool:
        try:
            _create(ctx, arn, document, tags)
        except AwsRefusedError as error:
            if error.code == "EntityAlreadyExists":
                return False
            raise
        created.append(arn)
        return True

    def undo() -> None:
        if find(ctx, arn) is None or _other_users(ctx, arn):
            return
        if not created:
            raise PermanentError(
                "Delete it if no other cluster's onboarding runs: who created it is unknown"
            )
        _delete(ctx, arn)

    return ctx.ledger.create(label(arn), create, undo=undo) is not False


def _created_by_another_run(ctx: Context, arn: str) -> Mapping[str, Any]:
    answer = ctx.retrying(SETTLING).call(ctx.clients.iam.get_policy, PolicyArn=arn)
    return answer["Policy"]


def _shared_as(properties: Onboarding) -> str:
    """The properties that determine the shared document, as the value of a tag."""
    manages = str(properties.manage_spot_lambda).lower()
    boundary = properties.permissions_boundary or "none"
    text = (
        f"Permissions={properties.permissions} ManageSpotLambda={manages} "
        f"PermissionsBoundary={boundary}"
    )
    return text[:256]  # IAM: the longest value of a tag


def _refuse_differences(ctx: Context, arn: str, tags: Mapping[str, str]) -> None:
    """Refuse to change the permissions of other clusters.

    There is a conflict if other clusters use the policy, and it is for other properties than the
    present and the previous ones of this cluster.

    Raises PermanentError unless the run only plans.
    """
    now = tags.get(SHARED_AS_TAG)
    previous = ctx.previous
    if now in {None, _shared_as(ctx.onboarding)}:
        return
    if previous and previous.account_wide_policy and now == _shared_as(previous):
        return
    others = _other_users(ctx, arn)
    if others:
        ctx.ledger.conflict(
            label(arn),
            f"is for {now}, and {', '.join(others)} use it: give the same properties for every "
            "cluster, or set AccountWidePolicy to false",
        )


def _create(ctx: Context, arn: str, document: Document, tags: Mapping[str, str]) -> None:
    ctx.call(
        ctx.clients.iam.create_policy,
        PolicyName=arn.rpartition("/")[2],
        Path=ctx.onboarding.path,
        PolicyDocument=compact(document),
        Description=f"What CAST AI may do for EKS cluster {ctx.onboarding.cluster_name}",
        Tags=tag_list(tags),
    )


def _correct(
    ctx: Context,
    arn: str,
    found: Mapping[str, Any],
    document: Document,
    tags: Mapping[str, str],
) -> None:
    iam = ctx.clients.iam
    now: str = found["DefaultVersionId"]
    answer = ctx.retrying(SETTLING).call(iam.get_policy_version, PolicyArn=arn, VersionId=now)
    current: Any = answer["PolicyVersion"]["Document"]
    retagged = correct_tags(
        ctx,
        label(arn),
        tag_map(found.get("Tags")),
        tags,
        put=lambda tags: ctx.call(iam.tag_policy, PolicyArn=arn, Tags=tag_list(tags)),
        drop=lambda keys: ctx.call(iam.untag_policy, PolicyArn=arn, TagKeys=keys),
    )
    if not equality.same(current, document):
        ctx.ledger.update(
            label(arn),
            lambda: _create_version(ctx, arn, document),
            undo=lambda: _restore_version(ctx, arn, now),
            detail="new version",
        )
    elif not retagged:
        ctx.ledger.keep(label(arn))


def _versions(ctx: Context, arn: str) -> list[Any]:
    return ctx.items(ctx.clients.iam.list_policy_versions, "Versions", PolicyArn=arn)


def _delete_version(ctx: Context, arn: str, version: str) -> None:
    ctx.find(ctx.clients.iam.delete_policy_version, PolicyArn=arn, VersionId=version)


def _number(version: Any) -> int:  # noqa: ANN401 - IAM's own type
    return int(version["VersionId"].removeprefix("v"))


def _create_version(ctx: Context, arn: str, document: Document) -> None:
    """Create the new default version, after deleting the oldest ones above IAM's limit."""
    versions = _versions(ctx, arn)
    old = sorted((v for v in versions if not v["IsDefaultVersion"]), key=_number)
    for version in old[: max(0, len(versions) - MAX_VERSIONS + 1)]:
        _delete_version(ctx, arn, version["VersionId"])
    ctx.call(
        ctx.clients.iam.create_policy_version,
        PolicyArn=arn,
        PolicyDocument=compact(document),
        SetAsDefault=True,
    )


def _restore_version(ctx: Context, arn: str, version: str) -> None:
    """Make the old version the default again and delete the later ones."""
    ctx.call(ctx.clients.iam.set_default_policy_version, PolicyArn=arn, VersionId=version)
    for later in _versions(ctx, arn):
        if _number(later) > _number({"VersionId": version}):
            _delete_version(ctx, arn, later["VersionId"])


def _undo_create(ctx: Context, arn: str) -> None:
    found = find(ctx, arn)
    if found and ctx.owner.owns(tag_map(found.get("Tags"))):
        _delete(ctx, arn)


def _delete(ctx: Context, arn: str) -> None:
    for version in _versions(ctx, arn):
        if not version["IsDefaultVersion"]:
            _delete_version(ctx, arn, version["VersionId"])
    ctx.retrying(CONFLICT).find(ctx.clients.iam.delete_policy, PolicyArn=arn)


def remembers_id(ctx: Context) -> bool:
    """Whether CAST AI's id of the cluster is only in the policy's tag."""
    return not ctx.onboarding.cluster_id


def remove(ctx: Context) -> None:
    """Delete our policies that no identity uses any more.

    Raises PermanentError if the cluster's own policy is attached to an identity that is not ours.
    """
    arns = {shared: ctx.scope.policy_arn(account_wide=shared) for shared in (False, True)}
    one_stays = any(label(arn) in ctx.ledger.protected for arn in arns.values())
    shares = any(properties.account_wide_policy for properties in ctx.every_properties)
    for shared, arn in arns.items():
        if label(arn) in ctx.ledger.protected:
            continue
        if shared and one_stays and not shares:
            continue  # another run may have created it, and not attached it yet
        try:
            found = find(ctx, arn)
        except AwsRefusedError as error:
            if error.code != "AccessDenied" or not shared or shares:
                raise
            ctx.ledger.leave(label(arn), f"not looked for: {first_line(error)}")
            continue
        if found:
            _remove(ctx, arn, tag_map(found.get("Tags")), shared=shared)


def _remove(ctx: Context, arn: str, tags: Mapping[str, str], *, shared: bool) -> None:
    if not (ownership.is_shared(tags) if shared else ctx.owner.owns(tags)):
        ctx.ledger.leave(label(arn), ownership.described(tags))
        return
    users = _other_users(ctx, arn)
    if users and shared:
        ctx.ledger.leave(label(arn), f"still used by {', '.join(users)}")
        return
    if users:
        raise PermanentError(f"Detach {label(arn)} from {', '.join(users)} first")
    ctx.ledger.delete(label(arn), partial(_delete, ctx, arn))


def _other_users(ctx: Context, arn: str) -> list[str]:
    """Users, roles and groups with this policy that are not ours.

    Our own identities do not count: IAM may still list one that was just deleted. If one still has
    the policy, IAM refuses to delete the policy.
    """
    users: list[str] = []
    for page in ctx.pages(ctx.clients.iam.list_entities_for_policy, PolicyArn=arn):
        users += [f"user {user['UserName']}" for user in page["PolicyUsers"]]
        users += [f"role {role['RoleName']}" for role in page["PolicyRoles"]]
        users += [f"group {group['GroupName']}" for group in page["PolicyGroups"]]
    return [user for user in users if not _is_our_own(ctx, user)]


def _is_our_own(ctx: Context, user: str) -> bool:
    """Whether this is an identity of this cluster that is ours, or does not exist any more."""
    for _, principal in identity.principals(ctx):
        if user == f"{principal.KIND.lower()} {principal.name}":
            found = principal.found()
            return found is None or ctx.owner.owns(found.tags)
    return False
