"""IAM users and roles behind one face, so that both are ensured and removed by the same code."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec
from botocore import xform_name

from lambdas.common.errors import AwsRefusedError, PermanentError
from lambdas.onboarding import ownership
from lambdas.onboarding.context import Context, tag_list, tag_map
from lambdas.onboarding.policies import equality
from lambdas.onboarding.policies.document import Document

GONE: Final = ("NoSuchEntity",)
# IAM may not have heard yet that what was attached or inside is gone.
CONFLICT: Final = ("DeleteConflict",)
# IAM answers from many places: what was made a second ago is not known everywhere yet.
SETTLING: Final = ("NoSuchEntity", "EntityTemporarilyUnmodifiable", "ConcurrentModification")


@dataclass(frozen=True)
class Wanted:
    """A user or role as it should be."""

    name: str
    path: str
    tags: Mapping[str, str]
    managed: tuple[str, ...]
    """ARNs of the policies to attach."""
    inline: Mapping[str, Document]
    boundary: str | None
    trust: Document | None = None
    """Who may assume the role; None for a user, and where it is not known while planning."""


@dataclass(frozen=True)
class Found:
    """A user or role as it is."""

    arn: str
    path: str
    created: datetime
    """In whole seconds, cut."""
    tags: Mapping[str, str]
    boundary: str | None
    trust: Document | None


def compact(document: Document) -> str:
    """A document as IAM takes it."""
    return msgspec.json.encode(document).decode()


class Principal(ABC):
    """One IAM user or role by name. Methods are IAM's calls, with IAM's errors explained."""

    KIND: str

    def __init__(self, ctx: Context, name: str) -> None:
        self.ctx = ctx
        self.name = name
        self.thing = f"IAM {self.KIND.lower()} {name}"

    def _ask(self, action: str, *, again_on: Collection[str] = (), **more: Any) -> Any:  # noqa: ANN401
        """One IAM action, `CreateRole` for instance, on this name."""
        method = getattr(self.ctx.clients.iam, xform_name(action))
        arguments = {f"{self.KIND}Name": self.name, **more}
        return self.ctx.ask(f"iam:{action}", lambda: method(**arguments), again_on=again_on)

    def _find(self, action: str, *, again_on: Collection[str] = (), **more: Any) -> Any:  # noqa: ANN401 - IAM's own types
        """As `_ask`, and None for what is not there (any more)."""
        try:
            return self._ask(action, again_on=again_on, **more)
        except AwsRefusedError as error:
            if error.code in GONE:
                return None
            raise

    def _all(self, action: str, key: str) -> list[Any]:
        """Every item of a listing, over all pages."""
        method = getattr(self.ctx.clients.iam, xform_name(action))
        pages = self.ctx.pages(f"iam:{action}", method, **{f"{self.KIND}Name": self.name})
        return [item for page in pages for item in page[key]]

    def found(self) -> Found | None:
        """How it is; None where there is none."""
        answer = self._find(f"Get{self.KIND}")
        if answer is None:
            return None
        it = answer[self.KIND]
        return Found(
            arn=it["Arn"],
            path=it["Path"],
            created=it["CreateDate"],
            tags=tag_map(it.get("Tags")),
            boundary=it.get("PermissionsBoundary", {}).get("PermissionsBoundaryArn"),
            trust=it.get("AssumeRolePolicyDocument"),
        )

    def create(self, wanted: Wanted) -> str:
        """Make it, with its tags and boundary from the first moment on; its ARN."""
        more: dict[str, Any] = {"Path": wanted.path, "Tags": tag_list(wanted.tags)}
        if wanted.boundary:
            more["PermissionsBoundary"] = wanted.boundary
        answer = self._ask(
            f"Create{self.KIND}", again_on=self.again_on, **more, **self._made(wanted)
        )
        return str(answer[self.KIND]["Arn"])

    again_on: Collection[str] = ()

    @abstractmethod
    def _made(self, wanted: Wanted) -> dict[str, Any]:
        """What creating this kind needs besides."""

    def delete(self) -> None:
        self._find(f"Delete{self.KIND}", again_on=CONFLICT)

    def retag(self, tags: Mapping[str, str], dropped: Collection[str]) -> None:
        """Set `tags`, remove the keys in `dropped`."""
        if tags:
            self._ask(f"Tag{self.KIND}", again_on=SETTLING, Tags=tag_list(tags))
        if dropped:
            self._ask(f"Untag{self.KIND}", TagKeys=sorted(dropped))

    def put_boundary(self, arn: str) -> None:
        self._ask(f"Put{self.KIND}PermissionsBoundary", PermissionsBoundary=arn)

    def attached(self) -> list[str]:
        """ARNs of the attached policies."""
        found = self._all(f"ListAttached{self.KIND}Policies", "AttachedPolicies")
        return [str(policy["PolicyArn"]) for policy in found]

    def attach(self, arn: str) -> None:
        self._ask(f"Attach{self.KIND}Policy", again_on=SETTLING, PolicyArn=arn)

    def detach(self, arn: str) -> None:
        self._find(f"Detach{self.KIND}Policy", PolicyArn=arn)

    def inline_names(self) -> list[str]:
        return [str(name) for name in self._all(f"List{self.KIND}Policies", "PolicyNames")]

    def inline(self, name: str) -> Document | None:
        """The inline policy of this name; None where there is none."""
        answer = self._find(f"Get{self.KIND}Policy", PolicyName=name)
        return answer["PolicyDocument"] if answer else None

    def put_inline(self, name: str, document: Document) -> None:
        self._ask(
            f"Put{self.KIND}Policy",
            again_on=SETTLING,
            PolicyName=name,
            PolicyDocument=compact(document),
        )

    def delete_inline(self, name: str) -> None:
        self._find(f"Delete{self.KIND}Policy", PolicyName=name)


class User(Principal):
    """An IAM user."""

    KIND = "User"

    def _made(self, wanted: Wanted) -> dict[str, Any]:  # noqa: ARG002 - a user needs nothing more
        return {}


class Role(Principal):
    """An IAM role."""

    KIND = "Role"
    # The principal of the trust policy was made a moment ago, in CAST AI's account.
    again_on = ("MalformedPolicyDocument",)

    def _made(self, wanted: Wanted) -> dict[str, Any]:
        return {"AssumeRolePolicyDocument": compact(wanted.trust or {})}

    def trust(self, document: Document) -> None:
        """Replace who may assume the role."""
        self._ask(
            "UpdateAssumeRolePolicy",
            again_on=(*self.again_on, *SETTLING),
            PolicyDocument=compact(document),
        )


# Ensure -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ensured:
    """What ensuring has led to. The ARN is known also while planning."""

    arn: str
    is_new: bool = False
    is_adopted: bool = False


def ensure(ctx: Context, principal: Principal, wanted: Wanted) -> Ensured:
    """Make or correct the user or role. Policies that someone else attached stay."""
    ledger, thing = ctx.ledger, principal.thing
    found = principal.found()
    if found is None:
        arn = ledger.create(
            thing,
            lambda: principal.create(wanted),
            undo=lambda: _take_back(ctx, principal),
        )
    elif not ctx.may_take(thing, found.tags):
        return Ensured(found.arn)
    else:
        arn = found.arn
        _correct(ctx, principal, wanted, found)
    _attach(ctx, principal, wanted, fresh=found is None)
    _put_inline(ctx, principal, wanted, fresh=found is None)
    kind = principal.KIND.lower()
    arn = arn or ctx.scope.iam(f"{kind}{wanted.path}{principal.name}")
    return Ensured(
        arn=arn,
        is_new=found is None,
        is_adopted=found is not None and not ctx.owner.owns(found.tags),
    )


def _take_back(ctx: Context, principal: Principal) -> None:
    found = principal.found()
    if found and ctx.owner.owns(found.tags):
        principal.delete()


def _correct(ctx: Context, principal: Principal, wanted: Wanted, found: Found) -> None:
    ledger, thing = ctx.ledger, principal.thing
    if found.path != wanted.path:
        ledger.conflict(
            thing, f"has path {found.path}: IAM cannot move it to {wanted.path}; remove it first"
        )
        return
    changed = False
    for detail, write, undo in _corrections(ctx, principal, wanted, found):
        ledger.update(thing, write, undo=undo, detail=detail)
        changed = True
    if not changed:
        ledger.keep(thing)


def _corrections(
    ctx: Context, principal: Principal, wanted: Wanted, found: Found
) -> Iterator[tuple[str, Any, Any]]:
    """What differs: a word for it, the write, and its inverse."""
    missing, dropped = ctx.tag_changes(found.tags, wanted.tags)
    if missing or dropped:
        before = {k: v for k, v in found.tags.items() if k in {*missing, *dropped}}
        added = [key for key in missing if key not in found.tags]
        yield (
            "tags",
            lambda: principal.retag(missing, dropped),
            lambda: principal.retag(before, added),
        )
    if wanted.boundary and wanted.boundary != found.boundary:
        boundary, former = wanted.boundary, found.boundary
        yield (
            "permissions boundary",
            lambda: principal.put_boundary(boundary),
            # A boundary where there was none does no harm, and nobody may take one away.
            (lambda: principal.put_boundary(former)) if former else None,
        )
    if isinstance(principal, Role) and wanted.trust and found.trust:
        role, now, old = principal, wanted.trust, found.trust
        if not equality.same(now, old):
            yield "trust policy", lambda: role.trust(now), lambda: role.trust(old)


def _attach(ctx: Context, principal: Principal, wanted: Wanted, *, fresh: bool) -> None:
    attached = [] if fresh else principal.attached()
    for arn in wanted.managed:
        thing = attachment(principal, arn)
        if arn in attached:
            ctx.ledger.keep(thing)
        else:
            ctx.ledger.create(
                thing,
                lambda arn=arn: principal.attach(arn),  # type: ignore[misc]
                undo=lambda arn=arn: principal.detach(arn),  # type: ignore[misc]
            )


def _put_inline(ctx: Context, principal: Principal, wanted: Wanted, *, fresh: bool) -> None:
    for name, document in wanted.inline.items():
        thing = _inline_thing(principal, name)
        found = None if fresh else principal.inline(name)
        if found is None:
            ctx.ledger.create(
                thing,
                lambda n=name, d=document: principal.put_inline(n, d),  # type: ignore[misc]
                undo=lambda n=name: principal.delete_inline(n),  # type: ignore[misc]
            )
        elif equality.same(found, document):
            ctx.ledger.keep(thing)
        else:
            ctx.ledger.update(
                thing,
                lambda n=name, d=document: principal.put_inline(n, d),  # type: ignore[misc]
                undo=lambda n=name, d=found: principal.put_inline(n, d),  # type: ignore[misc]
            )


def attachment(principal: Principal, arn: str) -> str:
    """The thing that an attached policy is."""
    return f"policy {arn} on {principal.thing}"


def _inline_thing(principal: Principal, name: str) -> str:
    return f"inline policy {name} on {principal.thing}"


# Remove -------------------------------------------------------------------------------------------


def remove(
    ctx: Context, principal: Principal, *, attachable: Collection[str], inline: Collection[str]
) -> None:
    """Remove the user or role if it is ours, with what belongs to it.

    `attachable` and `inline` are the policies that we may have put there. Others were put there
    by someone else: they go only if told so, and else keep the user or role where it is.

    Raises:
        PermanentError: other policies keep it.
    """
    found = principal.found()
    if found is None:
        return
    if not ctx.owner.owns(found.tags):
        if principal.thing not in ctx.ledger.protected:
            ctx.ledger.leave(principal.thing, ownership.described(found.tags))
        return
    attached, inlined = principal.attached(), principal.inline_names()
    foreign = [a for a in attached if a not in attachable] + [n for n in inlined if n not in inline]
    leaving = principal.thing not in ctx.ledger.protected
    told = ctx.onboarding.detach_foreign_policies
    for arn in attached:
        if arn in attachable or (leaving and told):
            ctx.ledger.delete(
                attachment(principal, arn),
                lambda arn=arn: principal.detach(arn),  # type: ignore[misc]
            )
    for name in inlined:
        if name in inline or (leaving and told):
            ctx.ledger.delete(
                _inline_thing(principal, name),
                lambda n=name: principal.delete_inline(n),  # type: ignore[misc]
            )
    if leaving and foreign and not told:
        raise PermanentError(
            f"Detach {', '.join(foreign)} from {principal.thing}, or set DetachForeignPolicies: "
            "someone else put it there"
        )
    ctx.ledger.delete(principal.thing, principal.delete)
