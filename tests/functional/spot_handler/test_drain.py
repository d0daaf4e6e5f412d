"""What a notice does to a node and its pods when all goes well, and when budgets are in the way."""

from __future__ import annotations

import pytest

from kubesim import Answer, Delay
from lambdas.spot_handler.result import Outcome
from lambdas.spot_handler.settings import Mode, OnDeadline
from tests.functional.spot_handler.conftest import Scene, virtual

TAINT = {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"}


@virtual
async def test_a_notice_empties_the_node_and_leaves_what_must_stay(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        cluster.add_daemonset("cni", tolerations=[{"operator": "Exists"}])
        await cluster.until(lambda: len(scene.names()) == 1)
        for number in range(5):
            scene.pod(f"web-{number}")
        scene.pod("scratch", volumes=[{"name": "tmp", "emptyDir": {}}])
        scene.pod("static", annotations={"kubernetes.io/config.mirror": "x"})
        scene.pod("done", phase="Succeeded")
        ours = {"key": TAINT["key"], "operator": "Exists"}
        scene.pod("tolerant", tolerations=[ours])
        cordoned = {"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}
        scene.pod("stubborn", tolerations=[ours, cordoned])

        result = await scene.notice()

        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced, result.pods.gone) == (7, 0, 0)
        assert result.pods.skipped.total() == 4
        assert result.pods.left == []
        assert {name.split("-")[0] for name in scene.names()} == {
            "cni", "static", "done", "stubborn",
        }  # fmt: skip
        assert (result.cluster, result.node) == ("shop", scene.node)
        assert result.drained_at is not None
        assert result.drained_at - (result.given or 0) < 5


@virtual
async def test_the_node_is_cordoned_in_one_write_and_told_about(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        await scene.notice()
        node = cluster.get("nodes", scene.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True
        assert TAINT in node["spec"]["taints"]
        labels = node["metadata"]["labels"]
        assert labels["autoscaling.cast.ai/draining"] == "spot-interruption"
        assert labels["node.kubernetes.io/exclude-from-external-load-balancers"] == "true"
        assert scene.asked()["patch nodes"] == 1
        events = {event["reason"]: event for event in cluster.list("events")}
        assert set(events) == {"SpotInterruption", "SpotDrained"}
        assert events["SpotDrained"]["involvedObject"]["name"] == scene.node
        assert "1 evicted, 0 forced, 0 left" in events["SpotDrained"]["message"]


@virtual
async def test_a_drain_reads_little_and_never_polls(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        for number in range(60):
            scene.pod(f"web-{number}", shutdown=20)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        asked = scene.asked()
        reads = asked["get nodes"] + asked["list pods"] + asked.get("list nodes", 0)
        assert (reads, asked["watch pods"]) == (3, 1)
        assert asked["create pods/eviction"] == 60
        writes = {verb for verb in asked if verb.split()[0] not in {"get", "list", "watch"}}
        assert writes == {"patch nodes", "create pods/eviction", "create events"}


@virtual
async def test_a_budget_is_respected_while_its_replacement_starts(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
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
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert result.pods.forced == 0
        assert min(healthy) >= 1


def blocked(scene: Scene, *, grace: int = 30) -> None:
    """A pod that its budget never lets go."""
    scene.pod("db", labels={"app": "db"}, grace=grace, shutdown=1)
    scene.cluster.add_budget("db", {"app": "db"}, minAvailable=1)


@virtual
async def test_a_pod_that_is_blocked_to_the_end_is_forced_with_its_whole_grace(
    scene: Scene,
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        blocked(scene)
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert (result.pods.evicted, result.pods.forced) == (0, 1)
        (delete,) = cluster.log.find("DELETE")
        assert result.deadline is not None
        assert delete.started_at == pytest.approx(result.deadline - 30 - 5, abs=0.1)
        # Backing off, not hammering: some tries in the 85 s, at most one in three seconds
        assert 10 < len(cluster.log.find("POST", "eviction")) < 45


@virtual
async def test_a_budget_is_respected_for_half_of_the_time_also_for_a_long_grace(
    scene: Scene,
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(2):
            scene.pod(f"db-{number}", labels={"app": "db"}, grace=120, shutdown=1)
        cluster.add_budget("db", {"app": "db"}, minAvailable=1)
        await cluster.until(
            lambda: (cluster.list("pdb")[0].get("status") or {}).get("disruptionsAllowed") == 1
        )
        result = await scene.notice()
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
async def test_a_server_that_has_trouble_is_no_budget_that_refuses(
    scene: Scene, answer: Answer
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(5):
            scene.pod(f"web-{number}", grace=600, shutdown=1)
        cluster.faults.add("POST", "eviction", answer, times=40)
        result = await scene.notice()
        assert (result.pods.evicted, result.pods.forced) == (5, 0)
        assert cluster.log.find("DELETE") == []


@virtual
async def test_a_webhook_that_fails_to_the_end_is_overridden_at_the_hard_end(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", grace=600, shutdown=1)
        cluster.faults.add("POST", "eviction", WEBHOOK, times=1000)
        result = await scene.notice()
        assert (result.outcome, result.pods.forced) == (Outcome.DRAINED, 1)
        (delete,) = cluster.log.find("DELETE")
        assert result.deadline is not None
        assert delete.started_at == pytest.approx(result.deadline - 5 - 30, abs=3)


@virtual
async def test_leave_means_left_and_named(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        blocked(scene)
        scene.pod("web")
        result = await scene.notice(on_deadline=OnDeadline.LEAVE)
        assert result.outcome is Outcome.PARTIAL
        assert [(left.pod, left.reason) for left in result.pods.left] == [
            ("default/db", "The disruption budget db needs 1 healthy pods and has 1 currently")
        ]
        assert result.pods.evicted == 1
        assert scene.names() == {"db"}
        assert cluster.log.find("DELETE") == []
        (event,) = [e for e in cluster.list("events") if e["reason"] == "SpotDrainIncomplete"]
        assert "default/db" in event["message"]


@virtual
async def test_two_budgets_on_one_pod_are_named_and_forced(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("db", labels={"app": "db"})
        cluster.add_budget("one", {"app": "db"}, minAvailable=0)
        cluster.add_budget("two", {"app": "db"}, minAvailable=0)
        result = await scene.notice()
        assert result.pods.forced == 1
        assert result.pods.answers["500"] > 1


@virtual
async def test_system_pods_outlive_their_users(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("dns", namespace="kube-system", priorityClassName="system-cluster-critical")
        scene.pod("web", shutdown=20)
        result = await scene.notice()
        assert result.pods.evicted == 2
        web, dns = cluster.log.find("POST", "eviction")
        assert ("web" in web.path, "dns" in dns.path) == (True, True)
        assert dns.started_at - web.started_at >= 20


@virtual
async def test_system_pods_do_not_wait_at_the_cost_of_their_own_grace(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod(
            "dns", namespace="kube-system", priorityClassName="system-node-critical", grace=60
        )
        scene.pod("web", grace=110, shutdown="never")
        result = await scene.notice()
        dns = next(e for e in cluster.log.find("POST", "eviction") if "dns" in e.path)
        assert result.deadline is not None
        assert dns.started_at == pytest.approx(result.deadline - 60 - 5, abs=0.1)
        assert result.outcome is Outcome.DRAINED


@virtual
async def test_a_long_grace_is_cut_to_what_the_node_has(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        scene.pod("slow", grace=900, shutdown="never")
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        assert 114 <= result.ended - result.started <= 117


@virtual
async def test_a_terminating_pod_that_would_outlast_the_node_gets_less_grace_in_the_end(
    scene: Scene,
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("slow", grace=900, shutdown="never")
        scene.pod("quick", grace=20, shutdown="never")
        cluster.delete("pods", "slow", "default")
        cluster.delete("pods", "quick", "default")
        result = await scene.notice()
        assert result.outcome is Outcome.DRAINED
        (shortened,) = cluster.log.find("DELETE")
        assert shortened.path == "/api/v1/namespaces/default/pods/slow"
        # Not before the hard end, 30 s before the margin: the pod ends no later for it.
        assert shortened.started_at - result.started == pytest.approx(85, abs=1)
        assert result.ended - result.started == pytest.approx(115, abs=2)
        assert (result.pods.forced, result.pods.gone, result.pods.evicted) == (1, 1, 0)


@virtual
async def test_an_eviction_that_is_answered_late_is_followed_by_no_delete_at_once(
    scene: Scene,
) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("slow", grace=600, shutdown=20)
        cluster.faults.add("POST", "eviction", Delay(8))  # its grace now ends after the instance
        result = await scene.notice()
        assert (result.pods.evicted, result.pods.forced) == (1, 0)
        assert cluster.log.find("DELETE") == []


@virtual
async def test_a_pod_that_will_not_end_is_left_and_named(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        pod = scene.pod("held", shutdown=1)
        held = {**pod, "metadata": {**pod["metadata"], "finalizers": ["acme.example/hold"]}}
        cluster.set(held)
        cluster.stop_node(scene.node)
        result = await scene.notice()
        assert result.outcome is Outcome.PARTIAL
        assert [left.pod for left in result.pods.left] == ["default/held"]
        assert "still terminating" in result.pods.left[0].reason
        assert result.ended - result.started <= 121


@virtual
async def test_dry_run_writes_nothing_and_returns_the_plan(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        scene.pod("web", grace=600)
        scene.pod("dns", priorityClassName="system-cluster-critical")
        scene.pod("static", annotations={"kubernetes.io/config.mirror": "x"})
        result = await scene.notice(mode=Mode.DRY_RUN)
        assert result.outcome is Outcome.DRY_RUN
        assert result.plan is not None
        patch, web, dns, static = result.plan
        assert patch["patch"]["spec"]["unschedulable"] is True
        assert web == {"pod": "default/web", "action": "evict", "wave": "ordinary", "grace": 115}
        assert dns == {"pod": "default/dns", "action": "evict", "wave": "system", "grace": 30}
        assert static["action"] == "skip"
        assert set(scene.asked()) == {"get nodes", "list pods"}


@virtual
async def test_cordon_mode_leaves_the_pods_alone(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        result = await scene.notice(mode=Mode.CORDON)
        assert result.outcome is Outcome.CORDONED
        assert scene.names() == {"web"}
        node = cluster.get("nodes", scene.node)
        assert node is not None
        assert node["spec"]["unschedulable"] is True


@virtual
async def test_hibernation_forces_everything_in_one_pass(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        blocked(scene)
        scene.pod("web", shutdown="never")
        result = await scene.notice(action="hibernate")
        assert (result.outcome, result.pods.evicted, result.pods.forced) == (Outcome.DRAINED, 1, 1)
        assert result.ended - result.started < 10
        assert len(cluster.log.find("DELETE")) == 1


@virtual
async def test_a_late_delivery_drains_in_the_time_that_is_left(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", grace=60, shutdown="never")
        started = cluster.now()
        result = await scene.notice(age=90)
        assert result.outcome is Outcome.DRAINED
        assert result.deadline == pytest.approx(started + 30, abs=0.01)
        assert cluster.now() - started <= 26


@virtual
async def test_a_stale_notice_never_drains_a_healthy_node(scene: Scene) -> None:
    async with scene.cluster:
        scene.build()
        scene.pod("web")
        result = await scene.notice(age=121)
        assert result.outcome is Outcome.TOO_LATE
        assert scene.asked() == {}


@virtual
async def test_the_functions_own_time_cuts_the_deadline(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web", grace=100, shutdown="never")
        started = cluster.now()
        result = await scene.notice(remaining=40)
        assert result.deadline == pytest.approx(started + 40)
        assert cluster.now() - started <= 40


@virtual
async def test_evictions_run_in_parallel_up_to_the_limit(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        for number in range(30):
            scene.pod(f"web-{number}")
        cluster.faults.add("POST", "eviction", Delay(1.0), times=30)
        result = await scene.notice(concurrency=10)
        assert result.pods.evicted == 30
        starts = sorted(entry.started_at for entry in cluster.log.find("POST", "eviction"))
        waves = {round(start - starts[0]) for start in starts}
        assert waves == {0, 1, 2}


@virtual
async def test_a_pod_that_is_stuck_past_its_grace_does_not_hold_the_function(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        pod = scene.pod("held", grace=5, shutdown="never")
        metadata = {**pod["metadata"], "finalizers": ["acme.example/hold"]}
        cluster.set({**pod, "metadata": metadata})
        cluster.stop_node(scene.node)
        result = await scene.notice()
        assert [left.pod for left in result.pods.left] == ["default/held"]
        assert "still terminating" in result.pods.left[0].reason
        assert 35 <= result.ended - result.started < 40


@virtual
async def test_a_stuck_pod_costs_no_other_pod_its_grace(scene: Scene) -> None:
    async with scene.cluster as cluster:
        scene.build()
        pod = scene.pod("held", grace=5, shutdown=1)
        metadata = {**pod["metadata"], "finalizers": ["acme.example/hold"]}
        cluster.set({**pod, "metadata": metadata})
        scene.pod("slow", grace=80, shutdown=70)
        result = await scene.notice()
        assert result.pods.evicted >= 1
        assert "slow" not in scene.names()
        assert result.ended - result.started >= 70


@pytest.mark.parametrize("action", ["stop", "hibernate"])
@virtual
async def test_an_instance_that_runs_again_gets_its_node_back(scene: Scene, action: str) -> None:
    async with scene.cluster as cluster:
        scene.build()
        scene.pod("web")
        node = cluster.get("nodes", scene.node)
        assert node is not None
        other = {"key": "team", "value": "a", "effect": "NoSchedule"}
        cluster.set({**node, "spec": {**node["spec"], "taints": [other]}})
        early = await scene.running()
        assert (early.outcome, "no marks" in early.reason) == (Outcome.IGNORED, True)
        await scene.notice(action=action)
        marked = cluster.get("nodes", scene.node)
        assert marked is not None
        assert "castai-eks/marks" in marked["metadata"]["annotations"]
        # EventBridge delivers out of order: this start was before the notice.
        late = await scene.running(age=60)
        assert late.outcome is Outcome.IGNORED
        result = await scene.running()
        assert result.outcome is Outcome.UNCORDONED
        back = cluster.get("nodes", scene.node)
        assert back is not None
        assert not back["spec"].get("unschedulable")
        assert other in back["spec"]["taints"]
        assert TAINT not in back["spec"]["taints"]
        assert not {"autoscaling.cast.ai/draining", "castai-eks/marks"} & {
            *back["metadata"]["labels"], *back["metadata"].get("annotations", {})
        }  # fmt: skip


@virtual
async def test_an_instance_that_was_just_launched_costs_one_look(scene: Scene) -> None:
    async with scene.cluster:
        scene.build(provider_id="dummy")
        result = await scene.running()
        assert result.outcome is Outcome.NODE_NOT_FOUND
        assert result.ended - result.started < 1
