"""The drain of a node: cordon, evictions, budgets, grace, deadlines, modes."""

from __future__ import annotations

import pytest

from kubesim import Answer, Delay
from lambdas.spot_handler.result import Outcome
from lambdas.spot_handler.settings import Mode, OnDeadline
from tests.functional.spot_handler.conftest import SpotTestbed, virtual

TAINT = {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"}


@virtual
async def test_a_notice_evicts_all_pods_but_those_that_are_skipped(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        cluster.add_daemonset("cni", tolerations=[{"operator": "Exists"}])
        await cluster.until(lambda: len(testbed.names()) == 1)
        for number in range(5):
            testbed.pod(f"web-{number}")
        testbed.pod("scratch", volumes=[{"name": "tmp", "emptyDir": {}}])
        testbed.pod("static", annotations={"kubernetes.io/config.mirror": "x"})
        testbed.pod("done", phase="Succeeded")
        ours = {"key": TAINT["key"], "operator": "Exists"}
        testbed.pod("tolerant", tolerations=[ours])
        cordoned = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}
        testbed.pod("skipped", tolerations=[ours, cordoned])

        result = await testbed.notice()

        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced, result.pods.gone) == (7, 0, 0)
        assert result.pods.skipped.total() == 4
        assert result.pods.left == []
        assert {name.split("-")[0] for name in testbed.names()} == {
            "cni", "static", "done", "skipped",
        }  # fmt: skip
        assert (result.cluster, result.node) == ("shop", testbed.node)
        assert result.drained_at is not None
        assert result.drained_at - (result.given or 0) < 5


