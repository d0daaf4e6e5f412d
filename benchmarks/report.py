"""Figures → Markdown: the goals with their figures, then each benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks import cost
from benchmarks.big_cluster import Drain
from benchmarks.cold_start import ColdStart
from benchmarks.cost import Choice
from benchmarks.full_node import HANDLER_COLD, HANDLER_WARM, KUBECTL, LOOP, FullNode
from benchmarks.outcome import HANDLER, Case, Outcome, Soak
from benchmarks.savings import Estimated
from benchmarks.storm import Storm

X = "\N{MULTIPLICATION SIGN}"
MB = 1e6
ZIP_LIMIT = 2.0  # MB
MEMORY_LIMIT = 64  # MB
TRIPS = ("get nodes", "list nodes", "patch nodes")
NOT_MEASURED = "not measured"
_NODE_COLUMNS = (
    "",
    "cordoned",
    "last accepted",
    "empty",
    "to the loop",
    "to kubectl",
    "lost",
    "conflicts",
)


@dataclass
class Figures:
    """The figures of a run. None: not measured in this run."""

    command: str
    where: str
    machine: dict[str, str] = field(default_factory=dict)
    memory_mb: int = 0
    full_node: FullNode | None = None
    storm: Storm | None = None
    big: Sequence[Drain] = ()
    cold: ColdStart | None = None
    crowded: FullNode | None = None
    savings: Sequence[Estimated] = ()
    load: Sequence[Case] = ()
    soaks: Sequence[Soak] = ()
    notes: list[str] = field(default_factory=list)


def markdown(figures: Figures) -> str:
    """Return the whole document."""
    parts = [
        "# Benchmarks",
        "",
        _prose(
            f"""
            Written by `{figures.command}` on {figures.where}. Figures are medians.
            Compare the ratios: all peers were measured in one run, in turns, on the
            same cluster in the same state. No test asserts a figure.
            """
        ),
        "",
        *_table(("", ""), figures.machine.items()),
        "## Goals",
        "",
        *_table(("goal", "measured", ""), goals(figures)),
        *_full_node(figures.full_node),
        *_storm(figures.storm),
        *_load(figures),
        *_big(figures.big),
        *_cold(figures.cold),
        *_memory(figures),
        *_savings(figures.savings),
        *(
            ["## Not measured", "", *(f"- {note}" for note in figures.notes), ""]
            * bool(figures.notes)
        ),
    ]
    return "\n".join(parts).rstrip() + "\n"


Goal = tuple[str, float | None, str, float]  # what, figure, figure as text, limit


def goals(figures: Figures) -> list[tuple[str, str, str]]:
    """Return each goal, its figure and whether it is met."""
    found: list[Goal] = [
        *(_node_goals(figures.full_node) if figures.full_node else ()),
        *(_storm_goals(figures.storm) if figures.storm else ()),
        *(_cold_goals(figures.cold) if figures.cold else ()),
        *_load_goals(figures),
        *_size_goals(figures),
        *(_savings_goals(figures.savings) if figures.savings else ()),
    ]
    return [
        (goal, NOT_MEASURED, "")
        if value is None
        else (goal, shown, "met" if value <= limit else "**not met**")
        for goal, value, shown, limit in found
    ]


def _node_goals(node: FullNode) -> Iterator[Goal]:
    what = f"notice → all {node.pods} evictions accepted"
    for ours, peer, limit in (
        (HANDLER_WARM, KUBECTL, 0.05),
        (HANDLER_COLD, KUBECTL, 0.05),
        (HANDLER_WARM, LOOP, 1.1),
        (HANDLER_COLD, LOOP, 1.2),
    ):
        ratio = node.ratio(ours, peer)
        how = ours.removeprefix("handler, ")
        yield f"{what}: ≤ {limit:g} {X} {peer}; {how}", ratio, _ratio(ratio), limit
    calls = node.runs[HANDLER_WARM][-1].calls
    if calls:
        trips = sum(calls.get(verb, 0) for verb in TRIPS)
        yield "notice → cordoned, warm: ≤ 2 round trips to the cluster", trips, str(trips), 2


def _storm_goals(storm: Storm) -> Iterator[Goal]:
    name = f"{storm.nodes} notices at once"
    cordoned, drained = storm.cordoned_all, storm.drained_all
    yield f"{name}: all cordoned ≤ 5 s", cordoned, f"{cordoned:.1f} s", 5
    yield f"{name}: all drained ≤ 60 s", drained, f"{drained:.1f} s", 60
    yield f"{name}: no pod lost", storm.lost, str(storm.lost), 0


def _load_goals(figures: Figures) -> Iterator[Goal]:
    for case in figures.load:
        harm = sum(row.harm for row in case.rows if row.peer == HANDLER)
        what = "no pod left or lost, no grace cut, no budget broken"
        yield f"load: {case.title}: {what}", harm, str(harm), 0
    for soak in figures.soaks:
        yield f"soak, {soak.where}: no harm to a pod", soak.harm, str(soak.harm), 0


def _cold_goals(cold: ColdStart) -> Iterator[Goal]:
    what = f'cold start ≤ 1.0 {X} a process that only runs `boto3.client("ec2")`'
    yield what, cold.ratio, _ratio(cold.ratio), 1.0
    size = sum(packed for _, packed in cold.sizes.values()) / MB
    yield f"spot zip ≤ {ZIP_LIMIT:g} MB", size, f"{size:.1f} MB", ZIP_LIMIT


def _size_goals(figures: Figures) -> Iterator[Goal]:
    measured = [drain for drain in figures.big if drain.reads]
    if measured:
        reads = max(drain.reads for drain in measured)
        watches = max(drain.watches for drain in measured)
        yield (
            "reads per drain ≤ 4 and one watch, for every cluster size",
            reads if watches <= 1 else float("inf"),
            f"{reads} and {watches}",
            4,
        )
    if crowded := figures.crowded:
        peak = max(run.peak_mb for run in crowded.runs[HANDLER_COLD])
        what = f"peak memory at {crowded.pods} pods ≤ {MEMORY_LIMIT} MB"
        yield what, peak, f"{peak:.0f} MB", MEMORY_LIMIT


def _savings_goals(cases: Sequence[Estimated]) -> Iterator[Goal]:
    large = max(cases, key=lambda case: case.pods)
    what = f"savings estimate of {large.nodes:,} nodes and {large.pods:,} pods"
    yield f"{what} ≤ 10 s", large.seconds, f"{large.seconds:.1f} s", 10
    yield f"{what} ≤ 1 GB", large.memory / 1e9, f"{large.memory / 1e9:.2f} GB", 1
    worst = max(above for case in cases for above in case.above)
    what = "savings estimate: cost ≤ 10 % above the lower bound in every case and step"
    yield what, worst, f"{worst:.1%}", 0.1


def _full_node(node: FullNode | None) -> list[str]:
    if node is None:
        return []
    rows = [
        (
            peer,
            *(_seconds(node.median(peer, what)) for what in ("cordoned", "accepted", "empty")),
            *(_ratio(node.ratio(peer, other)) for other in (LOOP, KUBECTL)),
            *(_shown(node.total(peer, what)) for what in ("lost", "conflicts")),
        )
        for peer, runs in node.runs.items()
        if runs
    ]
    calls = {peer: runs[-1].calls for peer, runs in node.runs.items() if runs and runs[-1].calls}
    verbs = sorted({verb for found in calls.values() for verb in found})
    return [
        f"## One full node: {node.pods} pods",
        "",
        _prose(
            """
            Times from the notice until the node is cordoned, the last eviction is
            accepted, and the node is empty. Cold: from the start of a new container.
            Peers: from the start of their process. The ratios compare the times to
            the last eviction accepted. Lost: pods of all runs that were gone without a
            grace period. Conflicts: answers 409 in all runs.
            """
        ),
        "",
        *_table(_NODE_COLUMNS, rows),
        *(f"Not run: {peer} ({why}).\n" for peer, why in node.missing.items()),
        *(
            [
                "Calls to the API server:",
                "",
                *_table(
                    ("", *calls),
                    (
                        (
                            verb.strip() or "discovery",
                            *(str(c.get(verb, "")) for c in calls.values()),
                        )
                        for verb in verbs
                    ),
                ),
            ]
            if calls
            else []
        ),
    ]


_LOAD_COLUMNS = (
    "",
    "pods",
    "pods ended",
    "left",
    "lost",
    "grace cut",
    "budgets broken",
    "drains failed",
    "no ready pod, several replicas",
    "one replica",
    "requests",
    "of these 429",
    "last pod gone",
)


def _load(figures: Figures) -> list[str]:
    if not (figures.load or figures.soaks):
        return []
    text = [_prose(_LOAD_TEXT), "", _prose(_LOAD_PEERS), ""]
    return ["## Load", "", *text, *load(figures.load), *soaks(figures.soaks)]


_LOAD_TEXT = """
    By `python -m benchmarks.load`. The cluster's process observes the pods, not the measured
    handler. Pods: on the drained nodes at the notices. Pods ended: all that began to terminate,
    also those that moved more than once. Left: on the drained nodes when all is over. Lost: gone
    while their containers ran. Grace cut: given less than their own. Budgets broken: ready pods
    that began to terminate and left fewer than their budget asks for. Drains failed: another
    outcome than drained, or a process that failed. No ready pod: the longest time of one
    Deployment, of several replicas and of one. A Deployment of one replica has such a time in any
    case. Requests and answers 429: of all clients, refused evictions included. Each drain of a
    peer is a process, whose start is part of its time. kubectl has 110 s.
    """
_LOAD_PEERS = """
    The handler evicts all pods of a node at once, where no budget is in the way. A Deployment
    without a budget whose pods are all on that node has no ready pod until its replacements are
    ready. kubectl sends about five evictions a second, so replacements are ready before the last
    eviction, but the node is empty much later. The bare loop stops at its first refusal: its other
    pods are left until the instance is gone. The handler repeats an eviction that a budget refuses
    at least every 3 s, kubectl every 5 s: most answers 429 are refusals of budgets.
    """


def load(cases: Sequence[Case]) -> list[str]:
    """Return the tables of the load's cases."""
    lines = []
    for case in cases:
        lines += [f"### {case.title}", "", case.text, ""]
        lines += _table(_LOAD_COLUMNS, (_load_row(row) for row in case.rows))
    return lines


