"""The estimate in a terminal and in a pipe."""

from __future__ import annotations

import io
import re
from collections import Counter
from decimal import Decimal

import pytest
from hypothesis import given
from rich.console import Console
from syrupy.assertion import SnapshotAssertion

from savings.estimate import Estimate
from savings.figures import Figures, divided, money, month, text
from savings.table import WIDTH, show
from tests.support import estimates
from tests.support.estimates import line


def printed(
    estimate: Estimate, *, terminal: bool = False, width: int = 200, encoding: str = "utf-8"
) -> str:
    file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    show(estimate, Console(file=file, force_terminal=terminal, width=width))
    file.seek(0)
    return "\n".join(each.rstrip() for each in file.read().splitlines())


def plain(output: str) -> str:
    """Without the codes of colours."""
    return re.sub(r"\x1b\[[\d;]*m", "", output)


def widest(output: str) -> int:
    return max(map(len, plain(output).splitlines()))


def numbers(output: str) -> Counter[str]:
    """Every amount with decimals."""
    return Counter(re.findall(r"[\d,]+\.\d+", plain(output)))


def sums(section: str) -> list[tuple[list[Decimal], Decimal]]:
    """Costs of the rows `N x price  cost` above each row `sum`, and what that row says.

    A row whose product is not its cost fails.
    """
    found, costs = [], []
    for row in section.splitlines():
        if product := re.search(r"([\d,]+) x ([\d.,]+) +([\d.,]+)", row):
            count, price, cost = (Decimal(each.replace(",", "")) for each in product.groups())
            assert count * price == cost
            costs.append(cost)
        elif hidden := re.match(r" *\.\.\. and \d+ more: [^.]* (\d+) +([\d.,]+)", row):
            costs.append(Decimal(hidden[2].replace(",", "")))
        elif total := re.match(r" *sum +[\d,]+ +([\d.,]+)", row):
            found.append((costs, Decimal(total[1].replace(",", ""))))
            costs = []
    return found


def test_the_whole_output(snapshot: SnapshotAssertion) -> None:
    assert printed(estimates.rich()) == snapshot


def test_shown_costs_add_up_to_shown_sums() -> None:
    found = sums(printed(estimates.rich()))

    assert [total for _, total in found] == [
        Decimal(each) for each in ("2.7504", "1.4233", "1.2585", "0.5356")
    ]
    assert all(sum(costs) == total for costs, total in found)


def test_shown_savings_add_up_to_the_whole() -> None:
    """By hand: 2.7504 - 0.5356 = 2.2148 = 1.3271 + 0.1648 + 0.7229."""
    figures = Figures(estimates.rich())

    assert [str(each.saved) for each in figures.steps] == ["1.3271", "0.1648", "0.7229"]
    assert (str(figures.saved), str(figures.saved_month)) == ("2.2148", "1616.80")
    assert sum(each.saved_month for each in figures.steps) == figures.saved_month
    assert str(figures.saved_share) == "80.5"


@pytest.mark.parametrize("name", estimates.cases())
@pytest.mark.parametrize("terminal", [False, True])
def test_no_row_is_wider_than_100_columns(name: str, terminal: bool) -> None:
    assert widest(printed(estimates.cases()[name], terminal=terminal)) <= WIDTH


def test_a_terminal_of_80_columns_gets_every_figure() -> None:
    wide, narrow = printed(estimates.rich()), printed(estimates.rich(), terminal=True, width=80)

    assert widest(narrow) <= 80
    assert numbers(wide) == numbers(narrow)


@pytest.mark.parametrize("name", ["rich", "large"])
@pytest.mark.parametrize("width", [60, 200])
def test_no_figure_is_cut(name: str, width: int) -> None:
    estimate = estimates.cases()[name]

    assert numbers(printed(estimate, terminal=True, width=width)) == numbers(printed(estimate))


