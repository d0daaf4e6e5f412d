"""`castai-eks onboard | offboard | plan | status`: the steps of the custom resource."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Annotated, Any

import typer
from msgspec import structs

from cli import session, show
from lambdas.common.cloudformation import RequestType
from lambdas.common.errors import CastaiError, PermanentError
from lambdas.common.names import AGENT, AGENT_CLUSTER_ID, AGENT_METADATA
from lambdas.onboarding import preflight, steps
from lambdas.onboarding import session as onboarding_session
from lambdas.onboarding.context import Context, Facts
from lambdas.onboarding.ledger import Action, Ledger, Row, first_line
from lambdas.onboarding.policies.scope import Mode, Permissions
from lambdas.onboarding.properties import Onboarding, Request, parse

ModeOption = Annotated[Mode, typer.Option(help="What CAST AI acts as.")]
ClusterId = Annotated[
    str | None, typer.Option(help="CAST AI's id of the cluster; by default asked for.")
]
ApiKeySecret = Annotated[
    str | None, typer.Option(help="Secrets Manager secret (name or ARN) with CAST AI's API key.")
]
PermissionsOption = Annotated[Permissions, typer.Option(help="How much CAST AI may do.")]
Adopt = Annotated[bool, typer.Option(help="Take over what another tool created.")]
Properties = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        "-p",
        metavar="NAME=VALUE",
        help="Any other property of the custom resource, such as Path=/castai/ or "
        "RequireAgent=false; lists and maps as JSON. May be given several times.",
    ),
]
ResourceOption = Annotated[
    str,
    typer.Option(
        metavar="STACK/LOGICAL-ID",
        help="Remove what this resource of a stack created, as the rows name it. Use it for a "
        "resource that CloudFormation has forgotten; a stack removes its own resources.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def _onboarding_command(act: Callable[[Context, bool], None]) -> Callable[..., None]:
    """A command with the options of an onboarding. `act` gets the context, and `--json`."""

    def command(
        cluster: session.Cluster,
        *,
        mode: ModeOption = Mode.USER,
        cluster_id: ClusterId = None,
        api_key_secret: ApiKeySecret = None,
        permissions: PermissionsOption = Permissions.FULL,
        adopt: Adopt = False,
        properties: Properties = None,
        region: session.Region = None,
        as_json: show.AsJson = False,
    ) -> None:
        chosen = {"Mode": mode.value, "Permissions": permissions.value, "Adopt": adopt}
        given = _properties(cluster, cluster_id, api_key_secret, properties)
        with _context(parse(chosen | given), region) as ctx:
            act(ctx, as_json)

    command.__doc__ = act.__doc__
    return command


@_onboarding_command
def plan(ctx: Context, as_json: bool) -> None:
    """What onboard would change. Writes nothing; exit status 2 if something is in the way."""
    rows = steps.plan(replace(ctx, plan_only=True))
    if as_json:
        show.as_object(rows)
    else:
        show.rows(rows)
    if any(row.action is Action.CONFLICT for row in rows):
        raise typer.Exit(2)


@_onboarding_command
def onboard(ctx: Context, as_json: bool) -> None:
    """Give CAST AI access to the cluster. A second run changes nothing."""
    done = steps.onboard(ctx)
    if as_json:
        show.as_object(done.rows, done.attributes)
        return
    show.rows(done.rows)
    show.facts(done.attributes)


def offboard(
    cluster: session.Cluster,
    *,
    cluster_id: ClusterId = None,
    api_key_secret: ApiKeySecret = None,
    properties: Properties = None,
    resource: ResourceOption = session.RESOURCE,
    dry_run: Annotated[bool, typer.Option(help="Only show what would be removed.")] = False,
    yes: Yes = False,
    region: session.Region = None,
    as_json: show.AsJson = False,
) -> None:
    """Remove CAST AI's access and all that onboard created. Things of others stay."""
    show.refuse_question(as_json=as_json, answered=yes or dry_run, options="--yes or --dry-run")
    given = _properties(cluster, cluster_id, api_key_secret, properties)
    wanted = parse(given, complete=False)
    with _context(wanted, region, RequestType.DELETE, resource) as ctx:
        rows = steps.plan_offboard(replace(ctx, discover=True))
    planned = [row for row in rows if row.action is Action.DELETE]
    if as_json:
        if planned and not dry_run:
            rows = _removed(wanted, region, resource)
        show.as_object(rows)
        return
    if not planned:
        typer.echo(f"Nothing of {resource} is left to remove for {cluster}.")
        rows = [row for row in rows if row.action is Action.LEAVE]
    if rows and (dry_run or not yes or not planned):
        show.rows(rows)
    if dry_run or not planned:
        return
    if not yes:
        typer.confirm(f"Remove CAST AI's access to {cluster}, made by {resource}?", abort=True)
    done = _removed(wanted, region, resource)
    shown = [] if yes else rows  # shown before the question
    if others := [row for row in done if row not in shown]:
        show.rows(others)
    typer.echo(f"Things removed: {sum(row.action is Action.DELETE for row in done)}")


