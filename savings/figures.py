"""The figures of an estimate as they are shown: rounded once, so that parts add up to their sum.

An hourly price is rounded to 4 to 6 decimals: the fewest that hold every price exactly, else 6. Of
a cluster that costs 10,000 an hour they are 4.
Costs are products and sums of such prices, and savings are differences of such costs. So whoever
adds the shown figures finds the shown sum. A month is an hour x 730, to 2 decimals; a part of a
month can be 0.01 off its own product, so that the parts add up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, ROUND_HALF_EVEN, Decimal
from itertools import groupby, pairwise
from typing import Final

from savings.estimate import Castai, Estimate, Line, Step, StepName, Verdict
from savings.prices import HOURS_PER_MONTH
from savings.snapshot import Market

STEPS: Final[dict[StepName, str]] = {
    "fewer": "Fewer and better nodes of the types in use",
    "better": "Better types",
    "spot": "Spot instances for what tolerates them",
}
BRIEF: Final[dict[StepName, str]] = {
    "fewer": "fewer nodes",
    "better": "better types",
    "spot": "spot",
}
MORE: Final = "--json shows all"
_LEAST, _MOST = 4, 6
"""Decimals of a price per hour. On-demand prices have 4 or 5, spot prices 4 to 6."""
_DEAR: Final = 10_000
"""Money per hour: from there on 4 decimals are enough, and more take the place of names."""
_CENT: Final = Decimal("0.01")
_SHARE_OF_MONTH: Final = 0.002
"""Two months differ by 1.4 % if one has 720 hours; a ratio this near to it is called equal."""


@dataclass(frozen=True)
class Part:
    """Nodes of one group and market, with what they cost."""

    group: str
    market: Market
    lines: tuple[Line, ...]
    hour: Decimal
    month: Decimal

    @property
    def nodes(self) -> int:
        """Number of nodes."""
        return sum(each.count for each in self.lines)


@dataclass(frozen=True)
class ShownStep:
    """A step, with what it costs and saves."""

    step: Step
    title: str
    hour: Decimal
    saved: Decimal
    """Per hour, as saved_month per month: the cost before less this cost."""
    saved_month: Decimal
    bound: Decimal
    above: Decimal | None
    """Per cent by which the cost is above the lower bound. None: the bound is 0."""
    month: Decimal
    parts: tuple[Part, ...]


class Figures:
    """The figures of one estimate."""

    def __init__(self, estimate: Estimate) -> None:
        self.estimate = estimate
        self.currency = text(estimate.currency)[:8]
        every = [*estimate.now.lines, *(line for step in estimate.steps for line in step.lines)]
        self.digits = _digits([each.price for each in every], estimate.now.cost)
        self.hour = self.total(estimate.now.lines)
        self.month = month(self.hour)
        self.idle = self.rounded(estimate.now.idle_cost)
        self.parts = self._parts(estimate.now.lines)
        self.steps = tuple(self._steps())
        last = self.steps[-1] if self.steps else None
        self.hour_after = last.hour if last else self.hour
        self.month_after = last.month if last else self.month
        self.saved = self.hour - self.hour_after
        self.saved_month = self.month - self.month_after
        self.saved_share = percent(self.saved, self.hour)

    def rounded(self, amount: float) -> Decimal:
        """Money per hour, in the digits of the prices."""
        return round_to(amount, self.digits)

    def cost(self, line: Line) -> Decimal:
        """Of a line, per hour: the count x the shown price."""
        return line.count * self.rounded(line.price)

    def total(self, lines: Iterable[Line]) -> Decimal:
        """Of lines, per hour."""
        return sum((self.cost(line) for line in lines), start=self.rounded(0))

    def idle_of(self, lines: Sequence[Line]) -> list[Decimal]:
        """Of each line, what no pod requests, per hour. All lines of now add up to `idle`."""
        exact = [line.cost * max(0.0, 1 - _requested(line)) for line in lines]
        return divided(self.idle, exact)

    def answer(self) -> str:
        """The result in one sentence."""
        name = f"Cluster {text(self.estimate.cluster)}"
        now = f"{name} costs {self.currency} {money(self.month)} a month now"
        if self.saved <= 0:
            return f"{now}; no cheaper set of nodes was found for its pods."
        after = f"the same pods could run for {self.currency} {money(self.month_after)}"
        return f"{now}; {after}: {self.saved_share} % less."

    def _parts(self, lines: Sequence[Line]) -> tuple[Part, ...]:
        ordered = sorted(lines, key=_group)
        found = [(key, tuple(each)) for key, each in groupby(ordered, _group)]
        hours = [self.total(each) for _, each in found]
        months = divided(month(sum(hours, start=self.rounded(0))), hours)
        return tuple(
            Part(text(group), market, each, hour, per_month)
            for ((group, market), each), hour, per_month in zip(found, hours, months, strict=True)
        )

    def _steps(self) -> Iterator[ShownStep]:
        steps = self.estimate.steps
        hours = [self.hour, *(self.total(step.lines) for step in steps)]
        for step, (before, hour) in zip(steps, pairwise(hours), strict=True):
            bound = min(hour, round_to(step.lower_bound, self.digits, ROUND_FLOOR))
            yield ShownStep(
                step=step,
                title=STEPS[step.name],
                hour=hour,
                saved=before - hour,
                saved_month=month(before) - month(hour),
                bound=bound,
                above=percent(hour - bound, bound) if bound else None,
                month=month(hour),
                parts=self._parts(step.lines),
            )


def _group(line: Line) -> tuple[str, Market]:
    return line.group, line.market


def _requested(line: Line) -> float:
    return (line.requested_cpu + line.requested_memory) / 2


def _digits(prices: Iterable[float], cost: float) -> int:
    if cost >= _DEAR:
        return _LEAST
    needed = (-int(Decimal(repr(float(each))).normalize().as_tuple().exponent) for each in prices)
    return min(_MOST, max((_LEAST, *needed)))


def round_to(amount: float, digits: int, how: str = ROUND_HALF_EVEN) -> Decimal:
    """An amount with this many decimals."""
    return Decimal(repr(float(amount))).quantize(Decimal(1).scaleb(-digits), how)


def month(hour: Decimal | float) -> Decimal:
    """Money per month, of money per hour."""
    return (Decimal(str(hour)) * HOURS_PER_MONTH).quantize(_CENT)


def money(amount: Decimal) -> str:
    """An amount for people: 1,234.50."""
    return f"{amount:,f}"


def percent(part: Decimal, whole: Decimal) -> Decimal | None:
    """A share in per cent with one decimal. None: of nothing."""
    return (100 * part / whole).quantize(Decimal("0.1")) if whole else None


def divided(total: Decimal, parts: Sequence[Decimal | float]) -> list[Decimal]:
    """Parts scaled and rounded so that they add up to a total; each is less than a unit off."""
    whole = sum(map(float, parts))
    unit = Decimal(1).scaleb(int(total.as_tuple().exponent))
    done, running, shown = Decimal(0) * unit, 0.0, []
    for part in parts:
        running += float(part)
        until = (total * Decimal(running / whole if whole else 0)).quantize(unit)
        shown.append(until - done)
        done = until
    if shown:
        shown[-1] += total - done
    return shown


def text(value: str) -> str:
    """A name from the cluster without control characters, which a terminal would obey."""
    return "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in value)


def tolerant(estimate: Estimate) -> tuple[list[Verdict], list[Verdict]]:
    """The workloads that tolerate spot instances, and those that do not."""
    return (
        [each for each in estimate.verdicts if each.tolerates_spot],
        [each for each in estimate.verdicts if not each.tolerates_spot],
    )


def count(number: int, thing: str) -> str:
    """`1 pod`, `2 pods`."""
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def certainty(figures: Figures) -> list[str]:
    """How sure the estimate is: a sentence for each reason."""
    return [*_prices(figures), *_left_out(figures)]


def _prices(figures: Figures) -> Iterator[str]:
    found = figures.estimate
    yield (
        "All prices are list prices, before Savings Plans, reservations and private discounts. "
        "Disks, network traffic, the control plane and EKS Auto Mode's charge are not in them."
    )
    yield (
        "Replicas of a workload can share a node, on spot too, where one notice takes them all: "
        "anti-affinity or a topology spread keeps them apart, here as in the cluster."
    )
    if found.steps:
        last = found.steps[-1]
        low, high = (money(month(figures.rounded(each))) for each in (last.low, last.high))
        yield (
            f"The nodes of the last step cost {figures.currency} {low} a month at the lowest spot "
            f"prices of the last {found.history_days} days and {high} at the highest."
        )
    if found.types_without_price:
        yield f"Types without a price, left out: {listed(found.types_without_price)}."
    if found.interruptions is None:
        yield "How often spot nodes are interrupted is not known: no Spot Advisor data was given."
    else:
        yield _interruptions(found.interruptions.low, found.interruptions.high)
        if found.interruptions.unknown:
            unknown = found.interruptions.unknown
            yield f"Spot nodes of types that the Spot Advisor does not know: {unknown:,}."


def _interruptions(low: float, high: float | None) -> str:
    end = "or more" if high is None else f"to {high:.1f}"
    return f"Interruptions of the last step's spot nodes in 30 days: {low:.1f} {end}."


def _left_out(figures: Figures) -> Iterator[str]:
    found = figures.estimate
    for each in found.unpriced:
        yield (
            f"Left out: {count(each.nodes, 'node')} with {count(each.pods, 'pod')}, "
            f"{text(each.reason)}."
        )
    yield (
        f"{count(found.types_considered, 'instance type')} and {count(found.pods, 'pod')} were in "
        f"the packing. {count(found.daemon_pods, 'pod')} of DaemonSets or of the nodes themselves "
        "take their share of each node beside them."
    )
    if found.pods_without_requests:
        yield (
            f"Pods that request no processor or no memory: {found.pods_without_requests:,}. They "
            "are packed as if they used none, so real nodes may have to be larger."
        )
    if found.immovable:
        yield f"Pods that cannot move, so that their nodes stay as they are: {found.immovable:,}."
    if found.pending:
        yield f"Pods that wait for a node, not in the estimate: {found.pending:,}."


def listed(names: Sequence[str], most: int = 8) -> str:
    """Names, cut after the first ones."""
    shown = ", ".join(map(text, names[:most]))
    more = len(names) - most
    return f"{shown} and {more} more ({MORE})" if more > 0 else shown


def compared(figures: Figures, castai: Castai) -> list[str]:
    """Why CAST AI's figures differ from ours, as far as it can be said."""
    return [
        *_now_compared(figures, castai),
        (
            f"CAST AI's report is of {text(castai.updated)}, the cluster was seen at "
            f"{text(figures.estimate.taken)}: nodes and pods may differ."
        ),
        (
            "Both use list prices. CAST AI does not say how many hours its month has: where it "
            f"states no hour, its month / {HOURS_PER_MONTH} is taken as one."
        ),
        (
            "CAST AI's cost after is what its own rebalancing would reach, by rules that it does "
            "not publish; ours is the last step."
        ),
    ]


def _now_compared(figures: Figures, castai: Castai) -> Iterator[str]:
    if not figures.hour or not castai.cost:
        return
    ratio = castai.cost / float(figures.hour)
    difference = percent(Decimal(str(ratio)) - 1, Decimal(1))
    if not difference:
        yield "Both agree on what the cluster costs now."
        return
    word = "more" if ratio > 1 else "less"
    yield f"CAST AI's cost now is {abs(difference)} % {word} than ours."
    if abs(ratio * HOURS_PER_MONTH / 720 - 1) < _SHARE_OF_MONTH:
        yield "A month of 720 hours instead of 730 would explain that."
    left_out = sum(each.nodes for each in figures.estimate.unpriced)
    if left_out:
        yield f"Ours leaves out {count(left_out, 'node')} (see above); CAST AI's may have them."
