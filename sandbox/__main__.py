"""`python -m sandbox`: the whole system on this machine, without an AWS account."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Final, Literal, NoReturn

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox import aws, external, kubernetes, lifecycle
from sandbox.cdk import Cdk, chosen
from sandbox.demo.chapters import run, selected
from sandbox.demo.console import View
from sandbox.demo.session import DemoSession
from sandbox.errors import SandboxError
from sandbox.state import API_KEY_SECRET, CLUSTER, FOLDER, State

app = typer.Typer(
    help="A simulated AWS account, EKS cluster and CAST AI. No request leaves this machine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
console = Console(highlight=False, soft_wrap=True)
EVENT_SHOWN: Final = 8  # characters of an event's id in the table, so that a row fits into 80

Context = Annotated[
    list[str] | None,
    typer.Option("--context", "-c", metavar="KEY=VALUE", help="As `cdk deploy -c`."),
]
Folder = Annotated[
    Path,
    typer.Option(
        "--folder", envvar="CASTAI_SANDBOX", help="Folder of the sandbox's state and logs."
    ),
]


@app.command()
def up(
    folder: Folder = FOLDER,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Use this cluster instead of the simulated one: its nodes become the instances. "
            "Its objects are not changed.",
        ),
    ] = None,
    cluster: Annotated[str, typer.Option(help="Name of the EKS cluster.")] = CLUSTER,
) -> None:
    """Start the sandbox if it does not run, and print how to use it."""
    with translated_errors():
        state = lifecycle.up(
            folder.absolute(),
            console.print,
            kubeconfig=kubeconfig,
            cluster=cluster,
        )
        _print_usage(state)


@app.command()
def deploy(
    folder: Folder = FOLDER,
    context: Context = None,
) -> None:
    """Run `cdk bootstrap` and `cdk deploy` of the app in the sandbox, as users run them."""
    with translated_errors():
        state = lifecycle.running(folder.absolute())
        _print_steps(state)
        settings = chosen(context)
        cdk = Cdk(aws.Aws(state), state.path)
        cdk.synth({"castai:clusters": state.cluster, **settings})
        cdk.bootstrap()
        console.print(cdk.deploy().strip())


@app.command()
def notice(
    instance: Annotated[str, typer.Argument(help="EC2 instance id; `status` lists them.")],
    folder: Folder = FOLDER,
    action: Annotated[
        Literal["terminate", "stop", "hibernate"],
        typer.Option(help="What EC2 does with the instance."),
    ] = "terminate",
    time: Annotated[
        str, typer.Option(help="Time of the notice: 2026-01-31T12:00:00Z, or seconds ago: 90s.")
    ] = "0s",
) -> None:
    """Publish a spot interruption notice for an instance on the default event bus."""
    with translated_errors():
        state = lifecycle.running(folder.absolute())
        _print_steps(state)
        given = aws.moment(time)
        event = aws.Aws(state).publish(
            aws.spot_notice(instance, action=action, given=given, state=state)
        )
        console.print(f"event {event}: {instance} will {action}, notice of {given:%H:%M:%S} UTC")
        console.print(f"result: python -m sandbox status{_option(folder)}")


@app.command()
def status(folder: Folder = FOLDER) -> None:
    """Show the processes, the nodes and the result of each event."""
    with translated_errors():
        state = lifecycle.running(folder.absolute())
        client = aws.Aws(state)
        for name, process in state.processes().items():
            console.print(f"{name}: process {process.pid}")
        nodes = Table("instance", "node", "zone", "capacity", box=None, header_style="dim")
        for node in state.nodes:
            nodes.add_row(node.instance, node.name, node.zone, "spot" if node.spot else "on demand")
        console.print(nodes)
        _show(client.deliveries())
        _print_steps(state)


def _show(deliveries: list[dict[str, Any]]) -> None:
    """Print a row for each event, then the full id and the error of each failed event."""
    table = Table("event", "function", "state", "attempts", "outcome", box=None)
    failures = []
    for delivery in deliveries:
        result = delivery["result"] if isinstance(delivery["result"], dict) else {}
        event, function = delivery["event"], delivery["function"]
        table.add_row(
            event[:EVENT_SHOWN],
            function,
            delivery["state"],
            str(delivery["attempts"]),
            Text(str(result.get("outcome", ""))),
        )
        if error := result.get("errorMessage"):
            failures.append(Text(f"\nevent {event}, {function}:\n{error}"))
    console.print(table if deliveries else "no events yet")
    for failure in failures:
        console.print(failure, soft_wrap=not console.is_terminal)


@app.command()
def down(folder: Folder = FOLDER) -> None:
    """End the sandbox and remove its folder; ends only processes that it started."""
    with translated_errors():
        state = State.load(folder.absolute())
        ended = lifecycle.down(folder.absolute())
        console.print(f"ended: {', '.join(ended)}" if ended else "nothing was running")
        if state is not None and state.external:
            console.print(f"in your cluster:  {external.bindings_to_remove(state)}", markup=False)
        if (folder / external.REVIEW_FILE).exists():
            console.print(
                "kept for your API server, which a later `up` serves again: "
                f"{folder / external.REVIEW_FILE}",
                markup=False,
            )


@app.command()
def demo(
    folder: Annotated[
        Path, typer.Option("--folder", help="Folder of the demo's own sandbox.")
    ] = FOLDER / "demo",
    chapter: Annotated[
        str | None, typer.Option(help="Only this chapter and those that it needs.")
    ] = None,
    context: Context = None,
    keep: Annotated[bool, typer.Option(help="Leave the sandbox running at the end.")] = False,
    plain: Annotated[
        bool | None,
        typer.Option("--plain/--live", help="Plain lines or a live view; default: by TTY."),
    ] = None,
) -> None:
    """Connect, onboard, drain after a notice, offboard. Exit status 0 if all checks pass."""
    with translated_errors():
        chapters = selected(chapter)
        session = DemoSession(folder.absolute(), View(plain=plain), chosen(context))
        lifecycle.down(session.folder)  # left by an interrupted demo
        signal.signal(signal.SIGTERM, _interrupt)
        kept = False
        try:
            with session:
                run(session, chapters)
            kept = keep
        finally:
            if not kept:
                signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C must not interrupt `down`
                lifecycle.down(session.folder, keep_logs=sys.exc_info()[0] is not None)
        if kept:
            _print_usage(session.state)


def _interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def _print_usage(state: State) -> None:
    """Print how to use a running sandbox. Secrets are written to a file and not printed."""
    client = aws.Aws(state)
    environment = state.path / "environment"
    lines = ["unset AWS_PROFILE AWS_SESSION_TOKEN"]  # of a real account
    lines += [f"export {name}={value}" for name, value in client.environment().items()]
    if state.kubernetes is not None:
        lines.append(f"export KUBECONFIG={state.kubernetes.kubeconfig}")
    environment.touch(mode=0o600)
    environment.write_text("\n".join(lines) + "\n")
    table = Table.grid(padding=(0, 2))
    table.add_row("AWS endpoint", client.environment()["AWS_ENDPOINT_URL"])
    if state.castai is not None:
        table.add_row("CAST AI API", f"{state.castai.url} (key: secret {API_KEY_SECRET})")
    if state.kubernetes is not None:
        table.add_row("cluster", f"{state.cluster} at {kubernetes.endpoint(state)}")
        table.add_row("kubeconfig", state.kubernetes.kubeconfig)
        if state.external:
            table.add_row("TokenReview", str(state.path / external.REVIEW_FILE))
            spot = sum(node.spot for node in state.nodes)
            table.add_row("instances", f"{len(state.nodes)}, spot: {spot}")
    console.print(table)
    _print_steps(state)
    console.print(f"\nin your shell:  source {environment}")
    console.print(f"deploy:         python -m sandbox deploy{_option(state.path)}")
    for node in state.nodes[:1]:
        console.print(
            f"spot notice:    python -m sandbox notice {node.instance}{_option(state.path)}"
        )
    console.print(f"end it:         python -m sandbox down{_option(state.path)}")


def _print_steps(state: State) -> None:
    """Print what is left to do in the user's cluster."""
    for number, step in enumerate(external.steps(state), 1):
        console.print(f"\n{number}. {step.what}", markup=False)
        for command in step.commands:
            console.print(f"   {command}", markup=False)


def _option(folder: Path) -> str:
    return "" if folder.absolute() == FOLDER.absolute() else f" --folder {folder}"


@contextmanager
def translated_errors() -> Iterator[None]:
    """Isolate from other AWS accounts. Print a SandboxError without traceback, exit with 1."""
    aws.isolate()
    try:
        yield
    except SandboxError as error:
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(str(error), style="red"))
        raise typer.Exit(1) from error


if __name__ == "__main__":
    app()
