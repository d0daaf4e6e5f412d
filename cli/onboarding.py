"""`castai-eks onboard | offboard | plan | status`: the custom resource's steps from a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Annotated, Any

import typer

from cli import account, show
from lambdas.common import api_key
from lambdas.common.errors import CastaiError, PermanentError
from lambdas.onboarding import steps
from lambdas.onboarding.context import Context
from lambdas.onboarding.door import Door
from lambdas.onboarding.handler import context_of
from lambdas.onboarding.ledger import Action
from lambdas.onboarding.policies import Mode, Permissions
from lambdas.onboarding.request import Kind, Onboarding, Request, parse

ModeOption = Annotated[Mode, typer.Option(help="What CAST AI acts as.")]
ClusterId = Annotated[
    str | None, typer.Option(help="CAST AI's id of the cluster; by default asked for.")
]
ApiKeySecret = Annotated[
    str | None, typer.Option(help="Secrets Manager secret (name or ARN) with CAST AI's API key.")
]
PermissionsOption = Annotated[Permissions, typer.Option(help="How much CAST AI may do.")]
Adopt = Annotated[bool, typer.Option(help="Take over what another tool made.")]
Properties = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        "-p",
        metavar="NAME=VALUE",
        help="Any other property of the custom resource, such as Path=/castai/ or "
        "RequireAgent=false; lists and maps as JSON. Repeatable.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def plan(
    cluster: account.Cluster,
    *,
    mode: ModeOption = Mode.USER,
    cluster_id: ClusterId = None,
    api_key_secret: ApiKeySecret = None,
    permissions: PermissionsOption = Permissions.SEEDS,
    adopt: Adopt = False,
    properties: Properties = None,
    region: account.Region = None,
) -> None:
    """What onboard would change. Writes nothing; exit status 2 if something is in the way."""
    wish = _wish(
        cluster,
        mode=mode,
        cluster_id=cluster_id,
        api_key_secret=api_key_secret,
        permissions=permissions,
        adopt=adopt,
        properties=properties,
    )
    with _context(wish, region) as ctx:
        rows = steps.plan(replace(ctx, plan_only=True))
    show.rows(rows)
    if any(row.action is Action.CONFLICT for row in rows):
        raise typer.Exit(2)


def onboard(
    cluster: account.Cluster,
    *,
    mode: ModeOption = Mode.USER,
    cluster_id: ClusterId = None,
    api_key_secret: ApiKeySecret = None,
    permissions: PermissionsOption = Permissions.SEEDS,
    adopt: Adopt = False,
    properties: Properties = None,
    region: account.Region = None,
) -> None:
    """Give CAST AI access to the cluster. Again is the same as once."""
    wish = _wish(
        cluster,
        mode=mode,
        cluster_id=cluster_id,
        api_key_secret=api_key_secret,
        permissions=permissions,
        adopt=adopt,
        properties=properties,
    )
    with _context(wish, region) as ctx:
        show.rows(steps.onboard(ctx))
        show.facts(steps.attributes(ctx))


def offboard(
    cluster: account.Cluster,
    *,
    cluster_id: ClusterId = None,
    api_key_secret: ApiKeySecret = None,
    properties: Properties = None,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be removed.")] = False,
    yes: Yes = False,
    region: account.Region = None,
) -> None:
    """Take CAST AI's access away, and all that onboard made. Things of others stay."""
    given = _properties(cluster, cluster_id, api_key_secret, properties)
    wish = parse(given, tolerant=True)
    with _context(wish, region, Kind.DELETE) as ctx:
        rows = steps.plan_offboard(replace(ctx, discover=True))
    if not any(row.action is Action.DELETE for row in rows):
        typer.echo(f"Nothing of castai-eks is left to remove for {cluster}.")
        rows = [row for row in rows if row.action is Action.LEAVE]
    if rows:
        show.rows(rows)
    if dry_run or not any(row.action is Action.DELETE for row in rows):
        return
    if not yes:
        typer.confirm(f"Remove CAST AI's access to {cluster}?", abort=True)
    with _context(wish, region, Kind.DELETE) as ctx:
        show.rows(steps.offboard(replace(ctx, discover=True)))


