"""The problem of the agent as a sentence that says what to do, from the status of its objects."""

from __future__ import annotations

from typing import Any

import pytest

from lambdas.common.agent_status import diagnose

Object = dict[str, Any]
IMAGE = "us-docker.pkg.dev/castai-hub/library/agent:v1"


def deployment(
    *, available: int = 0, updated: int = 1, replicas: int = 1, total: int | None = None,
    generation: int = 1, observed: int = 1, conditions: list[Object] | None = None,
) -> Object:  # fmt: skip
    return {
        "metadata": {"name": "castai-agent", "uid": "d", "generation": generation},
        "spec": {
            "replicas": replicas,
            "template": {"spec": {"containers": [{"name": "agent", "image": IMAGE}]}},
        },
        "status": {
            "observedGeneration": observed,
            "replicas": updated if total is None else total,
            "updatedReplicas": updated,
            "availableReplicas": available,
            "conditions": conditions or [],
        },
    }


def replica_set(uid: str = "r", revision: str = "1", **status: Any) -> Object:
    return {
        "metadata": {
            "name": f"castai-agent-{uid}",
            "uid": uid,
            "annotations": {"deployment.kubernetes.io/revision": revision},
            "ownerReferences": [{"uid": "d", "controller": True}],
        },
        "status": status,
    }


def pod(*, owner: str = "r", **status: Any) -> Object:
    return {
        "metadata": {
            "name": f"castai-agent-{owner}-1",
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "status": status,
    }


def container(**state: Any) -> list[Object]:
    return [{"name": "agent", "image": IMAGE, "ready": False, **state}]


def sentence_of(*pods: Object, replica_sets: tuple[Object, ...] = (replica_set(),)) -> str:
    found = diagnose(deployment(), replica_sets, pods)
    assert found.installed
    assert not found.available
    return found.sentence


def test_without_an_agent_the_sentence_says_how_to_connect() -> None:
    found = diagnose(None, (), ())
    assert not found.installed
    assert found.sentence.startswith("Connect the cluster first")


def test_an_available_agent_has_its_image() -> None:
    found = diagnose(deployment(available=1), (), ())
    assert found.available
    assert found.image == IMAGE


@pytest.mark.parametrize(
    "not_yet",
    [
        deployment(available=1, generation=2),  # the controller has not seen the new spec
        deployment(available=1, updated=0, total=1),  # the available pod is an old one
        deployment(available=2, updated=1, total=2),  # an old pod is still there
        deployment(available=1, updated=2, replicas=2),
    ],
)
def test_an_agent_with_an_old_pod_is_not_available(not_yet: Object) -> None:
    assert not diagnose(not_yet, (replica_set(),), ()).available


def test_for_a_pod_that_starts_the_advice_is_to_wait() -> None:
    assert sentence_of(pod(containerStatuses=container(state={"running": {}}))).startswith("Wait")


@pytest.mark.parametrize("reason", ["ErrImagePull", "ImagePullBackOff", "InvalidImageName"])
def test_an_image_that_cannot_be_pulled_is_named_with_the_reason(reason: str) -> None:
    waiting = {"waiting": {"reason": reason, "message": "no route to host"}}
    sentence = sentence_of(pod(containerStatuses=container(state=waiting)))
    assert sentence.startswith("Check the image")
    assert IMAGE in sentence
    assert "no route to host" in sentence


@pytest.mark.parametrize(
    ("message", "advice"),
    [
        ("pods is forbidden: exceeded quota: compute", "Raise or remove the quota"),
        ("insufficient quota to match these scopes", "Raise or remove the quota"),
        ('violates PodSecurity "restricted:latest"', "Make the agent's pods fit"),
        ('admission webhook "x" denied the request', "Let the admission webhook"),
        ("something else", "Let the agent's pods be created"),
    ],
)
def test_pods_that_cannot_be_created_have_an_advice_for_each_reason(
    message: str, advice: str
) -> None:
    failed = {"type": "ReplicaFailure", "status": "True", "message": message}
    sentence = sentence_of(replica_sets=(replica_set(conditions=[failed]),))
    assert sentence.startswith(advice)
    assert message in sentence


def test_for_an_unschedulable_pod_the_schedulers_message_is_quoted() -> None:
    condition = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes are available"}
    sentence = sentence_of(pod(conditions=[condition]))
    assert sentence.startswith("Make room")
    assert "0/3 nodes" in sentence


# The message of a scheduler for 12 nodes: 234 characters.
UNSCHEDULABLE = (
    "0/12 nodes are available: 3 node(s) had untolerated taint {dedicated: gpu}, 4 node(s) didn't "
    "match Pod's node affinity/selector, 5 Insufficient cpu. preemption: 0/12 nodes are available: "
    "5 No preemption victims found for incoming pod."
)


def test_a_long_message_of_the_scheduler_is_cut_after_a_sentence() -> None:
    assert len(UNSCHEDULABLE) == 234
    condition = {"type": "PodScheduled", "status": "False", "message": UNSCHEDULABLE}
    sentence = sentence_of(pod(conditions=[condition]))
    assert sentence.endswith("5 Insufficient cpu.")


def test_long_messages_of_every_kind_are_cut() -> None:
    message = "denied by rule " * 100
    failed = {"type": "ReplicaFailure", "status": "True", "message": message}
    found = [sentence_of(replica_sets=(replica_set(conditions=[failed]),))]
    for reason in ("ErrImagePull", "CreateContainerError"):
        waiting = {"waiting": {"reason": reason, "message": message}}
        found.append(sentence_of(pod(containerStatuses=container(state=waiting))))
    for sentence in found:
        assert sentence.endswith("denied by rule…")
        assert sentence.count("denied") < 20


def test_a_missing_secret_is_quoted() -> None:
    waiting = {"waiting": {"reason": "CreateContainerConfigError", "message": "secret not found"}}
    assert "secret not found" in sentence_of(pod(containerStatuses=container(state=waiting)))


@pytest.mark.parametrize("where", ["lastState", "state"])
@pytest.mark.parametrize("words", ["POST /v1/x: 401", "level=fatal Unauthorized"])
def test_for_a_401_of_castai_the_advice_is_a_valid_key(where: str, words: str) -> None:
    states: Object = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}}
    states[where] = {"terminated": {"exitCode": 1, "message": words}}
    sentence = sentence_of(pod(containerStatuses=container(**states)))
    assert sentence.startswith("Put a valid CAST AI API key")


