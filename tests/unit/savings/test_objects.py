"""What a snapshot keeps of the cluster's objects."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from savings import objects
from savings.objects import Around
from savings.snapshot import Budget, Market, Pod, Requirement, Toleration

Json = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def node(labels: Json | None = None, **spec: Any) -> Json:
    return {"metadata": {"name": "n", "labels": labels}, "spec": spec}


def pod(
    spec: Json | None = None, around: Around | None = None, *, status: Any = None, **metadata: Any
) -> Pod | None:
    obj = {"metadata": {"name": "p", "namespace": "a"} | metadata, "status": status}
    return objects.pod(obj | {"spec": {"containers": []} | (spec or {})}, around or Around())


def seen(*arguments: Any, **given: Any) -> Pod:
    found = pod(*arguments, **given)
    assert found is not None
    return found


def isin(key: str, *values: str) -> Requirement:
    return Requirement(key=key, operator="In", values=values)


@pytest.mark.parametrize(
    ("labels", "market"),
    [
        ({"eks.amazonaws.com/capacityType": "SPOT"}, "spot"),
        ({"eks.amazonaws.com/capacityType": "ON_DEMAND"}, "on-demand"),
        ({"karpenter.sh/capacity-type": "spot"}, "spot"),
        ({"scheduling.cast.ai/spot": "true"}, "spot"),
        (
            {"eks.amazonaws.com/capacityType": "ON_DEMAND", "scheduling.cast.ai/spot": "true"},
            "on-demand",
        ),
    ],
)
def test_the_market_is_that_of_the_first_label(labels: Json, market: Market) -> None:
    found, unknown = objects.node(node(labels, providerID="aws:///a/i-1"))
    assert (found.market, unknown) == (market, "")


def test_a_bare_node_is_on_demand_and_its_instance_is_asked_for() -> None:
    found, unknown = objects.node(node(providerID="aws:///eu-central-1a/i-1"))
    assert (found.market, found.allocatable, unknown) == ("on-demand", {}, "i-1")
    assert (found.os, found.arch, found.instance_type, found.group) == ("linux", "amd64", "", "")
    assert objects.node({"metadata": {"name": "n"}})[1] == ""


def test_a_fargate_node_is_no_instance() -> None:
    labels = {"eks.amazonaws.com/compute-type": "fargate"}
    found, unknown = objects.node(node(labels, providerID="aws:///a/i-1"))
    assert (found.fargate, unknown) == (True, "")


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_finished_pod_is_left_out(phase: str) -> None:
    assert pod(status={"phase": phase}) is None
    assert pod(status={"phase": "Unknown"}) is not None


@pytest.mark.parametrize(
    ("kind", "name", "owner"),
    [
        ("ReplicaSet", "web-1", "Deployment/web"),
        ("Job", "nightly-1", "CronJob/nightly"),
        ("ReplicaSet", "lone", "ReplicaSet/lone"),
        ("Rollout", "x", "Rollout/x"),
        ("Node", "n", ""),
    ],
)
def test_the_owner_is_the_top_controller(kind: str, name: str, owner: str) -> None:
    around = Around(
        owners={
            ("a", "ReplicaSet/web-1"): "Deployment/web",
            ("a", "Job/nightly-1"): "CronJob/nightly",
            ("a", "ReplicaSet/lone"): "",
            ("b", "Rollout/x"): "Deployment/of-another-namespace",
        }
    )
    references = [
        {"kind": "Other", "name": "o"},
        {"kind": kind, "name": name, "controller": True},
    ]
    assert seen(None, around, ownerReferences=references).owner == owner


def test_a_mirror_pod_is_static() -> None:
    assert seen(annotations={"kubernetes.io/config.mirror": "x"}).static
    assert not seen().static


def test_volumes_tie_a_pod_to_nodes() -> None:
    volumes = [
        {"metadata": {"name": "zonal", "labels": {ZONE: "z1__z2"}}, "spec": {}},
        {
            "metadata": {"name": "local"},
            "spec": {
                "local": {"path": "/d"},
                "nodeAffinity": {
                    "required": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "h", "operator": "In", "values": ["n"]}]}
                        ]
                    }
                },
            },
        },
        {"metadata": {"name": "anywhere"}, "spec": {}},
    ]
    names = {"data": "zonal", "p-scratch": "local", "shared": "anywhere", "unbound": ""}
    around = Around(
        claims={("a", name): volume for name, volume in names.items()},
        volumes=dict(map(objects.volume, volumes)),
    )
    claims = [
        {"name": name, "persistentVolumeClaim": {"claimName": name}}
        for name in ("data", "shared", "unbound", "missing")
    ]
    others = [
        {"name": "scratch", "ephemeral": {}},
        {"name": "h", "hostPath": {"path": "/"}},
        {"name": "e", "emptyDir": {}},
    ]
    found = seen({"volumes": [*claims, *others]}, around)
    assert found.demand.node_terms == (((isin(ZONE, "z1", "z2"),),), ((isin("h", "n"),),))
    assert found.local_volumes == ("PersistentVolumeClaim p-scratch", "hostPath")


def test_node_affinity_with_fields_and_a_term_that_matches_nothing() -> None:
    terms = [
        {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["n"]}]},
        {},
    ]
    affinity = {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": terms}}}
    assert seen({"affinity": affinity}).demand.node_terms == (((isin("metadata.name", "n"),),),)
    affinity[("nodeAffinity")][REQUIRED]["nodeSelectorTerms"] = [{}]
    assert seen({"affinity": affinity}).demand.node_terms == ((),)  # no node


@pytest.mark.parametrize(
    ("term", "namespaces"),
    [
        ({}, ()),
        ({"namespaces": ["a"]}, ()),
        ({"namespaces": ["b", "a"]}, ("a", "b")),
        ({"namespaceSelector": {}}, None),
        ({"namespaceSelector": {"matchLabels": {"t": "x"}}}, ("b", "c")),
        ({"namespaceSelector": {"matchLabels": {"t": "x"}}, "namespaces": ["d"]}, ("b", "c", "d")),
        ({"namespaceSelector": {"matchLabels": {"t": "none"}}}, ("a/none",)),
    ],
)
def test_the_namespaces_of_a_pod_affinity(term: Json, namespaces: tuple[str, ...] | None) -> None:
    around = Around(namespaces={"a": {}, "b": {"t": "x"}, "c": {"t": "x"}})
    whole = {"topologyKey": "z", "labelSelector": {"matchLabels": {"app": "w"}}} | term
    unselected = {"topologyKey": "z"}  # selects no pod
    found = seen({"affinity": {"podAntiAffinity": {REQUIRED: [whole, unselected]}}}, around)
    (only,) = found.anti_affinity
    assert (only.selector, only.namespaces) == ((isin("app", "w"),), namespaces)
    assert found.affinity == ()


def test_spread_that_binds_with_the_labels_of_the_pod() -> None:
    constraint = {
        "topologyKey": ZONE,
        "maxSkew": 1,
        "whenUnsatisfiable": "DoNotSchedule",
        "labelSelector": {"matchLabels": {"app": "w"}},
        "matchLabelKeys": ["pod-template-hash", "absent", "app"],
    }
    soft = constraint | {"whenUnsatisfiable": "ScheduleAnyway"}
    (found,) = seen(
        {"topologySpreadConstraints": [constraint, soft]},
        labels={"app": "w", "pod-template-hash": "1"},
    ).spread
    assert found.selector == (isin("app", "w"), isin("pod-template-hash", "1"))


def test_ports_tolerations_grace_and_opt_outs() -> None:
    ports = [{"containerPort": 80, "hostPort": 8080}, {"containerPort": 53, "protocol": "UDP"}]
    spec: Json = {
        "containers": [{"name": "c", "ports": ports}],
        "tolerations": [{"operator": "Exists"}, {"key": "k", "value": "v"}],
        "terminationGracePeriodSeconds": 0,
    }
    found = seen(spec, annotations={"karpenter.sh/do-not-disrupt": "true"})
    assert found.demand.host_ports == ("TCP/8080",)
    assert found.demand.tolerations == (
        Toleration(operator="Exists"),
        Toleration(key="k", value="v"),
    )
    assert (found.grace, found.opt_outs) == (0, ("karpenter.sh/do-not-disrupt: true",))
    ports[0].pop("hostPort")
    assert seen(spec | {"hostNetwork": True}).demand.host_ports == ("TCP/80", "UDP/53")
    assert seen().grace == 30
    refused = {"cluster-autoscaler.kubernetes.io/safe-to-evict": "true"}
    assert seen(annotations=refused).opt_outs == ()


@pytest.mark.parametrize(
    ("selector", "kept"), [(None, None), ({}, ()), ({"matchLabels": {"a": "b"}}, (isin("a", "b"),))]
)
def test_a_budget_of_no_pod_of_every_pod_and_of_some(selector: Any, kept: Any) -> None:
    spec = {"selector": selector, "minAvailable": "50%"}
    found = objects.budget({"metadata": {"name": "b", "namespace": "a"}, "spec": spec})
    assert found == Budget(namespace="a", name="b", selector=kept, min_available="50%")


FULL: Json = {
    "nodeName": "n",
    "nodeSelector": {"a": "b"},
    "tolerations": [{"operator": "Exists"}],
    "affinity": {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{}]}}},
    "topologySpreadConstraints": [],
    "volumes": [{"name": "v", "emptyDir": {}}],
    "hostNetwork": True,
    "overhead": {"cpu": "1m"},
    "initContainers": [],
    "resources": {"requests": {"cpu": "1"}},
    "terminationGracePeriodSeconds": 5,
}


@given(st.sets(st.sampled_from(sorted(FULL))), st.sets(st.sampled_from(sorted(FULL))))
def test_any_field_may_be_missing_or_null(kept: set[str], null: set[str]) -> None:
    spec = {name: FULL[name] for name in kept} | dict.fromkeys(null)
    found = seen(spec, labels=None, annotations=None, ownerReferences=None)
    assert msgspec.json.decode(msgspec.json.encode(found), type=Pod) == found