def test_a_pipe_gets_no_colours_and_a_terminal_gets_them() -> None:
    assert "\x1b" not in printed(estimates.rich())
    assert "\x1b" in printed(estimates.rich(), terminal=True)


def test_a_pipe_without_unicode_gets_bars_of_ascii() -> None:
    found = printed(estimates.rich(), encoding="ascii")

    assert "##" in found
    assert found.isascii()


def test_names_cannot_write_to_the_terminal_and_are_no_markup() -> None:
    found = printed(estimates.hostile())
    named = printed(estimates.bare(cluster="[red]x[/red] [/b]"))

    assert "\x1b" not in found
    assert "\u202e" not in found
    assert "Cluster [red]x[/red] [/b] in" in named


def test_long_lists_are_cut_and_what_is_hidden_is_in_the_sum() -> None:
    found = printed(estimates.large())

    assert len(found.splitlines()) < 310
    assert "... and 1485 more: --json shows all" in found
    assert all(sum(costs) == total for costs, total in sums(found))


def test_a_cluster_that_is_packed_well_says_so() -> None:
    found = printed(estimates.packed_well())

    assert "no cheaper set of nodes was found" in found
    assert found.count("the same nodes as before") == 3


def test_ratio_of_720_to_730_hours_is_explained() -> None:
    ours = estimates.packed_well()
    castai = estimates.rich().castai[0]
    month_of_720 = type(castai)(
        cost=0.23 * 720 / 730,
        name="Spot",
        cost_after=0.1,
        percentage=40,
        updated="2026-11-27T03:00:00Z",
    )
    found = printed(estimates.bare(now=ours.now, steps=ours.steps, castai=(month_of_720,)))

    assert "1.4 % less than ours" in found
    assert "A month of 720 hours instead of 730 would explain that." in found


def test_prices_with_more_than_four_decimals_are_shown_whole() -> None:
    before = estimates.now([line(3, "t4g.nano", 0.00425), line(2, "t3.nano", 0.0052)])
    found = printed(estimates.bare(now=before, steps=estimates.steps(before, [(), (), ()])))

    assert "3 x 0.00425" in found
    assert "2 x 0.00520" in found


@given(estimates.estimates())
def test_any_estimate_is_shown_and_its_sums_agree(estimate: Estimate) -> None:
    found = printed(estimate)
    figures = Figures(estimate)
    nodes = sum(each.count for each in estimate.now.lines)

    assert max(map(len, found.splitlines())) <= WIDTH * 2  # wide characters count as one
    assert sum(part.hour for part in figures.parts) == figures.hour
    assert sum(part.month for part in figures.parts) == figures.month == month(figures.hour)
    assert sum(step.saved for step in figures.steps) == figures.saved
    assert sum(step.saved_month for step in figures.steps) == figures.saved_month
    lines = [each for part in figures.parts for each in part.lines]
    assert sum(figures.idle_of(lines)) == (figures.idle if lines else 0)
    assert float(figures.hour) == pytest.approx(estimate.now.cost, abs=1e-6 + 5e-5 * nodes)
    for shown in figures.steps:
        assert shown.bound <= shown.hour
        assert float(shown.saved) == pytest.approx(shown.step.saved, abs=1e-6 + 1e-4 * 4800)


def test_divided_parts_add_up_and_are_near_their_shares() -> None:
    parts = divided(Decimal("10.00"), [1, 1, 1])

    assert sum(parts) == Decimal("10.00")
    assert [str(each) for each in parts] == ["3.33", "3.34", "3.33"]
    assert divided(Decimal("0.00"), []) == []
    assert divided(Decimal("0.00"), [0, 0]) == [0, 0]


def test_money_and_text() -> None:
    assert money(Decimal("1234567.50")) == "1,234,567.50"
    assert text(
        "a\x1b[2J\nb\u202ec"
    ) == "a\N{REPLACEMENT CHARACTER}[2J\N{REPLACEMENT CHARACTER}b" + ("\N{REPLACEMENT CHARACTER}c")
