"""The estimate as one self-contained HTML page: no script, and no reference to a network.

The names in an estimate are data of others: every text is escaped. Charts: `savings.charts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import Final

from savings import charts
from savings.estimate import Estimate, Line, Verdict
from savings.figures import (
    MORE,
    Figures,
    ShownStep,
    certainty,
    compared,
    count,
    money,
    month,
    text,
    tolerant,
)
from savings.layout import PAGE
from savings.prices import HOURS_PER_MONTH

_ROWS: Final = 100
"""Rows of a table of workloads. Tables of nodes have all rows: they add up."""
_COSTLIEST: Final = 5
_METHOD: Final = (
    "The nodes and pods of the cluster were read once. Nothing was changed.",
    "A node costs its type's list price for Linux: on demand, or the spot price of its zone.",
    f"A month has {HOURS_PER_MONTH} hours, as AWS counts it.",
    "A pod needs what it requests of processor, memory and other resources, not what it uses.",
    "Each node carries the pods of DaemonSets and of its kubelet too, and keeps what EKS reserves.",
    "Rules of pods for their nodes hold: selectors, affinities, taints, spread, zones of volumes.",
    "Step 1 packs the pods anew on types in use, step 2 on any type, step 3 also on spot nodes.",
    "Only workloads that tolerate an interruption of two minutes' notice go to spot nodes.",
    "A step never costs more than the one before. The lower bound is what no packing can beat.",
    "Costs are nodes x price. Prices have enough decimals that all shown costs add up exactly.",
)


def render(estimate: Estimate) -> str:
    """The page, as HTML 5 in UTF-8."""
    figures = Figures(estimate)
    sections = (_now, _steps, _nodes, _workloads, _certainty, _castai, _method)
    return PAGE.substitute(
        title=_text(f"What could be saved: cluster {estimate.cluster}"),
        cluster=_text(estimate.cluster),
        answer=_text(figures.answer()),
        facts=_facts(figures),
        sections="\n".join(part for section in sections for part in section(figures)),
    )


def _text(value: str) -> str:
    """Text, or the value of an attribute in double quotes."""
    return escape(text(value), quote=True)


def _facts(figures: Figures) -> str:
    found = figures.estimate
    rows = {
        "Cluster": found.cluster,
        "Region": found.region,
        "Seen at": found.taken,
        "Nodes and pods": f"{count(found.nodes, 'node')}, {count(found.pods, 'pod')}",
        "Prices": f"AWS's list prices for Linux in {figures.currency}, of {found.prices_taken}",
    }
    return "".join(f"<dt>{name}</dt><dd>{_text(value)}</dd>" for name, value in rows.items())


def _now(figures: Figures) -> Iterator[str]:
    yield _heading("now", "What it costs now")
    if figures.hour:
        yield _figure(charts.now(figures), "Cost per month by node group: requested, and idle.")
    lines = [line for part in figures.parts for line in part.lines]
    idle = iter(figures.idle_of(lines))
    rows = [
        (*_line(figures, line), _share(line.requested_cpu), _share(line.requested_memory),
         money(next(idle)))
        for line in lines
    ]  # fmt: skip
    yield _table(
        f"Nodes now, in {figures.currency} per hour",
        ("Group", "Type", "Market", "Zone", "Nodes", "Price", "Cost", "CPU", "Memory", "Idle"),
        rows,
        names=4,
        total=("Sum", "", "", "", str(sum(line.count for line in lines)), "",
               money(figures.hour), "", "", money(figures.idle)),
    )  # fmt: skip
    yield _paragraph(
        "CPU and memory: the share that pods request. Idle: the part of the cost that no pod "
        "requests, cost x (1 - mean of the two shares). Together it is "
        f"{figures.currency} {money(month(figures.idle))} a month."
    )
    yield _table(
        f"Node groups now, in {figures.currency}",
        ("Group", "Market", "Nodes", "Cost per hour", "Cost per month"),
        [
            (part.group, part.market, str(part.nodes), money(part.hour), money(part.month))
            for part in figures.parts
        ],
        names=2,
        total=("Sum", "", str(sum(part.nodes for part in figures.parts)), money(figures.hour),
               money(figures.month)),
    )  # fmt: skip


def _steps(figures: Figures) -> Iterator[str]:
    yield _heading("steps", "What the same pods would cost")
    if figures.hour:
        yield _figure(charts.steps(figures), "Cost per month now and after each step, by market.")
    rows = [("Now", money(figures.hour), "", money(figures.month), "", "", "")]
    rows += [
        (
            f"Step {number}: {step.title}",
            money(step.hour),
            money(step.saved),
            money(step.month),
            money(step.saved_month),
            money(step.bound),
            "-" if step.above is None else f"{step.above} %",
        )
        for number, step in enumerate(figures.steps, 1)
    ]
    yield _paragraph(
        "The lower bound is what no packing of these pods can beat by the rules of the step."
    )
    yield _table(
        f"Costs in {figures.currency}",
        ("Step", "Per hour", "Saved per hour", "Per month", "Saved per month", "Bound per hour",
         "Above it"),
        rows,
        names=1,
        total=("Saved together", "", money(figures.saved), "", money(figures.saved_month), "",
               "" if figures.saved_share is None else f"{figures.saved_share} % of now"),
    )  # fmt: skip


def _nodes(figures: Figures) -> Iterator[str]:
    before = figures.estimate.now.lines
    for number, step in enumerate(figures.steps, 1):
        yield _heading(f"step-{number}", f"Nodes of step {number}: {step.title}", level=3)
        if step.step.kept:
            yield _paragraph(f"Nodes that stay as they are: {step.step.kept}.")
        if step.step.lines == before:
            yield _paragraph("The same nodes as before.")
        else:
            yield _step_nodes(figures, number, step)
        before = step.step.lines


def _step_nodes(figures: Figures, number: int, step: ShownStep) -> str:
    lines = [line for part in step.parts for line in part.lines]
    return _table(
        f"Nodes of step {number}, in {figures.currency} per hour",
        ("Group", "Type", "Market", "Zone", "Nodes", "Price", "Cost"),
        [_line(figures, line) for line in lines],
        names=4,
        total=("Sum", "", "", "", str(sum(line.count for line in lines)), "", money(step.hour)),
    )


def _line(figures: Figures, line: Line) -> tuple[str, ...]:
    return (
        line.group,
        line.instance_type,
        line.market,
        line.zone,
        str(line.count),
        money(figures.rounded(line.price)),
        money(figures.cost(line)),
    )


def _workloads(figures: Figures) -> Iterator[str]:
    good, bad = tolerant(figures.estimate)
    yield _heading("workloads", "Which workloads tolerate spot instances")
    yield _paragraph(
        f"{count(len(good), 'workload')} with {count(sum(each.pods for each in good), 'pod')} "
        f"tolerate them; {count(len(bad), 'workload')} with "
        f"{count(sum(each.pods for each in bad), 'pod')} do not."
    )
    heads = ("Workload", "Pods", "Cost per month", "Would bring")
    if bad:
        yield _table(
            f"The costliest that do not, in {figures.currency} per month",
            (*heads, "Why not"),
            [(*_verdict(figures, each), " ".join(each.reasons)) for each in bad[:_COSTLIEST]],
            names=1,
            words=(4,),
        )
    if bad[_COSTLIEST:]:
        yield _table(
            f"Others that do not, in {figures.currency} per month",
            (*heads, "Why not"),
            [(*_verdict(figures, each), " ".join(each.reasons)) for each in bad[_COSTLIEST:]],
            names=1,
            words=(4,),
        )
    if good:
        yield _table(
            f"Those that tolerate spot instances, in {figures.currency} per month",
            ("Workload", "Pods", "Cost per month", "Pods on spot now"),
            [(*_verdict(figures, each)[:3], str(each.on_spot)) for each in good],
            names=1,
        )


def _verdict(figures: Figures, verdict: Verdict) -> tuple[str, ...]:
    return (
        f"{verdict.namespace}/{verdict.owner}",
        str(verdict.pods),
        *(money(month(figures.rounded(each))) for each in (verdict.cost, verdict.gain)),
    )


def _certainty(figures: Figures) -> Iterator[str]:
    yield _heading("certainty", "How sure that is")
    yield _list(certainty(figures))


def _castai(figures: Figures) -> Iterator[str]:
    found = figures.estimate.castai
    if not found:
        return
    yield _heading("castai", "CAST AI's own estimate beside it")
    ours = "-" if figures.saved_share is None else f"{figures.saved_share} %"
    rows = [("This one, last step", money(figures.month), money(figures.month_after), ours)]
    rows += [
        (
            f"CAST AI: {each.name}",
            money(month(each.cost)),
            money(month(each.cost_after)),
            f"{each.percentage:.1f} %",
        )
        for each in found
    ]
    yield _table(
        f"Two estimates, in {figures.currency} per month",
        ("Estimate", "Now", "After", "Saved"),
        rows,
        names=1,
    )
    yield _list(compared(figures, found[0]))


def _method(_: Figures) -> Iterator[str]:
    yield _heading("method", "How it was computed")
    yield _list(_METHOD, tag="ol")


def _heading(name: str, words: str, level: int = 2) -> str:
    return f'<h{level} id="{name}">{_text(words)}</h{level}>'


def _paragraph(words: str) -> str:
    return f"<p>{_text(words)}</p>"


def _list(sentences: Iterable[str], tag: str = "ul") -> str:
    return f"<{tag}>{''.join(f'<li>{_text(each)}</li>' for each in sentences)}</{tag}>"


def _share(share: float) -> str:
    return f"{100 * share:.0f} %"


def _figure(drawing: str, caption: str) -> str:
    return f"<figure>{drawing}<figcaption>{_text(caption)}</figcaption></figure>"


def _table(
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    names: int,
    total: Sequence[str] = (),
    words: Sequence[int] = (),
) -> str:
    """A table that scrolls on a narrow screen. The first `names` columns and `words` are texts."""
    label = _text(caption)
    shown = rows if total else rows[:_ROWS]
    kinds = ["" if number < names else ' class="n"' for number in range(len(heads))]
    for number in words:
        kinds[number] = ' class="w"'
    parts = [
        f'<div class="wide" role="region" tabindex="0" aria-label="{label}">',
        f"<table><caption>{label}</caption><thead><tr>",
        *(
            f'<th scope="col"{kind}>{_text(head)}</th>'
            for kind, head in zip(kinds, heads, strict=True)
        ),
        "</tr></thead><tbody>",
        *(_row(kinds, row) for row in shown),
        "</tbody>",
        f"<tfoot>{_row(kinds, total)}</tfoot>" if total else "",
        "</table></div>",
    ]
    if len(rows) > len(shown):
        parts.append(_paragraph(f"... and {len(rows) - len(shown)} more rows: {MORE}"))
    return "".join(parts)


def _row(kinds: Sequence[str], cells: Sequence[str]) -> str:
    first, *others = (f"{kind}>{_text(cell)}</" for kind, cell in zip(kinds, cells, strict=True))
    return f'<tr><th scope="row"{first}th>{"".join(f"<td{each}td>" for each in others)}</tr>'
