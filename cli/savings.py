"""`castai-eks savings`: what could be saved. It reads, and writes the files that it is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import msgspec
import typer
from rich.console import Console

from cli import session, show
from lambdas.common import aws
from lambdas.common.aws_calls import AwsCalls
from lambdas.common.castai import DEFAULT_URL
from lambdas.common.clock import SYSTEM
from lambdas.common.errors import PermanentError
from lambdas.common.kubernetes_objects import Kube
from lambdas.onboarding.context import CALL_PATIENCE
from lambdas.onboarding.session import Dependencies, read_key
from savings import advisor as spot_advisor
from savings import castai, files, read_cluster, read_prices
from savings.estimate import Estimate
from savings.prices import Prices
from savings.rights import Rights
from savings.snapshot import Snapshot

Progress = Callable[[str], None]
T = TypeVar("T", Snapshot, Prices)

_FILE: Final = "It is read if it exists, else written."


def savings(  # noqa: PLR0917 - typer passes them by name
    cluster: Annotated[
        str, typer.Argument(help="Name of the EKS cluster. A snapshot that exists has it.")
    ] = "",
    snapshot: Annotated[
        Path | None, typer.Option(dir_okay=False, help=f"File of what the cluster runs. {_FILE}")
    ] = None,
    prices: Annotated[
        Path | None, typer.Option(dir_okay=False, help=f"File of instance prices. {_FILE}")
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Read the cluster with this file's access."),
    ] = None,
    advisor: Annotated[
        str | None,
        typer.Option(metavar="FILE|URL", help="AWS's Spot Advisor feed: interruption rates."),
    ] = None,
    api_key_secret: Annotated[
        str | None,
        typer.Option(help="Secret (name or ARN) with CAST AI's API key: adds its own estimate."),
    ] = None,
    api_url: Annotated[str, typer.Option(help="CAST AI's API.")] = DEFAULT_URL,
    html: Annotated[
        Path | None, typer.Option(dir_okay=False, help="Write a page that can be sent.")
    ] = None,
    region: session.Region = None,
    as_json: show.AsJson = False,
) -> None:
    """Estimate what could be saved on the cluster's nodes. It changes nothing."""
    # The solver's libraries load for this command only.
    from savings import as_json as machine_readable  # noqa: PLC0415
    from savings import page, plan, table  # noqa: PLC0415

    with _progress() as progress, _Reader(cluster, region, kubeconfig, progress) as reader:
        seen = reader.snapshot(snapshot)
        priced = reader.prices(prices, seen)
        reader.rights.check()
        files.check(seen, priced)
        reader.keep()
        if advisor:
            progress("reading the Spot Advisor's feed")
            priced = spot_advisor.with_interruptions(
                priced, spot_advisor.read(advisor, seen.region)
            )
        progress(f"packing {len(seen.pods):,} pods")
        found = plan.make(seen, priced).estimate
        if api_key_secret:
            progress("reading CAST AI's estimate")
            found = reader.with_castai(found, seen, api_key_secret, api_url)
    if html:
        _write(html, page.render(found))
    if as_json:
        show.document(machine_readable.document(found))
        return
    table.show(found)
    for path in (*reader.written, *([html] if html else [])):
        typer.echo(f"written: {path}")


@dataclass
class _Reader:
    """Reads from files, else from the cluster and AWS. AWS is not called where files suffice."""

    cluster: str
    region: str | None
    kubeconfig: Path | None
    progress: Progress
    rights: Rights = field(default_factory=Rights)
    written: list[Path] = field(default_factory=list)
    _new: list[tuple[Path, Snapshot | Prices]] = field(default_factory=list)
    _open: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> _Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def snapshot(self, path: Path | None) -> Snapshot:
        """What the cluster runs."""
        if path is not None and path.exists():
            found = files.read_snapshot(path)
            if self.cluster not in ("", found.cluster):
                raise PermanentError(
                    f"Name cluster {found.cluster}, or another file: {path} is of that cluster"
                )
            return found
        if not self.cluster:
            raise PermanentError("Name the cluster, or a --snapshot that exists")
        region, account = self.region or "", ""
        if self.kubeconfig is None:
            region, account = self._aws.place.region, self._aws.place.account
        found = read_cluster.read(
            self._kube(),
            cluster=self.cluster,
            region=region,
            account=account,
            markets_of=lambda ids: read_cluster.markets_of(self._calls, self._aws.clients.ec2, ids),
            rights=self.rights,
            progress=self.progress,
        )
        return self._noted(path, found)

    def prices(self, path: Path | None, seen: Snapshot) -> Prices:
        """Types and prices of the snapshot's region."""
        if path is not None and path.exists():
            return files.read_prices(path)
        self.region = self.region or seen.region
        source = read_prices.Source(
            ec2=self._client("ec2", seen.region),
            pricing=self._client("pricing", read_prices.price_list_region(seen.region)),
            calls=self._calls,
            region=seen.region,
            progress=self.progress,
        )
        used = {node.instance_type for node in seen.nodes}
        return self._noted(path, source.read(used, self.rights))

    def keep(self) -> None:
        """Write what was read into the files that did not exist."""
        for path, found in self._new:
            if isinstance(found, Snapshot):
                files.write_snapshot(path, found)
            else:
                files.write_prices(path, found)
            self.written.append(path)

    def with_castai(self, found: Estimate, seen: Snapshot, secret: str, url: str) -> Estimate:
        """The estimate, with CAST AI's beside it."""
        until = SYSTEM.now() + session.RUN_TIME
        key = read_key(self._aws, secret, until=until)
        with self._aws.open_api(key, url, SYSTEM, until) as api:
            own = castai.read(api, seen.cluster, seen.region, seen.account)
        if not own:
            typer.echo(castai.NOT_CONNECTED, err=True)
        return msgspec.structs.replace(found, castai=own)

    @cached_property
    def _aws(self) -> Dependencies:
        return session.dependencies(self.region)

    def _client(self, service: str, region: str) -> Any:  # noqa: ANN401 - by name
        _ = self._aws  # says what is missing: credentials, a region
        return aws.session().client(service, region_name=region, config=aws.CONFIG)  # type: ignore[call-overload]

    @cached_property
    def _calls(self) -> AwsCalls:
        return AwsCalls(SYSTEM, until=lambda: SYSTEM.now() + CALL_PATIENCE)

    def _kube(self) -> Kube:
        until = SYSTEM.now() + session.RUN_TIME
        if self.kubeconfig is not None:
            return self._open.enter_context(
                read_cluster.open_kubeconfig(self.kubeconfig, until=until)
            )
        cluster = session.described(self._aws, self.cluster)
        return self._open.enter_context(session.kube(self._aws, cluster, until))

    def _noted(self, path: Path | None, found: T) -> T:
        if path is not None:
            self._new.append((path, found))
        return found


@contextmanager
def _progress() -> Iterator[Progress]:
    """Say on a terminal what is being done. A pipe gets nothing."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("") as status:
        yield status.update


def _write(path: Path, page: str) -> None:
    try:
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise PermanentError(f"Give --html a file that can be written: {error}") from error
