"""The security group of the nodes that CAST AI adds: all egress, all ingress from itself."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from lambdas.common.aws_calls import MISSING
from lambdas.common.errors import AwsRefusedError, PermanentError
from lambdas.common.names import CLUSTER_TAG
from lambdas.onboarding import names
from lambdas.onboarding.context import Context
from lambdas.onboarding.tags import correct_tags, tag_list, tag_map

_ALL: Final = "-1"  # EC2: every protocol and port
_ANYWHERE: Final = "0.0.0.0/0"


def label(name: str) -> str:
    """A security group in rows and messages."""
    return f"security group {name}"


def ensure(ctx: Context) -> tuple[str, ...]:
    """Create or correct the group, or check the existing ones; returns the ids that are known."""
    existing = ctx.onboarding.security_group
    if existing:
        _check_existing(ctx, existing)
        return existing
    name = names.security_group_name(ctx.onboarding.cluster_name)
    tags = ctx.tags | names.security_group_tags(ctx.onboarding.cluster_name, ctx.facts.cluster_id)
    found = _by_name(ctx, name)
    if found is None:
        created = ctx.ledger.create(
            label(name),
            lambda: _create(ctx, name, tags),
            undo=lambda: _undo_create(ctx, name),
        )
        _ensure_ingress(ctx, name, {"GroupId": created} if created else None)
        return (created,) if created else ()
    if not ctx.may_take(label(name), tag_map(found.get("Tags"))):
        return ()
    _correct_tags(ctx, name, found, tags)
    _ensure_ingress(ctx, name, found)
    _ensure_egress(ctx, name, found)
    return (found["GroupId"],)


def filtered(ctx: Context, **filters: str) -> list[Any]:
    """The security groups that match all of EC2's `filters`."""
    wanted = [{"Name": name, "Values": [value]} for name, value in filters.items()]
    return ctx.items(ctx.clients.ec2.describe_security_groups, "SecurityGroups", Filters=wanted)


def _check_existing(ctx: Context, ids: tuple[str, ...]) -> None:
    groups = ctx.find_items(
        ctx.clients.ec2.describe_security_groups, "SecurityGroups", GroupIds=list(ids)
    )
    here = {group["GroupId"] for group in groups if group.get("VpcId") == ctx.cluster.vpc_id}
    for group in ids:
        if group not in here:
            ctx.ledger.conflict(
                label(group), f"is not in the cluster's VPC {ctx.cluster.vpc_id}: choose another"
            )


def _by_name(ctx: Context, name: str) -> Mapping[str, Any] | None:
    groups = filtered(ctx, **{"group-name": name, "vpc-id": ctx.cluster.vpc_id})
    return groups[0] if groups else None


def _create(ctx: Context, name: str, tags: Mapping[str, str]) -> str:
    answer = ctx.call(
        ctx.clients.ec2.create_security_group,
        GroupName=name,
        Description=f"Nodes that CAST AI adds to {ctx.onboarding.cluster_name}",
        VpcId=ctx.cluster.vpc_id,
        TagSpecifications=[{"ResourceType": "security-group", "Tags": tag_list(tags)}],
    )
    return answer["GroupId"]


def _correct_tags(
    ctx: Context, name: str, found: Mapping[str, Any], wanted: Mapping[str, str]
) -> None:
    ec2, group = ctx.clients.ec2, found["GroupId"]

    def drop(keys: list[str]) -> None:
        any_value: Any = [{"Key": key} for key in keys]  # EC2: no value means any value
        ctx.call(ec2.delete_tags, Resources=[group], Tags=any_value)

    corrected = correct_tags(
        ctx,
        label(name),
        tag_map(found.get("Tags")),
        wanted,
        put=lambda tags: ctx.call(ec2.create_tags, Resources=[group], Tags=tag_list(tags)),
        drop=drop,
    )
    if not corrected:
        ctx.ledger.keep(label(name))


def _ensure_ingress(ctx: Context, name: str, group: Mapping[str, Any] | None) -> None:
    """Ensure ingress from the group itself. `group` None: it is still to be created."""
    ec2 = ctx.clients.ec2
    rule_label = f"ingress from itself in {label(name)}"
    if group and any(_is_from_itself(rule, group) for rule in group.get("IpPermissions", ())):
        ctx.ledger.keep(rule_label)
        return
    group_id = group["GroupId"] if group else ""
    rule: Any = {"IpProtocol": _ALL, "UserIdGroupPairs": [{"GroupId": group_id}]}
    # A new group may not be visible everywhere in EC2 yet.
    ctx.ledger.create(
        rule_label,
        lambda: ctx.retrying(MISSING).call(
            ec2.authorize_security_group_ingress, GroupId=group_id, IpPermissions=[rule]
        ),
        undo=lambda: ctx.find(
            ec2.revoke_security_group_ingress, GroupId=group_id, IpPermissions=[rule]
        ),
    )


def _ensure_egress(ctx: Context, name: str, group: Mapping[str, Any]) -> None:
    """Ensure all egress of an existing group. EC2 gives it to a new group."""
    if "IpPermissionsEgress" not in group or _has_all_egress(group):
        return
    ec2, group_id = ctx.clients.ec2, group["GroupId"]
    rule: Any = {"IpProtocol": _ALL, "IpRanges": [{"CidrIp": _ANYWHERE}]}
    ctx.ledger.create(
        f"egress to everywhere in {label(name)}",
        lambda: ctx.call(
            ec2.authorize_security_group_egress, GroupId=group_id, IpPermissions=[rule]
        ),
        undo=lambda: ctx.find(
            ec2.revoke_security_group_egress, GroupId=group_id, IpPermissions=[rule]
        ),
    )


def _is_from_itself(rule: Mapping[str, Any], group: Mapping[str, Any]) -> bool:
    pairs = rule.get("UserIdGroupPairs", ())
    return rule["IpProtocol"] == _ALL and any(p.get("GroupId") == group["GroupId"] for p in pairs)


def _has_all_egress(group: Mapping[str, Any]) -> bool:
    return any(
        rule["IpProtocol"] == _ALL
        and any(r.get("CidrIp") == _ANYWHERE for r in rule.get("IpRanges", ()))
        for rule in group["IpPermissionsEgress"]
    )


def _undo_create(ctx: Context, name: str) -> None:
    found = _by_name(ctx, name)
    if found and ctx.owner.owns(tag_map(found.get("Tags"))):
        _delete(ctx, found["GroupId"])


def _delete(ctx: Context, group: str) -> None:
    """Raises PermanentError while something uses the group."""
    try:
        ctx.find(ctx.clients.ec2.delete_security_group, GroupId=group)
    except AwsRefusedError as error:
        if error.code != "DependencyViolation":
            raise
        raise PermanentError(
            "Remove the nodes that CAST AI added, and the rules that name their group in other "
            f"security groups, first: security group {group} is still in use"
        ) from error


def owned(ctx: Context) -> list[Any]:
    """The security groups with our tags, in every VPC."""
    groups = filtered(ctx, **{f"tag:{CLUSTER_TAG}": ctx.owner.cluster_arn})
    return [group for group in groups if ctx.owner.owns(tag_map(group.get("Tags")))]


def remove(ctx: Context) -> None:
    """Delete the groups that are ours."""
    for group in owned(ctx):
        ctx.ledger.delete(label(group["GroupName"]), partial(_delete, ctx, group["GroupId"]))
