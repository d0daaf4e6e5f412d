"""What others do to an account and its clusters, between CloudFormation's requests.

Each edit is a function of world and cluster that does nothing where its target is missing. What it
makes has FOREIGN in its name or value, so that it is found again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from lambdas.common.names import CLUSTER_TAG
from simulation.resources.eks import ACCOUNT
from simulation.resources.facts import FOREIGN
from simulation.resources.world import PLACES, REGIONS, Place, World

POLICY: Final = f"arn:aws:iam::{ACCOUNT}:policy/{FOREIGN}"
_DOCUMENT: Final = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}],
    }
)
_TRUST: Final = '{"Version":"2012-10-17","Statement":[]}'
_AWS_AUTH: Final = {
    "mapRoles": f"- rolearn: arn:aws:iam::{ACCOUNT}:role/{FOREIGN}-nodes  # of the platform team\n"
    "  username: system:node:{{EC2PrivateDNSName}}\n"
    "  groups: [system:bootstrappers, system:nodes]\n"
}


@dataclass(frozen=True)
class Edit:
    """One kind of edit."""

    make: Callable[[World, Place], object]
    drifts: bool = False
    """Whether it changes what is ours: the next request that succeeds corrects it."""


def background(world: World) -> None:
    """What is in the account from the start, with names like ours."""
    iam = world.client("iam", REGIONS[0])
    iam.create_policy(PolicyName=FOREIGN, PolicyDocument=_DOCUMENT)
    iam.create_role(RoleName=f"cast-{FOREIGN}-eks-deadbeef", AssumeRolePolicyDocument=_TRUST)
    iam.create_user(UserName=f"cast-eks-{FOREIGN}")
    iam.create_access_key(UserName=f"cast-eks-{FOREIGN}")
    for place, eks in world.eks.items():
        world.aws_auth[place] = None
        if "API" in eks.mode:
            eks.create_access_entry(clusterName=place.name, principalArn=_role("admins"))


def _role(name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT}:role/{FOREIGN}-{name}"


def _of_cluster(world: World, place: Place, kind: str) -> list[Any]:
    """Our users, roles or instance profiles of a cluster, as moto has them."""
    arn = world.eks[place].arn
    iam = world.client("iam", place.region)
    found = {
        "user": lambda: [
            u
            for u in iam.list_users()["Users"]
            if _has(iam.list_user_tags(UserName=u["UserName"]), arn)
        ],
        "role": lambda: [
            r
            for r in iam.list_roles()["Roles"]
            if _has(iam.list_role_tags(RoleName=r["RoleName"]), arn)
        ],
        "group": lambda: [
            g
            for g in world.client("ec2", place.region).describe_security_groups()["SecurityGroups"]
            if _has(g, arn)
        ],
    }[kind]()
    return list(found)


def _has(thing: Any, arn: str) -> bool:
    return any(tag["Key"] == CLUSTER_TAG and tag["Value"] == arn for tag in thing.get("Tags") or ())


# Of their own -------------------------------------------------------------------------------------


def _maps_a_role(world: World, place: Place) -> None:
    """Put an entry of one's own first into aws-auth, which may not exist yet."""
    now = world.aws_auth[place]
    number = (now or {}).get("mapRoles", "").count("rolearn")
    text = _AWS_AUTH["mapRoles"].replace("-nodes", f"-nodes-{number}")
    world.aws_auth[place] = {"mapRoles": text + (now or {}).get("mapRoles", "")}
    cluster = world.kubernetes[place]
    found = cluster.get("ConfigMap", "aws-auth", "kube-system")
    if found is None:
        created = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "aws-auth", "namespace": "kube-system"},
            "data": {"mapRoles": text},
        }
        world.act(lambda: cluster.create(created))
        return
    data = found.get("data") or {}
    changed = {**found, "data": {**data, "mapRoles": text + data.get("mapRoles", "")}}
    world.act(lambda: cluster.set(changed))


def _gives_access(world: World, place: Place) -> None:
    eks = world.eks[place]
    arn = _role(f"team-{len(eks.entries)}")
    if "API" in eks.mode and arn not in eks.entries:
        eks.create_access_entry(clusterName=place.name, principalArn=arn)


