"""Refuse a removal while nodes use the node role, the instance profile or the security group.

EC2 refuses to delete a security group that is in use, or that a rule of another group of its VPC
names (EC2 API reference, DeleteSecurityGroup). IAM deletes a role and a profile also while running
instances use them. Some time later their kubelets lose access to the cluster, and their pods fail.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from lambdas.common.errors import PermanentError
from lambdas.onboarding import names, node_role, security_group
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role
from lambdas.onboarding.tags import tag_map

_ALIVE: Final = ("pending", "running", "stopping", "stopped")
SHOWN: Final = 10  # ids that an error names


class InUseError(PermanentError):
    """Nodes or other security groups use what would be removed; nothing was changed."""


def refuse(ctx: Context, cluster_ids: Iterable[str], *, groups: bool) -> None:
    """Refuse while something uses a resource with one of CAST AI's `cluster_ids`.

    With `groups`, the users of our security groups count too.

    Raises InUseError with the ids of instances, of network interfaces without an instance, and of
    other security groups whose rules name ours.
    """
    instances = {each for cluster_id in cluster_ids for each in _instances(ctx, cluster_id)}
    interfaces: set[str] = set()
    naming: set[str] = set()
    for group in security_group.owned(ctx) if groups else ():
        for interface in _interfaces(ctx, group["GroupId"]):
            instance = interface.get("Attachment", {}).get("InstanceId")
            if instance:
                instances.add(instance)
            else:
                interfaces.add(interface["NetworkInterfaceId"])
        naming |= _naming(ctx, group)
    if instances or interfaces or naming:
        raise InUseError(refusal(sorted(instances), sorted(interfaces), sorted(naming)))


def refusal(instances: list[str], interfaces: list[str], naming: list[str]) -> str:
    """The message: what to do, the number of users of each kind, and their ids."""
    advice = []
    if instances or interfaces:
        advice.append(
            "Remove the nodes that CAST AI added first (in CAST AI's console, or drain and "
            "terminate them)."
        )
    if naming:
        advice.append(
            "Remove the rules first that name the nodes' security group in other security groups."
        )
    other = "other " if instances else ""
    kinds = (
        ("instance", instances),
        (f"{other}network interface", interfaces),
        ("other security group", naming),
    )
    by = " and ".join(
        f"{len(users)} {kind}{'s' if len(users) > 1 else ''}" for kind, users in kinds if users
    )
    users = [*instances, *interfaces, *naming]
    more = f" and {len(users) - SHOWN} more" if len(users) > SHOWN else ""
    shown = f"{', '.join(users[:SHOWN])}{more}"
    return f"{' '.join(advice)} Nothing was changed. In use by {by}: {shown}"


def _instances(ctx: Context, cluster_id: str) -> list[str]:
    """Ids of the instances with the node role, through any instance profile."""
    name = names.node_role_name(ctx.onboarding.cluster_name, cluster_id)
    iam, ec2 = ctx.clients.iam, ctx.clients.ec2
    profiles: dict[str, None] = {}
    own = node_role.profile(ctx, name)
    if own and ctx.owner.owns(tag_map(own.get("Tags"))):
        profiles[own["Arn"]] = None
    role = Role(ctx, name).found()
    if role and ctx.owner.owns(role.tags):
        listing = iam.list_instance_profiles_for_role
        for profile in ctx.find_items(listing, "InstanceProfiles", RoleName=name):
            profiles[profile["Arn"]] = None
    if not profiles:
        return []
    reservations = ctx.items(
        ec2.describe_instances,
        "Reservations",
        Filters=[
            {"Name": "iam-instance-profile.arn", "Values": list(profiles)},
            {"Name": "instance-state-name", "Values": list(_ALIVE)},
        ],
    )
    return [
        instance["InstanceId"]
        for reservation in reservations
        for instance in reservation["Instances"]
    ]


def _interfaces(ctx: Context, group: str) -> list[Any]:
    return ctx.items(
        ctx.clients.ec2.describe_network_interfaces,
        "NetworkInterfaces",
        Filters=[{"Name": "group-id", "Values": [group]}],
    )


def _naming(ctx: Context, group: Mapping[str, Any]) -> set[str]:
    """Ids of the other security groups of the VPC with a rule that names the group."""
    filters = ("ip-permission.group-id", "egress.ip-permission.group-id")
    found = [
        each["GroupId"]
        for name in filters
        for each in security_group.filtered(
            ctx, **{name: group["GroupId"], "vpc-id": group["VpcId"]}
        )
    ]
    return set(found) - {group["GroupId"]}
