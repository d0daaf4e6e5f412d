"""Read CloudFormation's request into types; one error has every fault of the properties. Pure.

CloudFormation sends every scalar as a string, and lists and maps as they are. `SchemaVersion` is
the version of the release that wrote the properties. Properties of this release are checked
strictly, also for unknown names. Properties of another release are read as far as possible, because
a rollback and a Delete send what an earlier release wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Annotated, Any, Final, cast

from msgspec import Meta, Struct, field

from lambdas.common import properties
from lambdas.common.castai import DEFAULT_URL, checked_url
from lambdas.common.cloudformation import (
    RequestType,
    owner,
    request_type,
    resource_properties,
)
from lambdas.common.errors import PermanentError
from lambdas.common.properties import Fault, PropertiesError
from lambdas.common.property_types import SecretId, SecurityGroupId, TagKey, TagValue
from lambdas.onboarding import names
from lambdas.onboarding.policies.scope import Mode, Permissions

SCHEMA_VERSION: Final = "1"
"""The stack writes it into each resource. It increases when a property changes its meaning."""

CREATE_SECURITY_GROUP: Final = "create"
MAX_TAGS: Final = 40
"""IAM and EC2 allow 50 tags on a resource. This project and AWS need room for their own."""
# Properties that the stack adds. With CodeVersion CloudFormation sends an Update when the code of
# the function changes.
_OF_THE_STACK: Final = frozenset({"ServiceToken", "ServiceTimeout", "SchemaVersion", "CodeVersion"})


class ClusterAccess(StrEnum):
    """How principals get access to the cluster."""

    AUTO = "auto"  # access entries where the cluster has them, else aws-auth
    ENTRIES = "access-entries"
    AWS_AUTH = "aws-auth"
    NONE = "none"


def _security_groups(given: object) -> object:
    """Return `create` as an empty list. (msgspec 0.22 crashes with a union of text and list.)"""
    if given == CREATE_SECURITY_GROUP:
        return ()
    if not isinstance(given, list | tuple) or not given:
        raise PermanentError(f"give {_GROUPS}")
    return given


def _checked_tags(tags: dict[str, str]) -> dict[str, str]:
    """Refuse too many tags, and keys that AWS, CAST AI or this project reserve."""
    reserved = [key for key in tags if key.lower().startswith(("aws:", "castai-eks:", "cast:"))]
    if reserved:
        raise PermanentError(
            f"choose other keys than {', '.join(sorted(reserved))}: "
            "aws:, cast: and castai-eks: are reserved"
        )
    if len(tags) > MAX_TAGS:
        raise PermanentError(f"give at most {MAX_TAGS} tags, not {len(tags)}")
    return tags


def _checked_cluster_id(cluster_id: str) -> str:
    names.short_id(cluster_id)
    return cluster_id.lower()


_GROUPS: Final = f'"{CREATE_SECURITY_GROUP}" or a list of security group ids (sg-…)'
_Arn = Annotated[str, Meta(pattern=r"^arn:aws[a-z-]*:[a-z0-9-]+:[a-z0-9-]*:\d{12}:.+$")]

# Annotations of the properties that are settings of their own in the CDK context as well.
ModeProperty = Annotated[
    Mode, Meta(description="CAST AI's identity: an IAM user, or an IAM role that it assumes.")
]
PermissionsProperty = Annotated[
    Permissions,
    Meta(
        description="What CAST AI may do. `full`: everything that its product names. `standard`: "
        "what it requires today. `strict`: the same, limited to the tags of the cluster.",
        extra={"former": {"seeds": "full", "current": "standard", "tight": "strict"}},
    ),
]
PolicyArn = Annotated[
    str,
    Meta(
        pattern=r"^arn:[a-z-]+:iam::(\d{12}|aws):policy/.+$",
        title="the ARN of an IAM policy",
        description="Permissions boundary of the user and roles that the onboarding and CAST AI "
        "create.",
    ),
]
RotationId = Annotated[
    str,
    Meta(
        pattern=r"^[\w .:/=+@-]{0,256}$",
        title="at most 256 letters, digits, spaces and _.:/=+-@",
        description="Any text. Change it to replace the user's access key.",
    ),
]


class Onboarding(Struct, frozen=True, kw_only=True, rename="pascal"):
    """The properties of one `Custom::CastEksOnboarding`; field names are pascal-cased there."""

    cluster_name: Annotated[
        str, Meta(description="The EKS cluster.", extra={"check": names.checked_cluster})
    ]
    mode: ModeProperty = Mode.USER
    cluster_id: Annotated[
        str | None,
        Meta(
            description="CAST AI's id of the cluster. Without it the cluster is registered "
            "through the API.",
            extra={"check": _checked_cluster_id},
        ),
    ] = None
    api_url: Annotated[
        str, Meta(description="URL of CAST AI's API.", extra={"check": checked_url})
    ] = DEFAULT_URL
    api_key_secret: Annotated[
        SecretId | None,
        Meta(
            description="Name or ARN of the Secrets Manager secret with CAST AI's API key. It is "
            "never the key itself."
        ),
    ] = None
    principal_arn: Annotated[
        _Arn | None,
        Meta(
            title="the ARN of an IAM user or role",
            description="CAST AI's principal, which may assume the role. CAST AI's console shows "
            "it. Needed only without ApiKeySecret.",
        ),
    ] = None
    permissions: PermissionsProperty = Permissions.FULL
    manage_spot_lambda: Annotated[
        bool,
        Meta(
            description="Let CAST AI manage a spot function of its own, under a role of its own. "
            "Only an old CAST AI setup needs it, because this app deploys the function."
        ),
    ] = False
    account_wide_policy: Annotated[
        bool,
        Meta(
            description="Use the one `CastEKSPolicy` of the account instead of one for each "
            "cluster."
        ),
    ] = False
    permissions_boundary: PolicyArn | None = None
    path: Annotated[
        str,
        Meta(
            title="an IAM path, which begins and ends with a slash",
            description="IAM path of the user, roles and policies that the onboarding creates.",
            extra={"check": names.checked_path},
        ),
    ] = "/"
    tags: Annotated[
        dict[TagKey, TagValue],
        Meta(
            title=f"a map of at most {MAX_TAGS} tags: keys of 1 to 128, values of 0 to 256 "
            "letters, digits, spaces and _.:/=+-@",
            description="Tags of everything that the onboarding creates, in addition to "
            "`castai:tags`.",
            extra={"check": _checked_tags},
        ),
    ] = field(default_factory=dict)
    security_group: Annotated[
        tuple[SecurityGroupId, ...],
        Meta(
            title=_GROUPS,
            description="Existing security groups for the nodes; they are not changed. `create`, "
            "the default: the onboarding creates one.",
            extra={"before": _security_groups},
        ),
    ] = ()
    ssm_on_nodes: Annotated[
        bool, Meta(description="Let Session Manager reach the nodes that CAST AI adds.")
    ] = False
    ebs_csi_on_nodes: Annotated[
        bool, Meta(description="Let the EBS CSI driver use the node role.")
    ] = False
    cluster_access: Annotated[
        ClusterAccess,
        Meta(
            description="How the nodes and the user get access to the cluster. `auto`: by access "
            "entries if the cluster has them, else by `aws-auth`. Set `aws-auth` for a cluster "
            "with the authentication mode `CONFIG_MAP`: the synth cannot read the mode, and with "
            "`auto` the spot handler's stack would create an access entry."
        ),
    ] = ClusterAccess.AUTO
    spot_handler_role_arn: Annotated[
        _Arn | None,
        Meta(
            title="the ARN of an IAM role",
            description="Role of a spot handler that gets access to the cluster. The stack sets "
            "it with `castai:onboardSpotHandler`.",
        ),
    ] = None
    spot_handler_entry: Annotated[
        bool,
        Meta(
            description="Create the access entry of that role. The stack sets it to false if the "
            "spot handler's stack creates the entry."
        ),
    ] = True
    kms_key: Annotated[
        str | None,
        Meta(
            title="the id, ARN or alias of a KMS key",
            description="KMS key of the secret with the user's access key. Without it Secrets "
            "Manager uses AWS's own key. In the CDK context only the ARN of a key is allowed.",
        ),
    ] = None
    rotation_id: RotationId = ""
    require_agent: Annotated[
        bool, Meta(description="Refuse a cluster whose castai-agent does not run.")
    ] = True
    adopt: Annotated[
        bool,
        Meta(
            description="Take over what CAST AI's script, or another tool or resource, created "
            "for this cluster."
        ),
    ] = False
    detach_foreign_policies: Annotated[
        bool,
        Meta(
            description="On removal, also detach policies that others attached to the user and "
            "the roles."
        ),
    ] = False
    retain_on_delete: Annotated[
        bool, Meta(description="Keep everything when the custom resource is deleted.")
    ] = False


@dataclass(frozen=True)
class Request:
    """One request of CloudFormation, as the Provider framework passes it on."""

    type: RequestType
    onboarding: Onboarding
    resource: str
    """Stack name and logical id of the custom resource; at most 256 characters, a tag's value."""
    previous: Onboarding | None = None
    """The properties before an Update, as far as they can be read."""
    physical_id: str | None = None


