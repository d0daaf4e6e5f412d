"""Charts of an estimate as SVG for an HTML page, drawn by pygal. No script, no reference."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Final

import pygal  # type: ignore[import-untyped] # it has no types
from pygal.etree import etree  # type: ignore[import-untyped]
from pygal.style import Style  # type: ignore[import-untyped]

from savings.figures import Figures, Part, money, month, text
from savings.snapshot import ON_DEMAND, SPOT

# pygal's finder of plugins lacks find_spec: Python 3.11 warns at each import that fails after it.
sys.meta_path[:] = [each for each in sys.meta_path if type(each).__module__ != pygal.__name__]

_WIDTH: Final = 440
_ROW: Final = 52
_UNITS: Final = ((1_000_000, "M"), (1_000, "k"))
_GROUPS: Final = 8
_LABEL: Final = 12
"""Characters of a group's name; the table below has the whole name."""
_STRIPES: Final = (
    '<pattern id="{name}-stripes" width="6" height="6" patternUnits="userSpaceOnUse" '
    'patternTransform="rotate(45)"><rect width="3" height="6" style="fill: var(--two)"/></pattern>'
)


def now(figures: Figures) -> str:
    """Cost per month by node group and market: what pods request, and what they do not."""
    lines = [line for part in figures.parts for line in part.lines]
    idle = iter(figures.idle_of(lines))
    found = [
        (_name(part), part.hour, sum((next(idle) for _ in part.lines), start=Decimal(0)))
        for part in figures.parts
    ]
    found.sort(key=lambda each: -each[1])
    if found[_GROUPS:]:
        rest = found[_GROUPS - 1 :]
        cost = sum((each[1] for each in rest), start=Decimal(0))
        unused = sum((each[2] for each in rest), start=Decimal(0))
        found = [*found[: _GROUPS - 1], (f"{len(rest)} others", cost, unused)]
    return _bars(
        "now",
        [name for name, _, _ in found],
        {
            "requested": [month(cost - unused) for _, cost, unused in found],
            "idle": [month(unused) for _, _, unused in found],
        },
        figures.currency,
    )


def steps(figures: Figures) -> str:
    """Cost per month now and after each step, by market."""
    names = ["now", *(f"step {number}" for number in range(1, len(figures.steps) + 1))]
    packed = [figures.parts, *(step.parts for step in figures.steps)]
    return _bars(
        "steps",
        [
            f"{name}: {month(figures.total(line for part in parts for line in part.lines)):,.0f}"
            for name, parts in zip(names, packed, strict=True)
        ],
        {
            market: [
                month(sum((part.hour for part in parts if part.market == market), start=Decimal(0)))
                for parts in packed
            ]
            for market in (ON_DEMAND, SPOT)
        },
        figures.currency,
    )


def _name(part: Part) -> str:
    return f"{part.group or 'no group'}, {part.market}"


def _short(name: str) -> str:
    """`group, market` with a group that fits; every other label is short."""
    group, comma, market = name.rpartition(", ")
    cut = group if len(group) <= _LABEL else f"{group[: _LABEL - 1]}\N{HORIZONTAL ELLIPSIS}"
    return f"{cut}{comma}{market}"


def _axis(value: float) -> str:
    for unit, sign in _UNITS:
        if value >= unit:
            return f"{value / unit:g} {sign}"
    return f"{value:g}"


def _bars(name: str, labels: Sequence[str], series: dict[str, list[Decimal]], currency: str) -> str:
    """Stacked bars from top to bottom; the second series is striped, for print without colours."""
    font = "system-ui, sans-serif"
    chart = pygal.HorizontalStackedBar(
        js=[],
        width=_WIDTH,
        height=_ROW * len(labels) + 90,
        defs=[_STRIPES.format(name=name)],
        style=Style(
            background="transparent",
            plot_background="transparent",
            foreground="var(--ink)",
            foreground_strong="var(--ink)",
            foreground_subtle="var(--soft)",
            guide_stroke_color="var(--line)",
            major_guide_stroke_color="var(--line)",
            colors=("var(--one)", f"url(#{name}-stripes)"),
            opacity="1",
            stroke_opacity="0",
            font_family=font,
            label_font_size=14,
            major_label_font_size=14,
            legend_font_size=14,
        ),
        legend_at_bottom=True,
        truncate_label=-1,
        truncate_legend=-1,
        include_x_axis=True,
        margin=6,
        spacing=6,
        max_scale=5,
        value_formatter=_axis,
    )
    chart.uuid = f"chart-{name}"
    chart.x_labels = [_short(text(label)) for label in reversed(labels)]
    for title, values in series.items():
        chart.add(title, [float(value) for value in reversed(values)])
    rows = "; ".join(
        f"{label}: "
        + ", ".join(f"{title} {money(values[number])}" for title, values in series.items())
        for number, label in enumerate(labels)
    )
    return _inline(chart.render_tree(), text(f"Bars, {currency} per month. {rows}."))


def _inline(root: Any, words: str) -> str:  # noqa: ANN401 - an element of either ElementTree
    """The element as text, with a description, without pygal's script, comments and tooltips.

    The ids that go serve the script, and are the same in each chart.
    """
    for parent in list(root.iter()):
        if str(parent.get("id", "")).startswith("activate-"):
            del parent.attrib["id"]
        for child in list(parent):
            if child.tag in {"script", "desc"} or not isinstance(child.tag, str):
                parent.remove(child)
    root.find("title").text = words
    root.set("role", "img")
    root.set("aria-label", words)
    written: str = etree.tostring(root, encoding="unicode")
    return written
