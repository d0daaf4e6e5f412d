"""`castai-eks connect | disconnect | agent render`: the read-only castai-agent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from cli import session, show
from cli.onboarding import Properties, parsed
from lambdas.agent import lifecycle, read_only, readiness
from lambdas.agent.apply import Changes
from lambdas.agent.manifest import ClusterRef
from lambdas.agent.properties import Agent, parse
from lambdas.common.castai import CastaiApi
from lambdas.common.eks import Cluster
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_objects import Kube
from lambdas.common.names import AGENT
from lambdas.onboarding import session as onboarding_session
from lambdas.onboarding.session import Dependencies

agent_app = typer.Typer(help="The agent's manifest.", no_args_is_help=True)

PAUSE: Final = 5.0  # s between two checks of the agent

ApiKeySecret = Annotated[
    str, typer.Option(help="Secrets Manager secret (name or ARN) with CAST AI's API key.")
]
Manifest = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="Use this manifest; it must be read-only."),
]
FromCastai = Annotated[
    bool, typer.Option("--from-castai", help="Use CAST AI's own manifest; it must be read-only.")
]


@agent_app.callback()
def _group() -> None:
    """Keeps `render` a subcommand: typer would merge a single command into the group."""


def connect(
    cluster: session.Cluster,
    *,
    api_key_secret: ApiKeySecret,
    manifest: Manifest = None,
    from_castai: FromCastai = False,
    properties: Properties = None,
    region: session.Region = None,
    as_json: show.AsJson = False,
) -> None:
    """Install the agent in the cluster and wait until CAST AI sees it."""
    wanted = _properties(cluster, api_key_secret, properties)
    with _session(wanted, region) as at:
        text = _text(at.api, manifest, from_castai=from_castai)
        ref = lifecycle.cluster_ref(at.cluster)
        done = lifecycle.connect(
            at.kube,
            at.api,
            ref,
            lifecycle.objects_of(wanted, ref, at.key, text),
            owner=session.RESOURCE,
            until=at.until,
        )
        if not as_json:
            _print(done.changes)
            typer.echo(f"CAST AI's id of the cluster: {done.cluster_id}")
        status = _wait(at, done.cluster_id, wanted.ready_within)
        if as_json:
            show.document({"changes": vars(done.changes), "clusterId": done.cluster_id})
        else:
            typer.echo(status)


def disconnect(
    cluster: session.Cluster,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    region: session.Region = None,
    as_json: show.AsJson = False,
) -> None:
    """Remove the agent that connect installed, its namespace last."""
    show.refuse_question(as_json=as_json, answered=yes)
    if not yes:
        typer.confirm(f"Remove the castai-agent from {cluster}?", abort=True)
    deps = session.dependencies(region)
    until = deps.clock.now() + session.RUN_TIME
    with session.kube(deps, session.described(deps, cluster), until) as kube:
        changes = lifecycle.disconnect(kube, owner=session.RESOURCE, until=until)
    if as_json:
        show.document({"changes": vars(changes)})
    else:
        _print(changes)


@agent_app.command()
def render(
    cluster: session.Cluster,
    account_id: Annotated[str, typer.Option("--account", help="AWS account id.")] = "ACCOUNT",
    region: Annotated[str, typer.Option(help="Region of the cluster.")] = "REGION",
    manifest: Manifest = None,
    properties: Properties = None,
) -> None:
    """Print the agent's objects for kubectl, without the key, and check that they only read."""
    wanted = _properties(cluster, "not-read", properties)
    text = manifest.read_text(encoding="utf-8") if manifest else None
    objects = lifecycle.objects_of(wanted, ClusterRef(account_id, region, cluster), "", text)
    read_only.prove(objects, namespace=AGENT)
    typer.echo(lifecycle.to_yaml(lifecycle.without_key(objects)), nl=False)


@dataclass(frozen=True)
class _At:
    """A cluster and CAST AI's API, both open."""

    deps: Dependencies
    cluster: Cluster
    kube: Kube
    api: CastaiApi
    key: str
    until: float


@contextmanager
def _session(properties: Agent, region: str | None) -> Iterator[_At]:
    deps = session.dependencies(region)
    until = deps.clock.now() + session.RUN_TIME
    key = onboarding_session.read_key(deps, properties.api_key_secret, until=until)
    cluster = session.described(deps, properties.cluster_name)
    with (
        session.kube(deps, cluster, until) as kube,
        deps.open_api(key, properties.api_url, deps.clock, until) as api,
    ):
        yield _At(deps, cluster, kube, api, key, until)


def _wait(at: _At, cluster_id: str, seconds: float) -> str:
    """Wait until the agent is ready; returns its status as a sentence.

    Raises PermanentError with what is wrong after `seconds`.
    """
    clock = at.deps.clock
    end = min(clock.now() + seconds, at.until)
    while not (found := readiness.look(at.kube, at.api, cluster_id)).ready:
        if clock.now() >= end:
            raise PermanentError(f"{found.sentence} (waited {seconds:.0f} s)")
        clock.sleep(PAUSE)
    return found.sentence


def _properties(cluster: str, api_key_secret: str, properties: list[str] | None) -> Agent:
    given: Mapping[str, Any] = parsed(properties)
    return parse({"ClusterName": cluster, "ApiKeySecret": api_key_secret, **given})


def _text(api: CastaiApi, manifest: Path | None, *, from_castai: bool) -> str | None:
    if manifest and from_castai:
        raise PermanentError("Give --manifest or --from-castai, not both")
    if from_castai:
        return api.agent_manifest()
    return manifest.read_text(encoding="utf-8") if manifest else None


def _print(changes: Changes) -> None:
    for what, things in vars(changes).items():
        for thing in things:
            typer.echo(f"{what:10} {thing}")
