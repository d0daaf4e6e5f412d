from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lambdas.spot_handler.cordon import MARKS_ANNOTATION, cordon_patch, uncordon_patch
from lambdas.spot_handler.notices import Kind, Notice
from lambdas.spot_handler.objects import Node
from tests.support.events import INSTANCE
from tests.support.pods import node

DRAINING = {"key": "autoscaling.cast.ai/draining", "value": "true", "effect": "NoSchedule"}
BALANCERS = "node.kubernetes.io/exclude-from-external-load-balancers"
DONE = {
    "autoscaling.cast.ai/draining": "spot-interruption",
    "node.kubernetes.io/exclude-from-external-load-balancers": "true",
}
GIVEN = 1_000.0


def notice(action: str = "terminate") -> Notice:
    kind = Kind.SPOT_INTERRUPTION
    return Notice(kind, INSTANCE, GIVEN, GIVEN + 120, GIVEN + 120, action, "event")


SPOT = notice()


def test_one_patch_has_taint_labels_cordon_and_the_nodes_resource_version() -> None:
    assert cordon_patch(node(), SPOT) == {
        "metadata": {"resourceVersion": "315", "labels": DONE},
        "spec": {"unschedulable": True, "taints": [DRAINING]},
    }


def test_a_cordoned_node_gets_no_patch() -> None:
    assert cordon_patch(node(labels=DONE, taints=[DRAINING], unschedulable=True), SPOT) is None


def test_the_patch_repeats_other_taints_with_every_field() -> None:
    other = {
        "key": "team",
        "value": "a",
        "effect": "NoExecute",
        "timeAdded": "2026-11-21T10:00:00Z",
        "fieldOfANewerKubernetes": {"a": 1},
    }
    patch = cordon_patch(node(taints=[other]), SPOT)
    assert patch is not None
    assert patch["spec"]["taints"] == [other, DRAINING]


def test_the_drain_taint_with_another_value_is_replaced() -> None:
    patch = cordon_patch(node(taints=[DRAINING | {"value": "false"}]), SPOT)
    assert patch is not None
    assert patch["spec"]["taints"] == [DRAINING]


def test_the_users_value_of_the_load_balancer_label_is_kept() -> None:
    label = "node.kubernetes.io/exclude-from-external-load-balancers"
    patch = cordon_patch(node(labels={label: "by-team-a"}), SPOT)
    assert patch is not None
    assert label not in patch["metadata"]["labels"]


TAINTS = st.lists(
    st.fixed_dictionaries(
        {
            "key": st.sampled_from(["a", "b", DRAINING["key"]]),
            "effect": st.sampled_from(["NoSchedule", "PreferNoSchedule", "NoExecute"]),
        },
        optional={"value": st.sampled_from(["true", "x"])},
    ),
    max_size=4,
    unique_by=lambda taint: (taint["key"], taint["effect"]),
)


@given(taints=TAINTS, labels=st.dictionaries(st.sampled_from([*DONE, "x"]), st.text(max_size=3)))
def test_a_second_cordon_gives_no_patch_and_other_taints_are_kept(
    taints: list[Any], labels: dict[str, str]
) -> None:
    before = node(taints=taints, labels=labels)
    patch = cordon_patch(before, SPOT)
    after = node(
        taints=(patch or {}).get("spec", {}).get("taints", taints),
        labels=labels | (patch or {}).get("metadata", {}).get("labels", {}),
        unschedulable=True,
    )
    assert cordon_patch(after, SPOT) is None
    ours = (DRAINING["key"], DRAINING["effect"])
    foreign = [taint for taint in taints if (taint["key"], taint["effect"]) != ours]
    assert all(taint in (after.spec.taints or ()) for taint in foreign)


@pytest.mark.parametrize(
    ("provider_id", "instance"),
    [
        ("aws:///eu-central-1a/i-0123456789abc0001", "i-0123456789abc0001"),
        ("aws:///eu-central-1a/I-0123456789ABC0001", "i-0123456789abc0001"),
        ("aws:////i-0123456789abc0001", "i-0123456789abc0001"),
        ("aws:///eu-central-1a/i-0123456789abc0001/extra", ""),
        ("aws:///a/b/i-0123456789abc0001", ""),
        ("dummy", ""),
        ("", ""),
        ("aws:/i-0123456789abc0001", ""),
        ("aws:///eu-central-1a/i-x", ""),
        ("gce:///eu-central-1a/i-0123456789abc0001", ""),
        ("aws:///eu-central-1a/fargate-ip-10-0-0-1", ""),
    ],
)
def test_the_instance_of_a_provider_id(provider_id: str, instance: str) -> None:
    candidate: Node = node(provider_id)
    assert candidate.instance == instance


def patched(before: Node, patch: dict[str, Any] | None) -> Node:
    """The node after a JSON merge patch."""
    assert patch is not None
    metadata, spec = patch["metadata"], patch.get("spec", {})

    def merged(old: dict[str, str] | None, new: dict[str, str | None]) -> dict[str, str]:
        return {k: v for k, v in ((old or {}) | new).items() if v is not None}

    return node(
        labels=merged(before.metadata.labels, metadata.get("labels", {})),
        annotations=merged(before.metadata.annotations, metadata.get("annotations", {})),
        taints=spec.get("taints", msgspec.to_builtins(before.spec.taints)),
        unschedulable=bool(spec.get("unschedulable", before.spec.unschedulable)),
    )


@given(taints=TAINTS, labels=st.dictionaries(st.sampled_from([*DONE, "x"]), st.text(max_size=3)),
       unschedulable=st.booleans())  # fmt: skip
def test_uncordon_removes_the_marks_of_a_stop_and_nothing_else(
    taints: list[Any], labels: dict[str, str], *, unschedulable: bool
) -> None:
    before = node(taints=taints, labels=labels, unschedulable=unschedulable)
    patch = cordon_patch(before, notice("stop"))
    if patch is None:
        return
    after = patched(before, patch)
    assert uncordon_patch(after, running_since=GIVEN) is None  # this start is not after the notice
    again = patched(after, uncordon_patch(after, running_since=GIVEN + 1))
    assert again.spec.unschedulable is unschedulable
    assert MARKS_ANNOTATION not in (again.metadata.annotations or {})
    ours = (DRAINING["key"], DRAINING["effect"])
    foreign = [taint for taint in taints if (taint["key"], taint["effect"]) != ours]
    assert all(taint in (again.spec.taints or ()) for taint in foreign)
    left = again.metadata.labels or {}
    assert left.items() <= labels.items()
    assert {key: labels[key] for key in labels if key not in DONE}.items() <= left.items()


def test_a_label_that_others_changed_since_stays() -> None:
    before = patched(node(), cordon_patch(node(), notice("stop")))
    labels = {**(before.metadata.labels or {}), BALANCERS: "maintenance"}
    taken = node(labels=labels, annotations=before.metadata.annotations)
    patch = uncordon_patch(taken, running_since=GIVEN + 1)
    assert patch is not None
    assert patch["metadata"]["labels"] == {DRAINING["key"]: None}


def test_a_node_whose_instance_is_terminated_is_not_uncordoned() -> None:
    patch = cordon_patch(node(), SPOT)
    assert patch is not None
    assert "annotations" not in patch["metadata"]
    assert uncordon_patch(patched(node(), patch), running_since=GIVEN + 1) is None
    assert uncordon_patch(node(annotations={MARKS_ANNOTATION: "?"}), running_since=1e9) is None
