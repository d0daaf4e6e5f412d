"""The demo's output: a live view on a terminal, plain lines elsewhere."""

import sys
import textwrap
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from sandbox.demo.timeline import PodProgress, PodState, Timeline, since
from sandbox.demo.watcher import Watcher

REFRESH = 8  # times a second
WIDTH = 88  # characters of running text
INDENT = "   "
NAME = 38  # characters of a pod's name: two names, a state and a node fit into 120
BAR = 60  # characters
COLOURS = {
    PodState.RUNNING: "white",
    PodState.EVICTED: "yellow",
    PodState.FORCED: "red",
    PodState.GONE: "green",
}


class View:
    """A console, with a live view if it is a terminal."""

    def __init__(self, *, plain: bool | None = None) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.plain = not self.console.is_terminal if plain is None else plain
        self.printed: list[str] = []

    def chapter(self, number: int, title: str, description: str) -> None:
        """Print the heading of a chapter."""
        self.line("")
        self.line(f"{number}  {title}", style="bold cyan")
        for text in textwrap.wrap(description, WIDTH - len(INDENT)):
            self.line(f"{INDENT}{text}", style="dim")

    def step(self, text: str) -> None:
        """Print a line within a chapter."""
        self.line(f"{INDENT}{text}")

    def table(self, rows: Iterable[Sequence[str]]) -> None:
        """Print rows within a chapter. Each column is as wide as its longest cell."""
        rows = list(rows)
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for row in rows:
            cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
            self.step(f"{INDENT}{'  '.join(cells).rstrip()}")

    @contextmanager
    def doing(self, text: str) -> Iterator[None]:
        """Print a step that takes some time. A terminal shows a spinner until the block ends."""
        self.step(text)
        if self.plain:
            yield
        else:
            with self.console.status(""):
                yield

    def done(self, seconds: float) -> None:
        """Print the chapter's duration."""
        self.line(f"{INDENT}({seconds:.1f} s)", style="dim")

    def end(self, seconds: float) -> None:
        """Print the duration of all chapters."""
        self.line("")
        self.line(f"Total: {seconds:.0f} s", style="bold")

    def line(self, text: str, style: str = "") -> None:
        """Print one line and flush it, so that a pipe gets it at once."""
        self.printed.append(text)
        self.console.print(Text(text, style=style))
        sys.stdout.flush()

    @contextmanager
    def drain(self, watcher: Watcher, given: float, deadline: float) -> Iterator["Drawing"]:
        """Show the timeline. The block must call `Drawing.update` regularly."""
        drawing = Drawing(self, watcher, given, deadline)
        if self.plain:
            yield drawing
            drawing.update()
            return
        with Live(
            get_renderable=drawing.render,
            console=self.console,
            refresh_per_second=REFRESH,
            transient=True,
        ):
            yield drawing
        for text in drawing.timeline():
            self.step(text)


class Drawing:
    """The timeline of a drain on the screen."""

    def __init__(self, view: View, watcher: Watcher, given: float, deadline: float) -> None:
        self._view = view
        self._watcher = watcher
        self._given = given
        self._deadline = deadline
        self._printed = 0

    def update(self) -> None:
        """Print the new lines if there is no live view."""
        if not self._view.plain:
            return
        for text in self.timeline(self._printed):
            self._view.step(text)
            self._printed += 1

    def timeline(self, first: int = 0) -> list[str]:
        """Return the timeline's lines from ``first`` on, with seconds since the notice."""
        return self._watcher.read(lambda timeline: list(since(timeline.lines[first:], self._given)))

    def render(self) -> RenderableType:
        """Return the current clock, pods and budgets."""
        return self._watcher.read(
            lambda timeline: Group(self._clock(timeline), _pods(timeline), _budgets(timeline))
        )

    def _clock(self, timeline: Timeline) -> RenderableType:
        total = self._deadline - self._given
        passed = min(time.time() - self._given, total)
        table = Table.grid(padding=(0, 2))
        table.add_row(
            Text(f"{passed:5.1f} s of {total:.0f} s", style="bold"),
            ProgressBar(total=total, completed=passed, width=BAR),
            Text("cordoned" if timeline.cordoned_at else "", style="yellow"),
        )
        return table


def _pods(timeline: Timeline) -> Table:
    table = Table(box=None, padding=(0, 1), title_justify="left")
    for heading, widest in (("pod", NAME), ("state", None), ("replacement", NAME), ("node", None)):
        table.add_column(heading, header_style="dim", no_wrap=True, max_width=widest)
    for pod in timeline.leaving:
        table.add_row(
            Text(pod.name), Text(_state(pod), style=COLOURS[pod.state]), *_replacement(pod)
        )
    for pod in timeline.staying:
        table.add_row(Text(pod.name, style="dim"), Text(f"stays: {pod.stays}", style="dim"), "", "")
    return table


def _state(pod: PodProgress) -> str:
    if pod.state is PodState.RUNNING:
        return "running"
    return ("forced" if pod.forced else "evicted") + (
        ", gone" if pod.state is PodState.GONE else " …"
    )


def _replacement(pod: PodProgress) -> tuple[str, str]:
    if pod.state is not PodState.RUNNING and not pod.owner:
        return "(no controller re-creates it)", ""
    where = pod.replacement_node.partition(".")[0]
    return pod.replacement, f"✓ {where}" if pod.replacement_ready else where


def _budgets(timeline: Timeline) -> Table:
    table = Table(box=None, padding=(0, 2))
    for heading in ("budget", "ready", "required", "evictions allowed"):
        table.add_column(heading, header_style="dim")
    for budget in timeline.budgets.values():
        table.add_row(
            budget.name,
            str(budget.healthy),
            str(budget.desired),
            Text(str(budget.allowed), style="green" if budget.allowed else "red"),
        )
    return table
