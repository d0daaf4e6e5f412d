"""The security group of the nodes that CAST AI adds: all egress, all ingress from itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Final

from lambdas.common.errors import AwsRefusedError, PermanentError
from lambdas.common.names import CLUSTER_TAG
from lambdas.onboarding import names
from lambdas.onboarding.context import Context, tag_list, tag_map

GONE: Final = ("InvalidGroup.NotFound",)
_ALL: Final = "-1"  # EC2: every protocol and port
_ANYWHERE: Final = "0.0.0.0/0"


def thing(name: str) -> str:
    """The thing that a security group is."""
    return f"security group {name}"


def ensure(ctx: Context) -> None:
    """Make the group, or check the existing ones; leaves the ids in the facts."""
    wish = ctx.onboarding.security_group
    if wish:
        _check_existing(ctx, wish)
        return
    name = names.security_group_name(ctx.onboarding.cluster_name)
    tags = ctx.tags | names.security_group_tags(ctx.onboarding.cluster_name, ctx.facts.cluster_id)
    found = _by_name(ctx, name)
    if found is None:
        made = ctx.ledger.create(
            thing(name), lambda: _create(ctx, name, tags), undo=lambda: _take_back(ctx, name)
        )
        _rules(ctx, name, {"GroupId": made} if made else None)
    elif ctx.may_take(thing(name), tag_map(found.get("Tags"))):
        ctx.facts.security_group_ids = (found["GroupId"],)
        _retag(ctx, name, found, tags)
        _rules(ctx, name, found)


def filtered(ctx: Context, **filters: str) -> list[Any]:
    """The security groups that meet all of EC2's `filters`."""
    wanted = [{"Name": name, "Values": [value]} for name, value in filters.items()]
    return _described(ctx, Filters=wanted)


def _described(ctx: Context, *, missing: Collection[str] = (), **arguments: object) -> list[Any]:
    listing = ctx.clients.ec2.describe_security_groups
    pages = ctx.pages("ec2:DescribeSecurityGroups", listing, missing=missing, **arguments)
    return [group for page in pages for group in page["SecurityGroups"]]


def _check_existing(ctx: Context, ids: tuple[str, ...]) -> None:
    groups = _described(ctx, missing=GONE, GroupIds=list(ids))
    here = {group["GroupId"] for group in groups if group.get("VpcId") == ctx.cluster.vpc_id}
    for group in ids:
        if group not in here:
            ctx.ledger.conflict(
                thing(group), f"is not in the cluster's VPC {ctx.cluster.vpc_id}: choose another"
            )
    ctx.facts.security_group_ids = ids


def _by_name(ctx: Context, name: str) -> Mapping[str, Any] | None:
    groups = filtered(ctx, **{"group-name": name, "vpc-id": ctx.cluster.vpc_id})
    return groups[0] if groups else None


def _create(ctx: Context, name: str, tags: Mapping[str, str]) -> str:
    answer = ctx.ask(
        "ec2:CreateSecurityGroup",
        lambda: ctx.clients.ec2.create_security_group(
            GroupName=name,
            Description=f"Nodes that CAST AI adds to {ctx.onboarding.cluster_name}",
            VpcId=ctx.cluster.vpc_id,
            TagSpecifications=[{"ResourceType": "security-group", "Tags": tag_list(tags)}],
        ),
    )
    ctx.facts.security_group_ids = (answer["GroupId"],)
    return answer["GroupId"]


def _retag(ctx: Context, name: str, found: Mapping[str, Any], wanted: Mapping[str, str]) -> None:
    ec2, group = ctx.clients.ec2, found["GroupId"]
    has = tag_map(found.get("Tags"))
    missing, dropped = ctx.tag_changes(has, wanted)
    if not (missing or dropped):
        ctx.ledger.keep(thing(name))
        return

    def retag(tags: Mapping[str, str], keys: list[str]) -> None:
        if tags:
            ctx.ask(
                "ec2:CreateTags", lambda: ec2.create_tags(Resources=[group], Tags=tag_list(tags))
            )
        if keys:
            bare: Any = [{"Key": key} for key in keys]
            ctx.ask("ec2:DeleteTags", lambda: ec2.delete_tags(Resources=[group], Tags=bare))

    ctx.ledger.update(
        thing(name),
        lambda: retag(missing, dropped),
        undo=lambda: retag(
            {k: v for k, v in has.items() if k in {*missing, *dropped}},
            [key for key in missing if key not in has],
        ),
        detail="tags",
    )


