"""The scale of a workload: its replicas as an object of the group `autoscaling`."""

from __future__ import annotations

from kubesim import errors
from kubesim.errors import ApiError, Cause
from kubesim.resources import Json, Obj
from kubesim.selectors import selector_text

_METADATA = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")


def scale_of(workload: Obj) -> Obj:
    """The Scale of a Deployment, ReplicaSet or StatefulSet."""
    spec = workload["spec"]
    replicas: int = spec["replicas"]
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: workload["metadata"][key] for key in _METADATA},
        "spec": {"replicas": replicas} if replicas else {},
        "status": {
            "replicas": workload.get("status", {}).get("replicas", 0),
            "selector": selector_text(spec["selector"]),
        },
    }


def scaled(workload: Obj, scale: Json) -> Obj:
    """The workload with the replicas and the resourceVersion of a written Scale.

    Raises ApiError (400: another name, 422: less than no replicas).
    """
    metadata, name = scale.get("metadata") or {}, workload["metadata"]["name"]
    if metadata.get("name") != name:
        raise errors.wrong_name(metadata.get("name", ""), name)
    version = metadata.get("resourceVersion", "")
    replicas = (scale.get("spec") or {}).get("replicas", 0)
    if replicas < 0:
        why = f"Invalid value: {replicas}: must be greater than or equal to 0"
        cause = Cause("FieldValueInvalid", why, "spec.replicas")
        about = {"name": name, "group": "autoscaling", "kind": "Scale"}
        message = f'Scale.autoscaling "{name}" is invalid: {cause.field}: {why}'
        raise ApiError(422, "Invalid", message, details=about, causes=[cause])
    return {
        **workload,
        "metadata": {**workload["metadata"], "resourceVersion": version},
        "spec": {**workload["spec"], "replicas": replicas},
    }