def parse_request(event: Mapping[str, Any]) -> Request:
    """Read an onEvent request of the Provider framework.

    Create and Update are checked strictly. Delete ignores what it cannot read: a removal must not
    fail because of a property that it does not need.

    Raises PropertiesError with every fault of the properties, MalformedRequestError where the event
    is no request.
    """
    kind = request_type(event)
    return Request(
        type=kind,
        onboarding=parse(resource_properties(event), tolerant=kind is RequestType.DELETE),
        resource=owner(event)[:256],
        previous=_previous(event.get("OldResourceProperties"))
        if kind is RequestType.UPDATE
        else None,
        physical_id=event.get("PhysicalResourceId"),
    )


def parse(given: Mapping[str, Any], *, tolerant: bool = False, complete: bool = True) -> Onboarding:
    """Check the properties and give them types.

    With `tolerant` a property that cannot be read gets its default; only ClusterName is required.
    Without `complete` each property is checked alone, and not whether all together are enough to
    onboard.

    Raises PropertiesError with every fault.
    """
    values, faults = properties.read(Onboarding, given)
    if not tolerant and _is_current(given):
        faults = [*_unknown(given), *faults]
    if faults and (not tolerant or "cluster_name" not in values):
        raise PropertiesError(faults)
    onboarding = Onboarding(**values)
    if not tolerant and complete and (faults := list(_contradictions(onboarding))):
        raise PropertiesError(faults)
    return onboarding