def _takes_the_name_of_the_user(world: World, place: Place) -> None:
    iam = world.client("iam", place.region)
    name = f"cast-eks-{place.name}"
    if name not in {user["UserName"] for user in iam.list_users()["Users"]}:
        iam.create_user(UserName=name, Path=f"/{FOREIGN}/")


# On what is ours ----------------------------------------------------------------------------------


def _attaches_to_user(world: World, place: Place) -> None:
    for user in _of_cluster(world, place, "user"):
        world.client("iam", place.region).attach_user_policy(
            UserName=user["UserName"], PolicyArn=POLICY
        )


def _attaches_to_roles(world: World, place: Place) -> None:
    for role in _of_cluster(world, place, "role"):
        world.client("iam", place.region).attach_role_policy(
            RoleName=role["RoleName"], PolicyArn=POLICY
        )


def _tags(world: World, place: Place) -> None:
    iam, tags = world.client("iam", place.region), [{"Key": FOREIGN, "Value": "cost"}]
    for role in _of_cluster(world, place, "role"):
        iam.tag_role(RoleName=role["RoleName"], Tags=tags)
    for user in _of_cluster(world, place, "user"):
        iam.tag_user(UserName=user["UserName"], Tags=tags)


def _adds_a_key(world: World, place: Place) -> None:
    iam = world.client("iam", place.region)
    for user in _of_cluster(world, place, "user"):
        keys = iam.list_access_keys(UserName=user["UserName"])["AccessKeyMetadata"]
        if len(keys) < 2:
            made = iam.create_access_key(UserName=user["UserName"])
            world.keys_of_others.add(made["AccessKey"]["AccessKeyId"])


def _adds_a_group(world: World, place: Place) -> None:
    for arn, entry in world.eks[place].entries.items():
        group = f"{FOREIGN}:viewers"
        if FOREIGN not in arn and entry.kind == "STANDARD" and group not in entry.groups:
            entry.groups.append(group)


def _uses_the_group(world: World, place: Place) -> None:
    ec2 = world.client("ec2", place.region)
    subnet = ec2.describe_subnets()["Subnets"][0]["SubnetId"]
    for group in _of_cluster(world, place, "group"):
        ec2.create_network_interface(SubnetId=subnet, Groups=[group["GroupId"]])


def _removes_the_keys(world: World, place: Place) -> None:
    iam = world.client("iam", place.region)
    for user in _of_cluster(world, place, "user"):
        for key in iam.list_access_keys(UserName=user["UserName"])["AccessKeyMetadata"]:
            iam.delete_access_key(UserName=user["UserName"], AccessKeyId=key["AccessKeyId"])


def _removes_a_tag(world: World, place: Place) -> None:
    iam = world.client("iam", place.region)
    for role in _of_cluster(world, place, "role"):
        iam.untag_role(RoleName=role["RoleName"], TagKeys=["cast:cluster-id"])


def _detaches_ours(world: World, place: Place) -> None:
    iam = world.client("iam", place.region)
    for role in _of_cluster(world, place, "role"):
        name = role["RoleName"]
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            if policy["PolicyArn"] != POLICY:
                iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])


def _closes_the_group(world: World, place: Place) -> None:
    ec2 = world.client("ec2", place.region)
    for group in _of_cluster(world, place, "group"):
        for rule in group["IpPermissions"]:
            pairs = [{"GroupId": pair["GroupId"]} for pair in rule["UserIdGroupPairs"]]
            ec2.revoke_security_group_ingress(
                GroupId=group["GroupId"],
                IpPermissions=[{"IpProtocol": rule["IpProtocol"], "UserIdGroupPairs": pairs}],
            )


def _empties_the_profile(world: World, place: Place) -> None:
    iam = world.client("iam", place.region)
    arn = world.eks[place].arn
    for profile in iam.list_instance_profiles()["InstanceProfiles"]:
        for role in profile["Roles"] if _has(profile, arn) else ():
            iam.remove_role_from_instance_profile(
                InstanceProfileName=profile["InstanceProfileName"], RoleName=role["RoleName"]
            )


