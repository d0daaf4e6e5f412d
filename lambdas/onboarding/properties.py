"""CloudFormation's request, typed: every fault of the properties in one error. Pure.

Properties come as CloudFormation sends them: every scalar a string, lists and maps as they are.
`SchemaVersion` says which release wrote them. Properties of this release are checked strictly, an
unknown name included; those of another release are read as far as they are understood, because a
rollback and a Delete send what an earlier release wrote.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, cast

import msgspec
from msgspec import Meta, Struct, field

from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.errors import CastaiError, PermanentError
from lambdas.onboarding import names
from lambdas.onboarding.policies.scope import Mode, Permissions

SCHEMA_VERSION: Final = "1"
"""Written by the stack into each resource; raised when a property changes its meaning."""

CREATE_SECURITY_GROUP: Final = "create"
MAX_TAGS: Final = 40  # IAM and EC2 allow 50 on a thing: ours and AWS's own need room
# CodeVersion makes CloudFormation send an Update when a release's code does something else.
_NOT_OURS: Final = frozenset({"ServiceToken", "ServiceTimeout", "SchemaVersion", "CodeVersion"})


class Kind(StrEnum):
    """What CloudFormation asks for."""

    CREATE = "Create"
    UPDATE = "Update"
    DELETE = "Delete"


class ClusterAccess(StrEnum):
    """How principals are made known to the cluster."""

    AUTO = "auto"  # access entries where the cluster has them, else aws-auth
    ENTRIES = "access-entries"
    AWS_AUTH = "aws-auth"
    NONE = "none"


_Arn = Annotated[str, Meta(pattern=r"^arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:\d{12}:.+$")]
_SecurityGroupId = Annotated[str, Meta(pattern=r"^sg-[0-9a-f]{8,17}$")]
_TagKey = Annotated[str, Meta(pattern=r"^[\w .:/=+@-]{1,128}$")]
_TagValue = Annotated[str, Meta(pattern=r"^[\w .:/=+@-]{0,256}$")]


class Onboarding(Struct, frozen=True, kw_only=True, rename="pascal"):
    """The properties of one `Custom::CastEksOnboarding`; field names are pascal-cased there."""

    cluster_name: str
    mode: Mode = Mode.USER
    cluster_id: str | None = None
    """CAST AI's id of the cluster; without it the cluster is registered through the API."""
    api_url: str = DEFAULT_URL
    api_key_secret: str | None = None
    """Name or ARN of the Secrets Manager secret with CAST AI's API key; never the key."""
    principal_arn: _Arn | None = None
    """Who may assume the role, from CAST AI's console; needed only without ApiKeySecret."""
    permissions: Permissions = Permissions.FULL
    manage_spot_lambda: bool = False
    """Whether CAST AI's identity may manage a spot function of its own, under a role of its own."""
    account_wide_policy: bool = False
    """Use the one `CastEKSPolicy` of the account instead of a policy of this cluster's own."""
    permissions_boundary: _Arn | None = None
    path: str = "/"
    tags: dict[_TagKey, _TagValue] = field(default_factory=dict)
    security_group: tuple[_SecurityGroupId, ...] = ()
    """Ids of existing groups, which are used and never touched; none (`create`): make one."""
    ssm_on_nodes: bool = False
    ebs_csi_on_nodes: bool = False
    cluster_access: ClusterAccess = ClusterAccess.AUTO
    spot_handler_role_arn: _Arn | None = None
    """Role of the spot handler; with it the handler gets its access to this cluster."""
    spot_handler_entry: bool = True
    """Whether the role's access entry is ours to make; false: the spot handler's stack makes it."""
    kms_key: str | None = None
    """Key (id, ARN or alias) for the secret of the access key; without it, AWS's own."""
    rotation_id: Annotated[str, Meta(pattern=r"^[\w .:/=+@-]{0,256}$")] = ""
    """Any text; changing it makes a new access key and removes the old one."""
    require_agent: bool = True
    adopt: bool = False
    """Take over what another tool, or another resource, made for this cluster."""
    detach_foreign_policies: bool = False
    """On removal, detach also policies that someone else attached to our user and roles."""
    retain_on_delete: bool = False


