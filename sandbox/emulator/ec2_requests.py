"""The resources that EC2 authorizes for a request, each with condition keys of its own.

The emulator evaluates one resource, and all tags of the request together. On AWS every resource of
a launch has to be allowed, and tags on a new resource need ec2:CreateTags, too.
Sources: service authorization reference, "Actions, resources, and condition keys for Amazon EC2";
EC2 user guide, "Grant permission to tag Amazon EC2 resources during creation".
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

from authorization import Check, Parameters, first

Records = Mapping[str, Mapping[str, Any]]

_NAMED = (
    r"(?:Resource|Instance|Group|SecurityGroup|NetworkInterface|Vpc|Subnet|Volume|RouteTable)Id"
    r"(?:\.\d+)?"
)
_TAG = re.compile(r"Tag\.\d+\.Key")
_KINDS = {
    "ami": "image",
    "eni": "network-interface",
    "i": "instance",
    "key": "key-pair",
    "lt": "launch-template",
    "rtb": "route-table",
    "sg": "security-group",
    "snap": "snapshot",
    "vol": "volume",
}
_PUBLIC = {"image", "snapshot"}  # their ARNs have no account


@dataclasses.dataclass(frozen=True)
class Inventory:
    """The account's resources that a request may name, as the emulator stores them."""

    tags: Mapping[str, list[dict[str, str]]]
    vpcs: Records
    subnets: Records
    groups: Records
    interfaces: Records
    key_pairs: Records
    default_subnet: str = ""

    def tags_of(self, resource: str) -> dict[str, str]:
        """Return the tags of a resource by its id; of a key pair by its name."""
        identifier = (self.key_pairs.get(resource) or {}).get("KeyPairId", resource)
        return {tag["Key"]: tag["Value"] for tag in self.tags.get(identifier) or ()}

    def vpc_of(self, resource: str) -> str:
        """Return the id of the VPC of a subnet, group or interface; empty for others."""
        for records in (self.groups, self.subnets, self.interfaces):
            if found := records.get(resource):
                return str(found.get("VpcId", ""))
        return ""

    def owner_of(self, resource: str) -> str:
        """Return the account that owns a VPC or subnet; empty for others."""
        found = self.vpcs.get(resource) or self.subnets.get(resource) or {}
        return str(found.get("OwnerId", ""))

    def default_group(self, vpc: str) -> str:
        for identifier, group in self.groups.items():
            if (group.get("GroupName"), group.get("VpcId")) == ("default", vpc):
                return identifier
        return "*"


