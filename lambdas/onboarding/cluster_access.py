"""Cluster access for nodes, the user of user mode and the spot handler.

By access entries where the cluster has them, else by aws-auth. The cross-account role gets no
access to the Kubernetes API.
"""

from __future__ import annotations

from collections.abc import Iterator

from lambdas.common.errors import PermanentError
from lambdas.onboarding import access_entries, aws_auth, aws_auth_map, identity, names, spot_rbac
from lambdas.onboarding.access_entries import AccessEntry, has_entries
from lambdas.onboarding.aws_auth import Entry
from lambdas.onboarding.context import Context
from lambdas.onboarding.iam_principals import Role
from lambdas.onboarding.node_role import NodeRole
from lambdas.onboarding.policies.scope import Mode
from lambdas.onboarding.properties import ClusterAccess, Onboarding


def method(ctx: Context, properties: Onboarding) -> ClusterAccess:
    """The method for this cluster; AUTO is resolved."""
    if properties.cluster_access is not ClusterAccess.AUTO:
        return properties.cluster_access
    return ClusterAccess.ENTRIES if has_entries(ctx.cluster) else ClusterAccess.AWS_AUTH


def ensure(ctx: Context, nodes: NodeRole) -> ClusterAccess:
    """Give the principals their access; returns the method.

    Raises PermanentError where the cluster does not support the method.
    """
    chosen = method(ctx, ctx.onboarding)
    mode = ctx.cluster.authentication_mode or "CONFIG_MAP"
    if chosen is ClusterAccess.ENTRIES:
        if not has_entries(ctx.cluster):
            raise PermanentError(
                f"Set ClusterAccess to aws-auth, or give the cluster access entries "
                f"(eks update-cluster-config): its authentication mode is {mode}"
            )
        access_entries.ensure(ctx, _entries(ctx, nodes))
    elif chosen is ClusterAccess.AWS_AUTH:
        if "CONFIG_MAP" not in mode:
            raise PermanentError(
                "Set ClusterAccess to access-entries: the cluster does not read aws-auth, its "
                f"authentication mode is {mode}"
            )
        aws_auth_map.ensure(ctx, _mappings(ctx, nodes))
    return chosen


def _entries(ctx: Context, nodes: NodeRole) -> Iterator[AccessEntry]:
    """The principals' access as access entries."""
    yield AccessEntry(nodes.arn, "EC2_LINUX")
    if ctx.onboarding.mode is Mode.USER:
        yield AccessEntry(ctx.scope.user_arn, "STANDARD", admin=True)
    if spot := ctx.onboarding.spot_handler_role_arn:
        yield AccessEntry(spot, "STANDARD", groups=aws_auth.SPOT_HANDLER_GROUPS)


def _mappings(ctx: Context, nodes: NodeRole) -> Iterator[Entry]:
    """The principals' access as entries of aws-auth."""
    yield aws_auth.node_entry(nodes.arn)
    if ctx.onboarding.mode is Mode.USER:
        yield aws_auth.user_entry(ctx.scope.user_arn)
    if spot := ctx.onboarding.spot_handler_role_arn:
        yield aws_auth.spot_handler_entry(spot)


def remove(ctx: Context) -> None:
    """Remove the access that these properties, and those before an Update, gave."""
    if ctx.facts.cluster is None:
        return  # everything in the cluster is gone with it
    if has_entries(ctx.cluster):
        access_entries.remove(ctx)
    if ctx.discover:
        reads_map = "CONFIG_MAP" in (ctx.cluster.authentication_mode or "CONFIG_MAP")
    else:
        reads_map = any(
            method(ctx, properties) is ClusterAccess.AWS_AUTH for properties in ctx.every_properties
        )
    if reads_map:
        former = _own_mappings(ctx) if ctx.discover else _former_mappings(ctx)
        aws_auth_map.remove(ctx, list(former))


def _former_mappings(ctx: Context) -> Iterator[Entry]:
    """The principals that the properties may have mapped."""
    for each in ctx.known_ids:
        name = names.node_role_name(ctx.onboarding.cluster_name, each)
        yield aws_auth.node_entry(ctx.scope.iam(f"role{ctx.onboarding.path}{name}"))
    if identity.user(ctx):
        yield aws_auth.user_entry(ctx.scope.user_arn)
    for arn in {properties.spot_handler_role_arn for properties in ctx.every_properties}:
        if arn:
            yield aws_auth.spot_handler_entry(arn)


def _own_mappings(ctx: Context) -> Iterator[Entry]:
    """The mappings of our principals, and of the spot handler's role where its RBAC objects are
    ours.
    """
    for each in ctx.known_ids:
        role = Role(ctx, names.node_role_name(ctx.onboarding.cluster_name, each)).found()
        if role and ctx.owner.owns(role.tags):
            yield aws_auth.node_entry(role.arn)
    user = identity.user(ctx)
    found = user.found() if user else None
    if found and ctx.owner.owns(found.tags):
        yield aws_auth.user_entry(found.arn)
    if spot_rbac.is_ours(ctx):
        yield from aws_auth.spot_handler_entries(aws_auth_map.data(ctx))
