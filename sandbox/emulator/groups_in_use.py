"""Security groups in use: as in EC2 they cannot be deleted, and filters find what uses them.

The emulator deletes a group that an instance has or that another group's rule references. It
creates no network interface for an instance, and it ignores the filters that find these uses.
"""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import guard

Parameters = dict[str, Any]
_RULES = {
    "ip-permission.group-id": "IpPermissions",
    "egress.ip-permission.group-id": "IpPermissionsEgress",
}


def install() -> None:
    """Patch the emulator's EC2 to check network interfaces and rules of security groups."""
    ec2 = guard.module("ministack.services.ec2")
    _by_interfaces(ec2)
    _by_rules(ec2)


def _by_interfaces(ec2: ModuleType) -> None:
    instances = guard.value(ec2, "_instances", object)
    interfaces = guard.value(ec2, "_network_interfaces", object)
    actions = guard.value(ec2, "_ACTION_MAP", dict)
    matches = guard.function(ec2, "_matches_filters", "inst", "filters")
    filters_of = guard.function(ec2, "_parse_filters", "params")
    rendered = guard.function(ec2, "_eni_fields_xml", "eni", "tag")
    answer = guard.function(ec2, "_xml", "status", "root_tag", "inner")
    refusal = guard.function(ec2, "_error", "code", "message", "status")
    delete = guard.function(ec2, "_delete_security_group", "p")

    def all_interfaces() -> Iterator[Parameters]:
        yield from interfaces.values()
        for instance in instances.values():
            if instance["State"]["Name"] != "terminated":
                yield _primary(instance)

    def matches_profile(inst: Parameters, filters: dict[str, list[str]]) -> bool:
        wanted = filters.get("iam-instance-profile.arn")
        profile = inst.get("IamInstanceProfile") or {}
        if wanted is not None and profile.get("Arn") not in wanted:
            return False
        return bool(matches(inst, filters))

    def describe_interfaces(p: Parameters) -> Any:
        filters = filters_of(p)
        if unknown := filters.keys() - {"group-id"}:
            return refusal("InvalidParameterValue", f"sandbox: no filter {sorted(unknown)}", 400)
        found = (
            each
            for each in all_interfaces()
            if not filters or _groups(each).intersection(filters["group-id"])
        )
        items = "".join(rendered(each) for each in found)
        inner = f"<networkInterfaceSet>{items}</networkInterfaceSet>"
        return answer(200, "DescribeNetworkInterfacesResponse", inner)

    def delete_unless_attached(p: Parameters) -> Any:
        group = _group_id(p)
        if any(group in _groups(each) for each in all_interfaces()):
            return refusal("DependencyViolation", f"resource {group} has a dependent object", 400)
        return delete(p)

    ec2._matches_filters = matches_profile  # type: ignore[attr-defined]
    actions["DescribeNetworkInterfaces"] = describe_interfaces
    actions["DeleteSecurityGroup"] = delete_unless_attached


def _by_rules(ec2: ModuleType) -> None:
    groups = guard.value(ec2, "_security_groups", object)
    actions = guard.value(ec2, "_ACTION_MAP", dict)
    filters_of = guard.function(ec2, "_parse_filters", "params")
    answer = guard.function(ec2, "_xml", "status", "root_tag", "inner")
    refusal = guard.function(ec2, "_error", "code", "message", "status")
    describe, delete = actions["DescribeSecurityGroups"], actions["DeleteSecurityGroup"]

    def describe_groups(p: Parameters) -> Any:
        wanted = [(_RULES[name], ids) for name, ids in filters_of(p).items() if name in _RULES]
        if not wanted:
            return describe(p)
        found = [
            each["GroupId"]
            for each in groups.values()
            if all(_referenced(each, direction).intersection(ids) for direction, ids in wanted)
        ]
        if not found:
            return answer(200, "DescribeSecurityGroupsResponse", "<securityGroupInfo/>")
        return describe({**p, **{f"GroupId.{n}": [each] for n, each in enumerate(found, 1)}})

    def delete_unless_referenced(p: Parameters) -> Any:
        group = _group_id(p)
        others = [each for each in groups.values() if each["GroupId"] != group]
        if any(
            group in _referenced(each, direction)
            for each in others
            for direction in _RULES.values()
        ):
            return refusal("DependencyViolation", f"resource {group} has a dependent object", 400)
        return delete(p)

    actions["DescribeSecurityGroups"] = describe_groups
    actions["DeleteSecurityGroup"] = delete_unless_referenced


def _group_id(p: Parameters) -> Any:
    group = p.get("GroupId")
    return group[0] if isinstance(group, list) else group


def _referenced(group: Parameters, direction: str) -> set[str]:
    """Return the groups that the rules of one direction reference."""
    return {
        pair["GroupId"]
        for rule in group.get(direction, ())
        for pair in rule.get("UserIdGroupPairs", ())
    }


def _groups(interface: Parameters) -> set[str]:
    return {group["GroupId"] for group in interface.get("Groups", ())}


def _primary(instance: Parameters) -> Parameters:
    """Return the network interface that EC2 creates when it launches the instance."""
    return {
        "NetworkInterfaceId": f"eni-{instance['InstanceId'].removeprefix('i-')}",
        "SubnetId": instance["SubnetId"],
        "VpcId": instance["VpcId"],
        "Description": "",
        "OwnerId": "",
        "Status": "in-use",
        "PrivateIpAddress": instance["PrivateIpAddress"],
        "InterfaceType": "interface",
        "SourceDestCheck": True,
        "MacAddress": "",
        "Groups": instance["SecurityGroups"],
        "Attachment": {
            "AttachmentId": "",
            "InstanceId": instance["InstanceId"],
            "AttachTime": instance["LaunchTime"],
        },
    }