@dataclasses.dataclass(frozen=True)
class Ec2Request:
    """A request to EC2 in an account and a region."""

    params: Parameters
    inventory: Inventory
    region: str
    account: str

    def checks(self) -> list[Check]:
        """Return what EC2 authorizes. The first check is of the request's own action."""
        action = first(self.params, "Action")
        if action.startswith("Describe") and not action.endswith("Attribute"):
            return [Check(f"ec2:{action}", "*")]  # "Describe" takes no resource
        resources = {
            "RunInstances": self._launched,
            "CreateSecurityGroup": self._created_group,
            "CreateKeyPair": self._key_pair,
            "ImportKeyPair": self._key_pair,
            "DeleteKeyPair": self._key_pair,
        }.get(action, self._named)
        own = [
            Check(f"ec2:{action}", resource, self._context(resource, context))
            for resource, context in resources()
        ]
        return [*own, *self._tagging(action)]

    def _tagging(self, action: str) -> Iterator[Check]:
        """Yield the checks of ec2:CreateTags for the tags of new resources."""
        for kind, tags in self._specified().items():
            created = {"ec2:CreateAction": action, **_request_tags(tags)}
            yield Check("ec2:CreateTags", self._arn(kind, "*"), created)

    def _launched(self) -> Iterator[tuple[str, dict[str, Any]]]:
        subnet = self._values("SubnetId") or self._values(r"NetworkInterface\.\d+\.SubnetId")
        subnet = subnet or [self.inventory.default_subnet]
        vpc = self.inventory.vpc_of(subnet[0])
        zone = (self.inventory.subnets.get(subnet[0]) or {}).get("AvailabilityZone", "")
        yield self._arn("instance", "*"), self._instance_keys(zone)
        yield self._arn("image", first(self.params, "ImageId") or "*"), {}
        yield self._arn("subnet", subnet[0]), {"ec2:AvailabilityZone": zone}
        interfaces = self._values(r"NetworkInterface\.\d+\.NetworkInterfaceId")
        for interface in interfaces or ["*"]:
            yield self._arn("network-interface", interface), self._vpc_key(vpc)
        groups = self._values(r"(?:NetworkInterface\.\d+\.)?SecurityGroupId\.\d+")
        for group in groups or ([] if interfaces else [self.inventory.default_group(vpc)]):
            yield self._arn("security-group", group), {}
        yield self._arn("volume", "*"), {}
        for kind, name in (
            ("key-pair", "KeyName"),
            ("launch-template", r"LaunchTemplate\.LaunchTemplateId"),
            ("placement-group", r"Placement\.GroupName"),
            ("snapshot", r"BlockDeviceMapping\.\d+\.Ebs\.SnapshotId"),
        ):
            for value in self._values(name):
                yield self._arn(kind, value), {}
        if "spot-instances-request" in self._specified():  # not evaluated without tags
            yield self._arn("spot-instances-request", "*"), {}

    def _instance_keys(self, zone: str) -> dict[str, Any]:
        profile = first(self.params, "IamInstanceProfile.Arn")
        if name := first(self.params, "IamInstanceProfile.Name"):
            profile = f"arn:aws:iam::{self.account}:instance-profile/{name}"
        market = first(self.params, "InstanceMarketOptions.MarketType") or "on-demand"
        keys = {
            "ec2:AvailabilityZone": zone,
            "ec2:InstanceMarketType": market,
            "ec2:InstanceProfile": profile,
            "ec2:InstanceType": first(self.params, "InstanceType"),
            "ec2:MetadataHttpTokens": first(self.params, "MetadataOptions.HttpTokens"),
        }
        return {key: value for key, value in keys.items() if value}

    def _created_group(self) -> Iterator[tuple[str, dict[str, Any]]]:
        subnet = self.inventory.default_subnet
        vpc = first(self.params, "VpcId") or self.inventory.vpc_of(subnet)
        yield self._arn("security-group", "*"), self._vpc_key(vpc)
        yield self._arn("vpc", vpc), {}

    def _key_pair(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the key pair: its ARN has its name, also before it exists."""
        new = _request_tags(self._specified().get("key-pair", {}))
        yield self._arn("key-pair", first(self.params, "KeyName")), new

    def _named(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the existing resources that the request names, else the kinds that it tags."""
        tags = {
            first(self.params, name): first(self.params, f"{name.removesuffix('Key')}Value")
            for name in self.params
            if _TAG.fullmatch(name)
        }
        named = [found for found in self._values(_NAMED) if found]
        for found in named:
            prefix = found.partition("-")[0]
            yield self._arn(_KINDS.get(prefix, prefix), found), _request_tags(tags)
        if not named:
            new = [self._arn(kind, "*") for kind in self._specified()]
            yield from ((resource, {}) for resource in new or ["*"])

    def _context(self, resource: str, own: Mapping[str, Any]) -> dict[str, Any]:
        """Return the keys of an existing resource, or of a new one of this kind."""
        kind, _, identifier = resource.rpartition(":")[2].partition("/")
        new = _request_tags(self._specified().get(kind, {})) if identifier == "*" else {}
        vpc = self._vpc_key(self.inventory.vpc_of(identifier))
        return {**self._tag_keys(identifier), **vpc, **new, **own}

    def _tag_keys(self, resource: str) -> dict[str, str]:
        return {
            f"{service}:ResourceTag/{key}": value
            for key, value in self.inventory.tags_of(resource).items()
            for service in ("ec2", "aws")
        }

    def _vpc_key(self, vpc: str) -> dict[str, str]:
        return {"ec2:Vpc": self._arn("vpc", vpc)} if vpc else {}

    def _arn(self, kind: str, identifier: str) -> str:
        account = self.inventory.owner_of(identifier) or self.account
        account = "" if kind in _PUBLIC else account
        return f"arn:aws:ec2:{self.region}:{account}:{kind}/{identifier}"

    def _values(self, pattern: str) -> list[str]:
        return [first(self.params, name) for name in self.params if re.fullmatch(pattern, name)]

    def _specified(self) -> dict[str, dict[str, str]]:
        """Return the tags of new resources by their kind."""
        found: dict[str, dict[str, str]] = {}
        for name in self.params:
            if match := re.fullmatch(r"(TagSpecification\.\d+)\.Tag\.(\d+)\.Key", name):
                kind = first(self.params, f"{match.group(1)}.ResourceType")
                value = first(self.params, f"{match.group(1)}.Tag.{match.group(2)}.Value")
                found.setdefault(kind, {})[first(self.params, name)] = value
        return found


def _request_tags(tags: Mapping[str, str]) -> dict[str, Any]:
    if not tags:
        return {}
    keys = {f"aws:RequestTag/{key}": value for key, value in tags.items()}
    return {**keys, "aws:TagKeys": list(tags)}
