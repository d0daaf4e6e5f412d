"""A day of the spot handler as a value: the cluster, the other actors, the events, the faults.

Times are virtual seconds from the first delivery of an event. Everything that happens in a day is
in this value, so a day is repeated by running it again. New kinds of faults, actors and events are
rows of the tables that FAULTS, ACTS and KINDS name.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from msgspec import Struct, field, structs

from simulation.drain.actors import ACTS
from simulation.drain.events import KINDS
from simulation.drain.faults import AWS_FAULTS, FAULTS, TARGETS

NODES = 3
APPS = 4


class Pod(Struct, frozen=True, repr_omit_defaults=True):
    """A pod that runs when the day begins."""

    app: int = 0
    """Its number among the apps; its label and, for an owned pod, its owner follow."""
    node: int = 0
    grace: int = 30
    shutdown: float | None = 1.0
    """Seconds that its process takes to end; None: it is killed at the end of its grace."""
    owner: str = "Deployment"
    priority: str = ""
    tolerates: str = ""
    """Which of the two taints of a drain it tolerates: `drain`, `unschedulable`, `both`, `all`."""
    finalizer: bool = False
    phase: str = "Running"
    ready: bool = True


class Budget(Struct, frozen=True, repr_omit_defaults=True):
    """A PodDisruptionBudget of an app."""

    app: int = 0
    field: str = "maxUnavailable"
    value: int = 1


class Act(Struct, frozen=True, repr_omit_defaults=True):
    """Something that another actor does."""

    kind: str = "delete pod"
    at: float = 0.0
    node: int = 0
    app: int = 0


class Fault(Struct, frozen=True, repr_omit_defaults=True):
    """A fault of the API server, for one kind of request."""

    kind: str = "busy"
    target: str = "evict"
    at: float = 0.0
    seconds: float = 0.0
    """How long it lasts, from the first request that it meets; 0: it meets `times` requests."""
    times: int = 1
    skip: int = 0


class AwsFault(Struct, frozen=True, repr_omit_defaults=True):
    """A fault of AWS, for so many calls."""

    kind: str = "throttled"
    call: str = "DescribeInstances"
    skip: int = 0
    times: int = 1


class Delivery(Struct, frozen=True, repr_omit_defaults=True):
    """An event that EventBridge delivers."""

    kind: str = "terminate"
    node: int = 0
    at: float = 0.0
    age: float = 0.0
    """Seconds between the time in the event and the delivery."""


class Kill(Struct, frozen=True, repr_omit_defaults=True):
    """The end of a container at a request: a crash, or the loss of its host."""

    invocation: int = 0
    request: int = 0
    """Its number among the calls of this invocation to AWS and requests to the API server."""
    after: bool = False
    """The request has had its effect. A call to AWS only reads."""


class Settings(Struct, frozen=True, repr_omit_defaults=True):
    """The function's settings."""

    mode: str = "drain"
    on_deadline: str = "force"
    concurrency: int = 50


class Day(Struct, frozen=True, repr_omit_defaults=True):
    """Everything that happens."""

    pods: list[Pod] = field(default_factory=list)
    budgets: list[Budget] = field(default_factory=list)
    deliveries: list[Delivery] = field(default_factory=lambda: [Delivery()])
    acts: list[Act] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    aws_faults: list[AwsFault] = field(default_factory=list)
    kills: list[Kill] = field(default_factory=list)
    settings: Settings = Settings()
    nodes: int = NODES
    """In the cluster when the day begins."""
    late_bindings: float = 0.01
    """Seconds from the scheduler's choice of a node to the binding."""
    registers_at: float = 0.0
    """When the node of the first instance registers: before the day, or so many seconds into it."""
    lifetime: float = 120.0
    """Seconds from a notice until the instance is gone."""
    returns: float = 0.0
    """Seconds from the stop of the first instance until it runs again; 0: it does not."""
    skew: float = 0.0
    """Seconds by which the function's clock is ahead of the cluster's."""
    reused: bool = True
    """A container that is idle handles the next event."""
    castai: str = ""
    """CAST AI's API: empty: no key; `up`, `slow`, `down`, `echo` (its errors repeat the key)."""
    log_level: str = "INFO"


def _moments(most: float) -> SearchStrategy[float]:
    """Most within the first second, in which most requests are made."""
    early = st.integers(0, 20).map(lambda part: part / 20)
    return st.one_of(st.just(0.0), early, _tenths(most))


