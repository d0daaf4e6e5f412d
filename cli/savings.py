"""`castai-eks savings`: what could be saved. It only reads, and writes the files that are named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.console import Console

from cli import session, show
from lambdas.common import aws, eks, retry
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.castai import DEFAULT_URL
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_session import KubernetesSession, existing_access
from lambdas.onboarding.context import CALL_PATIENCE
from lambdas.onboarding.session import Dependencies, read_key
from savings.prices import Prices
from savings.rights import Rights
from savings.snapshot import Snapshot

Progress = Callable[[str], None]

FILE: Final = "Read it from this file if it exists, else write it to it."


def savings(  # noqa: PLR0917 - typer takes options by name
    cluster: Annotated[
        str, typer.Argument(help="Name of the EKS cluster; not needed with --snapshot of a file.")
    ] = "",
    *,
    snapshot: Annotated[
        Path | None, typer.Option(dir_okay=False, help=f"What was seen of the cluster. {FILE}")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(dir_okay=False, help=f"Instance types and prices. {FILE}")
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Read the cluster with this file's access."),
    ] = None,
    advisor: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="AWS's Spot Advisor feed, for interruption rates."),
    ] = None,
    api_key_secret: Annotated[
        str | None,
        typer.Option(help="Secret (name or ARN) with CAST AI's API key: shows its own estimate."),
    ] = None,
    api_url: Annotated[str, typer.Option(help="CAST AI's API.")] = DEFAULT_URL,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write a page that can be sent.")
    ] = None,
    region: session.Region = None,
    as_json: show.AsJson = False,
) -> None:
    """Estimate what could be saved on the cluster's nodes. It changes nothing."""
    from savings import as_json as document  # noqa: PLC0415 - numpy loads for this command only
    from savings import files, page, plan, table  # noqa: PLC0415

    if not cluster and not (snapshot and snapshot.exists()):
        raise PermanentError("Name the cluster, or a --snapshot that exists")
    with _progress() as progress:
        source = _Source(cluster, region, kubeconfig, progress)
        seen = source.snapshot(snapshot)
        priced = source.prices(prices, seen)
        source.rights.check()
        files.check(seen, priced)
        if advisor:
            priced = files.with_ratings(priced, files.read_advisor(advisor, seen.region))
        progress("packing")
        found = plan.make(seen, priced).estimate
        if api_key_secret:
            progress("reading CAST AI's estimate")
            found = source.with_castai(found, seen, api_key_secret, api_url)
    if html:
        files.write_text(html, page.render(found))
    if as_json:
        show.document(document.document(found))
    else:
        table.show(found)
        if html:
            typer.echo(f"\npage: {html}")