_ALLOWED: Final[Mapping[str, str]] = {
    "principal_arn": "the ARN of an IAM user or role",
    "permissions_boundary": "the ARN of an IAM policy",
    "spot_handler_role_arn": "the ARN of an IAM role",
    "tags": "a map of at most "
    f"{MAX_TAGS} tags: keys of 1 to 128, values of 0 to 256 letters, digits, spaces and _.:/=+-@",
    "security_group": f'"{CREATE_SECURITY_GROUP}" or a list of security group ids (sg-…)',
    "rotation_id": "at most 256 letters, digits, spaces and _.:/=+-@",
}


class RequestRefusedError(PermanentError):
    """The properties are wrong. The message lists every fault, one a line."""


@dataclass(frozen=True)
class Request:
    """One request of CloudFormation, as the Provider framework hands it on."""

    kind: Kind
    onboarding: Onboarding
    resource: str
    """Stack name and logical id: which resource of which stack asks."""
    previous: Onboarding | None = None
    """What an Update comes from, as far as it can be read."""
    physical_id: str | None = None


def parse_request(event: Mapping[str, Any]) -> Request:
    """Read an onEvent request of the Provider framework.

    Create and Update are checked strictly, Delete takes what it can read: a removal must not fail
    over a property that it does not need.

    Raises:
        RequestRefusedError: every fault of the properties, or a request that is none.
    """
    try:
        kind = Kind(event["RequestType"])
        properties = event["ResourceProperties"]
        resource = f"{_stack_name(event['StackId'])}/{event['LogicalResourceId']}"
    except (KeyError, ValueError, TypeError) as error:
        raise RequestRefusedError(
            f"Call this function through CloudFormation: the request has no usable {error}"
        ) from error
    old = event.get("OldResourceProperties")
    return Request(
        kind=kind,
        onboarding=parse(properties, tolerant=kind is Kind.DELETE),
        resource=resource[:256],  # it becomes a tag's value
        previous=_previous(old) if kind is Kind.UPDATE else None,
        physical_id=event.get("PhysicalResourceId"),
    )


def parse(
    properties: Mapping[str, Any], *, tolerant: bool = False, complete: bool = True
) -> Onboarding:
    """Check the properties and give them types.

    `tolerant` takes the default for what cannot be read; ClusterName is needed even so. Without
    `complete` each property is checked, and not whether all together are enough to onboard.

    Raises:
        RequestRefusedError: lists every fault.
    """
    values, faults = _converted(properties)
    if not tolerant and _is_current(properties):
        faults = [*_unknown(properties), *faults]
    if faults and (not tolerant or "cluster_name" not in values):
        raise _refused(faults)
    onboarding = Onboarding(**values)
    if not tolerant and complete and (faults := list(_contradictions(onboarding))):
        raise _refused(faults)
    return onboarding


def faults_of(properties: Mapping[str, Any]) -> list[str]:
    """Every fault of the properties, as `parse` would say it; for the synth, before any deploy."""
    values, faults = _converted(properties)
    faults = [*_unknown(properties), *faults]
    return faults or list(_contradictions(Onboarding(**values)))


def _is_current(properties: Mapping[str, Any]) -> bool:
    """Whether this release wrote the properties."""
    return str(properties.get("SchemaVersion", SCHEMA_VERSION)) == SCHEMA_VERSION


def _previous(properties: object) -> Onboarding | None:
    """The old properties of an Update; None where not even the cluster's name can be read."""
    try:
        return parse(cast("Mapping[str, Any]", properties), tolerant=True)
    except (RequestRefusedError, AttributeError):
        return None


def _stack_name(stack_id: str) -> str:
    """The name in a stack's ARN, `arn:…:stack/<name>/<uuid>`."""
    return stack_id.split("/")[1] if stack_id.count("/") > 1 else stack_id


def _refused(faults: list[str]) -> RequestRefusedError:
    return RequestRefusedError("Correct these properties:\n" + "\n".join(f"- {f}" for f in faults))