@virtual
async def test_the_node_is_cordoned_in_one_patch_and_gets_events(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        await testbed.notice()
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True
        assert TAINT in node["spec"]["taints"]
        labels = node["metadata"]["labels"]
        assert labels["autoscaling.cast.ai/draining"] == "spot-interruption"
        assert labels["node.kubernetes.io/exclude-from-external-load-balancers"] == "true"
        assert testbed.requests()["patch nodes"] == 1
        events = {event["reason"]: event for event in cluster.list("events")}
        assert set(events) == {"SpotInterruption", "SpotDrained"}
        assert events["SpotDrained"]["involvedObject"]["name"] == testbed.node
        assert "1 evicted, 0 forced, 0 left" in events["SpotDrained"]["message"]


@virtual
async def test_a_drain_makes_three_reads_and_one_watch(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        for number in range(60):
            testbed.pod(f"web-{number}", shutdown=20)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        asked = testbed.requests()
        reads = asked["get nodes"] + asked["list pods"] + asked.get("list nodes", 0)
        assert (reads, asked["watch pods"]) == (3, 1)
        assert asked["create pods/eviction"] == 60
        writes = {verb for verb in asked if verb.split()[0] not in {"get", "list", "watch"}}
        assert writes == {"patch nodes", "create pods/eviction", "create events"}


@virtual
async def test_a_budget_is_respected_while_the_replacement_starts(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        cluster.add_deployment(
            "api", 2, labels={"app": "api"}, annotations={"sandbox/ready-seconds": "12"}
        )
        cluster.add_budget("api", {"app": "api"}, minAvailable=1)
        await cluster.until(
            lambda: (cluster.list("pdb")[0].get("status") or {}).get("disruptionsAllowed") == 1
        )
        healthy = []
        cluster.store.subscribe(
            lambda _: healthy.append(cluster.list("pdb")[0]["status"]["currentHealthy"])
        )
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.pods.forced == 0
        assert min(healthy) >= 1


def blocked(testbed: SpotTestbed, *, grace: int = 30) -> None:
    """A pod whose budget never allows its eviction."""
    testbed.pod("db", labels={"app": "db"}, grace=grace, shutdown=1)
    testbed.cluster.add_budget("db", {"app": "db"}, minAvailable=1)


@virtual
async def test_a_pod_whose_budget_never_allows_it_is_forced_with_its_whole_grace(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        blocked(testbed)
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (0, 1)
        (delete,) = cluster.log.find("DELETE")
        assert result.deadline is not None
        assert delete.started_at == pytest.approx(result.deadline - 30 - 5, abs=0.1)
        # With backoff: some retries in the 85 s, at most one every two seconds.
        assert 10 < len(cluster.log.find("POST", "eviction")) < 45


@virtual
async def test_a_pod_with_a_long_grace_is_forced_after_half_of_the_time(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(2):
            testbed.pod(f"db-{number}", labels={"app": "db"}, grace=120, shutdown=1)
        cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        await cluster.until(
            lambda: (cluster.list("pdb")[0].get("status") or {}).get("disruptionsAllowed") == 1
        )
        result = await testbed.notice()
        assert (result.outcome, result.pods.evicted) == (Outcome.DRAINED, 1)
        (delete,) = cluster.log.find("DELETE")
        assert result.deadline is not None
        window = result.deadline - 5 - result.started
        assert delete.started_at == pytest.approx(result.started + window / 2, abs=1)


BUSY = Answer(429, headers={"retry-after": "1"})
WEBHOOK = Answer(500, {"message": "Internal error occurred: failed calling webhook"})
STALE = Answer(
    429,
    {"message": "x", "details": {"causes": [{"reason": "DisruptionBudget", "message": "busy"}]}},
    {"retry-after": "10"},
)


@pytest.mark.parametrize("answer", [BUSY, WEBHOOK, STALE], ids=["busy", "webhook", "stale"])
@virtual
async def test_an_error_of_the_server_is_not_taken_for_a_refusal_of_a_budget(
    testbed: SpotTestbed, answer: Answer
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(5):
            testbed.pod(f"web-{number}", grace=600, shutdown=1)
        cluster.faults.add("POST", "eviction", answer, times=40)
        result = await testbed.notice()
        assert (result.pods.evicted, result.pods.forced) == (5, 0)
        assert cluster.log.find("DELETE") == []


@virtual
async def test_a_pod_is_forced_30_s_before_the_margin_where_a_webhook_always_fails(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", grace=600, shutdown=1)
        cluster.faults.add("POST", "eviction", WEBHOOK, times=1000)
        result = await testbed.notice()
        assert (result.outcome, result.pods.forced) == (Outcome.DRAINED, 1)
        (delete,) = cluster.log.find("DELETE")
        assert result.deadline is not None
        assert delete.started_at == pytest.approx(result.deadline - 5 - 30, abs=3)


@virtual
async def test_on_deadline_leave_leaves_a_blocked_pod_and_names_it(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        blocked(testbed)
        testbed.pod("web")
        result = await testbed.notice(on_deadline=OnDeadline.LEAVE)
        assert result.outcome is Outcome.PARTIAL
        assert [(left.pod, left.reason) for left in result.pods.left] == [
            ("default/db", "The disruption budget db needs 1 healthy pods and has 1 currently")
        ]
        assert result.pods.evicted == 1
        assert testbed.names() == {"db"}
        assert cluster.log.find("DELETE") == []
        (event,) = [e for e in cluster.list("events") if e["reason"] == "SpotDrainIncomplete"]
        assert "default/db" in event["message"]


@virtual
async def test_a_pod_with_two_budgets_is_forced(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("db", labels={"app": "db"})
        cluster.add_budget("one", {"app": "db"}, minAvailable=0)
        cluster.add_budget("two", {"app": "db"}, minAvailable=0)
        result = await testbed.notice()
        assert result.pods.forced == 1
        assert result.pods.answers["500"] > 1


@virtual
async def test_system_pods_are_evicted_after_the_ordinary_pods_are_gone(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("dns", namespace="kube-system", priorityClassName="system-cluster-critical")
        testbed.pod("web", shutdown=20)
        result = await testbed.notice()
        assert result.pods.evicted == 2
        web, dns = cluster.log.find("POST", "eviction")
        assert ("web" in web.path, "dns" in dns.path) == (True, True)
        assert dns.started_at - web.started_at >= 20


@virtual
async def test_system_pods_are_evicted_while_their_whole_grace_still_fits(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod(
            "dns", namespace="kube-system", priorityClassName="system-node-critical", grace=60
        )
        testbed.pod("web", grace=110, shutdown="never")
        result = await testbed.notice()
        dns = next(e for e in cluster.log.find("POST", "eviction") if "dns" in e.path)
        assert result.deadline is not None
        assert dns.started_at == pytest.approx(result.deadline - 60 - 5, abs=0.1)
        assert result.outcome is Outcome.DRAINED


@virtual
async def test_a_long_grace_is_cut_to_the_time_before_the_deadline(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        testbed.pod("slow", grace=900, shutdown="never")
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        assert 114 <= result.ended - result.started <= 117


@virtual
async def test_a_terminating_pod_whose_grace_ends_after_the_deadline_gets_less(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("slow", grace=900, shutdown="never")
        testbed.pod("quick", grace=20, shutdown="never")
        cluster.delete("pods", "slow", "default")
        cluster.delete("pods", "quick", "default")
        result = await testbed.notice()
        assert result.outcome is Outcome.DRAINED
        (shortened,) = cluster.log.find("DELETE")
        assert shortened.path == "/api/v1/namespaces/default/pods/slow"
        # Not earlier than 30 s before the margin: an earlier DELETE would only cut the grace.
        assert shortened.started_at - result.started == pytest.approx(85, abs=1)
        assert result.ended - result.started == pytest.approx(115, abs=2)
        assert (result.pods.forced, result.pods.gone, result.pods.evicted) == (1, 1, 0)


@virtual
async def test_a_pod_whose_eviction_is_answered_late_is_not_forced(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("slow", grace=600, shutdown=20)
        cluster.faults.add("POST", "eviction", Delay(8))  # its grace now ends after the instance
        result = await testbed.notice()
        assert (result.pods.evicted, result.pods.forced) == (1, 0)
        assert cluster.log.find("DELETE") == []


@virtual
async def test_a_pod_that_does_not_end_is_left_and_named(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        pod = testbed.pod("held", shutdown=1)
        held = {**pod, "metadata": {**pod["metadata"], "finalizers": ["acme.example/hold"]}}
        cluster.set(held)
        cluster.stop_node(testbed.node)
        result = await testbed.notice()
        assert result.outcome is Outcome.PARTIAL
        assert [left.pod for left in result.pods.left] == ["default/held"]
        assert "still terminating" in result.pods.left[0].reason
        assert result.ended - result.started <= 121


@virtual
async def test_dry_run_writes_nothing_and_returns_the_plan(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        testbed.pod("web", grace=600)
        testbed.pod("dns", priorityClassName="system-cluster-critical")
        testbed.pod("static", annotations={"kubernetes.io/config.mirror": "x"})
        result = await testbed.notice(mode=Mode.DRY_RUN)
        assert result.outcome is Outcome.DRY_RUN
        assert result.plan is not None
        patch, web, dns, static = result.plan
        assert patch["patch"]["spec"]["unschedulable"] is True
        assert web == {"pod": "default/web", "action": "evict", "wave": "ordinary", "grace": 115}
        assert dns == {"pod": "default/dns", "action": "evict", "wave": "system", "grace": 30}
        assert static["action"] == "skip"
        assert set(testbed.requests()) == {"get nodes", "list pods"}


@virtual
async def test_cordon_mode_evicts_no_pod(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        result = await testbed.notice(mode=Mode.CORDON)
        assert result.outcome is Outcome.CORDONED
        assert testbed.names() == {"web"}
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True


@virtual
async def test_hibernation_forces_blocked_pods_at_once(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        blocked(testbed)
        testbed.pod("web", shutdown="never")
        result = await testbed.notice(action="hibernate")
        assert (result.outcome, result.pods.evicted, result.pods.forced) == (Outcome.DRAINED, 1, 1)
        assert result.ended - result.started < 10
        assert len(cluster.log.find("DELETE")) == 1


@virtual
async def test_a_late_notice_drains_in_the_time_before_its_deadline(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", grace=60, shutdown="never")
        started = cluster.now()
        result = await testbed.notice(age=90)
        assert result.outcome is Outcome.DRAINED
        assert result.deadline == pytest.approx(started + 30, abs=0.01)
        assert cluster.now() - started <= 26


@virtual
async def test_an_expired_notice_makes_no_request(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build()
        testbed.pod("web")
        result = await testbed.notice(age=121)
        assert result.outcome is Outcome.TOO_LATE
        assert testbed.requests() == {}


@virtual
async def test_the_deadline_is_not_after_the_functions_time_out(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web", grace=100, shutdown="never")
        started = cluster.now()
        result = await testbed.notice(remaining=40)
        assert result.deadline == pytest.approx(started + 40)
        assert cluster.now() - started <= 40


@virtual
async def test_evictions_run_in_parallel_up_to_the_limit(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        for number in range(30):
            testbed.pod(f"web-{number}")
        cluster.faults.add("POST", "eviction", Delay(1.0), times=30)
        result = await testbed.notice(concurrency=10)
        assert result.pods.evicted == 30
        starts = sorted(entry.started_at for entry in cluster.log.find("POST", "eviction"))
        waves = {round(start - starts[0]) for start in starts}
        assert waves == {0, 1, 2}


@virtual
async def test_the_function_ends_some_seconds_after_the_grace_of_a_stuck_pod(
    testbed: SpotTestbed,
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        pod = testbed.pod("held", grace=5, shutdown="never")
        metadata = {**pod["metadata"], "finalizers": ["acme.example/hold"]}
        cluster.set({**pod, "metadata": metadata})
        cluster.stop_node(testbed.node)
        result = await testbed.notice()
        assert [left.pod for left in result.pods.left] == ["default/held"]
        assert "still terminating" in result.pods.left[0].reason
        assert 35 <= result.ended - result.started < 40


@virtual
async def test_a_stuck_pod_does_not_shorten_the_grace_of_other_pods(testbed: SpotTestbed) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        pod = testbed.pod("held", grace=5, shutdown=1)
        metadata = {**pod["metadata"], "finalizers": ["acme.example/hold"]}
        cluster.set({**pod, "metadata": metadata})
        testbed.pod("slow", grace=80, shutdown=70)
        result = await testbed.notice()
        assert result.pods.evicted >= 1
        assert "slow" not in testbed.names()
        assert result.ended - result.started >= 70


@pytest.mark.parametrize("action", ["stop", "hibernate"])
@virtual
async def test_the_node_of_an_instance_that_runs_again_is_uncordoned(
    testbed: SpotTestbed, action: str
) -> None:
    async with testbed.cluster as cluster:
        testbed.build()
        testbed.pod("web")
        node = cluster.get("nodes", testbed.node)
        assert node is not None
        other = {"key": "team", "value": "a", "effect": "NoSchedule"}
        cluster.set({**node, "spec": {**node["spec"], "taints": [other]}})
        early = await testbed.running()
        assert (early.outcome, "no marks" in early.reason) == (Outcome.IGNORED, True)
        await testbed.notice(action=action)
        marked = cluster.get("nodes", testbed.node)
        assert marked is not None
        assert "castai-eks/marks" in marked["metadata"]["annotations"]
        # EventBridge may deliver out of order: this start is older than the notice.
        late = await testbed.running(age=60)
        assert late.outcome is Outcome.IGNORED
        result = await testbed.running()
        assert result.outcome is Outcome.UNCORDONED
        back = cluster.get("nodes", testbed.node)
        assert back is not None
        assert not back["spec"].get("unschedulable")
        assert other in back["spec"]["taints"]
        assert TAINT not in back["spec"]["taints"]
        assert not {"autoscaling.cast.ai/draining", "castai-eks/marks"} & {
            *back["metadata"]["labels"], *back["metadata"].get("annotations", {})
        }  # fmt: skip


@virtual
async def test_the_node_of_a_launched_instance_is_searched_once(testbed: SpotTestbed) -> None:
    async with testbed.cluster:
        testbed.build(provider_id="dummy")
        result = await testbed.running()
        assert result.outcome is Outcome.NODE_NOT_FOUND
        assert result.ended - result.started < 1
