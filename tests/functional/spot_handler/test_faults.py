"""The drain under faults of the API server, the network, the node and other clients."""

from __future__ import annotations

import asyncio
import json
import math
from functools import partial
from typing import Any

import pytest

from kubesim import (
    Answer,
    BreakWatch,
    Delay,
    Down,
    DropAnswer,
    Hook,
    LateAnswer,
    OldList,
    Reset,
    answers,
)
from lambdas.common import eks
from lambdas.common.errors import (
    ClusterForbiddenError,
    ClusterRefusedError,
    ClusterUnauthorizedError,
    ClusterUnavailableError,
)
from lambdas.spot_handler.result import Outcome
from lambdas.spot_handler.settings import OnDeadline
from tests.functional.spot_handler.conftest import SpotTestbed, virtual


def failure(code: int, message: str, **details: Any) -> dict[str, Any]:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "status": "Failure",
        "message": message,
        "code": code,
        **({"details": details} if details else {}),
    }


SLOW_WEBHOOK = 'Post "https://x.shop.svc:443/x?timeout=10s": context deadline exceeded'
WEBHOOK_FAILS = answers.webhook_failed("x.example.com", SLOW_WEBHOOK)
POLICY_DENIES = answers.denied_by_policy("nodes", "x", "no", policy="y")
TERMINATING = [{"reason": "NamespaceTerminating", "message": "namespace x is being terminated"}]