def faults_of(given: Mapping[str, Any], *, complete: bool = True) -> list[Fault]:
    """Every fault of the properties that `parse` would raise, for the synth."""
    values, faults = properties.read(Onboarding, given)
    faults = [*_unknown(given), *faults]
    if faults or not complete:
        return faults
    return list(_contradictions(Onboarding(**values)))


def _is_current(given: Mapping[str, Any]) -> bool:
    """Whether this release wrote the properties."""
    return str(given.get("SchemaVersion", SCHEMA_VERSION)) == SCHEMA_VERSION


def _previous(given: object) -> Onboarding | None:
    """The old properties of an Update; None if the cluster's name cannot be read."""
    try:
        return parse(cast("Mapping[str, Any]", given), tolerant=True)
    except (PropertiesError, AttributeError):
        return None


def _unknown(given: Mapping[str, Any]) -> Iterator[Fault]:
    return properties.unknown([*properties.names(Onboarding), *_OF_THE_STACK], given)


def _contradictions(onboarding: Onboarding) -> Iterator[Fault]:
    """Faults of several properties together."""
    if not onboarding.cluster_id and not onboarding.api_key_secret:
        yield Fault(
            "ClusterId",
            "give CAST AI's id of the cluster, or ApiKeySecret so that it is registered",
        )
    if (
        onboarding.mode is Mode.ROLE
        and not onboarding.api_key_secret
        and not onboarding.principal_arn
    ):
        yield Fault(
            "PrincipalArn",
            "give the principal that may assume the role (CAST AI's console shows it), or "
            "ApiKeySecret so that CAST AI's API returns it",
        )
    if onboarding.account_wide_policy and onboarding.permissions is Permissions.STRICT:
        why = "a policy bound to one cluster's tags cannot be shared"
        yield Fault("AccountWidePolicy", why)
    role = (onboarding.spot_handler_role_arn or "").rpartition("/")[2]
    if onboarding.manage_spot_lambda and (fault := fault_of_spot_role(role)):
        yield Fault("SpotHandlerRoleArn", fault)
    try:
        if onboarding.mode is Mode.USER:
            names.user_name(onboarding.cluster_name)
        names.security_group_name(onboarding.cluster_name)
    except names.NameRefusedError as error:
        yield Fault("ClusterName", str(error))


def fault_of_spot_role(name: str) -> str:
    """Why the spot handler's role may not have this name with ManageSpotLambda; else empty."""
    if not fnmatchcase(name, names.ANY_CASTAI_FUNCTION_ROLE):
        return ""
    return (
        f"choose a name that does not match {names.ANY_CASTAI_FUNCTION_ROLE}, or set "
        "ManageSpotLambda to false: CAST AI may run any code as a role of this name"
    )
