"""What uses the node role, the instance profile or the security group of the nodes.

EC2 refuses to delete a security group that is in use, or that a rule of another group of its VPC
names (EC2 API reference, DeleteSecurityGroup). IAM deletes a role and a profile that running
instances use: their kubelets lose the cluster some time later, and their pods with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from lambdas.common.errors import PermanentError
from lambdas.onboarding import names, security_group
from lambdas.onboarding.context import Context, tag_map
from lambdas.onboarding.iam_principals import GONE

_ALIVE: Final = ("pending", "running", "stopping", "stopped")
SHOWN: Final = 10  # ids that an error names


class InUseError(PermanentError):
    """Nodes or other security groups use what would be removed; nothing was changed."""


def refuse(ctx: Context, cluster_ids: Iterable[str], *, groups: bool) -> None:
    """Look for users of what we made under `cluster_ids` (CAST AI's), and with `groups` of our
    security groups.

    Raises:
        InUseError: names the instances, network interfaces of no such instance, and other
            security groups whose rules name ours.
    """
    instances = {each for cluster_id in cluster_ids for each in _instances(ctx, cluster_id)}
    interfaces: set[str] = set()
    naming: set[str] = set()
    for group in security_group.owned(ctx) if groups else ():
        for interface in _interfaces(ctx, group["GroupId"]):
            holder = interface.get("Attachment", {}).get("InstanceId")
            if holder:
                instances.add(holder)
            else:
                interfaces.add(interface["NetworkInterfaceId"])
        naming |= _naming(ctx, group)
    if instances or interfaces or naming:
        raise InUseError(refusal(sorted(instances), sorted(interfaces), sorted(naming)))


def refusal(instances: list[str], interfaces: list[str], naming: list[str]) -> str:
    """What to do about the users, by their ids: of each kind as many as there are, or none."""
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
    """Instances that hold the node role, by whichever instance profile."""
    name = names.node_role_name(ctx.onboarding.cluster_name, cluster_id)
    iam, ec2 = ctx.clients.iam, ctx.clients.ec2
    profiles: dict[str, Any] = {}
    own: Any = ctx.find(
        "iam:GetInstanceProfile",
        lambda: iam.get_instance_profile(InstanceProfileName=name),
        missing=GONE,
    )
    if own and ctx.owner.owns(tag_map(own["InstanceProfile"].get("Tags"))):
        profiles[own["InstanceProfile"]["Arn"]] = None
    role: Any = ctx.find("iam:GetRole", lambda: iam.get_role(RoleName=name), missing=GONE)
    if role and ctx.owner.owns(tag_map(role["Role"].get("Tags"))):
        listing = iam.list_instance_profiles_for_role
        for page in ctx.pages(
            "iam:ListInstanceProfilesForRole", listing, missing=GONE, RoleName=name
        ):
            profiles |= {profile["Arn"]: None for profile in page["InstanceProfiles"]}
    if not profiles:
        return []
    pages = ctx.pages(
        "ec2:DescribeInstances",
        ec2.describe_instances,
        Filters=[
            {"Name": "iam-instance-profile.arn", "Values": list(profiles)},
            {"Name": "instance-state-name", "Values": list(_ALIVE)},
        ],
    )
    return [
        instance["InstanceId"]
        for page in pages
        for reservation in page["Reservations"]
        for instance in reservation["Instances"]
    ]


def _interfaces(ctx: Context, group: str) -> list[Any]:
    pages = ctx.pages(
        "ec2:DescribeNetworkInterfaces",
        ctx.clients.ec2.describe_network_interfaces,
        Filters=[{"Name": "group-id", "Values": [group]}],
    )
    return [interface for page in pages for interface in page["NetworkInterfaces"]]


def _naming(ctx: Context, group: Mapping[str, Any]) -> set[str]:
    """Ids of the other security groups of its VPC that have a rule about the group."""
    ways = ("ip-permission.group-id", "egress.ip-permission.group-id")
    found = [
        each["GroupId"]
        for way in ways
        for each in security_group.filtered(
            ctx, **{way: group["GroupId"], "vpc-id": group["VpcId"]}
        )
    ]
    return set(found) - {group["GroupId"]}