def _rules(ctx: Context, name: str, group: Mapping[str, Any] | None) -> None:
    """Ingress from itself. A new group has all egress already; a taken one gets it back."""
    ec2 = ctx.clients.ec2
    inward = f"ingress from itself in {thing(name)}"
    if group and any(_from_itself(rule, group) for rule in group.get("IpPermissions", ())):
        ctx.ledger.keep(inward)
    else:
        rule = _rule(group["GroupId"] if group else "")
        ctx.ledger.create(
            inward,
            lambda: ctx.ask(
                "ec2:AuthorizeSecurityGroupIngress",
                lambda: ec2.authorize_security_group_ingress(
                    GroupId=rule["UserIdGroupPairs"][0]["GroupId"], IpPermissions=[rule]
                ),
                again_on=GONE,  # EC2 tells its other parts of a new group a moment later
            ),
            undo=lambda: ctx.find(
                "ec2:RevokeSecurityGroupIngress",
                lambda: ec2.revoke_security_group_ingress(
                    GroupId=rule["UserIdGroupPairs"][0]["GroupId"], IpPermissions=[rule]
                ),
                missing=(*GONE, "InvalidPermission.NotFound"),
            ),
        )
    if group and "IpPermissionsEgress" in group and not _all_egress(group):
        everywhere: Any = {"IpProtocol": _ALL, "IpRanges": [{"CidrIp": _ANYWHERE}]}
        ctx.ledger.create(
            f"egress to everywhere in {thing(name)}",
            lambda: ctx.ask(
                "ec2:AuthorizeSecurityGroupEgress",
                lambda: ec2.authorize_security_group_egress(
                    GroupId=group["GroupId"], IpPermissions=[everywhere]
                ),
            ),
            undo=lambda: ctx.find(
                "ec2:RevokeSecurityGroupEgress",
                lambda: ec2.revoke_security_group_egress(
                    GroupId=group["GroupId"], IpPermissions=[everywhere]
                ),
                missing=(*GONE, "InvalidPermission.NotFound"),
            ),
        )


def _rule(group: str) -> Any:  # noqa: ANN401 - EC2's own type
    return {"IpProtocol": _ALL, "UserIdGroupPairs": [{"GroupId": group}]}


def _from_itself(rule: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    pairs = rule.get("UserIdGroupPairs", ())
    return rule["IpProtocol"] == _ALL and any(p.get("GroupId") == group["GroupId"] for p in pairs)


def _all_egress(group: Mapping[str, Any]) -> bool:
    return any(
        rule["IpProtocol"] == _ALL
        and any(r.get("CidrIp") == _ANYWHERE for r in rule.get("IpRanges", ()))
        for rule in group["IpPermissionsEgress"]
    )


def _take_back(ctx: Context, name: str) -> None:
    found = _by_name(ctx, name)
    if found and ctx.owner.owns(tag_map(found.get("Tags"))):
        _delete(ctx, found["GroupId"])


def _delete(ctx: Context, group: str) -> None:
    """Raises PermanentError while something still uses the group."""
    try:
        ctx.find(
            "ec2:DeleteSecurityGroup",
            lambda: ctx.clients.ec2.delete_security_group(GroupId=group),
            missing=GONE,
        )
    except AwsRefusedError as error:
        if error.code != "DependencyViolation":
            raise
        raise PermanentError(
            "Remove the nodes that CAST AI added, and what names their group in the rules of other "
            f"security groups, first: security group {group} is still in use"
        ) from error


def owned(ctx: Context) -> list[Any]:
    """The security groups that carry our tags, in whatever VPC."""
    groups = filtered(ctx, **{f"tag:{CLUSTER_TAG}": ctx.owner.cluster_arn})
    return [group for group in groups if ctx.owner.owns(tag_map(group.get("Tags")))]


def remove(ctx: Context) -> None:
    """Delete the group where it is ours."""
    for group in owned(ctx):
        ctx.ledger.delete(
            thing(group["GroupName"]),
            lambda group=group: _delete(ctx, group["GroupId"]),  # type: ignore[misc]
        )
