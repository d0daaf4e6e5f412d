"""Days of the spot handler keep their promises, are repeatable, and find faults of the code."""

from __future__ import annotations

import itertools

import pytest
from msgspec import structs

from simulation import __main__ as command
from simulation.drain import planner, regret
from simulation.drain.actors import ACTS
from simulation.drain.days import Act, AwsFault, Budget, Day, Delivery, Fault, Kill, Pod, Settings
from simulation.drain.events import KINDS
from simulation.drain.faults import AWS_FAULTS, FAULTS, TARGETS
from simulation.drain.function import Function
from simulation.drain.judge import Judge
from simulation.drain.known_faults import put_back
from simulation.drain.regret import Regret
from simulation.drain.story import live, story
from simulation.drain.world import World
from simulation.engine import draw, promises, smallest

DAYS = story()
SLOW_POD = Pod(grace=30, shutdown=None)


def test_a_seed_gives_the_same_day_and_the_same_timeline() -> None:
    longest = max(range(20), key=lambda seed: len(DAYS.run(draw(DAYS, seed)).timeline))
    day = draw(DAYS, longest)
    assert draw(DAYS, longest) == day
    first, second = DAYS.run(day), DAYS.run(day)
    assert first.timeline == second.timeline
    assert len(first.timeline) > 20


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_of_event_keeps_the_promises(kind: str) -> None:
    verdict = DAYS.run(Day([Pod(), Pod(app=1)], deliveries=[Delivery(kind)]))
    assert verdict.faults == []
    gone = any("terminating" in line for line in verdict.timeline)
    assert gone == KINDS[kind].drains


@pytest.mark.parametrize("kind", ACTS)
def test_each_actor_acts_and_the_promises_hold(kind: str) -> None:
    pods = [Pod(shutdown=5.0), Pod(), Pod(node=1), Pod(app=1, finalizer=True)]
    day = Day(pods, [Budget(0)], acts=[Act(kind, 0.3), Act(kind, 2.0)], late_bindings=0.5)
    verdict = DAYS.run(day)
    assert verdict.faults == []
    assert any(f"actor: {kind}, node 0" in line for line in verdict.timeline)


@pytest.mark.parametrize("kind", FAULTS)
def test_each_fault_is_met_and_the_promises_hold(kind: str) -> None:
    row = FAULTS[kind]
    target = (row.targets or tuple(TARGETS))[0]
    day = Day(
        [Pod(grace=300), SLOW_POD, Pod(app=1)],
        [Budget(1, value=0)],
        faults=[Fault(kind, target, times=2)],
    )
    plain, verdict = DAYS.run(Day(day.pods, day.budgets)), DAYS.run(day)
    assert verdict.faults == []
    met = kind not in ("old list", "watch ends", "watch too old") and target != "delete"
    assert not met or verdict.timeline != plain.timeline


@pytest.mark.parametrize(
    ("kind", "call"), [(kind, call) for kind, row in AWS_FAULTS.items() for call in row.calls]
)
def test_each_fault_of_aws_is_met_and_the_promises_hold(kind: str, call: str) -> None:
    verdict = DAYS.run(Day([Pod()], aws_faults=[AwsFault(kind, call)]))
    assert verdict.faults == []
    assert any(f"AWS: {call}: {kind}" in line for line in verdict.timeline)


RETRY_FITS = 20.0  # s: a run that is killed later than this runs again too late for a drain
KILLED = {
    "plain": Day([Pod(), Pod(app=1, shutdown=5.0), Pod(app=1, owner="StatefulSet")]),
    "a budget": Day([Pod(), Pod(), Pod(app=1, owner="")], [Budget(0)]),
    "a budget that allows nothing": Day([Pod(grace=5), Pod(app=1)], [Budget(0, value=0)]),
    "marks of others": Day(
        [Pod(priority="system-node-critical"), Pod(app=1)],
        acts=[Act("mark", 0.1), Act("taint", 0.1), Act("balancer", 0.1)],
    ),
    "an instance that returns": Day([Pod()], deliveries=[Delivery("stop")], returns=5.0),
    "no drain": Day([Pod()], settings=Settings(mode="cordon")),
}


@pytest.mark.parametrize("name", KILLED)
def test_the_result_is_the_same_wherever_the_function_is_killed(name: str) -> None:
    day = KILLED[name]
    world, function = live(day)
    expected = end_of(world, function)
    different = {}
    for invocation, run in enumerate(function.runs):
        early = run.calls - sum(sent.at > run.started + RETRY_FITS for sent in run.sent)
        for number, after in itertools.product(range(early), (False, True)):
            killed = live(structs.replace(day, kills=[Kill(invocation, number, after)]))
            assert any(each.killed for each in killed[1].runs)
            faults = Judge(*killed).faults()
            if (end := end_of(*killed)) != expected or faults:
                different[invocation, number, after] = (end, faults)
    assert different == {}


def end_of(world: World, function: Function) -> object:
    """What a person finds: marks, pods that are left, those that were deleted, what is said.

    Without times. A second run of an uncordon says that nothing is marked.
    """
    last = function.runs[-1]
    nodes = [each.change.new for each in world.node_changes(world.node_name(0))]
    sent = [each for run in function.runs for each in run.sent]
    return (
        {
            **nodes[-1]["spec"],
            "taints": [
                {**taint, "timeAdded": ""} for taint in nodes[-1]["spec"].get("taints") or ()
            ],
        },
        nodes[-1]["metadata"]["labels"],
        nodes[-1]["metadata"].get("annotations"),
        sorted(pod["metadata"]["name"] for pod in last.on_node),
        {each.path for each in sent if each.uid and each.method == "DELETE"},
        {each["reason"] for each in world.cluster.list("events", "default")},
        last.result and last.result["outcome"].replace("ignored", "uncordoned"),
    )