def test_for_an_oom_killed_agent_the_advice_is_more_memory() -> None:
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    states = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    assert "more memory" in sentence_of(pod(containerStatuses=container(**states)))


def test_the_last_line_of_a_crash_is_quoted() -> None:
    ended = {"terminated": {"exitCode": 2, "message": "first\n" + "x" * 5000 + "\nthe reason"}}
    states = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    sentence = sentence_of(pod(containerStatuses=container(**states)))
    assert sentence.endswith("ended with code 2: the reason")


def test_a_long_last_line_is_cut_at_its_beginning_before_a_word() -> None:
    ended = {"terminated": {"exitCode": 2, "message": "first\n" + "refused " * 100 + "twice"}}
    states = {"state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": ended}
    sentence = sentence_of(pod(containerStatuses=container(**states)))
    assert sentence.endswith(": …" + "refused " * 24 + "twice")


def test_pods_of_an_older_revision_are_ignored() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull"}}
    old = pod(owner="old", containerStatuses=container(state=waiting))
    sets = (replica_set("old", "9"), replica_set("new", "10"))
    assert sentence_of(old, replica_sets=sets).startswith("Wait")


def test_pods_of_another_owner_in_the_namespace_are_ignored() -> None:
    waiting = {"waiting": {"reason": "ErrImagePull"}}
    foreign = pod(owner="other", containerStatuses=container(state=waiting))
    assert sentence_of(foreign).startswith("Wait")


def test_for_an_agent_with_no_replicas_the_advice_is_to_scale_up() -> None:
    found = diagnose(deployment(replicas=0, updated=0), (replica_set(),), ())
    assert found.sentence.startswith("Scale the agent up")