def _load_row(row: Outcome) -> tuple[str, ...]:
    return (
        row.peer,
        *(str(n) for n in (row.pods, row.ended, row.left, row.lost, row.short, row.broken)),
        str(row.failed),
        _seconds(row.down),
        _seconds(row.single_down),
        f"{row.requests:,}",
        f"{row.refused:,}",
        _seconds(row.seconds),
    )


def soaks(found: Sequence[Soak]) -> list[str]:
    """Return the table of the soaks."""
    if not found:
        return []
    return [
        "### Soak: notices again and again in one container",
        "",
        _prose(
            """
            Every second drain has an API server that refuses every fifth request and ends all
            watches of pods twice. Harm: pods that were left, lost or given less than their grace.
            Memory, file descriptors and objects (of Python's garbage collector): after a tenth, a
            half and all of the notices. In virtual time they are those of the handler and the
            cluster together.
            """
        ),
        "",
        *_table(
            (
                "",
                "time",
                "notices",
                "pods",
                "harm",
                "not drained",
                "requests",
                "memory, MB",
                "descriptors",
                "objects",
            ),
            (
                (
                    soak.where,
                    f"{soak.seconds / 60:.0f} min",
                    str(soak.notices),
                    f"{soak.pods:,}",
                    str(soak.harm),
                    str(soak.undrained),
                    f"{soak.requests:,}",
                    ", ".join(f"{memory:.1f}" for memory in soak.memory),
                    ", ".join(str(number) for number in soak.descriptors),
                    ", ".join(f"{number:,}" for number in soak.objects or ()) or "—",
                )
                for soak in found
            ),
        ),
    ]


