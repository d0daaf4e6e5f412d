"""The scale of a workload: its replicas as an object of the group `autoscaling`."""

from __future__ import annotations

from kubesim.resources import Json, Obj
from kubesim.selectors import selector_text

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(workload: Obj) -> Obj:
    """The Scale of a Deployment, ReplicaSet or StatefulSet."""
    spec = workload["spec"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: workload["metadata"][key] for key in _METADATA},
        "spec": {"replicas": spec["replicas"]},
        "status": {
            "replicas": workload.get("status", {}).get("replicas", 0),
            "selector": selector_text(spec["selector"]),
        },
    }


def scaled(workload: Obj, scale: Json) -> Obj:
    """The workload with the replicas and the resourceVersion of a written Scale."""
    version = (scale.get("metadata") or {}).get("resourceVersion", "")
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    return {
        **workload,
        "metadata": {**workload["metadata"], "resourceVersion": version},
        "spec": {**workload["spec"], "replicas": replicas},
    }