def _tenths(most: float) -> SearchStrategy[float]:
    return st.integers(0, int(most * 10)).map(lambda tenths: tenths / 10)


def _rarely(value: SearchStrategy[Any], usual: object) -> SearchStrategy[Any]:
    return st.integers(0, 4).flatmap(lambda at: value if at == 4 else st.just(usual))


_pods = st.builds(
    Pod,
    app=st.integers(0, APPS - 1),
    node=st.sampled_from([0, 0, 0, 1, 2]),
    grace=st.sampled_from([30, 1, 5, 30, 60, 90, 113, 114, 120, 300]),
    shutdown=st.sampled_from([1.0, 0.0, 0.5, 5.0, 20.0, 60.0, None]),
    owner=st.sampled_from(["Deployment", "Deployment", "", "StatefulSet", "DaemonSet", "Node"]),
    priority=_rarely(st.sampled_from(["system-cluster-critical", "system-node-critical"]), ""),
    tolerates=_rarely(st.sampled_from(["drain", "unschedulable", "both", "all"]), ""),
    finalizer=_rarely(st.booleans(), usual=False),
    phase=_rarely(st.sampled_from(["Succeeded", "Failed", "Pending"]), "Running"),
    ready=_rarely(st.just(False), usual=True),
)
_budgets = st.one_of(
    st.builds(
        Budget,
        app=st.integers(0, APPS - 1),
        field=st.just("maxUnavailable"),
        value=st.integers(0, 2),
    ),
    st.builds(
        Budget, app=st.integers(0, APPS - 1), field=st.just("minAvailable"), value=st.integers(0, 4)
    ),
)
_deliveries = st.one_of(
    st.builds(
        Delivery,
        kind=_rarely(st.sampled_from(list(KINDS)), "terminate"),
        node=st.sampled_from([0, 0, 0, 1]),
        at=_moments(20),
        age=_rarely(st.sampled_from([5.0, 60.0, 110.0, 130.0]), 0.0),
    ),
    st.builds(  # the first one once more, however late; or one that was given before it
        lambda kind, at, before: Delivery(kind, at=at, age=at + before),
        st.sampled_from(["terminate", "terminate", "stop", "drill", "stopped"]),
        st.sampled_from([0.0, 0.5, 10.0, 45.0, 90.0, 118.0, 125.0, 200.0]),
        st.sampled_from([0.0, 0.0, 5.0, 30.0]),
    ),
)


class Focus(Struct, frozen=True, repr_omit_defaults=True):
    """What a part of the days is about: faults that need each other meet there."""

    faults: tuple[str, ...]
    targets: tuple[str, ...]
    acts: tuple[str, ...]
    within: float
    """Seconds in which most of it happens."""
    lasting: tuple[float, ...] = (0.0, 0.0, 0.0, 1.0, 5.0, 20.0, 150.0)
    """How long a fault lasts; 0: for a number of requests."""
    skips: tuple[int, ...] = (0, 0, 0, 1, 2, 4)
    kinds: tuple[str, ...] = ("terminate", "terminate", "stop")
    """Of the first event."""
    events: int = 2
    """Further events, at most."""
    early: bool = True
    """Most acts happen within the first second."""


FOCUS = {
    "anything": Focus(tuple(FAULTS), tuple(TARGETS), tuple(ACTS), 60),
    "races": Focus(
        ("late answer", "late answer", "late answer", "budget gone", "no route", "watch ends",
         "watch breaks"),
        ("list", "list", "evict"),
        ("bind pod", "bind pod", "bind pod", "start pod", "roll out", "delete pod", "compact"),
        8,
        lasting=(0.0, 0.0, 5.0),
        skips=(0, 1, 1, 2, 2, 3),
        events=1,
        early=False,
    ),
    "refusals": Focus(
        ("busy", "unauthorized", "policy", "webhook denies", "webhook fails", "budget full",
         "budget modified", "timed out", "answer lost"),
        ("evict", "evict", "evict", "delete", "list"),
        ("forbid disruption", "delete budget", "release finalizers", "machine hangs"),
        20,
        lasting=(0.0, 0.0, 1.0, 5.0, 20.0, 150.0, 150.0),
    ),
    "the node": Focus(
        ("webhook fails", "policy", "timed out", "silent", "answer lost", "busy", "no route"),
        ("patch", "patch", "node", "nodes"),
        ("dispute", "taint", "taint of a rebalance", "mark", "balancer", "remove node"),
        20,
        lasting=(0.0, 0.0, 5.0, 150.0, 150.0),
        skips=(0, 0, 0, 1),
        events=1,
    ),
    "a return": Focus(
        (),
        (),
        ("balancer", "balancer", "taint", "dispute", "mark", "roll out"),
        3,
        kinds=("stop", "stop", "hibernate"),
        events=0,
    ),
    "no end": Focus(
        (), (), ("machine hangs", "machine hangs", "bind pod", "delete pod"), 3, events=0
    ),
}  # fmt: skip
"""Swarms: https://doi.org/10.1145/2338965.2336763 (Groce et al., Swarm Testing)."""


