"""What goes wrong on the way, and what becomes of the drain."""

from __future__ import annotations

import asyncio
import json
import math
from functools import partial
from typing import Any

import pytest

from kubesim import Answer, BreakWatch, Delay, Down, DropAnswer, Hook, LateAnswer, Reset
from lambdas.common import eks
from lambdas.common.errors import (
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    ClusterUnavailableError,
)
from lambdas.spot_handler.result import Outcome
from lambdas.spot_handler.settings import OnDeadline
from tests.functional.spot_handler.conftest import Scene, virtual


def failure(code: int, message: str, **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "code": code,
        **({"details": details} if details else {}),
    }


TERMINATING = [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(429, failure(429, "too many requests"), {"retry-after": "1"}),
        Answer(500, failure(500, "failed calling webhook")),
        Answer(502),
        Answer(503),
        Answer(504, failure(504, "Timeout")),
        Answer(201, failure(500, "This pod has more than one PodDisruptionBudget")),
        Answer(409, failure(409, "the object has been modified")),
        Answer(403, failure(403, "forbidden", causes=TERMINATING)),
        Answer(403, failure(403, 'admission webhook "x" denied the request: wait')),
        Answer(400, failure(400, "bad request")),
    ],
    ids=lambda answer: str(answer.status),
)
@virtual
async def test_an_answer_that_passes_costs_a_moment_and_no_pod(
    scene: Scene, answer: Answer
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        scene.pod("other")
        cluster.faults.add("POST", "pods/web/eviction", answer, times=2)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (2, 0)
        assert len(cluster.log.find("POST", "pods/web/eviction")) == 3
        assert len(cluster.log.find("POST", "pods/other/eviction")) == 1


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, failure(404, "not found")),
        Answer(409, failure(409, "the UID in the precondition (a) does not match the UID (b)")),
    ],
    ids=["404", "409"],
)
@virtual
async def test_a_pod_that_is_gone_needs_nothing_more(scene: Scene, answer: Answer) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add(
            "POST", "eviction", Hook(lambda _: cluster.delete("pods", "web", "default", grace=0))
        )
        cluster.faults.add("POST", "eviction", answer)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.gone) == (0, 1)


@virtual
async def test_one_pods_error_never_stops_another(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(8):
            scene.pod(f"web-{number}")
        bad = Answer(500, failure(500, "always"))
        cluster.faults.add("*", "pods/web-3", bad, times=1000)
        result = await scene.notice()
        assert result.outcome is Outcome.PARTIAL
        assert result.pods.evicted == 7
        assert [(left.pod, left.reason) for left in result.pods.left] == [
            ("default/web-3", "500 always")
        ]


@virtual
async def test_a_slow_answer_delays_no_other_pod(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("slow")
        scene.pod("quick")
        gone_at: dict[str, float] = {}

        def note(_: object) -> None:
            for name in {"slow", "quick"} - scene.names() - gone_at.keys():
                gone_at[name] = cluster.now()

        cluster.store.subscribe(note)
        cluster.faults.add("POST", "pods/slow/eviction", Delay(), times=1)  # never an answer
        started = cluster.now()
        result = await scene.notice()
        assert result.pods.evicted == 2
        assert gone_at["quick"] - started < 3
        assert 10 < gone_at["slow"] - started < 14  # given up after 10 s, and asked again


@pytest.mark.parametrize("action", [Reset(), DropAnswer()], ids=["reset", "drop-answer"])
@virtual
async def test_a_cut_connection_is_tried_again(scene: Scene, action: Reset | DropAnswer) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(5):
            scene.pod(f"web-{number}", shutdown=20)
        for method, path in (
            ("GET", "/nodes/"), ("PATCH", "/nodes/"), ("GET", "/pods$"), ("POST", "eviction")
        ):  # fmt: skip
            cluster.faults.add(method, path, action, times=3)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.pods.evicted == 5
        assert scene.names() == set()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nodes/"), ("PATCH", "/nodes/"), ("GET", "/pods$"),
                         ("POST", "eviction")],
)  # fmt: skip
@virtual
async def test_a_server_that_is_down_for_five_seconds(scene: Scene, method: str, path: str) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(5):
            scene.pod(f"web-{number}")
        cluster.faults.add(method, path, Down(5))
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert scene.names() == set()
        assert 5 < result.ended - result.started < 14


