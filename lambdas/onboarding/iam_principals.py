"""IAM users and roles behind one interface: the same code creates, corrects and removes both."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Any, Final

import msgspec

from lambdas.common.errors import PermanentError
from lambdas.onboarding import ownership
from lambdas.onboarding.context import Context
from lambdas.onboarding.policies import equality
from lambdas.onboarding.policies.document import Document
from lambdas.onboarding.tags import correct_tags, tag_list, tag_map

CONFLICT: Final = ("DeleteConflict",)
"""For a moment IAM may still see a policy or role that was detached before the deletion."""
SETTLING: Final = ("NoSuchEntity", "EntityTemporarilyUnmodifiable", "ConcurrentModification")
"""IAM is eventually consistent: what was just created may not be visible everywhere yet."""


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
    """The trust policy of a role; None for a user, and in a plan without CAST AI's principal."""


@dataclass(frozen=True)
class Found:
    """A user or role as it is."""

    arn: str
    path: str
    created: datetime
    """In whole seconds, rounded down."""
    tags: Mapping[str, str]
    boundary: str | None
    trust: Document | None


@dataclass(frozen=True)
class Ensured:
    """A user or role after `ensure`."""

    arn: str = ""
    """Also set in a plan."""
    is_new: bool = False
    is_adopted: bool = False


def compact(document: Document) -> str:
    """A document as IAM takes it."""
    return msgspec.json.encode(document).decode()


class Principal(ABC):
    """One IAM user or role by name."""

    KIND: str

    def __init__(self, ctx: Context, name: str) -> None:
        self.ctx = ctx
        self.name = name
        self.label = f"IAM {self.KIND.lower()} {name}"

    def _method(self, name: str) -> Any:  # noqa: ANN401 - chosen by the kind
        """The client's method; `{kind}` in its name stands for user or role."""
        return getattr(self.ctx.clients.iam, name.format(kind=self.KIND.lower()))

    @property
    def _name(self) -> dict[str, str]:
        return {f"{self.KIND}Name": self.name}

    def _call(self, name: str, *, retrying: Collection[str] = (), **more: Any) -> Any:  # noqa: ANN401 - IAM's own types
        """One call about this user or role."""
        return self.ctx.retrying(retrying).call(self._method(name), **self._name, **more)

    def _find(self, name: str, *, retrying: Collection[str] = (), **more: Any) -> Any:  # noqa: ANN401 - IAM's own types
        """As `_call`; None where it does not exist."""
        return self.ctx.retrying(retrying).find(self._method(name), **self._name, **more)

    def found(self) -> Found | None:
        """The user or role as it is; None where it does not exist."""
        if not self.ctx.plan_only:
            return self._read()
        if self.label not in self.ctx.reads:
            self.ctx.reads[self.label] = self._read()
        known: Found | None = self.ctx.reads[self.label]
        return known

    def _read(self) -> Found | None:
        answer = self._find("get_{kind}")
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
        """Create it with its tags and boundary; returns its ARN."""
        more: dict[str, Any] = {"Path": wanted.path, "Tags": tag_list(wanted.tags)}
        if wanted.boundary:
            more["PermissionsBoundary"] = wanted.boundary
        answer = self._call(
            "create_{kind}", retrying=self.SETTLING_TRUST, **more, **self._created_with(wanted)
        )
        return str(answer[self.KIND]["Arn"])

    SETTLING_TRUST: Collection[str] = ()
    """Refusals of a trust policy that pass with time."""

    @abstractmethod
    def _created_with(self, wanted: Wanted) -> dict[str, Any]:
        """The further arguments to create this kind."""

    def delete(self) -> None:
        self._find("delete_{kind}", retrying=CONFLICT)

    def tag(self, tags: Mapping[str, str]) -> None:
        self._call("tag_{kind}", retrying=SETTLING, Tags=tag_list(tags))

    def untag(self, keys: Collection[str]) -> None:
        self._call("untag_{kind}", TagKeys=sorted(keys))

    def put_boundary(self, arn: str) -> None:
        self._call("put_{kind}_permissions_boundary", PermissionsBoundary=arn)

    def attached(self) -> list[str]:
        """ARNs of the attached policies."""
        method = self._method("list_attached_{kind}_policies")
        found = self.ctx.items(method, "AttachedPolicies", **self._name)
        return [str(policy["PolicyArn"]) for policy in found]

    def attach(self, arn: str) -> None:
        self._call("attach_{kind}_policy", retrying=SETTLING, PolicyArn=arn)

    def detach(self, arn: str) -> None:
        self._find("detach_{kind}_policy", PolicyArn=arn)

    def inline_names(self) -> list[str]:
        """Names of the inline policies."""
        method = self._method("list_{kind}_policies")
        return [str(name) for name in self.ctx.items(method, "PolicyNames", **self._name)]

    def inline(self, name: str) -> Document | None:
        """The inline policy of this name; None where it does not exist."""
        answer = self._find("get_{kind}_policy", PolicyName=name)
        return answer["PolicyDocument"] if answer else None

    def put_inline(self, name: str, document: Document) -> None:
        self._call(
            "put_{kind}_policy",
            retrying=SETTLING,
            PolicyName=name,
            PolicyDocument=compact(document),
        )

    def delete_inline(self, name: str) -> None:
        self._find("delete_{kind}_policy", PolicyName=name)


class User(Principal):
    """An IAM user."""

    KIND = "User"

    def _created_with(self, wanted: Wanted) -> dict[str, Any]:  # noqa: ARG002 - a user needs nothing more
        return {}