def _converted(properties: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Each property by itself, because msgspec stops at the first fault of a struct."""
    values: dict[str, Any] = {}
    faults: list[str] = []
    for each in msgspec.structs.fields(Onboarding):
        given = properties.get(each.encode_name)
        if given is None or given == "":
            if each.required:
                faults.append(f"{each.encode_name}: is missing")
            continue
        try:
            if each.name == "security_group":
                given = _security_groups(given)
            value = msgspec.convert(given, each.type, strict=False)
            values[each.name] = _CHECKS[each.name](value) if each.name in _CHECKS else value
        except msgspec.ValidationError as error:
            allowed = _ALLOWED.get(each.name) or _kinds(each.type)
            faults.append(f"{each.encode_name}: give {allowed}, not {_shown(given)} ({error})")
        except CastaiError as error:
            faults.append(f"{each.encode_name}: {error}")
    return values, faults


def _security_groups(given: object) -> object:
    """`create` as no id at all. (As a union of text and list, msgspec 0.22 crashes over it.)"""
    if given == CREATE_SECURITY_GROUP:
        return ()
    if not isinstance(given, list | tuple) or not given:
        raise RequestRefusedError(f"give {_ALLOWED['security_group']}, not {_shown(given)}")
    return given


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """Refuse too many tags, and keys that AWS or ownership claim."""
    reserved = [key for key in tags if key.lower().startswith(("aws:", "castai-eks:", "cast:"))]
    if reserved:
        raise RequestRefusedError(
            f"choose other keys than {', '.join(sorted(reserved))}: "
            "aws:, cast: and castai-eks: are reserved"
        )
    if len(tags) > MAX_TAGS:
        raise RequestRefusedError(f"give at most {MAX_TAGS} tags, not {len(tags)}")
    return tags


def _checked_cluster_id(cluster_id: str) -> str:
    names.short_id(cluster_id)
    return cluster_id.lower()


_CHECKS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "cluster_name": names.checked_cluster,
    "cluster_id": _checked_cluster_id,
    "path": names.checked_path,
    "tags": _checked_tags,
    "api_url": checked_url,
}


def _unknown(properties: Mapping[str, Any]) -> list[str]:
    known = [each.encode_name for each in msgspec.structs.fields(Onboarding)]
    faults = []
    for name in properties:
        if name in known or name in _NOT_OURS:
            continue
        close = difflib.get_close_matches(name, known, n=1)
        hint = f": did you mean {close[0]}?" if close else ""
        faults.append(f"{name}: there is no such property{hint}")
    return faults


def _contradictions(onboarding: Onboarding) -> list[str]:
    """What each property allows and all together do not."""
    faults = []
    if not onboarding.cluster_id and not onboarding.api_key_secret:
        faults.append(
            "ClusterId: give CAST AI's id of the cluster, or ApiKeySecret so that it is registered"
        )
    if (
        onboarding.mode is Mode.ROLE
        and not onboarding.api_key_secret
        and not onboarding.principal_arn
    ):
        faults.append(
            "PrincipalArn: give who may assume the role (CAST AI's console shows it), "
            "or ApiKeySecret so that it is asked for"
        )
    if onboarding.account_wide_policy and onboarding.permissions is Permissions.STRICT:
        faults.append("AccountWidePolicy: a policy bound to one cluster's tags cannot be shared")
    role = (onboarding.spot_handler_role_arn or "").rpartition("/")[2]
    if onboarding.manage_spot_lambda and (fault := fault_of_spot_role(role)):
        faults.append(f"SpotHandlerRoleArn: {fault}")
    try:
        if onboarding.mode is Mode.USER:
            names.user_name(onboarding.cluster_name)
        names.security_group_name(onboarding.cluster_name)
    except names.NameRefusedError as error:
        faults.append(f"ClusterName: {error}")
    return faults


def fault_of_spot_role(name: str) -> str:
    """Why the spot handler's role may not have this name where CAST AI manages a function."""
    if not fnmatchcase(name, names.ANY_LAMBDA_ROLE):
        return ""
    return (
        f"choose a name that does not match {names.ANY_LAMBDA_ROLE}, or set ManageSpotLambda to "
        "false: CAST AI may run any code as a role of this name"
    )


def _kinds(kind: Any) -> str:  # noqa: ANN401 - a type annotation, as msgspec reports it
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return " or ".join(f'"{member}"' for member in kind)
    return "true or false" if kind is bool else "text"


def _shown(value: object) -> str:
    """A value for an error, cut: a property could hold anything, even a key by mistake."""
    if isinstance(value, str) and re.fullmatch(r"[\w .:/=+@,-]{0,60}", value):
        return f'"{value}"'
    return f"a {type(value).__name__} of length {len(value)}" if hasattr(value, "__len__") else "?"