@virtual
async def test_a_server_that_stays_down_fails_the_invocation_in_time(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add("GET", "/nodes/", Down(1000))
        started = cluster.now()
        with pytest.raises(ClusterUnavailableError):
            await scene.notice()
        assert 110 < cluster.now() - started < 125


@virtual
async def test_a_token_that_is_not_accepted_once_is_signed_anew(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = []
    sign = eks.sign_token

    def counted(*arguments: Any, **options: Any) -> str:
        signed.append(sign(*arguments, **options))
        return signed[-1]

    monkeypatch.setattr(eks, "sign_token", counted)
    async with scene.cluster:
        scene.build()
        scene.pod("web")
        scene.users.refuse_next = 1
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert len(signed) == 2


@pytest.mark.parametrize("seconds", [3, 10])
@virtual
async def test_a_cluster_that_refuses_tokens_for_some_seconds_is_lived_through(
    scene: Scene, seconds: float
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(5):
            scene.pod(f"web-{number}", shutdown=20)
        loop = asyncio.get_running_loop()

        def refuse(_: object) -> None:
            scene.users.refuse_next = math.inf
            loop.call_later(seconds, scene.users.accept)

        cluster.faults.add("POST", "eviction", Hook(refuse), skip=2)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (5, 0)


@virtual
async def test_a_401_that_was_not_asked_again_is_no_401_that_lasts(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", grace=60, shutdown=55)

        # The Event, which is sent once, is refused as the last request before a long wait. The next
        # request, 55 s later, is refused too, and accepted when it is repeated.
        cluster.faults.add("POST", "/events", Hook(lambda _: asyncio.sleep(2)))
        cluster.faults.add("POST", "/events", Answer(401))
        cluster.faults.add("GET", "/pods$", Answer(401), skip=2)
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


@virtual
async def test_a_role_that_the_cluster_does_not_know_fails_loudly(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        scene.users.refuse_next = math.inf
        started = scene.cluster.now()
        with pytest.raises(ClusterUnauthorizedError, match="Give the function's role access"):
            await scene.notice()
        assert 15 <= scene.cluster.now() - started < 20
        assert len(scene.users.seen) > 5


@pytest.mark.parametrize(
    ("resource", "verb", "words"),
    [
        ("nodes", "get", 'cannot get resource "nodes"'),
        ("nodes", "patch", 'cannot patch resource "nodes"'),
        ("pods", "list", 'cannot list resource "pods"'),
        ("pods", "watch", 'cannot watch resource "pods"'),
        ("pods/eviction", "create", 'cannot create resource "pods/eviction"'),
        ("pods", "delete", 'cannot delete resource "pods"'),
    ],
)
@virtual
async def test_a_right_that_is_missing_fails_the_invocation_and_is_named(
    scene: Scene, resource: str, verb: str, words: str
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        role = cluster.get("clusterroles", "castai-spot-handler")
        assert role is not None
        rules = [
            rule | {"verbs": [v for v in rule["verbs"] if v != verb]}
            if resource in rule["resources"]
            else rule
            for rule in role["rules"]
        ]
        cluster.set(role | {"rules": rules})
        scene.pod("web")
        scene.pod("db", labels={"app": "db"}, grace=600, shutdown=1)
        cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        with pytest.raises(ClusterForbiddenError, match=r"manifests/spot-handler-rbac\.yaml") as e:
            await scene.notice()
        assert words in str(e.value)
        # Missing eviction rights are final for all, at once: the server gets no more of them.
        assert len(cluster.log.find("POST", "eviction")) < 60


@pytest.mark.usefixtures("container")
@virtual
async def test_no_right_to_write_events_costs_the_events_only(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add("POST", "/events", Answer(403), times=10)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert cluster.list("events") == []
    assert "No event on the node" in capsys.readouterr().out


def touch(scene: Scene, taint: str) -> Hook:
    """Another client taints the node just before our write arrives."""

    def change(_: object) -> None:
        node = scene.cluster.get("nodes", scene.node)
        assert node is not None
        taints = [*node["spec"].get("taints", ()), {"key": taint, "effect": "NoSchedule"}]
        scene.cluster.set({**node, "spec": {**node["spec"], "taints": taints}})

    return Hook(change)


@virtual
async def test_no_taint_is_lost_or_doubled_when_others_write_the_node(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        for number in range(6):
            cluster.faults.add("PATCH", "/nodes/", touch(scene, f"team-{number}"), skip=number)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        node = cluster.get("nodes", scene.node)
        assert node is not None
        keys = [
            taint["key"]
            for taint in node["spec"]["taints"]
            if taint["key"] != "node.kubernetes.io/unschedulable"
        ]
        assert sorted(keys) == ["autoscaling.cast.ai/draining", *(f"team-{n}" for n in range(6))]
        assert len(cluster.log.find("PATCH", "/nodes/", status=409)) == 6


@virtual
async def test_a_proxys_404_about_the_node_does_not_make_it_gone(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add("PATCH", "/nodes/", Answer(503))
        page = Answer(404, failure(404, "404 page not found"))
        cluster.faults.add("GET", "/nodes/", page, skip=1, times=2)
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


@virtual
async def test_a_node_that_vanishes_before_the_cordon_is_too_late(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        cluster.faults.add("PATCH", "/nodes/", Hook(lambda _: cluster.delete("nodes", scene.node)))
        result = await scene.notice()
        assert result.outcome is Outcome.TOO_LATE


@virtual
async def test_a_node_that_vanishes_midway_takes_its_pods_along(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(4):
            scene.pod(f"web-{number}", grace=100, shutdown="never")

        def vanish(_: object) -> None:
            cluster.stop_node(scene.node)
            cluster.delete("nodes", scene.node)

        cluster.faults.add("POST", "eviction", Hook(vanish), skip=3)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert scene.names() == set()


@virtual
async def test_a_pod_that_lands_after_the_cordon_goes_too(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", shutdown=5)
        # The scheduler had chosen the node before it was cordoned: it shows up during the drain …
        cluster.faults.add("POST", "eviction", Hook(lambda _: void(scene.pod("late"))))
        # … and one more just when the node seems to be empty.
        cluster.faults.add("GET", "/pods$", Hook(lambda _: void(scene.pod("later"))), skip=2)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.pods.evicted == 3
        assert scene.names() == set()


def void(_: object) -> None:
    return None


@virtual
async def test_a_pod_that_was_recreated_under_the_same_name_is_another_pod(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("db-0")

        def recreate(_: object) -> None:
            cluster.delete("pods", "db-0", "default", grace=0)
            scene.pod("db-0", node="other-1")

        cluster.faults.add("POST", "eviction", Hook(recreate))
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert scene.names("other-1") == {"db-0"}
        (survivor,) = cluster.pods_on("other-1")
        assert "deletionTimestamp" not in survivor["metadata"]


@pytest.mark.parametrize("how", ["reset", "end", "gone"])
@virtual
async def test_a_watch_that_breaks_goes_on_from_a_new_list(scene: Scene, how: Any) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(6):
            scene.pod(f"web-{number}", shutdown=number * 3)
        cluster.faults.add("GET", "/pods$", BreakWatch(after_events=2, how=how), times=4, skip=1)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.left) == (6, [])
        assert len(cluster.log.find("POST", "eviction")) == 6
        assert result.ended - result.started < 25


@virtual
async def test_a_watch_that_says_nothing_is_not_trusted_for_ever(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", shutdown=2)
        cluster.faults.add("GET", "/pods$", Delay(), skip=1)  # the watch: no answer, ever
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.ended - result.started < 60


@virtual
async def test_two_notices_at_once_are_as_good_as_one(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(10):
            scene.pod(f"web-{number}", shutdown=3)
        results = await asyncio.gather(scene.notice(), scene.notice())
        assert [result.outcome for result in results] == [Outcome.DRAINED, Outcome.DRAINED]
        assert scene.names() == set()
        node = cluster.get("nodes", scene.node)
        assert node is not None
        keys = [taint["key"] for taint in node["spec"]["taints"]]
        assert keys.count("autoscaling.cast.ai/draining") == 1
        assert len(cluster.log.find("PATCH", "/nodes/", status=200)) == 1


@virtual
async def test_the_same_event_again_finds_nothing_to_do(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        await scene.notice()
        cluster.log.clear()
        again = await scene.notice()
        assert (again.outcome, again.pods.evicted) == (Outcome.DRAINED, 0)
        assert "patch nodes" not in scene.asked()


@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 4.0])
@virtual
async def test_an_invocation_that_dies_midway_is_finished_by_the_next(
    scene: Scene, after: float
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(8):
            scene.pod(f"web-{number}", shutdown=number)
        cluster.faults.add("POST", "eviction", Delay(0.5), times=4)
        first = asyncio.create_task(scene.notice())
        await asyncio.sleep(after)
        first.cancel()
        await asyncio.wait([first])
        second = await scene.notice(age=after)
        assert second.outcome is Outcome.DRAINED
        assert scene.names() == set()


@virtual
async def test_leave_keeps_trying_to_the_end(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("db", labels={"app": "db"}, shutdown=1)
        budget = cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        name = budget["metadata"]["name"]
        asyncio.get_running_loop().call_later(110, lambda: cluster.delete("pdb", name, "default"))
        result = await scene.notice(on_deadline=OnDeadline.LEAVE)
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


@virtual
async def test_a_servers_long_words_are_cut_before_they_are_logged_or_returned(
    scene: Scene,
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(110):
            scene.pod(f"web-{number}")
        words = 'admission webhook "x" denied the request: ' + "because " * 400
        cluster.faults.add("POST", "eviction", Answer(403, failure(403, words)), times=math.inf)
        result = await scene.notice(on_deadline=OnDeadline.LEAVE)
        assert len(result.pods.left) == 110
        assert max(len(left.reason) for left in result.pods.left) <= 200
        assert len(json.dumps(result.as_dict())) < 40_000


NOT_RBAC = {
    "negative": 'poddisruptionbudget.policy "web" is forbidden: '
    "pdb disruptions allowed is negative",
    "full": 'poddisruptionbudget.policy "web" is forbidden: DisruptedPods map too big - too many '
    "evictions not confirmed by PDB controller",
    "policy": "pods \"web-0\" is forbidden: ValidatingAdmissionPolicy 'no-eviction' with binding "
    "'no-eviction' denied request: not on weekdays",
}


@pytest.mark.parametrize("words", NOT_RBAC.values(), ids=NOT_RBAC.keys())
@virtual
async def test_a_403_that_is_no_missing_right_is_one_pods_refusal(scene: Scene, words: str) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(4):
            scene.pod(f"web-{number}")
        refusal = Answer(403, failure(403, words))
        cluster.faults.add("POST", "pods/web-0/eviction", refusal, times=3)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (4, 0)


@virtual
async def test_a_right_that_is_missing_in_one_namespace_stops_no_other_pod(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("closed")
        for number in range(4):
            scene.pod(f"web-{number}", shutdown=5)
        words = 'pods "closed" is forbidden: User "spot" cannot create resource "pods/eviction"'
        cluster.faults.add(
            "POST", "pods/closed/eviction", Answer(403, failure(403, words)), times=math.inf
        )
        with pytest.raises(ClusterForbiddenError, match="cannot create resource"):
            await scene.notice()
        assert scene.names() == {"closed"}
        assert len(cluster.log.find("POST", "pods/closed/eviction")) == 1


@virtual
async def test_an_admission_policy_on_nodes_is_not_called_a_missing_right(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        words = 'nodes "x" is forbidden: ValidatingAdmissionPolicy "y" denied request: no'
        cluster.faults.add("PATCH", "/nodes/", Answer(403, failure(403, words)), times=math.inf)
        with pytest.raises(ClusterRefusedError, match="denied request") as e:
            await scene.notice()
        assert "rbac" not in str(e.value)


@pytest.mark.parametrize(
    "words", ['poddisruptionbudgets.policy "web" not found', "404 page not found"]
)
@virtual
async def test_a_404_about_something_else_does_not_make_a_pod_gone(
    scene: Scene, words: str
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(3):
            scene.pod(f"web-{number}", shutdown=5)
        # The budget was deleted between the server's look at it and its write.
        refusal = Answer(404, failure(404, words))
        cluster.faults.add("POST", "pods/web-0/eviction", refusal, times=2)
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 3)
        assert scene.names() == set()
        assert scene.asked()["list pods"] <= 4


@virtual
async def test_a_pod_that_never_is_evicted_by_404s_is_left_and_named(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        refusal = Answer(404, failure(404, "404 page not found"))
        cluster.faults.add("*", "pods/web", refusal, times=math.inf)
        result = await scene.notice()
        assert result.outcome is Outcome.PARTIAL
        assert "still listed" in result.pods.left[0].reason


@pytest.mark.parametrize("refusals", [0, 6], ids=["evicted at once", "refused for some time"])
@virtual
async def test_a_list_that_the_watch_has_overtaken_ends_no_younger_pod(
    scene: Scene, refusals: int
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", shutdown=1)
        # The last list is sent while the node is empty, and answered 5 s later. Meanwhile a pod
        # lands, and the watch reports it.
        cluster.faults.add("GET", "/pods$", LateAnswer(5), skip=2)
        if refusals:
            cluster.faults.add("POST", "late/eviction", Answer(503), times=refusals)
        asyncio.get_running_loop().call_later(5, partial(scene.pod, "late", shutdown=10))
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 2)
        assert scene.names() == set()


@virtual
async def test_a_binding_that_no_watch_told_of_is_found_by_the_last_list(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        cluster.faults.add("GET", "/pods$", Delay(), skip=1)  # the watch says nothing
        asyncio.get_running_loop().call_later(2.5, partial(scene.pod, "late", shutdown=1))
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        assert scene.names() == set()


@virtual
async def test_a_last_list_that_shows_a_pod_is_not_called_drained(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        pod = scene.pod("web", shutdown=1)
        # A server that lags behind the watch, which has told of the pod's end.
        shown = {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [pod]}
        cluster.faults.add("GET", "/pods$", Answer(200, shown), skip=2, times=3)
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        assert len(cluster.log.find("GET", "/pods$")) == 6  # the first, the watch, three, the last


@virtual
async def test_a_binding_that_was_under_way_lands_and_is_drained(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        loop = asyncio.get_running_loop()
        loop.call_later(2.5, partial(scene.pod, "late"))  # the node seems to be empty
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        assert scene.names() == set()


@virtual
async def test_a_node_that_no_last_list_shows_empty_is_not_called_drained(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add("GET", "/pods$", Answer(503), skip=2, times=math.inf)
        result = await scene.notice()
        assert (result.outcome, result.pods.left) == (Outcome.PARTIAL, [])
        assert "the last list was not answered" in result.reason
        assert result.drained_at is None


@virtual
async def test_a_webhook_on_nodes_that_fails_does_not_cost_the_drain(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(3):
            scene.pod(f"web-{number}", shutdown=5)
        broken = Answer(500, failure(500, "failed calling webhook"))
        cluster.faults.add("PATCH", "/nodes/", broken, times=math.inf)
        with pytest.raises(ClusterUnavailableError, match="failed calling webhook") as e:
            await scene.notice()
        assert scene.names() == set()
        first = cluster.log.find("POST", "eviction")[0]
        assert first.started_at - cluster.log.entries[0].started_at == pytest.approx(10, abs=1)
        assert any("3 evicted" in note for note in e.value.__notes__)


@virtual
async def test_a_cordon_that_comes_late_is_as_good(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        broken = Answer(500, failure(500, "failed calling webhook"))
        cluster.faults.add("PATCH", "/nodes/", broken, times=12)
        # Its own replacement: on a node that takes pods, evicting it would go on for ever.
        asyncio.get_running_loop().call_later(12, partial(scene.pod, "again"))
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 2)
        node = cluster.get("nodes", scene.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True
        again = cluster.log.find("POST", "pods/again/eviction")[0]
        assert again.started_at >= cluster.log.find("PATCH", "/nodes/", status=200)[0].started_at


@virtual
async def test_pods_that_land_on_a_node_that_cannot_be_cordoned_are_left(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        words = 'nodes "x" is forbidden: ValidatingAdmissionPolicy "y" denied request: no'
        cluster.faults.add("PATCH", "/nodes/", Answer(403, failure(403, words)), times=math.inf)
        cluster.faults.add("POST", "web/eviction", Hook(lambda _: void(scene.pod("again"))))
        with pytest.raises(ClusterRefusedError, match="denied request"):
            await scene.notice()
        assert scene.names() == {"again"}
        assert cluster.log.find("POST", "again/eviction") == []


@virtual
async def test_a_proxys_404_for_the_cordon_does_not_make_the_node_gone(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add("PATCH", "/nodes/", Answer(404, failure(404, "no route")), times=2)
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


def deleted_by_others(scene: Scene, after: float) -> None:
    asyncio.get_running_loop().call_later(
        after, partial(scene.cluster.delete, "pods", "web", "default", grace=0)
    )


@virtual
async def test_an_eviction_that_was_not_authenticated_evicted_nothing(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")

        def refuse(_: object) -> None:
            scene.users.refuse_next = math.inf

        cluster.faults.add("POST", "eviction", Hook(refuse))
        asyncio.get_running_loop().call_later(5, scene.users.accept)
        deleted_by_others(scene, 2)
        result = await scene.notice()
        assert (result.pods.evicted, result.pods.gone) == (0, 1)
        assert result.pods.answers["401"] > 1
        assert "none" not in result.pods.answers


@virtual
async def test_an_eviction_that_found_no_connection_evicted_nothing(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        cluster.faults.add("POST", "eviction", Answer(503))
        cluster.faults.add("POST", "eviction", Hook(lambda _: None), skip=1)
        down = Down(5)
        cluster.faults.add("GET", "/pods$", down, skip=1)  # the watch: from here on nothing answers
        deleted_by_others(scene, 2)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.gone) == (0, 1)


@virtual
async def test_a_budget_that_was_broken_counts_also_where_the_answer_is_lost(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("db", labels={"app": "db"}, grace=600, shutdown=1)
        cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        cluster.faults.add("DELETE", "pods/db", DropAnswer())
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (0, 1)
        assert set(result.pods.answers) == {"429"}  # answers to evictions, and to nothing else


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("lost", [DropAnswer(), Answer(504, failure(504, "Timeout"))], ids=repr)
@virtual
async def test_an_eviction_whose_answer_is_lost_is_ours(
    scene: Scene, lost: DropAnswer | Answer, *, ends: bool
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", shutdown=5)
        if not ends:
            cluster.stop_node(scene.node)
        if isinstance(lost, Answer):  # it took effect all the same
            cluster.faults.add(
                "POST", "eviction", Hook(lambda _: void(cluster.delete("pods", "web", "default")))
            )
        cluster.faults.add("POST", "eviction", lost)
        result = await scene.notice()
        assert (result.pods.evicted, result.pods.gone) == (1 if ends else 0, 0)
        assert ["finalizer" in left.reason for left in result.pods.left] == [True] * (not ends)


@pytest.mark.parametrize("code", [400, 403, 404, 408])
@virtual
async def test_a_list_that_is_refused_in_the_middle_of_a_drain_stops_no_eviction(
    scene: Scene, code: int
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(3):
            scene.pod(f"web-{number}", shutdown=5)
        cluster.faults.add("GET", "/pods$", BreakWatch(), skip=1)
        cluster.faults.add("GET", "/pods$", Answer(code, failure(code, "a proxy's page")), times=3)
        cluster.faults.add("POST", "web-0/eviction", Answer(503), times=4)
        result = await scene.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 3)


@pytest.mark.parametrize(
    "mute", [Answer(500, failure(500, "failed calling webhook")), Delay()], ids=["500", "mute"]
)
@pytest.mark.parametrize("late", [{"action": "hibernate"}, {"age": 111.0}], ids=str)
@virtual
async def test_a_cordon_that_fails_leaves_time_for_the_pods_in_a_short_window_too(
    scene: Scene, late: dict[str, Any], mute: Answer | Delay
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(3):
            scene.pod(f"web-{number}", shutdown=1)
        cluster.faults.add("PATCH", "/nodes/", mute, times=math.inf)
        with pytest.raises(ClusterUnavailableError):
            await scene.notice(**late)
        assert scene.names() == set()


@virtual
async def test_no_event_says_drained_on_a_node_that_still_takes_pods(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        words = 'nodes "x" is forbidden: ValidatingAdmissionPolicy "y" denied request: no'
        cluster.faults.add("PATCH", "/nodes/", Answer(403, failure(403, words)), times=math.inf)
        with pytest.raises(ClusterRefusedError, match="denied request"):
            await scene.notice()
        (event,) = cluster.list("events")
        assert (event["type"], event["reason"]) == ("Warning", "SpotDrainIncomplete")
        assert event["message"].startswith("the node could not be cordoned; drained in")
