"""The estimate for a terminal: at most 100 columns, with bars, readable without colours."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Final

from rich.cells import cell_len
from rich.console import Console, Group, RenderableType
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Column, Table
from rich.text import Text

from savings.estimate import Estimate, Line, Verdict
from savings.figures import (
    BRIEF,
    MORE,
    Figures,
    Part,
    ShownStep,
    certainty,
    compared,
    count,
    money,
    month,
    percent,
    text,
    tolerant,
)
from savings.prices import HOURS_PER_MONTH

WIDTH: Final = 100
_BARS: Final = (8, 6, 4, 0)
"""Columns of a bar: the first that leaves names this place."""
_NAME: Final = 30
_STEP: Final = 14
_LINES: Final = 20
"""Rows of nodes shown of one table."""
_WORKLOADS: Final = 10
_COSTLIEST: Final = 5
_ZERO: Final = Decimal(0)


def show(estimate: Estimate, console: Console | None = None) -> None:
    """Print the estimate. In a pipe it is as wide as WIDTH, in a terminal at most that."""
    console = console or Console()
    console.width = min(console.width, WIDTH) if console.is_terminal else WIDTH
    for part in _Drawn(Figures(estimate), console).all():
        console.print(part, crop=False)


class _Drawn:
    """The parts of the output."""

    def __init__(self, figures: Figures, console: Console) -> None:
        self._of = figures
        self._estimate = figures.estimate
        self._console = console
        self._full, self._empty = "#." if console.options.ascii_only else "█░"
        self._width = _BARS[0]
        self._hourly = f"{figures.currency}/hour"
        self._monthly = f"{figures.currency}/month"

    def all(self) -> Iterator[Text | Table | Padding]:
        found = self._estimate
        yield Text(
            f"Cluster {text(found.cluster)} in {text(found.region)}, seen at {text(found.taken)}\n"
            f"AWS's list prices of {text(found.prices_taken)}, in {self._of.currency}, for Linux"
        )
        yield Text(self._of.answer(), style="bold")
        yield from self._now()
        yield from self._steps()
        yield from self._workloads()
        yield _title("4. How sure that is")
        yield from map(_point, certainty(self._of))
        yield from self._castai()
        yield Text(
            f"\nA month has {HOURS_PER_MONTH} hours. Costs per hour are nodes x price, and add up "
            "exactly. Months are rounded to 0.01 so that they add up: one can be 0.01 off its own "
            "product. Shares are what pods request of what nodes have for pods; idle is the cost x "
            "(1 - mean of the two shares).",
            style="dim",
        )

    def _now(self) -> Iterator[Text | Table]:
        yield _title("1. What the cluster costs now")
        yield self._fitting(self._now_table, _NAME)
        yield from self._requested()

    def _fitting(self, draw: Callable[[], Table], name: int) -> Table:
        """The table with the longest bars that fit; wider than the terminal before a cut figure."""
        for self._width in _BARS:
            table = draw()
            needed = sum(self._needed(column) for column in table.columns[1:])
            if needed + name <= self._console.width:
                return table
        if needed + _STEP > self._console.width:
            table.width = needed + _STEP
        return table

    def _needed(self, column: Column) -> int:
        """Width of a column without a cut, and of the gap behind it."""
        cells = Measurement.get(self._console, self._console.options, Group(*column.cells))
        return max(cells.maximum, cell_len(str(column.header))) + 1

    def _now_table(self) -> Table:
        table = _table(("group: type, zone", "nodes x price", f"={self._hourly}", self._monthly))
        for head in ("cpu", "memory"):
            table.add_column(head, no_wrap=True)
        table.add_column("idle/hour", justify="right", no_wrap=True)
        idle = iter(self._of.idle_of([line for part in self._of.parts for line in part.lines]))
        left = _LINES
        for number, part in enumerate(self._of.parts):
            if left <= 0:
                self._add_hidden_parts(table, self._of.parts[number:], sum(idle, start=_ZERO))
                break
            own = [next(idle) for _ in part.lines]
            self._add_part(table, part, own, left)
            left -= len(part.lines)
        nodes = sum(part.nodes for part in self._of.parts)
        costs = (f"{nodes}", money(self._of.hour), money(self._of.month))
        table.add_row(Text("sum"), *costs, "", "", money(self._of.idle), style="bold")
        return table

    def _add_part(self, table: Table, part: Part, idle: Sequence[Decimal], left: int) -> None:
        costs = (f"{part.nodes}", money(part.hour), money(part.month))
        table.add_row(_group(part), *costs, "", "", money(sum(idle, start=_ZERO)), style="bold")
        for line, own in list(zip(part.lines, idle, strict=True))[:left]:
            table.add_row(
                *self._line(line),
                "",
                self._share(line.requested_cpu),
                self._share(line.requested_memory),
                money(own),
            )
        if part.lines[left:]:
            rest = money(sum(idle[left:], start=_ZERO))
            table.add_row(*self._hidden(part.lines[left:]), "", "", "", rest)

    def _add_hidden_parts(self, table: Table, parts: Sequence[Part], idle: Decimal) -> None:
        table.add_row(
            Text(f"... and {len(parts)} more: {MORE}"),
            f"{sum(part.nodes for part in parts)}",
            money(sum((part.hour for part in parts), start=_ZERO)),
            money(sum((part.month for part in parts), start=_ZERO)),
            "",
            "",
            money(idle),
            style="bold",
        )

    def _requested(self) -> Iterator[Text]:
        now = self._estimate.now
        for name, what in (("cpu", "processor"), ("memory", "memory")):
            whole = now.allocatable.get(name, 0)
            if whole:
                requested = self._share(now.requested.get(name, 0) / whole)
                yield Text(f"  {what:<10}{requested} of all nodes' is requested")
        idle = money(month(self._of.idle))
        share = percent(self._of.idle, self._of.hour)
        if share is not None:
            yield Text(
                f"  No pod requests {self._of.currency} {money(self._of.idle)} an hour, {idle} a "
                f"month: {share} % of the cost."
            )

    def _steps(self) -> Iterator[Text | Table | Padding]:
        yield _title("2. What the same pods would cost, packed well")
        yield self._fitting(self._steps_table, _STEP)
        yield Text(
            "  bound: no packing of these pods costs less by the rules of the step; above: how "
            "much more it costs",
            style="dim",
        )
        before = self._estimate.now.lines
        for number, step in enumerate(self._of.steps, 1):
            yield from self._nodes(number, step, same=step.step.lines == before)
            before = step.step.lines

    def _steps_table(self) -> Table:
        table = _table(
            ("step", "", self._hourly, "saved/hour", self._monthly, "saved/month", "bound/hour")
        )
        table.columns[1].justify = "left"
        table.add_column("above", justify="right", no_wrap=True)
        table.add_row(
            "now", self._bar(1 if self._of.hour else 0), money(self._of.hour), "",
            money(self._of.month), "", "", ""
        )  # fmt: skip
        for number, step in enumerate(self._of.steps, 1):
            table.add_row(
                f"{number} {BRIEF[step.step.name]}",
                self._bar(float(step.hour / self._of.hour) if self._of.hour else 0),
                money(step.hour),
                money(step.saved),
                money(step.month),
                money(step.saved_month),
                money(step.bound),
                "-" if step.above is None else f"{step.above} %",
            )
        saved = (money(self._of.saved), "", money(self._of.saved_month))
        share = self._of.saved_share
        head = "saved" if share is None else f"saved: {share} %"
        table.add_row(head, "", "", *saved, "", "", style="bold")
        return table

    def _nodes(self, number: int, step: ShownStep, *, same: bool) -> Iterator[Text | Table]:
        kept = f" (nodes that stay as they are: {step.step.kept})" if step.step.kept else ""
        title = step.title[0].lower() + step.title[1:]
        yield Text(f"\n  Step {number}: {title}{kept}", style="bold")
        if same:
            yield Text("  the same nodes as before")
            return
        lines = [line for part in step.parts for line in part.lines]
        table = _table(("type, market, zone, group", "nodes x price", f"={self._hourly}"))
        for line in lines[:_LINES]:
            table.add_row(*self._line(line, full=True))
        if lines[_LINES:]:
            table.add_row(*self._hidden(lines[_LINES:]))
        nodes = sum(line.count for line in lines)
        table.add_row(Text("  sum"), f"{nodes}", money(step.hour), style="bold")
        yield table

    def _line(self, line: Line, *, full: bool = False) -> tuple[RenderableType, str, str]:
        words = [line.instance_type, line.zone]
        if full:
            words = [line.instance_type, line.market, line.zone, line.group]
        product = f"{line.count} x {money(self._of.rounded(line.price))}"
        name = text("  ".join(filter(None, words)))
        return _indented(Text(name), 2), product, money(self._of.cost(line))

    def _hidden(self, lines: Sequence[Line]) -> tuple[RenderableType, str, str]:
        nodes = sum(line.count for line in lines)
        more = _indented(Text(f"... and {len(lines)} more: {MORE}"), 2)
        return more, f"{nodes}", money(self._of.total(lines))

    def _workloads(self) -> Iterator[Text | Table]:
        yield _title("3. Which workloads tolerate spot instances")
        good, bad = tolerant(self._estimate)
        pods = [count(sum(each.pods for each in group), "pod") for group in (good, bad)]
        yield Text(
            f"{count(len(good), 'workload')} with {pods[0]}: yes. "
            f"{count(len(bad), 'workload')} with {pods[1]}: no."
        )
        if bad:
            yield Text("\n  Those that cost most and do not tolerate them", style="bold")
            yield self._verdicts(bad[:_COSTLIEST], gains=True)
        if bad[_COSTLIEST:]:
            yield Text("\n  Others that do not", style="bold")
            yield self._verdicts(bad[_COSTLIEST : _COSTLIEST + _WORKLOADS], gains=True)
            yield from _more(len(bad) - _COSTLIEST - _WORKLOADS)
        if good:
            yield Text("\n  Those that tolerate them", style="bold")
            yield self._verdicts(good[:_WORKLOADS], gains=False)
            yield from _more(len(good) - _WORKLOADS)

    def _verdicts(self, verdicts: Sequence[Verdict], *, gains: bool) -> Table:
        table = _table(("workload", "pods", self._monthly, "would bring" if gains else "on spot"))
        for each in verdicts:
            last = money(month(self._of.rounded(each.gain))) if gains else f"{each.on_spot}"
            cost = money(month(self._of.rounded(each.cost)))
            name = Text(f"{text(each.namespace)}/{text(each.owner)}")
            reasons = [_indented(Text(text(reason), style="dim"), 2) for reason in each.reasons]
            cell = _indented(Group(name, *reasons), 2)
            table.add_row(cell, f"{each.pods}", cost, last)
        return table

    def _castai(self) -> Iterator[Text | Table]:
        if not self._estimate.castai:
            return
        yield _title("5. Beside it, CAST AI's own estimate")
        table = _table(("estimate", f"now {self._monthly}", f"after {self._monthly}", "saved"))
        share = self._of.saved_share
        ours = "-" if share is None else f"{share} %"
        costs = (money(self._of.month), money(self._of.month_after))
        table.add_row(Text("  this one, last step"), *costs, ours)
        for each in self._estimate.castai:
            costs = (money(month(each.cost)), money(month(each.cost_after)))
            name = Text(f"  CAST AI: {text(each.name)}")
            table.add_row(name, *costs, f"{each.percentage:.1f} %")
        yield table
        yield from map(_point, compared(self._of, self._estimate.castai[0]))

    def _share(self, share: float) -> str:
        return f"{self._bar(share)} {100 * share:3.0f} %".lstrip()

    def _bar(self, share: float) -> str:
        filled = round(self._width * min(1, max(0, share)))
        return self._full * filled + self._empty * (self._width - filled)


def _title(words: str) -> Text:
    return Text(f"\n{words}", style="bold underline")


def _point(sentence: str) -> Padding:
    grid = Table.grid(padding=(0, 1))
    grid.add_row("-", Text(sentence))
    return _indented(grid, 2)


def _indented(part: RenderableType, columns: int) -> Padding:
    return Padding(part, (0, 0, 0, columns))


def _group(part: Part) -> Text:
    return Text(f"{part.group or '(no group)'}, {part.market}")


def _more(number: int) -> Iterator[Text]:
    if number > 0:
        yield Text(f"    ... and {number} more: {MORE}")


def _table(heads: Iterable[str]) -> Table:
    """A table whose first column is folded where it is too long."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1, 0, 0))
    first, *others = heads
    table.add_column(Text(first), overflow="fold", min_width=_STEP)
    for head in others:
        table.add_column(Text(head), justify="right", no_wrap=True)
    return table