_RESTORED = (
    "Only the drained nodes can run the pods: the replacements start when the benchmark has "
    "uncordoned the nodes after the drains."
)


def _storm(storm: Storm | None) -> list[str]:
    if storm is None:
        return []
    rows = [
        ("half of the nodes cordoned after", _seconds(storm.cordoned_half)),
        ("all cordoned after", _seconds(storm.cordoned_all)),
        ("all drained after", _seconds(storm.drained_all)),
        ("all pods running again after", _seconds(storm.running_again)),
        ("pods left on a node", str(storm.left)),
        ("pods lost", str(storm.lost)),
        ("conflicts, each retried", str(storm.conflicts)),
        ("outcomes", ", ".join(f"{name} {count}" for name, count in storm.outcomes.items())),
    ]
    return [
        f"## Storm: {storm.nodes} nodes, {storm.pods} pods, all notices at once",
        "",
        _prose(
            f"""
            {storm.containers} warm containers. Each is a separate process that
            handles one notice at a time, as on Lambda. The containers, the cluster
            and AWS share this machine's processors, which determines the time to
            drain. A pod is lost if its replacement never became ready, or if it was
            gone without a grace period. {_RESTORED if storm.restored else ""}
            """
        ),
        "",
        *_table(("", ""), rows),
    ]