class Role(Principal):
    """An IAM role."""

    KIND = "Role"
    # CAST AI has just created the principal of the trust policy: IAM may not see it yet.
    SETTLING_TRUST = ("MalformedPolicyDocument",)

    def _created_with(self, wanted: Wanted) -> dict[str, Any]:
        return {"AssumeRolePolicyDocument": compact(wanted.trust or {})}

    def trust(self, document: Document) -> None:
        """Replace who may assume the role."""
        self._call(
            "update_assume_role_policy",
            retrying=(*self.SETTLING_TRUST, *SETTLING),
            PolicyDocument=compact(document),
        )


# Ensure -------------------------------------------------------------------------------------------


def ensure(ctx: Context, principal: Principal, wanted: Wanted) -> Ensured:
    """Create or correct the user or role. Policies that others attached stay."""
    found = principal.found()
    if found is None:
        arn = ctx.ledger.create(
            principal.label,
            lambda: principal.create(wanted),
            undo=lambda: _undo_create(ctx, principal),
        )
    elif not ctx.may_take(principal.label, found.tags):
        return Ensured(found.arn)
    else:
        arn = found.arn
        _correct(ctx, principal, wanted, found)
    _attach(ctx, principal, wanted, is_new=found is None)
    _put_inline(ctx, principal, wanted, is_new=found is None)
    return Ensured(
        arn=arn or ctx.scope.iam(f"{principal.KIND.lower()}{wanted.path}{principal.name}"),
        is_new=found is None,
        is_adopted=found is not None and not ctx.owner.owns(found.tags),
    )


def _undo_create(ctx: Context, principal: Principal) -> None:
    found = principal.found()
    if found and ctx.owner.owns(found.tags):
        principal.delete()


def _correct(ctx: Context, principal: Principal, wanted: Wanted, found: Found) -> None:
    label = principal.label
    if found.path != wanted.path:
        ctx.ledger.conflict(
            label, f"has path {found.path}: IAM cannot move it to {wanted.path}; remove it first"
        )
        return
    corrected = [
        correct_tags(ctx, label, found.tags, wanted.tags, put=principal.tag, drop=principal.untag),
        _correct_boundary(ctx, principal, wanted.boundary, found.boundary),
        isinstance(principal, Role) and _correct_trust(ctx, principal, wanted.trust, found.trust),
    ]
    if not any(corrected):
        ctx.ledger.keep(label)


def _correct_boundary(
    ctx: Context, principal: Principal, wanted: str | None, found: str | None
) -> bool:
    if not wanted or wanted == found:
        return False
    ctx.ledger.update(
        principal.label,
        partial(principal.put_boundary, wanted),
        # A new boundary is not undone: it is harmless, and no policy here allows to remove it.
        undo=partial(principal.put_boundary, found) if found else None,
        detail="permissions boundary",
    )
    return True


def _correct_trust(
    ctx: Context, role: Role, wanted: Document | None, found: Document | None
) -> bool:
    if not wanted or not found or equality.same(wanted, found):
        return False
    ctx.ledger.update(
        role.label,
        partial(role.trust, wanted),
        undo=partial(role.trust, found),
        detail="trust policy",
    )
    return True


def _attach(ctx: Context, principal: Principal, wanted: Wanted, *, is_new: bool) -> None:
    attached = [] if is_new else principal.attached()
    for arn in wanted.managed:
        label = attachment_label(principal, arn)
        if arn in attached:
            ctx.ledger.keep(label)
        else:
            ctx.ledger.create(
                label, partial(principal.attach, arn), undo=partial(principal.detach, arn)
            )


def _put_inline(ctx: Context, principal: Principal, wanted: Wanted, *, is_new: bool) -> None:
    for name, document in wanted.inline.items():
        label = _inline_label(principal, name)
        put = partial(principal.put_inline, name)
        found = None if is_new else principal.inline(name)
        if found is None:
            ctx.ledger.create(
                label, partial(put, document), undo=partial(principal.delete_inline, name)
            )
        elif equality.same(found, document):
            ctx.ledger.keep(label)
        else:
            ctx.ledger.update(label, partial(put, document), undo=partial(put, found))


def attachment_label(principal: Principal, arn: str) -> str:
    """An attached policy in rows and messages."""
    return f"policy {arn} on {principal.label}"


def _inline_label(principal: Principal, name: str) -> str:
    return f"inline policy {name} on {principal.label}"


# Remove -------------------------------------------------------------------------------------------


def remove(
    ctx: Context, principal: Principal, *, attachable: Collection[str], inline: Collection[str]
) -> None:
    """Remove the user or role if it is ours, with its policies.

    `attachable` and `inline` are the policies that we may have put there. Policies of others are
    detached only with DetachForeignPolicies.

    Raises PermanentError if policies of others are not detached: the user or role then stays.
    """
    label = principal.label
    found = principal.found()
    if found is None:
        return
    if not ctx.owner.owns(found.tags):
        if label not in ctx.ledger.protected:
            ctx.ledger.leave(label, ownership.described(found.tags))
        return
    attached, inlined = principal.attached(), principal.inline_names()
    foreign = [a for a in attached if a not in attachable] + [n for n in inlined if n not in inline]
    is_removed = label not in ctx.ledger.protected
    detach_foreign = ctx.onboarding.detach_foreign_policies
    for arn in attached:
        if arn in attachable or (is_removed and detach_foreign):
            ctx.ledger.delete(attachment_label(principal, arn), partial(principal.detach, arn))
    for name in inlined:
        if name in inline or (is_removed and detach_foreign):
            ctx.ledger.delete(
                _inline_label(principal, name), partial(principal.delete_inline, name)
            )
    if is_removed and foreign and not detach_foreign:
        raise PermanentError(
            f"Detach {', '.join(foreign)} from {label}, or set DetachForeignPolicies: "
            "this project did not put it there"
        )
    ctx.ledger.delete(label, principal.delete)