def _removed(wanted: Onboarding, region: str | None, resource: str) -> list[Row]:
    """Remove what the resource created, as far as it is found."""
    with _context(wanted, region, RequestType.DELETE, resource) as ctx:
        return steps.offboard(replace(ctx, discover=True))


def status(
    cluster: session.Cluster,
    *,
    mode: Annotated[
        Mode | None, typer.Option(help="What CAST AI acts as; by default the identity that exists.")
    ] = None,
    cluster_id: ClusterId = None,
    api_key_secret: ApiKeySecret = None,
    permissions: PermissionsOption = Permissions.FULL,
    properties: Properties = None,
    region: session.Region = None,
    as_json: show.AsJson = False,
) -> None:
    """Show the cluster, the agent, their status at CAST AI, and how far the onboarding is.

    No option is needed. With --cluster-id or --api-key-secret the account is compared with what
    onboard would create with these options; without them, what castai-eks created is listed.
    """
    chosen = {"Permissions": permissions.value} | ({"Mode": mode.value} if mode else {})
    chosen |= _properties(cluster, cluster_id, api_key_secret, properties)
    wanted = parse(chosen, complete=False)
    with _context(wanted, region) as ctx:
        look = replace(ctx, plan_only=True, discover=True)
        preflight.before_removal(look)
        if not look.facts.cluster_id:
            preflight.use_cluster_id(look, _agents_id(look))
        modes = (wanted.mode,) if "Mode" in chosen else preflight.own_modes(look)
        may_compare = look.facts.cluster and (wanted.cluster_id or ctx.api) and len(modes) == 1
        onboarding, rows = _compared(look, modes[0]) if may_compare else _listed(look)
        found = {
            "Cluster": _state(look),
            "Agent": _agent(look),
            "CAST AI": _seen(look),
            "Mode": " and ".join(modes),
            "Onboarding": onboarding,
        }
    if as_json:
        show.as_object(rows, found)
        return
    show.facts(found)
    if rows:
        show.rows(rows)


def _compared(look: Context, mode: Mode) -> tuple[str, list[Row]]:
    """What differs from what onboard would create in this mode."""
    wanted = structs.replace(
        look.onboarding,
        mode=mode,
        cluster_id=look.facts.cluster_id or None,
        require_agent=False,
    )
    try:
        rows = steps.plan(
            replace(look, onboarding=wanted, discover=False, ledger=Ledger(), facts=Facts())
        )
    except CastaiError as error:
        return first_line(error), []
    changes = [row for row in rows if row.action is not Action.KEEP]
    return f"{len(changes)} of {len(rows)} things differ" if changes else "complete", changes


def _listed(look: Context) -> tuple[str, list[Row]]:
    """What castai-eks created, and what is not its own or could not be read."""
    rows = [
        replace(row, action=Action.KEEP, detail="") if row.action is Action.DELETE else row
        for row in [*look.ledger.rows, *steps.existing(replace(look, ledger=Ledger()))]
    ]
    made = sum(row.action is Action.KEEP for row in rows)
    things = f"{made} things here were" if made else "nothing here was"
    return f"{things} made by castai-eks", rows


def _state(look: Context) -> str:
    found = look.facts.cluster
    if any(row.thing == preflight.CLUSTER for row in look.ledger.rows):
        return "could not be read"
    if found is None:
        return f"does not exist in {look.place.region}"
    return f"{found.status}, access by {found.authentication_mode}"


def _agents_id(look: Context) -> str:
    """The cluster id that the agent uses; empty without an agent, or where it cannot be read."""
    try:
        found = look.kube().get("v1", "ConfigMap", AGENT_METADATA, AGENT)
    except CastaiError:
        return ""
    return str((found or {}).get("data", {}).get(AGENT_CLUSTER_ID, ""))


def _agent(look: Context) -> str:
    try:
        return look.agent_problem(look.kube()) or "available"
    except CastaiError as error:
        return first_line(error)


def _seen(look: Context) -> str:
    if look.api is None:
        return "not asked: give --api-key-secret"
    if not look.facts.cluster_id:
        return "not registered by castai-eks or an agent; else give --cluster-id"
    try:
        seen = look.api.get(look.facts.cluster_id)
    except CastaiError as error:
        return first_line(error)
    return f"cluster {seen.status}, agent {seen.agent_status}"


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

    Raises PermanentError where one is no pair, or not JSON.
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
def _context(
    wanted: Onboarding,
    region: str | None,
    request_type: RequestType = RequestType.UPDATE,
    resource: str = session.RESOURCE,
) -> Iterator[Context]:
    """The context of a run with the user's own identity and access."""
    deps = session.dependencies(region)
    until = deps.clock.now() + session.RUN_TIME
    request = Request(type=request_type, onboarding=wanted, resource=resource)
    secret = wanted.api_key_secret
    key = onboarding_session.read_key(deps, secret, until=until) if secret else None
    with onboarding_session.opened(request, deps, key=key, until=until) as ctx:
        yield ctx