@pytest.mark.parametrize(
    "answer",
    [
        answers.server_busy(),
        WEBHOOK_FAILS,
        Answer(502),
        Answer(503),
        answers.timed_out(),
        Answer(201, failure(500, "This pod has more than one PodDisruptionBudget")),
        answers.budget_modified("web"),
        Answer(403, failure(403, "forbidden", causes=TERMINATING)),
        answers.denied_by_webhook("x.example.com", "wait"),
        Answer(400, failure(400, "bad request")),
    ],
    ids=lambda answer: str(answer.status),
)
@virtual
async def test_a_temporary_error_answer_is_retried_for_its_pod_only(
    testbed: SpotTestbed, answer: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        testbed.pod("other")
        cluster.faults.add("POST", "pods/web/eviction", answer, times=2)
        result = await testbed.notice()
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
async def test_a_pod_that_is_gone_is_not_evicted_again(
    testbed: SpotTestbed, answer: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add(
            "POST", "eviction", Hook(lambda _: cluster.delete("pods", "web", "default", grace=0))
        )
        cluster.faults.add("POST", "eviction", answer)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.gone) == (0, 1)


@virtual
async def test_the_error_of_one_pod_stops_no_other_pod(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(8):
            testbed.pod(f"web-{number}")
        bad = Answer(500, failure(500, "always"))
        cluster.faults.add("*", "pods/web-3", bad, times=1000)
        result = await testbed.notice()
        assert result.outcome is Outcome.PARTIAL
        assert result.pods.evicted == 7
        assert [(left.pod, left.reason) for left in result.pods.left] == [
            ("default/web-3", "500 always")
        ]


@virtual
async def test_a_slow_answer_delays_no_other_pod(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("slow")
        testbed.pod("quick")
        gone_at: dict[str, float] = {}

        def record(_: object) -> None:
            for name in {"slow", "quick"} - testbed.names() - gone_at.keys():
                gone_at[name] = cluster.now()

        cluster.store.subscribe(record)
        cluster.faults.add("POST", "pods/slow/eviction", Delay(), times=1)  # no answer
        started = cluster.now()
        result = await testbed.notice()
        assert result.pods.evicted == 2
        assert gone_at["quick"] - started < 3
        assert 10 < gone_at["slow"] - started < 14  # retried after 10 s


@pytest.mark.parametrize("action", [Reset(), DropAnswer()], ids=["reset", "drop-answer"])
@virtual
async def test_a_request_on_a_broken_connection_is_retried(
    testbed: SpotTestbed, action: Reset | DropAnswer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(5):
            testbed.pod(f"web-{number}", shutdown=20)
        for method, path in (
            ("GET", "/nodes/"), ("PATCH", "/nodes/"), ("GET", "/pods$"), ("POST", "eviction")
        ):  # fmt: skip
            cluster.faults.add(method, path, action, times=3)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.pods.evicted == 5
        assert testbed.names() == set()


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nodes/"), ("PATCH", "/nodes/"), ("GET", "/pods$"),
                         ("POST", "eviction")],
)  # fmt: skip
@virtual
async def test_a_server_that_is_down_for_five_seconds_delays_the_drain_only(
    testbed: SpotTestbed, method: str, path: str
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(5):
            testbed.pod(f"web-{number}")
        cluster.faults.add(method, path, Down(5))
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert testbed.names() == set()
        assert 5 < result.ended - result.started < 14


@pytest.mark.parametrize(
    "busy", [answers.server_busy(), answers.unauthorized()], ids=["429", "401"]
)
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/nodes/"), ("PATCH", "/nodes/"), ("GET", "/pods$"),
                         ("POST", "eviction"), ("*", "")],
)  # fmt: skip
@virtual
async def test_a_server_that_is_busy_for_five_seconds_delays_the_drain_only(
    testbed: SpotTestbed, method: str, path: str, busy: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(5):
            testbed.pod(f"web-{number}", shutdown=1)
        cluster.faults.add(method, path, busy, seconds=5)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 5)
        assert (result.pods.forced, result.pods.gone) == (0, 0)
        assert 5 < result.ended - result.started < 16
        accepted, refused = result.pods.answers["201"], result.pods.answers[str(busy.status)]
        assert (accepted, refused > 0) == (5, path == "eviction")
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True


@virtual
async def test_a_server_that_stays_down_fails_the_invocation_before_its_time_out(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("GET", "/nodes/", Down(1000))
        started = cluster.now()
        with pytest.raises(ClusterUnavailableError):
            await testbed.notice()
        assert 110 < cluster.now() - started < 125


@virtual
async def test_a_new_token_is_signed_after_one_401(
    testbed: SpotTestbed, monkeypatch: pytest.MonkeyPatch
) -> None:
    signed = []
    sign = eks.sign_token

    def counted(*arguments: Any, **options: Any) -> str:
        signed.append(sign(*arguments, **options))
        return signed[-1]

    monkeypatch.setattr(eks, "sign_token", counted)
    async with testbed.cluster:
        testbed.build()
        testbed.pod("web")
        testbed.users.refuse_next = 1
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert len(signed) == 2


@pytest.mark.parametrize("seconds", [3, 10])
@virtual
async def test_the_drain_goes_on_after_some_seconds_of_401(
    testbed: SpotTestbed, seconds: float
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(5):
            testbed.pod(f"web-{number}", shutdown=20)
        loop = asyncio.get_running_loop()

        def refuse(_: object) -> None:
            testbed.users.refuse_next = math.inf
            loop.call_later(seconds, testbed.users.accept)

        cluster.faults.add("POST", "eviction", Hook(refuse), skip=2)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (5, 0)


@virtual
async def test_two_separate_401_are_not_counted_as_one_that_lasts(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", grace=60, shutdown=55)

        # The Event is sent once; its 401 is the last answer before a long wait. The next request,
        # 55 s later, gets a 401 too, and is accepted when it is repeated.
        cluster.faults.add("POST", "/events", Hook(lambda _: asyncio.sleep(2)))
        cluster.faults.add("POST", "/events", Answer(401))
        cluster.faults.add("GET", "/pods$", Answer(401), skip=2)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


@virtual
async def test_a_role_without_access_to_the_cluster_fails_the_invocation(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster:
        testbed.build()
        testbed.users.refuse_next = math.inf
        started = testbed.cluster.now()
        with pytest.raises(ClusterUnauthorizedError, match="Give the function's role access"):
            await testbed.notice()
        assert 15 <= testbed.cluster.now() - started < 20
        assert len(testbed.users.seen) > 5


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
    testbed: SpotTestbed, resource: str, verb: str, words: str
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        role = cluster.get("clusterroles", "castai-spot-handler")
        assert role is not None
        rules = [
            rule | {"verbs": [v for v in rule["verbs"] if v != verb]}
            if resource in rule["resources"]
            else rule
            for rule in role["rules"]
        ]
        cluster.set(role | {"rules": rules})
        testbed.pod("web")
        testbed.pod("db", labels={"app": "db"}, grace=600, shutdown=1)
        cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        with pytest.raises(ClusterForbiddenError, match=r"manifests/spot-handler-rbac\.yaml") as e:
            await testbed.notice()
        assert words in str(e.value)
        # A missing right to evict ends the evictions of all pods.
        assert len(cluster.log.find("POST", "eviction")) < 60


@pytest.mark.usefixtures("container")
@virtual
async def test_without_the_right_to_create_events_the_node_is_drained(
    testbed: SpotTestbed, capsys: pytest.CaptureFixture[str]
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("POST", "/events", Answer(403), times=10)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert cluster.list("events") == []
    assert "No event on the node" in capsys.readouterr().out


def touch(testbed: SpotTestbed, taint: str) -> Hook:
    """Another client taints the node just before our write arrives."""

    def change(_: object) -> None:
        node = testbed.cluster.get("nodes", testbed.node)
        assert node is not None
        taints = [*node["spec"].get("taints", ()), {"key": taint, "effect": "NoSchedule"}]
        testbed.cluster.set({**node, "spec": {**node["spec"], "taints": taints}})

    return Hook(change)


@virtual
async def test_no_taint_is_lost_or_doubled_when_other_clients_write_the_node(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        for number in range(6):
            cluster.faults.add("PATCH", "/nodes/", touch(testbed, f"team-{number}"), skip=number)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        keys = [
            taint["key"]
            for taint in node["spec"]["taints"]
            if taint["key"] != "node.kubernetes.io/unschedulable"
        ]
        assert sorted(keys) == ["autoscaling.cast.ai/draining", *(f"team-{n}" for n in range(6))]
        assert len(cluster.log.find("PATCH", "/nodes/", status=409)) == 6


@virtual
async def test_a_404_of_a_proxy_does_not_mean_that_the_node_is_gone(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("PATCH", "/nodes/", Answer(503))
        page = Answer(404, failure(404, "404 page not found"))
        cluster.faults.add("GET", "/nodes/", page, skip=1, times=2)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


@virtual
async def test_a_node_that_is_deleted_before_the_cordon_is_too_late(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        cluster.faults.add(
            "PATCH", "/nodes/", Hook(lambda _: cluster.delete("nodes", testbed.node))
        )
        result = await testbed.notice()
        assert result.outcome is Outcome.TOO_LATE


@virtual
async def test_the_drain_ends_when_the_node_is_deleted(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(4):
            testbed.pod(f"web-{number}", grace=100, shutdown="never")

        def delete_node(_: object) -> None:
            cluster.stop_node(testbed.node)
            cluster.delete("nodes", testbed.node)

        cluster.faults.add("POST", "eviction", Hook(delete_node), skip=3)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert testbed.names() == set()


@virtual
async def test_a_pod_that_is_bound_after_the_cordon_is_evicted(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", shutdown=5)
        # The scheduler chose the node before the cordon: this pod is bound during the drain,
        cluster.faults.add("POST", "eviction", Hook(lambda _: void(testbed.pod("late"))))
        # and this one after the last pod of the node is gone.
        cluster.faults.add("GET", "/pods$", Hook(lambda _: void(testbed.pod("later"))), skip=2)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.pods.evicted == 3
        assert testbed.names() == set()


@pytest.mark.parametrize("seconds", [0.5, 2.5, 5])
@virtual
async def test_a_pod_that_the_scheduler_binds_after_the_cordon_is_evicted(
    testbed: SpotTestbed, seconds: float
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", shutdown=6)
        cluster.delay_bindings(seconds)
        here = {"kubernetes.io/hostname": testbed.node}
        cluster.add_deployment("late", 2, nodeSelector=here)
        await asyncio.sleep(0.1)  # the scheduler has chosen the node
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 3)
        assert testbed.names() == set()
        # The pods that replace them fit no node: this one is cordoned.
        assert len(cluster.list("pods", "default")) == 2


def void(_: object) -> None:
    return None


@virtual
async def test_a_recreated_pod_of_the_same_name_is_not_evicted(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("db-0")

        def recreate(_: object) -> None:
            cluster.delete("pods", "db-0", "default", grace=0)
            testbed.pod("db-0", node="other-1")

        cluster.faults.add("POST", "eviction", Hook(recreate))
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert testbed.names("other-1") == {"db-0"}
        (survivor,) = cluster.pods_on("other-1")
        assert "deletionTimestamp" not in survivor["metadata"]


@pytest.mark.parametrize("how", ["reset", "end", "gone"])
@virtual
async def test_after_a_broken_watch_the_drain_lists_and_watches_again(
    testbed: SpotTestbed, how: Any
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(6):
            testbed.pod(f"web-{number}", shutdown=number * 3)
        cluster.faults.add("GET", "/pods$", BreakWatch(after_events=2, how=how), times=4, skip=1)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.left) == (6, [])
        assert len(cluster.log.find("POST", "eviction")) == 6
        assert result.ended - result.started < 25


@pytest.mark.parametrize("every", [1, 7, 50])
@virtual
async def test_a_drain_goes_on_where_the_server_closes_every_watch_of_pods(
    testbed: SpotTestbed, every: int
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(110):
            testbed.pod(f"web-{number}", shutdown=number % 10)
        breaks = cluster.faults.break_watches("pods", every=every)
        result = await testbed.notice()
        assert breaks.changes > 3 * 110
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.gone, result.pods.forced) == (110, 0, 0)
        assert result.pods.answers == {"201": 110}
        assert result.ended - result.started < 20
        assert len(cluster.log.find("GET", "/pods$")) < 100


@virtual
async def test_a_watch_without_events_is_replaced_by_a_list(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", shutdown=2)
        cluster.faults.add("GET", "/pods$", Delay(), skip=1)  # the watch gets no answer
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.ended - result.started < 60


@virtual
async def test_two_notices_at_once_drain_and_cordon_the_node_once(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(10):
            testbed.pod(f"web-{number}", shutdown=3)
        results = await asyncio.gather(testbed.notice(), testbed.notice())
        assert [result.outcome for result in results] == [Outcome.DRAINED, Outcome.DRAINED]
        assert testbed.names() == set()
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        keys = [taint["key"] for taint in node["spec"]["taints"]]
        assert keys.count("autoscaling.cast.ai/draining") == 1
        assert len(cluster.log.find("PATCH", "/nodes/", status=200)) == 1


@virtual
async def test_the_same_event_again_changes_nothing(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        await testbed.notice()
        cluster.log.clear()
        again = await testbed.notice()
        assert (again.outcome, again.pods.evicted) == (Outcome.DRAINED, 0)
        assert "patch nodes" not in testbed.requests()


@pytest.mark.parametrize("after", [0.0, 0.3, 1.0, 4.0])
@virtual
async def test_a_second_invocation_finishes_what_a_killed_one_began(
    testbed: SpotTestbed, after: float
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(8):
            testbed.pod(f"web-{number}", shutdown=number)
        cluster.faults.add("POST", "eviction", Delay(0.5), times=4)
        first = asyncio.create_task(testbed.notice())
        await asyncio.sleep(after)
        first.cancel()
        await asyncio.wait([first])
        second = await testbed.notice(age=after)
        assert second.outcome is Outcome.DRAINED
        assert testbed.names() == set()


@virtual
async def test_on_deadline_leave_retries_until_the_deadline(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("db", labels={"app": "db"}, shutdown=1)
        budget = cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        name = budget["metadata"]["name"]
        asyncio.get_running_loop().call_later(110, lambda: cluster.delete("pdb", name, "default"))
        result = await testbed.notice(on_deadline=OnDeadline.LEAVE)
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


@virtual
async def test_a_long_message_of_the_server_is_cut_in_the_result(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(110):
            testbed.pod(f"web-{number}")
        words = 'admission webhook "x" denied the request: ' + "because " * 400
        cluster.faults.add("POST", "eviction", Answer(403, failure(403, words)), times=math.inf)
        result = await testbed.notice(on_deadline=OnDeadline.LEAVE)
        assert len(result.pods.left) == 110
        assert max(len(left.reason) for left in result.pods.left) <= 200
        assert len(json.dumps(result.as_dict())) < 40_000


LASTING = {
    "429 of priority and fairness": answers.server_busy(),
    "403 of a policy": answers.denied_by_policy("pods", "web-0", "not on weekdays"),
    "403 of a webhook": answers.denied_by_webhook("x.example.com", "wait"),
    "403, negative": answers.budget_negative("web"),
    "403, full": answers.budget_full("web"),
    "404 of the budget": answers.budget_gone("web"),
    "409 of the budget": answers.budget_modified("web"),
    "500 of a webhook": WEBHOOK_FAILS,
    "504": answers.timed_out(),
}


@pytest.mark.parametrize("refusal", LASTING.values(), ids=LASTING.keys())
@virtual
async def test_a_refusal_that_is_no_missing_right_is_retried_for_its_pod(
    testbed: SpotTestbed, refusal: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(4):
            testbed.pod(f"web-{number}")
        cluster.faults.add("POST", "pods/web-0/eviction", refusal, times=3)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (4, 0)
        assert result.pods.answers == {"201": 4, str(refusal.status): 3}


@pytest.mark.parametrize("refusal", LASTING.values(), ids=LASTING.keys())
@virtual
async def test_a_refusal_that_lasts_is_overridden(testbed: SpotTestbed, refusal: Answer) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(4):
            testbed.pod(f"web-{number}")
        cluster.faults.add("POST", "pods/web-0/eviction", refusal, times=math.inf)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted, result.pods.forced) == (Outcome.DRAINED, 3, 1)
        assert len(cluster.log.find("DELETE", "/pods/")) == 1


@pytest.mark.parametrize("refusal", LASTING.values(), ids=LASTING.keys())
@virtual
async def test_a_refusal_that_lasts_is_named_where_nothing_is_forced(
    testbed: SpotTestbed, refusal: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(4):
            testbed.pod(f"web-{number}")
        cluster.faults.add("POST", "pods/web-0/eviction", refusal, times=math.inf)
        result = await testbed.notice(on_deadline=OnDeadline.LEAVE)
        assert (result.outcome, result.pods.evicted, result.pods.forced) == (Outcome.PARTIAL, 3, 0)
        said = refusal.body if isinstance(refusal.body, str) else (refusal.body or {})["message"]
        (left,) = result.pods.left
        assert left.pod == "default/web-0"
        assert said.strip() in left.reason


@virtual
async def test_a_right_that_is_missing_in_one_namespace_stops_no_other_pod(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("closed")
        for number in range(4):
            testbed.pod(f"web-{number}", shutdown=5)
        words = 'pods "closed" is forbidden: User "spot" cannot create resource "pods/eviction"'
        cluster.faults.add(
            "POST", "pods/closed/eviction", Answer(403, failure(403, words)), times=math.inf
        )
        with pytest.raises(ClusterForbiddenError, match="cannot create resource"):
            await testbed.notice()
        assert testbed.names() == {"closed"}
        assert len(cluster.log.find("POST", "pods/closed/eviction")) == 1


@virtual
async def test_a_denial_of_an_admission_policy_is_not_reported_as_a_missing_right(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        cluster.faults.add("PATCH", "/nodes/", POLICY_DENIES, times=math.inf)
        with pytest.raises(ClusterRefusedError, match="denied request") as e:
            await testbed.notice()
        assert "rbac" not in str(e.value)


@pytest.mark.parametrize(
    "refusal",
    [answers.budget_gone("web"), Answer(404, "404 page not found\n")],
    ids=["budget", "proxy"],
)
@virtual
async def test_a_404_about_another_object_does_not_mean_that_the_pod_is_gone(
    testbed: SpotTestbed, refusal: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(3):
            testbed.pod(f"web-{number}", shutdown=5)
        cluster.faults.add("POST", "pods/web-0/eviction", refusal, times=2)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 3)
        assert testbed.names() == set()
        assert testbed.requests()["list pods"] <= 4


@virtual
async def test_a_pod_whose_requests_all_get_404_is_left_and_named(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        refusal = Answer(404, failure(404, "404 page not found"))
        cluster.faults.add("*", "pods/web", refusal, times=math.inf)
        result = await testbed.notice()
        assert result.outcome is Outcome.PARTIAL
        assert "still listed" in result.pods.left[0].reason


@pytest.mark.parametrize("refusals", [0, 6], ids=["evicted at once", "refused for some time"])
@virtual
async def test_a_list_that_is_older_than_the_watch_removes_no_newer_pod(
    testbed: SpotTestbed, refusals: int
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", shutdown=1)
        # The last list is sent while the node is empty, and answered 5 s later. Meanwhile a pod
        # is bound, and the watch reports it.
        cluster.faults.add("GET", "/pods$", LateAnswer(5), skip=2)
        if refusals:
            cluster.faults.add("POST", "late/eviction", Answer(503), times=refusals)
        asyncio.get_running_loop().call_later(5, partial(testbed.pod, "late", shutdown=10))
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 2)
        assert testbed.names() == set()


@pytest.mark.parametrize("changes", [2, 5, 40])
@virtual
async def test_a_list_that_shows_an_older_state_than_the_watch_ends_no_pod(
    testbed: SpotTestbed, changes: int
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(5):
            testbed.pod(f"web-{number}", shutdown=8)
        loop = asyncio.get_running_loop()
        # The watch shows the new pod, which is not evicted yet, and ends. The list after it is
        # older: it does not show this pod.
        cluster.faults.add("POST", "late/eviction", answers.server_busy(), times=4)
        cluster.faults.add("GET", "/pods$", OldList(changes), skip=2)
        loop.call_later(2, partial(testbed.pod, "late"))
        loop.call_later(2.5, cluster.break_watches, "end", "pods")
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 6)
        assert testbed.names() == set()


@virtual
async def test_a_pod_that_the_watch_does_not_report_is_found_by_the_last_list(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        cluster.faults.add("GET", "/pods$", Delay(), skip=1)  # the watch gets no answer
        asyncio.get_running_loop().call_later(2.5, partial(testbed.pod, "late", shutdown=1))
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        assert testbed.names() == set()


@virtual
async def test_a_node_is_not_drained_while_the_last_list_shows_a_pod(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        pod = testbed.pod("web", shutdown=1)
        # The lists are older than the watch, which has reported the pod's deletion.
        shown = {"kind": "PodList", "metadata": {"resourceVersion": "1"}, "items": [pod]}
        cluster.faults.add("GET", "/pods$", Answer(200, shown), skip=2, times=3)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        assert len(cluster.log.find("GET", "/pods$")) == 6  # the first, the watch, three, the last


@virtual
async def test_a_pod_that_is_bound_after_the_node_is_empty_is_evicted(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        loop = asyncio.get_running_loop()
        loop.call_later(2.5, partial(testbed.pod, "late"))  # the node has no pod then
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        assert testbed.names() == set()


@virtual
async def test_a_node_without_an_answered_last_list_is_partial(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("GET", "/pods$", Answer(503), skip=2, times=math.inf)
        result = await testbed.notice()
        assert (result.outcome, result.pods.left) == (Outcome.PARTIAL, [])
        assert "the last list was not answered" in result.reason
        assert result.drained_at is None


@virtual
async def test_a_cordon_that_a_webhook_fails_does_not_stop_the_evictions(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(3):
            testbed.pod(f"web-{number}", shutdown=5)
        cluster.faults.add("PATCH", "/nodes/", WEBHOOK_FAILS, times=math.inf)
        with pytest.raises(ClusterUnavailableError, match="failed calling webhook") as e:
            await testbed.notice()
        assert testbed.names() == set()
        first = cluster.log.find("POST", "eviction")[0]
        assert first.started_at - cluster.log.entries[0].started_at == pytest.approx(10, abs=1)
        assert any("3 evicted" in note for note in e.value.__notes__)


@virtual
async def test_the_cordon_is_retried_during_the_drain(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("PATCH", "/nodes/", WEBHOOK_FAILS, times=12)
        # The evicted pod's replacement: it is evicted after the cordon only, or it would return.
        asyncio.get_running_loop().call_later(12, partial(testbed.pod, "again"))
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 2)
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True
        again = cluster.log.find("POST", "pods/again/eviction")[0]
        assert again.started_at >= cluster.log.find("PATCH", "/nodes/", status=200)[0].started_at


@virtual
async def test_pods_that_are_bound_to_a_node_without_a_cordon_are_left(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("PATCH", "/nodes/", POLICY_DENIES, times=math.inf)
        cluster.faults.add("POST", "web/eviction", Hook(lambda _: void(testbed.pod("again"))))
        with pytest.raises(ClusterRefusedError, match="denied request"):
            await testbed.notice()
        assert testbed.names() == {"again"}
        assert cluster.log.find("POST", "again/eviction") == []


@virtual
async def test_a_404_of_a_proxy_for_the_cordon_does_not_mean_that_the_node_is_gone(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("PATCH", "/nodes/", Answer(404, failure(404, "no route")), times=2)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)


def deleted_by_others(testbed: SpotTestbed, after: float) -> None:
    asyncio.get_running_loop().call_later(
        after, partial(testbed.cluster.delete, "pods", "web", "default", grace=0)
    )


@virtual
async def test_an_eviction_with_a_401_is_not_counted_as_evicted(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")

        def refuse(_: object) -> None:
            testbed.users.refuse_next = math.inf

        cluster.faults.add("POST", "eviction", Hook(refuse))
        asyncio.get_running_loop().call_later(5, testbed.users.accept)
        deleted_by_others(testbed, 2)
        result = await testbed.notice()
        assert (result.pods.evicted, result.pods.gone) == (0, 1)
        assert result.pods.answers["401"] > 1
        assert "none" not in result.pods.answers


@virtual
async def test_an_eviction_without_a_connection_is_not_counted_as_evicted(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("POST", "eviction", Answer(503))
        cluster.faults.add("POST", "eviction", Hook(lambda _: None), skip=1)
        down = Down(5)
        cluster.faults.add("GET", "/pods$", down, skip=1)  # from the watch on, nothing is answered
        deleted_by_others(testbed, 2)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.gone) == (0, 1)


@virtual
async def test_a_forced_pod_is_counted_where_the_answer_is_lost(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("db", labels={"app": "db"}, grace=600, shutdown=1)
        cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        cluster.faults.add("DELETE", "pods/db", DropAnswer())
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (0, 1)
        assert set(result.pods.answers) == {"429"}  # answers to evictions only


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.parametrize("lost", [DropAnswer(), answers.timed_out()], ids=["cut", "504"])
@virtual
async def test_an_eviction_whose_answer_is_lost_is_counted_as_evicted(
    testbed: SpotTestbed, lost: DropAnswer | Answer, *, ends: bool
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", shutdown=5)
        if not ends:
            cluster.stop_node(testbed.node)
        if isinstance(lost, Answer):  # the eviction took effect
            cluster.faults.add(
                "POST", "eviction", Hook(lambda _: void(cluster.delete("pods", "web", "default")))
            )
        cluster.faults.add("POST", "eviction", lost)
        result = await testbed.notice()
        assert (result.pods.evicted, result.pods.gone) == (1 if ends else 0, 0)
        assert ["finalizer" in left.reason for left in result.pods.left] == [True] * (not ends)


@pytest.mark.parametrize("code", [400, 403, 404, 408])
@virtual
async def test_a_refused_list_during_the_drain_stops_no_eviction(
    testbed: SpotTestbed, code: int
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(3):
            testbed.pod(f"web-{number}", shutdown=5)
        cluster.faults.add("GET", "/pods$", BreakWatch(), skip=1)
        cluster.faults.add("GET", "/pods$", Answer(code, failure(code, "a proxy's page")), times=3)
        cluster.faults.add("POST", "web-0/eviction", Answer(503), times=4)
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 3)


@pytest.mark.parametrize(
    "failing",
    [WEBHOOK_FAILS, Delay()],
    ids=["500", "no answer"],
)
@pytest.mark.parametrize("late", [{"action": "hibernate"}, {"age": 111.0}], ids=str)
@virtual
async def test_a_failing_cordon_leaves_time_for_the_evictions_before_a_near_deadline(
    testbed: SpotTestbed, late: dict[str, Any], failing: Answer | Delay
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(3):
            testbed.pod(f"web-{number}", shutdown=1)
        cluster.faults.add("PATCH", "/nodes/", failing, times=math.inf)
        with pytest.raises(ClusterUnavailableError):
            await testbed.notice(**late)
        assert testbed.names() == set()


@virtual
async def test_a_node_without_a_cordon_gets_no_spot_drained_event(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        cluster.faults.add("PATCH", "/nodes/", POLICY_DENIES, times=math.inf)
        with pytest.raises(ClusterRefusedError, match="denied request"):
            await testbed.notice()
        (event,) = cluster.list("events")
        assert (event["type"], event["reason"]) == ("Warning", "SpotDrainIncomplete")
        assert event["message"].startswith("the node could not be cordoned; drained in")