def _big(drains: Sequence[Drain]) -> list[str]:
    if not drains:
        return []
    return [
        "## Size of the cluster",
        "",
        "The same warm drain of one node in clusters of different sizes.",
        "",
        *_table(
            ("nodes", "pods", "reads", "watches", "bytes read", "cordoned", "empty"),
            (
                (
                    f"{drain.nodes:,}",
                    f"{drain.pods:,}",
                    _shown(drain.reads or None),
                    _shown(drain.watches or None),
                    f"{drain.read_bytes:,}" if drain.read_bytes else NOT_MEASURED,
                    _seconds(drain.cordoned),
                    _seconds(drain.empty),
                )
                for drain in drains
            ),
        ),
    ]


def _savings(cases: Sequence[Estimated]) -> list[str]:
    if not cases:
        return []
    return [
        "## Savings estimate",
        "",
        _prose(
            """
            Processor time from a snapshot to the estimate, peak memory of the whole process, and
            cost above the lower bound in each step. The peer is first-fit-decreasing on the type
            that is cheapest for the sums, without any rule but the requests, against the bound of
            the second step (of the first, where there is one type only). Cases:
            benchmarks/savings_cases.py.
            """
        ),
        "",
        *_table(
            ("case", "nodes", "pods", "time", "memory", "fewer", "better", "spot", "first fit"),
            (
                (
                    case.case,
                    f"{case.nodes:,}",
                    f"{case.pods:,}",
                    f"{case.seconds:.1f} s",
                    f"{case.memory / MB:.0f} MB",
                    *(f"{above:.1%}" for above in case.above),
                    *("—",) * (3 - len(case.above)),
                    f"{case.peer:.1%}",
                )
                for case in cases
            ),
        ),
    ]


def _cold(cold: ColdStart | None) -> list[str]:
    if cold is None:
        return []
    total = sum(packed for _, packed in cold.sizes.values())
    return [
        "## Cold start",
        "",
        _prose(
            f"""
            Process start → the first request arrives at the cluster, {cold.samples}
            starts of each, in turns. The handler imports its zip's folder and the
            SDK, calls EC2 and EKS over TLS with the SDK's full CA bundle, signs its
            token and connects to the cluster. The peer creates a client and makes no
            request.
            """
        ),
        "",
        *_table(
            ("", "seconds", "ratio"),
            (
                ('`boto3.client("ec2")` and nothing else', _seconds(cold.client), f"1.00 {X}"),
                (
                    "the handler, from the zip as built, with bytecode",
                    _seconds(cold.handler),
                    f"{cold.ratio:.2f} {X}",
                ),
                (
                    "the handler, from a zip with sources only",
                    _seconds(cold.sources),
                    f"{cold.sources / cold.client:.2f} {X}",
                ),
                (
                    "the part with bytecode after the import: Lambda's first invocation",
                    _seconds(cold.first_invocation),
                    f"{cold.first_invocation / cold.client:.2f} {X}",
                ),
            ),
        ),
        _prose(
            """
            Lambda's `/var/task` is read-only, so Python compiles the zip's modules
            at each cold start unless the zip contains their bytecode. Only an
            interpreter of the function's version can create that bytecode. Without
            such an interpreter the zip contains only sources, and the synth prints a
            warning. The SDK is part of the runtime and has bytecode in both rows.
            With SnapStart (`castai:snapStart`) a cold start has no import.
            """
        ),
        "",
        _prose(
            f"""
            The phases of the handler's cold start. The SDK takes
            {_sdk_share(cold):.0%}: its import, two clients, two calls, and reading
            the CA bundle twice. The peer imports more of the SDK, but makes no call.
            The bare loop does not use the SDK: it gets the cluster's endpoint as
            input. Other savings would cost more than they gain. Imports in parallel
            with the first call would move from Lambda's initialisation to the
            invocation. Requests to AWS without the SDK would need our own code for
            endpoints, credentials and errors.
            """
        ),
        "",
        *_table(
            ("phase", "ms"), ((phase, f"{took * 1e3:.1f}") for phase, took in cold.phases.items())
        ),
        f"Import time by package, without nested imports (the slowest {len(cold.modules)}):",
        "",
        *_table(
            ("package", "ms", "modules"),
            ((f"`{name}`", f"{own * 1e3:.1f}", str(n)) for name, own, n in cold.modules),
        ),
        f"By module, from one run, disk reads included (the slowest {len(cold.slowest)}):",
        "",
        *_table(
            ("module", "ms"), ((f"`{name}`", f"{own * 1e3:.1f}") for name, own in cold.slowest)
        ),
        f"The zip, {total / MB:.2f} MB, by dependency:",
        "",
        *_table(
            ("in the zip", "unpacked, kB", "packed, kB", "share"),
            (
                (f"`{name}`", f"{plain / 1e3:.0f}", f"{packed / 1e3:.0f}", f"{packed / total:.0%}")
                for name, (plain, packed) in cold.sizes.items()
            ),
        ),
    ]


