"""The managed policy of CAST AI's identity: a new version only where the meaning differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from lambdas.common.errors import AwsRefusedError, PermanentError
from lambdas.common.names import SHARED_AS_TAG
from lambdas.onboarding import identity, ownership
from lambdas.onboarding.context import Context, tag_list, tag_map
from lambdas.onboarding.iam_principals import CONFLICT, GONE, SETTLING, compact
from lambdas.onboarding.ledger import first_line
from lambdas.onboarding.policies import castai_identity, equality
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.properties import Onboarding

MAX_VERSIONS: Final = 5  # IAM quotas: versions of one managed policy


def ensure(ctx: Context) -> None:
    """Make or correct the policy; leaves its ARN in the facts."""
    wish, shared = ctx.onboarding, ctx.onboarding.account_wide_policy
    arn = ctx.facts.policy_arn = ctx.scope.policy_arn(account_wide=shared)
    document = castai_identity.cast_eks_policy(
        ctx.scope,
        wish.permissions,
        manage_spot_lambda=wish.manage_spot_lambda,
        boundary=wish.permissions_boundary,
        account_wide=shared,
    )
    tags = ownership.shared_tags(wish.tags, _shared_as(wish)) if shared else ctx.tags
    found = _found(ctx, arn)
    if found is None and not shared:
        ctx.ledger.create(
            thing(arn),
            lambda: _create(ctx, arn, document, tags),
            undo=lambda: _take_back(ctx, arn),
        )
        return
    if found is None:
        if _create_shared(ctx, arn, document, tags):
            return
        found = _made_by_another(ctx, arn)
    if shared:
        _refuse_differences(ctx, arn, tag_map(found.get("Tags")))
    if ctx.may_take(thing(arn), tag_map(found.get("Tags")), shared=shared):
        _correct(ctx, arn, found, document, tags)


def _create_shared(ctx: Context, arn: str, document: Document, tags: Mapping[str, str]) -> bool:
    """Make the shared policy; False where another run made it first.

    Taken back only where this run surely made it: where the answer was lost, it may be another's.
    """
    made: list[str] = []

    def create() -> bool:
        try:
            _create(ctx, arn, document, tags)
        except AwsRefusedError as error:
            if error.code == "EntityAlreadyExists":
                return False
            raise
        made.append(arn)
        return True

    def take_back() -> None:
        if made and not _other_users(ctx, arn):
            _delete(ctx, arn)

    return ctx.ledger.create(thing(arn), create, undo=take_back) is not False


def _made_by_another(ctx: Context, arn: str) -> Mapping[str, Any]:
    iam = ctx.clients.iam
    answer = ctx.ask("iam:GetPolicy", lambda: iam.get_policy(PolicyArn=arn), again_on=SETTLING)
    return answer["Policy"]


def _shared_as(wish: Onboarding) -> str:
    """The properties that the shared document follows, as the value of a tag."""
    manages = str(wish.manage_spot_lambda).lower()
    boundary = wish.permissions_boundary or "none"
    text = (
        f"Permissions={wish.permissions} ManageSpotLambda={manages} PermissionsBoundary={boundary}"
    )
    return text[:256]  # IAM: the longest value of a tag


def _refuse_differences(ctx: Context, arn: str, tags: Mapping[str, str]) -> None:
    """A cluster may not change the others' rights by joining, nor change them back.

    Raises:
        PermanentError: the policy follows other properties, others use it, and this cluster's
            properties before were not those.
    """
    now = tags.get(SHARED_AS_TAG)
    wished = _shared_as(ctx.onboarding)
    previous = ctx.previous
    if now in {None, wished}:
        return
    if previous and previous.account_wide_policy and now == _shared_as(previous):
        return
    others = _other_users(ctx, arn)
    if others:
        ctx.ledger.conflict(
            thing(arn),
            f"follows {now}, and {', '.join(others)} use it: give the same for every "
            "cluster, or set AccountWidePolicy to false",
        )


def thing(arn: str) -> str:
    """The thing that a policy is."""
    return f"IAM policy {arn}"


def _found(ctx: Context, arn: str) -> Mapping[str, Any] | None:
    iam = ctx.clients.iam
    answer = ctx.find("iam:GetPolicy", lambda: iam.get_policy(PolicyArn=arn), missing=GONE)
    return answer["Policy"] if answer else None


def _create(ctx: Context, arn: str, document: Document, tags: Mapping[str, str]) -> None:
    ctx.ask(
        "iam:CreatePolicy",
        lambda: ctx.clients.iam.create_policy(
            PolicyName=arn.rpartition("/")[2],
            Path=ctx.onboarding.path,
            PolicyDocument=compact(document),
            Description=f"What CAST AI may do for EKS cluster {ctx.onboarding.cluster_name}",
            Tags=tag_list(tags),
        ),
    )


def _correct(
    ctx: Context,
    arn: str,
    found: Mapping[str, Any],
    document: Document,
    tags: Mapping[str, str],
) -> None:
    iam, ledger = ctx.clients.iam, ctx.ledger
    now: str = found["DefaultVersionId"]
    answer = ctx.ask(
        "iam:GetPolicyVersion",
        lambda: iam.get_policy_version(PolicyArn=arn, VersionId=now),
        again_on=SETTLING,
    )
    has: Any = answer["PolicyVersion"]["Document"]
    found_tags = tag_map(found.get("Tags"))
    missing, dropped = ctx.tag_changes(found_tags, tags)
    if missing or dropped:
        before = {k: v for k, v in found_tags.items() if k in {*missing, *dropped}}
        ledger.update(
            thing(arn),
            lambda: _retag(ctx, arn, missing, dropped),
            undo=lambda: _retag(ctx, arn, before, [k for k in missing if k not in found_tags]),
            detail="tags",
        )
    if not equality.same(has, document):
        ledger.update(
            thing(arn),
            lambda: _new_version(ctx, arn, document),
            undo=lambda: _back_to(ctx, arn, now),
            detail="new version",
        )
    elif not (missing or dropped):
        ledger.keep(thing(arn))


def _retag(ctx: Context, arn: str, tags: Mapping[str, str], keys: list[str]) -> None:
    iam = ctx.clients.iam
    if tags:
        ctx.ask("iam:TagPolicy", lambda: iam.tag_policy(PolicyArn=arn, Tags=tag_list(tags)))
    if keys:
        ctx.ask("iam:UntagPolicy", lambda: iam.untag_policy(PolicyArn=arn, TagKeys=keys))


def _versions(ctx: Context, arn: str) -> list[Any]:
    listing = ctx.clients.iam.list_policy_versions
    pages = ctx.pages("iam:ListPolicyVersions", listing, PolicyArn=arn)
    return [version for page in pages for version in page["Versions"]]


def _drop_version(ctx: Context, arn: str, version: str) -> None:
    iam = ctx.clients.iam
    ctx.find(
        "iam:DeletePolicyVersion",
        lambda: iam.delete_policy_version(PolicyArn=arn, VersionId=version),
        missing=GONE,
    )


def _number(version: Any) -> int:  # noqa: ANN401 - IAM's own type
    return int(version["VersionId"].removeprefix("v"))


def _new_version(ctx: Context, arn: str, document: Document) -> None:
    versions = _versions(ctx, arn)
    old = sorted((v for v in versions if not v["IsDefaultVersion"]), key=_number)
    for version in old[: max(0, len(versions) - MAX_VERSIONS + 1)]:
        _drop_version(ctx, arn, version["VersionId"])
    ctx.ask(
        "iam:CreatePolicyVersion",
        lambda: ctx.clients.iam.create_policy_version(
            PolicyArn=arn, PolicyDocument=compact(document), SetAsDefault=True
        ),
    )


def _back_to(ctx: Context, arn: str, version: str) -> None:
    """Undo of a new version: the old one is the default again, what came after it is gone."""
    iam = ctx.clients.iam
    ctx.ask(
        "iam:SetDefaultPolicyVersion",
        lambda: iam.set_default_policy_version(PolicyArn=arn, VersionId=version),
    )
    for later in _versions(ctx, arn):
        if _number(later) > _number({"VersionId": version}):
            _drop_version(ctx, arn, later["VersionId"])


def _take_back(ctx: Context, arn: str) -> None:
    found = _found(ctx, arn)
    if found and ctx.owner.owns(tag_map(found.get("Tags"))):
        _delete(ctx, arn)


def _delete(ctx: Context, arn: str) -> None:
    iam = ctx.clients.iam
    for version in _versions(ctx, arn):
        if not version["IsDefaultVersion"]:
            _drop_version(ctx, arn, version["VersionId"])
    ctx.find(
        "iam:DeletePolicy",
        lambda: iam.delete_policy(PolicyArn=arn),
        missing=GONE,
        again_on=CONFLICT,
    )


def remove(ctx: Context) -> None:
    """Remove our policies that have no user any more.

    Raises:
        PermanentError: someone else attached the cluster's own policy to something.
    """
    wishes = [wish for wish in (ctx.onboarding, ctx.previous) if wish]
    arns = {shared: ctx.scope.policy_arn(account_wide=shared) for shared in (False, True)}
    stays = any(thing(arn) in ctx.ledger.protected for arn in arns.values())
    shares = any(wish.account_wide_policy for wish in wishes)
    for shared, arn in arns.items():
        if thing(arn) in ctx.ledger.protected:
            continue
        if shared and stays and not shares:
            continue  # another run may be making it, and has not attached it yet
        try:
            found = _found(ctx, arn)
        except AwsRefusedError as error:
            if error.code != "AccessDenied" or not shared or shares:
                raise
            ctx.ledger.leave(thing(arn), f"not looked for: {first_line(error)}")
            continue
        if found:
            _remove(ctx, arn, tag_map(found.get("Tags")), shared=shared)


def _remove(ctx: Context, arn: str, tags: Mapping[str, str], *, shared: bool) -> None:
    if not (ownership.is_shared(tags) if shared else ctx.owner.owns(tags)):
        ctx.ledger.leave(thing(arn), ownership.described(tags))
        return
    users = _other_users(ctx, arn)
    if users and shared:
        ctx.ledger.leave(thing(arn), f"still used by {', '.join(users)}")
        return
    if users:
        raise PermanentError(f"Detach {thing(arn)} from {', '.join(users)} first")
    ctx.ledger.delete(thing(arn), lambda: _delete(ctx, arn))


def _other_users(ctx: Context, arn: str) -> list[str]:
    """Who else has the policy attached.

    Our own identities do not count: IAM may still list one that was deleted a second ago. Where one
    has the policy all the same, IAM refuses to delete the policy.
    """
    users: list[str] = []
    listing = ctx.clients.iam.list_entities_for_policy
    for page in ctx.pages("iam:ListEntitiesForPolicy", listing, PolicyArn=arn):
        users += [f"user {user['UserName']}" for user in page["PolicyUsers"]]
        users += [f"role {role['RoleName']}" for role in page["PolicyRoles"]]
        users += [f"group {group['GroupName']}" for group in page["PolicyGroups"]]
    return [user for user in users if not _is_our_own(ctx, user)]


def _is_our_own(ctx: Context, user: str) -> bool:
    """Whether this is an identity of this cluster that is ours, or is gone."""
    for _, principal in identity.principals(ctx):
        if user == f"{principal.KIND.lower()} {principal.name}":
            found = principal.found()
            return found is None or ctx.owner.owns(found.tags)
    return False
