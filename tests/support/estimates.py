"""Estimates for tests of what people and programs see: their sums agree with their parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, get_args

from hypothesis import strategies as st

from savings.estimate import (
    Castai,
    Estimate,
    Interruptions,
    Line,
    Now,
    Step,
    StepName,
    Unpriced,
    Verdict,
)
from savings.snapshot import ON_DEMAND, SPOT, Market

HOSTILE: Final = (
    "<script>alert(1)</script>\"onload='x' ]]> {{ $x ${x} %s \x1b[2J\u202e &amp; --><b>"
)
GIB: Final = 1024**3


def line(
    count: int,
    instance_type: str,
    price: float,
    *,
    market: Market = ON_DEMAND,
    zone: str = "eu-central-1a",
    group: str = "general",
    cpu: float = 0.5,
    memory: float = 0.25,
) -> Line:
    return Line(
        instance_type=instance_type,
        market=market,
        zone=zone,
        group=group,
        count=count,
        price=price,
        cost=count * price,
        requested_cpu=cpu,
        requested_memory=memory,
    )


def now(lines: Sequence[Line]) -> Now:
    nodes = sum(each.count for each in lines)
    return Now(
        cost=sum(each.cost for each in lines),
        lines=tuple(lines),
        requested={"cpu": 1_700 * nodes, "memory": 5 * GIB * nodes},
        allocatable={"cpu": 3_920 * nodes, "memory": 14 * GIB * nodes},
        idle_cost=sum(
            each.cost * (1 - (each.requested_cpu + each.requested_memory) / 2) for each in lines
        ),
    )


def steps(before: Now, packed: Sequence[Sequence[Line]]) -> tuple[Step, ...]:
    """Each costs no more than the one before: else it keeps the nodes of that one."""
    found: list[Step] = []
    cost, lines = before.cost, before.lines
    for name, each in zip(get_args(StepName), packed, strict=True):
        last, new = cost, sum(one.cost for one in each)
        if new <= last:
            cost, lines = new, tuple(each)
        spot = sum(one.cost for one in lines if one.market == SPOT)
        found.append(
            Step(
                name=name,
                cost=cost,
                saved=last - cost,
                lower_bound=cost * 0.96,
                low=cost - spot / 2,
                high=cost + spot / 2,
                nodes=sum(one.count for one in lines),
                lines=lines,
                kept=min(2, len(lines)),
            )
        )
    return tuple(found)


def verdict(number: int, *, good: bool = False, namespace: str = "shop") -> Verdict:
    reasons = (
        "It has one replica.",
        "Its grace of 300 s does not fit into the two minutes of a spot notice.",
    )
    return Verdict(
        namespace=namespace,
        owner=f"Deployment/worker-{number}",
        pods=number % 7 + 1,
        tolerates_spot=good,
        reasons=() if good else reasons[: number % 2 + 1],
        on_spot=number % 3,
        cost=1 / (number + 3),
        gain=0.0 if good else 0.6 / (number + 3),
    )


def rich() -> Estimate:
    """A cluster with something to say in every section."""
    before = now(
        [
            line(3, "m5.xlarge", 0.23, cpu=0.62, memory=0.31),
            line(2, "m5.2xlarge", 0.46, zone="eu-central-1b", cpu=0.41, memory=0.55),
            line(1, "c5.4xlarge", 0.776, group="batch", zone="eu-central-1b", cpu=0.22, memory=0.1),
            line(4, "m5.xlarge", 0.0911, group="batch", market=SPOT, cpu=0.8, memory=0.47),
        ]
    )
    fewer = [
        line(3, "m5.xlarge", 0.23, cpu=0.94, memory=0.41),
        line(1, "m5.2xlarge", 0.46, zone="eu-central-1b", cpu=0.9, memory=0.88),
        line(3, "m5.xlarge", 0.0911, group="batch", market=SPOT, cpu=0.95, memory=0.6),
    ]
    better = [
        line(4, "m7a.large", 0.1392, cpu=0.97, memory=0.77),
        line(1, "c7i.2xlarge", 0.4284, zone="eu-central-1b", cpu=0.91, memory=0.83),
        line(3, "m5.xlarge", 0.0911, group="batch", market=SPOT, cpu=0.95, memory=0.6),
    ]
    spot = [
        line(1, "m7a.large", 0.1392, cpu=0.97, memory=0.77),
        line(4, "m7a.large", 0.0513, market=SPOT, zone="eu-central-1c", cpu=0.95, memory=0.8),
        line(4, "r6a.large", 0.0478, group="batch", market=SPOT, cpu=0.95, memory=0.6),
    ]
    bad = [verdict(number) for number in range(18)]
    good = [verdict(number, good=True, namespace="web") for number in range(14)]
    return Estimate(
        cluster="demo",
        region="eu-central-1",
        currency="USD",
        taken="2026-11-28T12:00:00Z",
        prices_taken="2026-11-28T11:58:00Z",
        history_days=90,
        nodes=12,
        pods=131,
        daemon_pods=30,
        now=before,
        steps=steps(before, [fewer, better, spot]),
        verdicts=(*bad, *good),
        unpriced=(
            Unpriced(nodes=1, pods=2, reason="Fargate"),
            Unpriced(nodes=1, pods=9, reason="no price for m9x.large"),
        ),
        pods_without_requests=3,
        pending=1,
        immovable=4,
        types_considered=212,
        types_without_price=("m9x.large", "x9.metal"),
        interruptions=Interruptions(low=0.4, high=1.2, unknown=1),
        castai=(
            Castai(
                cost=2.68,
                name="SpotInstances",
                cost_after=0.9,
                percentage=66.4,
                updated="2026-11-27T03:00:00Z",
            ),
        ),
    )


def bare(**changes: object) -> Estimate:
    """A cluster without nodes, pods and prices."""
    nothing = now([])
    fields: dict[str, object] = {
        "cluster": "empty",
        "region": "cn-north-1",
        "currency": "CNY",
        "taken": "2026-11-28T12:00:00Z",
        "prices_taken": "2026-11-28T11:58:00Z",
        "history_days": 90,
        "nodes": 0,
        "pods": 0,
        "daemon_pods": 0,
        "now": nothing,
        "steps": steps(nothing, [(), (), ()]),
        "verdicts": (),
        "pods_without_requests": 0,
        "pending": 0,
        "immovable": 0,
        "types_considered": 0,
    }
    return Estimate(**(fields | changes))  # type: ignore[arg-type]


def packed_well() -> Estimate:
    """Nothing can be saved, and there is no spot price."""
    before = now([line(2, "m5.large", 0.115, cpu=1, memory=1)])
    return bare(cluster="full", now=before, steps=steps(before, [before.lines] * 3), nodes=2)


def large() -> Estimate:
    """3,000 workloads, names of 40 characters, 60 kinds of nodes, prices with 6 decimals."""
    name = "a-name-of-forty-characters-without-end-x"
    lines = [
        line(
            90,
            f"u7in-{number:02}tb.224xlarge",
            400.123456 + number / 1e6,
            group=f"{name}{number // 6}",
            zone="ap-southeast-2-mel-1a",
        )
        for number in range(60)
    ]
    before = now(lines)
    verdicts = [verdict(number, good=number % 2 == 0, namespace=name) for number in range(3000)]
    packed = [lines[:50], lines[:40], lines[:30]]
    return bare(
        cluster=name,
        now=before,
        steps=steps(before, packed),
        verdicts=tuple(verdicts),
        nodes=5400,
        types_without_price=tuple(f"m{number}.large" for number in range(40)),
    )


def hostile() -> Estimate:
    """Every text of the estimate is HOSTILE."""
    before = now([line(2, HOSTILE, 0.1, group=HOSTILE, zone=HOSTILE)])
    bad = verdict(1, namespace=HOSTILE)
    return bare(
        cluster=HOSTILE,
        region=HOSTILE,
        currency=HOSTILE,
        taken=HOSTILE,
        prices_taken=HOSTILE,
        now=before,
        steps=steps(before, [before.lines] * 3),
        verdicts=(
            Verdict(
                namespace=HOSTILE,
                owner=HOSTILE,
                pods=bad.pods,
                tolerates_spot=False,
                reasons=(HOSTILE,),
                on_spot=0,
                cost=1,
                gain=1,
            ),
        ),
        unpriced=(Unpriced(nodes=1, pods=1, reason=HOSTILE),),
        types_without_price=(HOSTILE,),
        castai=(Castai(cost=1, name=HOSTILE, cost_after=0.5, percentage=50, updated=HOSTILE),),
    )


def cases() -> dict[str, Estimate]:
    """The estimates that every output has to bear."""
    made = (rich, bare, packed_well, large, hostile)
    return {each.__name__: each() for each in made}


_WORDS = st.text(max_size=12)
_PRICES = st.one_of(
    st.sampled_from([0.0, 0.0042, 0.0116, 0.096, 1.5, 436.8]),
    st.floats(min_value=1e-4, max_value=900, allow_nan=False),
)
_SHARES = st.floats(min_value=0, max_value=1)


@st.composite
def _lines(draw: st.DrawFn) -> list[Line]:
    one = st.builds(
        line,
        st.integers(1, 400),
        _WORDS,
        _PRICES,
        market=st.sampled_from([ON_DEMAND, SPOT]),
        zone=_WORDS,
        group=st.sampled_from(["", "a", "b", "[red]c"]),
        cpu=_SHARES,
        memory=_SHARES,
    )
    return draw(st.lists(one, max_size=6))


@st.composite
def estimates(draw: st.DrawFn) -> Estimate:
    """Any estimate of which sums agree with parts."""
    before = now(draw(_lines()))
    few = st.integers(0, 9)
    money = st.floats(min_value=0, max_value=9)
    return bare(
        cluster=draw(_WORDS),
        currency=draw(st.sampled_from(["USD", "CNY", "EUR"])),
        now=before,
        steps=steps(before, [draw(_lines()) for _ in range(3)]),
        verdicts=tuple(
            draw(
                st.lists(
                    st.builds(
                        Verdict,
                        namespace=_WORDS,
                        owner=_WORDS,
                        pods=few,
                        tolerates_spot=st.booleans(),
                        reasons=st.tuples(_WORDS),
                        on_spot=few,
                        cost=money,
                        gain=money,
                    ),
                    max_size=20,
                )
            )
        ),
        pods_without_requests=draw(few),
        interruptions=draw(
            st.none() | st.builds(Interruptions, low=money, high=st.none() | money, unknown=few)
        ),
        castai=tuple(
            draw(
                st.lists(
                    st.builds(
                        Castai,
                        cost=money,
                        name=_WORDS,
                        cost_after=money,
                        percentage=st.floats(0, 100),
                        updated=_WORDS,
                    ),
                    max_size=2,
                )
            )
        ),
    )