def _sdk_share(cold: ColdStart) -> float:
    sdk = sum(took for phase, took in cold.phases.items() if phase.startswith("SDK"))
    return sdk / sum(cold.phases.values())


def _memory(figures: Figures) -> list[str]:
    crowded = figures.crowded
    if crowded is None or figures.cold is None or figures.full_node is None:
        return []
    run = crowded.runs[HANDLER_COLD][-1]
    drain = figures.full_node.median(HANDLER_WARM, "processor_seconds") or 0.0
    sizes = cost.choices(cold_seconds=figures.cold.handler, drain_processor_seconds=drain)
    return [
        "## Memory, processor and cost",
        "",
        _prose(
            f"""
            At {crowded.pods} pods the process's peak memory is
            {run.peak_mb:.0f} MB. Its first invocation uses
            {run.processor_seconds:.2f} s of processor time. A cold start takes
            {figures.cold.handler:.2f} s of processor time, and a drain of
            {figures.full_node.pods} pods another {drain:.2f} s. A function's share of
            a processor is proportional to its memory: one processor at
            {cost.MB_PER_PROCESSOR:,} MB. During the rest of the drain the function
            waits. The wait is the main cost: memory multiplied by the time that pods
            take to end.
            """
        ),
        "",
        *_table(
            (
                "memory",
                "cold start to last eviction accepted",
                *(f"$ per {cost.INTERRUPTIONS:,}, pods end in {wait:.0f} s" for wait in cost.WAITS),
            ),
            (_size(choice, figures.memory_mb) for choice in sizes),
        ),
        _prose(
            f"""
            List prices: ${cost.DOLLARS_PER_GB_SECOND:.10f} per GB-second and
            ${cost.DOLLARS_PER_REQUEST * 1e6:.2f} per million requests (AWS Lambda,
            arm64, first tier, as of 2026, without the free tier, logs and metrics).
            {_choice(sizes, figures.memory_mb)}
            """
        ),
        "",
    ]


def _choice(sizes: Sequence[Choice], chosen: int) -> str:
    """Return the reason for the chosen memory; empty if it is not one of the sizes."""
    for less, default, more in zip(sizes, sizes[1:], sizes[2:], strict=False):
        if default.memory_mb == chosen:
            wait = cost.WAITS[0]
            return (
                f"The default, {chosen:,} MB, follows from the share of a processor: even the "
                "smallest size has enough memory for the process. The last eviction of a full node "
                f"is accepted {default.seconds:.1f} s after a cold start begins. That is "
                f"{less.seconds - default.seconds:.1f} s earlier than with {less.memory_mb:,} MB "
                f"and costs ${default.dollars[wait] - less.dollars[wait]:.2f} more per "
                f"{cost.INTERRUPTIONS:,} interruptions. The next size would be "
                f"{default.seconds - more.seconds:.1f} s faster and cost another "
                f"${more.dollars[wait] - default.dollars[wait]:.2f}."
            )
    return ""


def _size(choice: Choice, chosen: int) -> tuple[str, ...]:
    row = (
        f"{choice.memory_mb:,} MB",
        f"{choice.seconds:.1f} s",
        *(f"{dollars:.2f}" for dollars in choice.dollars.values()),
    )
    return tuple(f"**{cell}**" for cell in row) if choice.memory_mb == chosen else row


def _prose(text: str) -> str:
    """Return the paragraph as one line without breaks."""
    return " ".join(text.split())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def _seconds(value: float | None) -> str:
    if value is None:
        return "—"
    return f"{value:.3f} s" if value < 1 else f"{value:.2f} s"


def _ratio(value: float | None) -> str:
    return "—" if value is None else f"{value:.3g} {X}"


def _shown(value: int | None) -> str:
    return NOT_MEASURED if value is None else str(value)