def _deletes_the_node_role(world: World, place: Place) -> None:
    """Delete the node role, as a person does who cleans up; its access entry stays."""
    _empties_the_profile(world, place)
    iam = world.client("iam", place.region)
    for role in _of_cluster(world, place, "role"):
        name = role["RoleName"]
        if "cluster-role" in name or "lambda" in name:
            continue
        for policy in iam.list_attached_role_policies(RoleName=name)["AttachedPolicies"]:
            iam.detach_role_policy(RoleName=name, PolicyArn=policy["PolicyArn"])
        for inline in iam.list_role_policies(RoleName=name)["PolicyNames"]:
            iam.delete_role_policy(RoleName=name, PolicyName=inline)
        iam.delete_role(RoleName=name)
    world.sleep(5)


def _deletes_entries(world: World, place: Place) -> None:
    entries = world.eks[place].entries
    for arn in [arn for arn in entries if FOREIGN not in arn]:
        del entries[arn]


EDITS: Final = {
    "maps a role in aws-auth": Edit(_maps_a_role),
    "gives a role access": Edit(_gives_access),
    "takes the name of the user": Edit(_takes_the_name_of_the_user),
    "attaches a policy to the user": Edit(_attaches_to_user),
    "attaches a policy to the roles": Edit(_attaches_to_roles),
    "tags user and roles": Edit(_tags),
    "adds an access key": Edit(_adds_a_key),
    "adds a group to the access entries": Edit(_adds_a_group),
    "uses the security group": Edit(_uses_the_group),
    "removes the access keys": Edit(_removes_the_keys, drifts=True),
    "removes a tag of the roles": Edit(_removes_a_tag, drifts=True),
    "detaches our policies": Edit(_detaches_ours, drifts=True),
    "closes the security group": Edit(_closes_the_group, drifts=True),
    "empties the instance profile": Edit(_empties_the_profile, drifts=True),
    "deletes the node role": Edit(_deletes_the_node_role, drifts=True),
    "deletes the access entries": Edit(_deletes_entries, drifts=True),
}
"""The kinds of edits. The next kind is a row."""


def clear_obstacles(world: World) -> None:
    """Do what the function's refusals ask for: detach, and remove what uses our resources."""
    iam = world.client("iam", REGIONS[0])
    users = iam.list_entities_for_policy(PolicyArn=POLICY)
    for user in users["PolicyUsers"]:
        iam.detach_user_policy(UserName=user["UserName"], PolicyArn=POLICY)
    for role in users["PolicyRoles"]:
        iam.detach_role_policy(RoleName=role["RoleName"], PolicyArn=POLICY)
    for user in iam.list_users()["Users"]:
        if user["Path"] == f"/{FOREIGN}/":
            iam.delete_user(UserName=user["UserName"])
    for region in REGIONS:
        ec2 = world.client("ec2", region)
        for interface in ec2.describe_network_interfaces()["NetworkInterfaces"]:
            ec2.delete_network_interface(NetworkInterfaceId=interface["NetworkInterfaceId"])


def obstacles(world: World) -> set[Place]:
    """Clusters where a removal may have to refuse: each name in our users, roles and groups."""
    iam = world.client("iam", REGIONS[0])
    users = iam.list_entities_for_policy(PolicyArn=POLICY)
    held = [user["UserName"] for user in users["PolicyUsers"]]
    held += [role["RoleName"] for role in users["PolicyRoles"]]
    held += [u["UserName"] for u in iam.list_users()["Users"] if u["Path"] == f"/{FOREIGN}/"]
    held += [group["GroupName"] for group in _used_groups(world)]
    return {place for place in PLACES if any(f"-{place.name}" in name for name in held)}


def has_users(world: World) -> bool:
    """Whether a network interface uses a security group."""
    return any(_used_groups(world))


def _used_groups(world: World) -> Iterator[Any]:
    for region in REGIONS:
        found = world.client("ec2", region).describe_network_interfaces()["NetworkInterfaces"]
        yield from (group for interface in found for group in interface["Groups"])