def _acts_of(focus: Focus) -> SearchStrategy[Act]:
    return st.builds(
        Act,
        kind=st.sampled_from(focus.acts),
        at=_moments(focus.within) if focus.early else _tenths(focus.within),
        node=st.sampled_from([0, 0, 1]),
        app=st.integers(0, APPS - 1),
    )


def _faults_of(focus: Focus) -> SearchStrategy[Fault]:
    return st.sampled_from(focus.faults).flatmap(lambda kind: _of_fault(kind, focus))


def _of_fault(kind: str, focus: Focus) -> SearchStrategy[Fault]:
    possible = FAULTS[kind].targets or tuple(TARGETS)
    targets = [target for target in focus.targets if target in possible] or list(possible)
    return st.builds(
        Fault,
        kind=st.just(kind),
        target=st.sampled_from(targets),
        at=_moments(focus.within),
        seconds=st.sampled_from(focus.lasting),
        times=st.sampled_from([1, 2, 5, 30]),
        skip=st.sampled_from(focus.skips),
    )


_aws_faults = st.sampled_from(list(AWS_FAULTS)).flatmap(
    lambda kind: st.builds(
        AwsFault,
        kind=st.just(kind),
        call=st.sampled_from(AWS_FAULTS[kind].calls),
        skip=st.integers(0, 2),
        times=st.sampled_from([1, 1, 2, 5]),
    )
)
_kills = st.builds(
    Kill, invocation=st.integers(0, 2), request=st.integers(0, 30), after=st.booleans()
)


def days() -> SearchStrategy[Day]:
    """Days of each focus, of which a part has no fault, no other actor, or no kill."""
    return st.sampled_from(list(FOCUS.values())).flatmap(_days_of)


def _days_of(focus: Focus) -> SearchStrategy[Day]:
    return st.builds(
        Day,
        pods=st.lists(_pods, min_size=0, max_size=12),
        budgets=st.lists(_budgets, max_size=3, unique_by=lambda each: each.app),
        deliveries=st.builds(
            lambda first, more: [first, *more],
            st.builds(Delivery, kind=st.sampled_from(focus.kinds)),
            st.lists(_deliveries, max_size=focus.events),
        ),
        acts=st.lists(_acts_of(focus), max_size=3),
        faults=st.lists(_faults_of(focus), max_size=3) if focus.faults else st.just([]),
        aws_faults=_rarely(st.lists(_aws_faults, max_size=2), []),
        kills=_rarely(st.lists(_kills, max_size=2), []),
        settings=st.builds(
            Settings,
            mode=_rarely(st.sampled_from(["cordon", "dry-run"]), "drain"),
            on_deadline=st.sampled_from(["force", "force", "leave"]),
            concurrency=st.sampled_from([50, 1, 3]),
        ),
        late_bindings=st.sampled_from([0.01, 0.01, 0.5, 2.5]),
        registers_at=_rarely(_moments(25), 0.0),
        lifetime=_rarely(st.sampled_from([60.0, 100.0, 180.0]), 120.0),
        returns=st.sampled_from([0.0, 5.0, 40.0]),
        skew=_rarely(st.sampled_from([-1.0, 1.0, 2.0]), 0.0),
        reused=st.booleans(),
        castai=_rarely(st.sampled_from(["up", "slow", "down", "echo"]), ""),
        log_level=_rarely(st.just("DEBUG"), "INFO"),
        nodes=st.sampled_from([NODES, NODES, NODES, 1, 2, 6]),
    ).map(_on_its_nodes)


def _on_its_nodes(day: Day) -> Day:
    """What is drawn for the first three nodes, on the nodes that the cluster has."""

    def moved(parts: list[Any]) -> list[Any]:
        return [structs.replace(part, node=part.node % day.nodes) for part in parts]

    return structs.replace(
        day, pods=moved(day.pods), deliveries=moved(day.deliveries), acts=moved(day.acts)
    )
