"""Evictions: the answers of the API, and their effects on the pod and its budget."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from tests.contract.api import Api, Space, unique

OTHER_UID = "00000000-0000-0000-0000-000000000000"
REFUSAL = "Cannot evict pod as it would violate the pod's disruption budget."


def test_an_eviction_sets_the_condition_and_deletes_with_the_requested_grace_period(
    space: Space,
) -> None:
    uid = space.pod("a")["metadata"]["uid"]
    options = {"preconditions": {"uid": uid}, "gracePeriodSeconds": 20}

    answer = space.evict("a", deleteOptions=options)

    assert (answer.status, answer.body["status"]) == (201, "Success")
    pod = space.api.get(f"{space.pods}/a").ok()
    assert pod["metadata"]["deletionGracePeriodSeconds"] == 20
    assert pod["metadata"]["generation"] == 2
    (condition,) = [c for c in pod["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert condition["status"] == "True"
    assert condition["reason"] == "EvictionByEvictionAPI"
    assert condition["message"] == "Eviction API: evicting"


def test_an_eviction_of_a_terminating_pod_succeeds(space: Space) -> None:
    space.pod("a")
    assert space.evict("a").status == 201
    before = space.api.get(f"{space.pods}/a").ok()["metadata"]["deletionTimestamp"]

    assert space.evict("a").status == 201

    after = space.api.get(f"{space.pods}/a").ok()["metadata"]["deletionTimestamp"]
    assert after == before


def test_a_missing_pod(space: Space) -> None:
    answer = space.evict("absent")

    assert (answer.status, answer.body["reason"]) == (404, "NotFound")
    assert answer.body["message"] == 'pods "absent" not found'


def test_a_pod_with_another_uid_is_not_evicted(space: Space) -> None:
    space.pod("a")

    answer = space.evict("a", deleteOptions={"preconditions": {"uid": OTHER_UID}})

    assert (answer.status, answer.body["reason"]) == (409, "Conflict")
    assert "does not match the UID in record" in answer.body["message"]
    pod = space.api.get(f"{space.pods}/a").ok()
    assert "deletionTimestamp" not in pod["metadata"]
    assert all(c["type"] != "DisruptionTarget" for c in pod["status"]["conditions"])


def test_the_name_in_the_body_must_be_that_in_the_path(space: Space) -> None:
    space.pod("a")

    answer = space.evict("a", metadata={"name": "other", "namespace": space.name})

    assert (answer.status, answer.body["reason"]) == (400, "BadRequest")
    assert answer.body["message"] == "name in URL does not match name in Eviction object"


def test_a_dry_run_changes_nothing(space: Space) -> None:
    space.pod("a", app="a")
    space.budget("a", "a", healthy=1, desired=0, allowed=1)

    answer = space.evict("a", query="?dryRun=All", deleteOptions={"dryRun": ["All"]})

    assert answer.status == 201
    pod = space.api.get(f"{space.pods}/a").ok()
    assert "deletionTimestamp" not in pod["metadata"]
    assert all(c["type"] != "DisruptionTarget" for c in pod["status"]["conditions"])
    assert space.api.get(f"{space.budgets}/a").ok()["status"]["disruptionsAllowed"] == 1


def test_an_exhausted_budget_refuses_with_the_number_of_pods_it_needs(space: Space) -> None:
    for name in ("b0", "b1"):
        space.pod(name, app="b")
    space.budget("b", "b", healthy=2, desired=2, allowed=0)

    answer = space.evict("b0")

    assert (answer.status, answer.body["reason"]) == (429, "TooManyRequests")
    assert answer.body["message"] == REFUSAL
    assert answer.causes == [
        {
            "reason": "DisruptionBudget",
            "message": "The disruption budget b needs 2 healthy pods and has 2 currently",
        }
    ]
    assert "retry-after" not in answer.headers


def test_a_budget_without_a_current_status_refuses(space: Space) -> None:
    space.pod("f0", app="f")
    selector = {"matchLabels": {"app": "f"}}
    budget = {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": {"name": "f"},
        "spec": {"selector": selector, "minAvailable": 1},
    }
    space.api.post(space.budgets, budget).ok()

    answer = space.evict("f0")

    assert answer.status == 429
    (cause,) = answer.causes
    assert cause["reason"] == "DisruptionBudget"
    if not space.target.disruption_controller:  # else it may have set the status already
        message = "The disruption budget f is still being processed by the server."
        assert cause["message"] == message
        assert answer.headers["retry-after"] == "10"
        assert answer.body["details"]["retryAfterSeconds"] == 10


def test_two_budgets_for_one_pod_are_a_server_error(space: Space) -> None:
    space.pod("c0", app="c")
    for name in ("c", "d"):
        space.budget(name, "c", healthy=1, desired=0, allowed=1)

    answer = space.evict("c0")

    assert answer.status == 500
    assert answer.body["status"] == "Failure"
    assert "more than one PodDisruptionBudget" in answer.body["message"]
    assert "reason" not in answer.body


def test_a_pending_pod_needs_no_budget(space: Space) -> None:
    space.pod("p0", app="p", state="pending")
    space.budget("p", "p", healthy=0, desired=1, allowed=0)

    assert space.evict("p0").status == 201


def test_a_finished_pod_needs_no_budget_and_is_removed_at_once(space: Space) -> None:
    space.pod("s0", app="s", state="succeeded")
    space.budget("s", "s", healthy=0, desired=1, allowed=0)

    assert space.evict("s0").status == 201
    assert space.api.get(f"{space.pods}/s0").status == 404


def test_a_terminating_pod_needs_no_budget(space: Space) -> None:
    space.pod("t0", app="t")
    space.budget("t", "t", healthy=1, desired=1, allowed=0)
    assert space.evict("t0").status == 429
    space.api.delete(f"{space.pods}/t0").ok()

    assert space.evict("t0").status == 201


def test_an_unready_pod_is_not_evicted_while_its_budget_is_not_met(space: Space) -> None:
    space.pod("d0", app="d", state="unready")
    space.budget("d", "d", healthy=0, desired=1, allowed=0)

    answer = space.evict("d0")

    assert answer.status == 429
    message = "The disruption budget d needs 1 healthy pods and has 0 currently"
    assert answer.causes == [{"reason": "DisruptionBudget", "message": message}]


def test_an_unready_pod_is_evicted_if_enough_others_are_ready(space: Space) -> None:
    space.pod("e0", app="e", state="unready")
    space.pod("e1", app="e")
    space.budget("e", "e", healthy=1, desired=1, allowed=0)

    assert space.evict("e0").status == 201
    assert space.evict("e1").status == 429


def test_an_unready_pod_is_evicted_with_the_policy_always_allow(space: Space) -> None:
    space.pod("g0", app="g", state="unready")
    space.budget(
        "g", "g", healthy=0, desired=1, allowed=0, unhealthyPodEvictionPolicy="AlwaysAllow"
    )

    assert space.evict("g0").status == 201


def test_concurrent_evictions_do_not_exceed_the_budget(space: Space) -> None:
    names = [f"h{number}" for number in range(6)]
    for name in names:
        space.pod(name, app="h")
    space.budget("h", "h", healthy=6, desired=4, allowed=2)

    with ThreadPoolExecutor(len(names)) as pool:
        answers = list(pool.map(space.evict, names))

    assert sorted(answer.status for answer in answers) == [201, 201, 429, 429, 429, 429]


def test_no_pod_is_evicted_from_a_terminating_namespace(space: Space) -> None:
    space.pod("h0", finalizers=("contract.invalid/hold",))
    path = f"/api/v1/namespaces/{space.name}"
    space.api.delete(path).ok()
    space.api.until(path, lambda namespace: namespace["status"]["phase"] == "Terminating")

    answer = space.evict("h0")

    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert answer.causes == [
        {
            "reason": "NamespaceTerminating",
            "message": f"namespace {space.name} is being terminated",
            "field": "metadata.namespace",
        }
    ]


def test_a_missing_namespace(space: Space) -> None:
    path = f"/api/v1/namespaces/{unique('absent')}/pods/a/eviction"
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "a"}}

    assert space.api.post(path, body).status == 404


def test_an_unknown_field_is_accepted_with_a_warning(space: Space) -> None:
    space.pod("a")

    answer = space.evict("a", nonsense=1)

    assert answer.status == 201
    assert answer.headers["warning"] == '299 - "unknown field \\"nonsense\\""'


def test_an_eviction_of_policy_v1beta1_is_accepted(space: Space) -> None:
    space.pod("a")

    assert space.evict("a", apiVersion="policy/v1beta1").status == 201


def test_without_the_right_to_evict(space: Space, unprivileged: Api) -> None:
    space.pod("a")

    answer = space.evict("a", api=unprivileged)

    user = unprivileged.headers["Impersonate-User"]
    assert (answer.status, answer.body["reason"]) == (403, "Forbidden")
    assert answer.body["message"] == (
        f'pods "a" is forbidden: User "{user}" cannot create resource "pods/eviction" in API group'
        f' "" in the namespace "{space.name}"'
    )
    assert answer.body["details"] == {"name": "a", "kind": "pods"}


def test_with_the_rights_of_the_drainer(space: Space, drainer: Api) -> None:
    space.pod("a")

    assert space.evict("a", api=drainer).status == 201


def test_an_unknown_token(space: Space) -> None:
    answer = space.evict("a", api=space.api.with_token("garbage"))

    assert (answer.status, answer.body["reason"]) == (401, "Unauthorized")
    assert answer.body["message"] == "Unauthorized"
