"""`python -m acceptance CLUSTER INSTANCE`: prove the project on an account of yours."""

from __future__ import annotations

import json
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, NoReturn

import typer
import yaml
from rich.console import Console
from rich.text import Text

from acceptance import drill as drills
from acceptance import look as looks
from acceptance import rights
from acceptance.account import Account
from acceptance.errors import FAILURES, AcceptanceError
from acceptance.journal import FOLDER, Journal
from acceptance.look import Target
from acceptance.report import Report, versions
from acceptance.run import Run
from acceptance.scope import PREFIX, ROOT, Scope
from sandbox.cdk import chosen
from sandbox.demo.console import View

Chapter = tuple[str, str, Callable[[], None]]
"""Title, description and what runs."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    cluster: Annotated[str, typer.Argument(help="Name of the EKS cluster.")],
    instance: Annotated[
        str, typer.Argument(help="EC2 instance whose node is drained. It is not interrupted.")
    ],
    *,
    region: Annotated[str | None, typer.Option(help="By default the AWS SDK's own.")] = None,
    api_key_secret: Annotated[
        str | None,
        typer.Option(
            help="Secrets Manager secret with CAST AI's API key: also connect and onboard a "
            "cluster that CAST AI does not know yet."
        ),
    ] = None,
    prefix: Annotated[str, typer.Option(help="First part of all names.")] = PREFIX,
    context: Annotated[
        list[str] | None,
        typer.Option("--context", "-c", metavar="KEY=VALUE", help="As `cdk deploy -c`."),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    report: Annotated[
        Path | None, typer.Option(dir_okay=False, help="The report's file, in Markdown.")
    ] = None,
    print_rights: Annotated[
        bool,
        typer.Option(
            "--rights", help="Print the IAM policy and the ClusterRole of a run, and end."
        ),
    ] = False,
) -> None:
    """Deploy, drain the node of an instance, compare, remove. Exit status 0 if all checks pass.

    It says what it will do and what it costs, and asks. It undoes everything on every way out:
    after a kill, run it again. `-c castai:mode=dry-run` drains nothing.
    """
    with translated_errors():
        scope = Scope(cluster, instance, prefix, api_key_secret, chosen(context))
        account = Account.found(region)
        if print_rights:
            _print_rights(scope, account)
            return
        view = View()
        hidden = {account.identity: "IDENTITY", account.account: "ACCOUNT"}
        run = Run(account, scope, Journal(ROOT / FOLDER, cluster), view, Report(hidden))
        _undo_former(run, yes=yes)
        _introduce(run)
        target = _looked(run)
        _ask("Do this?", yes=yes)
        _accept(run, target)
        file = report or Path(f"acceptance-{cluster}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.md")
        file.write_text(run.report.markdown(view.printed))
        view.line("")
        view.line(
            f"{'passed' if run.report.passed else 'FAILED'}; report: {file}",
            style="bold green" if run.report.passed else "bold red",
        )
        if not run.report.passed:
            raise typer.Exit(1)


def _introduce(run: Run) -> None:
    run.view.chapter(1, "What will happen", "Until you agree, everything is only read.")


def _looked(run: Run) -> Target:
    target = looks.look(run)
    looks.show(run, target)
    run.report.facts |= {
        "when": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "what": versions(_versions()),
        "region": run.account.region,
        "cluster": f"{run.scope.cluster}, Kubernetes {target.found.version}",
        "node": f"{target.found.name}, {target.kind}, {target.market}",
        "settings": ", ".join(f"{key}={value}" for key, value in run.scope.chosen.items())
        or "none",
    }
    return target


def _accept(run: Run, target: Target) -> None:
    """Run the chapters after the question. Undo everything on every way out."""
    chapters: list[Chapter] = [
        ("Inventory", "What is there before.", run.list_before),
        ("Prepare", "The app, and the handler's permissions in the cluster.",
         lambda: run.prepare(target.missing_rbac)),
    ]  # fmt: skip
    if run.scope.api_key_secret:
        chapters.append(("Connect", "The read-only agent.", run.agent))
    chapters.append(("Deploy", "The spot handler under a name of its own.", run.handler))
    if run.scope.api_key_secret:
        chapters.append(("Onboard", "A role for CAST AI.", run.onboarding))
    chapters.append(
        ("Drill", "A notice of our own for the instance.", lambda: drills.drill(run, target.found))
    )
    undo: Chapter = ("Undo", "Stacks, node, permissions.", lambda: run.undo(run.touched))
    with _signals(_interrupt):
        try:
            with _reported(run):
                for number, chapter in enumerate(chapters, 2):
                    _chapter(run.view, number, chapter)
        finally:
            with _signals(signal.SIG_IGN), _reported(run):
                _chapter(run.view, len(chapters) + 2, undo)
                if run.before:
                    _chapter(run.view, len(chapters) + 3, _comparison(run, target))


@contextmanager
def _reported(run: Run) -> Iterator[None]:
    """Print an error, or that the run was interrupted, and put it into the report."""
    try:
        yield
    except FAILURES as error:
        run.report.errors.append(str(error))
        run.view.line(f"   {error}", style="red")
    except KeyboardInterrupt:
        run.report.errors.append("interrupted")
        run.view.line("   interrupted; wait until everything is undone", style="red")


def _comparison(run: Run, target: Target) -> Chapter:
    title, description = "Inventory again", "What is there now, compared with before."
    return title, description, lambda: run.compare(target.found)


def _chapter(view: View, number: int, chapter: Chapter) -> None:
    title, description, run = chapter
    began = time.monotonic()
    view.chapter(number, title, description)
    run()
    view.done(time.monotonic() - began)


def _undo_former(run: Run, *, yes: bool) -> None:
    """Undo a run that was killed. Raises AcceptanceError if it was of another account."""
    touched = run.journal.read()
    if touched is None:
        return
    where = (touched.account, touched.region)
    if where != (run.account.account, run.account.region):
        raise AcceptanceError(
            f"Use the credentials of account {touched.account} and region {touched.region}: an "
            f"earlier run there was not undone ({run.journal.folder})"
        )
    run.view.line("An earlier run of this cluster was not undone.")
    _ask("Undo it now?", yes=yes)
    with _signals(signal.SIG_IGN):
        run.undo(touched)
    if run.report.by_hand:
        raise AcceptanceError("\n".join(["Undo by hand:", *run.report.by_hand]))


def _ask(question: str, *, yes: bool) -> None:
    """Raise AcceptanceError unless the user agrees."""
    if yes:
        return
    try:
        agreed = typer.confirm(question)
    except typer.Abort:
        agreed = False
        typer.echo("")
    if not agreed:
        raise AcceptanceError("Nothing was touched: answer y, or give --yes")


def _print_rights(scope: Scope, account: Account) -> None:
    where = {"partition": account.partition, "region": account.region, "account": account.account}
    typer.echo(json.dumps(rights.policy(scope, **where), indent=2))
    typer.echo("---")
    typer.echo(yaml.safe_dump(rights.cluster_role(scope), sort_keys=False), nl=False)


def _versions() -> dict[str, str]:
    described = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - of the user's PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "castai-eks-cdk": described.stdout.strip() or "not a git clone",
        "Python": platform.python_version(),
    }


@contextmanager
def _signals(
    handler: Callable[[int, FrameType | None], object] | signal.Handlers,
) -> Iterator[None]:
    """Handle the signals that end a process in this way until the block ends."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    former = [signal.signal(number, handler) for number in numbers]
    try:
        yield
    finally:
        for number, each in zip(numbers, former, strict=True):
            signal.signal(number, each)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


@contextmanager
def translated_errors() -> Iterator[None]:
    """Print an error of ours or of AWS without traceback, exit with 1."""
    try:
        yield
    except FAILURES as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(str(error), style="red"))
        raise typer.Exit(1) from error


if __name__ == "__main__":
    sys.exit(app())