def test_a_planner_that_knows_the_day_empties_the_node_in_time_and_no_sooner_than_possible() -> (
    None
):
    pods = [Pod(shutdown=20.0), Pod(), Pod(app=1, shutdown=5.0)]
    day = Day(pods, [Budget(0)], faults=[Fault("busy", "evict", seconds=20.0)])
    planned = planner.plan(day)
    world, function = live(day)
    judge = Judge(world, function)
    (found,) = regret.regrets(judge)
    assert 0 <= found.pods + found.seconds < 5
    gone = [each.at - planned.start for each in planned.moments if each.change.kind == "DELETED"]
    assert 40 < max(gone) < 42  # the fault's end, and the longest shutdown
    assert not list(regret.faults(judge, [Regret(0, 1, 0.0)]))  # it had a fault
    plain = Judge(*live(Day(pods)))
    assert list(regret.faults(plain, [Regret(0, 1, 0.0)]))
    assert list(regret.faults(plain, [Regret(0, 0, 6.0)]))
    assert not list(regret.faults(plain, [Regret(0, 0, 4.0)]))


FOUND = {
    "a grace that ends within the deadline's second": Day(
        [Pod(grace=90, shutdown=None)], deliveries=[Delivery(), Delivery(at=10.0, age=40.0)]
    ),
    "a pod that is gone late, beside one that never ends": Day(
        [Pod(finalizer=True), Pod(grace=90)], acts=[Act("machine hangs")], lifetime=60.0
    ),
    "a wait for each pod of a budget": Day(
        [Pod(), Pod(node=1), Pod()],
        [Budget(field="minAvailable", value=2)],
        deliveries=[Delivery(), Delivery(node=1)],
        late_bindings=2.5,
    ),
    "a node that registers late and has no pod": Day(
        [Pod(node=2, phase="Succeeded")],
        deliveries=[Delivery(), Delivery(node=1, at=13.9)],
        registers_at=13.4,
    ),
}
"""Days that once failed: the first by the handler, the others by too strict a judge."""


@pytest.mark.parametrize("name", FOUND)
def test_a_day_that_once_failed_keeps_the_promises(name: str) -> None:
    assert DAYS.run(FOUND[name]).faults == []


# Known faults, put back ---------------------------------------------------------------------------

FOUND_BY = {
    "libraries log at DEBUG": Day([Pod()], log_level="DEBUG"),
    "force after any refusal": Day([Pod(grace=300)], faults=[Fault("busy", "evict", times=5)]),
    "a budget is respected too long": Day([Pod(grace=60)], [Budget(value=0)]),
    "every 403 is a missing right": Day([Pod()], faults=[Fault("budget full", "evict")]),
    "a 401 is final": Day([Pod()], faults=[Fault("unauthorized", "evict")]),
    "a 404 is believed": Day([SLOW_POD], faults=[Fault("budget gone", "evict")]),
    "a late list ends pods": Day(
        [Pod()], acts=[Act("bind pod", 5.0)], faults=[Fault("late answer", "list", skip=2)]
    ),
    "no wait for bindings": Day(
        [Pod(node=1), Pod(node=1), Pod(node=2)], acts=[Act("start pod", 0.2)], late_bindings=0.5
    ),
    "the cordon comes first": Day([Pod()], faults=[Fault("webhook fails", "patch", seconds=150)]),
    "no wait for the node": Day(registers_at=12.0),
    "EC2's first answer is final": Day([Pod()], aws_faults=[AwsFault("not known")]),
    "the taints of others are replaced": Day(acts=[Act("taint", 0.1)]),
    "an uncordon lifts any cordon": Day(
        deliveries=[Delivery("stop")], acts=[Act("mark", 0.1)], returns=5.0
    ),
    "a server's words are not cut": Day(
        [Pod()],
        faults=[Fault("policy", "evict", seconds=150)],
        settings=Settings(on_deadline="leave"),
    ),
    "CAST AI holds the function": Day(castai="down"),
    "the drain taint alone is tolerated": Day([Pod(tolerates="drain")]),
    "any source is a notice": Day([Pod()], deliveries=[Delivery("foreign")]),
    "CAST AI's words are not masked": Day(castai="echo"),
    "an uncordon takes a label of others": Day(
        deliveries=[Delivery("stop")], acts=[Act("balancer", 0.6)], returns=5.0
    ),
    "a pod that comes back is evicted at once": Day(
        [Pod(), Pod(app=1, grace=114, shutdown=None)],
        deliveries=[Delivery("stop")],
        nodes=1,
        lifetime=100.0,
        returns=13.0,
    ),
    "a pod that never ends is waited for": Day(
        [Pod(grace=5, shutdown=None)], acts=[Act("machine hangs", 1.0)]
    ),
}


def test_a_failing_day_is_made_smaller_and_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with put_back("the drain taint alone is tolerated"):
        seed = next(seed for seed in range(100) if DAYS.run(draw(DAYS, seed)).faults)
        found = smallest(DAYS, seed)
        assert found is not None
        assert isinstance(found.day, Day)
        assert (len(found.day.pods), found.day.faults, found.day.acts) == (1, [], [])
        assert promises(found.verdict)
        assert command.main(["drain", "--seed", str(seed)]) == 1
    shown = capsys.readouterr().out
    assert "BROKEN" in shown
    assert "invocation 0: terminate, node 0" in shown