def status(
    cluster: account.Cluster,
    *,
    mode: ModeOption = Mode.USER,
    cluster_id: ClusterId = None,
    api_key_secret: ApiKeySecret = None,
    permissions: PermissionsOption = Permissions.SEEDS,
    properties: Properties = None,
    region: account.Region = None,
) -> None:
    """The cluster, the agent, CAST AI's view of both, and whether the onboarding is complete."""
    wish = _wish(
        cluster,
        mode=mode,
        cluster_id=cluster_id,
        api_key_secret=api_key_secret,
        permissions=permissions,
        adopt=False,
        properties=["RequireAgent=false", *(properties or ())],
    )
    with _context(wish, region) as ctx:
        rows = steps.plan(replace(ctx, plan_only=True))
        changes = [row for row in rows if row.action is not Action.KEEP]
        found = {
            "Cluster": f"{ctx.cluster.status}, access by {ctx.cluster.authentication_mode}",
            "Agent": _agent(ctx),
            "CAST AI": _seen(ctx),
            "Onboarding": f"{len(changes)} of {len(rows)} things differ" if changes else "complete",
        }
    show.facts(found)
    if changes:
        show.rows(changes)


def _agent(ctx: Context) -> str:
    try:
        return ctx.agent_problem(ctx.kube()) or "available"
    except CastaiError as error:
        return str(error).partition("\n")[0]


def _seen(ctx: Context) -> str:
    if ctx.api is None or not ctx.facts.cluster_id:
        return "not asked: give --api-key-secret"
    try:
        seen = ctx.api.get(ctx.facts.cluster_id)
    except CastaiError as error:
        return str(error).partition("\n")[0]
    return f"cluster {seen.status}, agent {seen.agent_status}"


def _wish(
    cluster: str,
    *,
    mode: Mode,
    cluster_id: str | None,
    api_key_secret: str | None,
    permissions: Permissions,
    adopt: bool,
    properties: list[str] | None,
) -> Onboarding:
    given = _properties(cluster, cluster_id, api_key_secret, properties)
    chosen = {"Mode": mode.value, "Permissions": permissions.value, "Adopt": adopt}
    return parse(chosen | given)


def _properties(
    cluster: str,
    cluster_id: str | None,
    api_key_secret: str | None,
    properties: list[str] | None,
) -> dict[str, Any]:
    """The properties of the custom resource, as CloudFormation would give them."""
    given: dict[str, Any] = {"ClusterName": cluster}
    if cluster_id:
        given["ClusterId"] = cluster_id
    if api_key_secret:
        given["ApiKeySecret"] = api_key_secret
    return given | parsed(properties)


def parsed(properties: list[str] | None) -> dict[str, Any]:
    """NAME=VALUE pairs; a value that begins as a list or a map is JSON.

    Raises:
        PermanentError: no pair, or not JSON.
    """
    found: dict[str, Any] = {}
    for each in properties or ():
        name, equals, value = each.partition("=")
        if not (name and equals):
            raise PermanentError(f"Give a property as NAME=VALUE, not {name!r}")
        try:
            found[name] = json.loads(value) if value[:1] in "[{" and value else value
        except ValueError as error:
            raise PermanentError(f"Give {name} as JSON: {error}") from error
    return found


@contextmanager
def _context(wish: Onboarding, region: str | None, kind: Kind = Kind.UPDATE) -> Iterator[Context]:
    """A run as the user, who has access to the cluster already; both doors close after it."""
    tools = account.means(region)
    until = tools.clock.now() + account.RUN_TIME
    request = Request(kind=kind, onboarding=wish, resource=account.RESOURCE)
    with ExitStack() as ways_out:
        api = None
        if wish.api_key_secret:
            key = api_key.read(tools.clients.secrets, wish.api_key_secret)
            api = ways_out.enter_context(tools.open_api(key, wish.api_url, tools.clock, until))
        door = ways_out.enter_context(Door(tools.own_role, until=until, token=tools.token))
        yield context_of(request, tools, api, door, until=until)
