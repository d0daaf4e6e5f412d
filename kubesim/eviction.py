"""The eviction of a pod, with the checks, their order and the messages of kube-apiserver."""

from __future__ import annotations

from typing import Any

from kubesim import errors
from kubesim.errors import ApiError, Cause
from kubesim.options import deletion
from kubesim.registry import FINISHED, Deletion, Registry
from kubesim.resources import BUDGETS, PODS, Obj
from kubesim.selectors import labels_of, match_selector

NOT_OBSERVED_RETRY_AFTER = 10
"""Seconds: kube-apiserver's Retry-After when the status of a budget is older than its spec."""

MAX_DISRUPTED_PODS = 2_000
_REFUSAL = "Cannot evict pod as it would violate the pod's disruption budget."


def is_ready(pod: Obj) -> bool:
    """Whether a pod counts as healthy for its budget."""
    return any(
        c.get("type") == "Ready" and c.get("status") == "True"
        for c in pod.get("status", {}).get("conditions", ())
    )


def with_condition(status: dict[str, Any], condition: dict[str, Any]) -> dict[str, Any]:
    """The status with the condition; it replaces a condition of the same type."""
    conditions = list(status.get("conditions", ()))
    for place, found in enumerate(conditions):
        if found["type"] == condition["type"]:
            conditions[place] = condition
            break
    else:
        conditions.append(condition)
    return {**status, "conditions": conditions}


def evict(registry: Registry, namespace: str, name: str, options: Obj) -> None:
    """Evict a pod. `options`: its DeleteOptions, which are validated only by the deletion.

    Raises ApiError (404, 409: precondition, 422: options, 429: budget, 500: more than one budget).
    """
    pod = registry.get(PODS, namespace, name)
    dry_run = bool(options.get("dryRun"))
    if not _ignores_budgets(pod):
        _check_budget(registry, pod, dry_run=dry_run)
    if not dry_run:
        given = options.get("preconditions") or {}
        version = given.get("resourceVersion") or None
        asked = Deletion(uid=given.get("uid") or None, resource_version=version)
        registry.check_preconditions(PODS, pod, asked)
        pod = _marked(registry, pod)
        if version:  # the condition has changed it
            changed = {**given, "resourceVersion": pod["metadata"]["resourceVersion"]}
            options = {**options, "preconditions": changed}
    registry.delete(PODS, namespace, name, deletion(options))


def _ignores_budgets(pod: Obj) -> bool:
    return (
        pod["status"].get("phase") in (*FINISHED, "Pending")
        or "deletionTimestamp" in pod["metadata"]
    )


def budgets_of(registry: Registry, pod: Obj) -> list[Obj]:
    """The budgets whose selector matches the pod."""
    return [
        budget
        for budget in registry.store.objects(BUDGETS, pod["metadata"]["namespace"])
        if match_selector(budget["spec"].get("selector"))(labels_of(pod))
    ]


def _check_budget(registry: Registry, pod: Obj, *, dry_run: bool) -> None:
    budgets = budgets_of(registry, pod)
    if len(budgets) > 1:
        message = (
            "This pod has more than one PodDisruptionBudget, which the eviction subresource does"
            " not support."
        )
        raise ApiError(500, "", message)
    if budgets and not _is_unhealthy_and_evictable(pod, budgets[0]):
        _decrement(registry, budgets[0], pod["metadata"]["name"], dry_run=dry_run)


def _is_unhealthy_and_evictable(pod: Obj, budget: Obj) -> bool:
    if is_ready(pod):
        return False
    if budget["spec"].get("unhealthyPodEvictionPolicy") == "AlwaysAllow":
        return True
    status = budget["status"]
    desired: int = status.get("desiredHealthy", 0)
    healthy: int = status.get("currentHealthy", 0)
    return 0 < desired <= healthy


def _decrement(registry: Registry, budget: Obj, pod: str, *, dry_run: bool) -> None:
    """Take one disruption from the budget and add the pod to its disruptedPods.

    Without this, evictions before the disruption controller's next sync could exceed the budget.
    """
    name, status = budget["metadata"]["name"], budget["status"]
    if status.get("observedGeneration", 0) < budget["metadata"].get("generation", 0):
        message = f"The disruption budget {name} is still being processed by the server."
        raise errors.too_many_requests(
            _REFUSAL, Cause("DisruptionBudget", message), retry_after=NOT_OBSERVED_RETRY_AFTER
        )
    allowed: int = status.get("disruptionsAllowed", 0)
    if allowed < 0:
        raise negative(name)
    disrupted = status.get("disruptedPods", {})
    if len(disrupted) > MAX_DISRUPTED_PODS:
        raise too_many_unconfirmed(name)
    if allowed == 0:
        message = _exhausted(name, status)
        raise errors.too_many_requests(_REFUSAL, Cause("DisruptionBudget", message))
    if dry_run:
        return
    status = {
        **status,
        "disruptionsAllowed": allowed - 1,
        "disruptedPods": {**disrupted, pod: registry.stamp()},
    }
    if allowed == 1:
        status = with_condition(status, disruption_allowed(budget, registry.stamp(), allowed=False))
    registry.set_status(BUDGETS, budget, status)


def negative(budget: str) -> ApiError:
    """403: the status of a budget allows less than no disruption."""
    return _forbidden(budget, "pdb disruptions allowed is negative")


def too_many_unconfirmed(budget: str) -> ApiError:
    """403: the budget's controller has not confirmed MAX_DISRUPTED_PODS evictions."""
    why = "DisruptedPods map too big - too many evictions not confirmed by PDB controller"
    return _forbidden(budget, why)


def _forbidden(budget: str, why: str) -> ApiError:
    """403 that is no missing right. kube-apiserver names the resource in the singular here."""
    details = {"name": budget, "group": BUDGETS.group, "kind": "poddisruptionbudget"}
    message = f'poddisruptionbudget.{BUDGETS.group} "{budget}" is forbidden: {why}'
    return ApiError(403, "Forbidden", message, details=details)


def _exhausted(name: str, status: dict[str, Any]) -> str:
    desired, healthy = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
    if healthy <= desired:
        return (
            f"The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        )
    # Enough pods are healthy, but the controller has not counted the granted evictions yet.
    return f"The disruption budget {name} does not allow evicting pods currently"


def disruption_allowed(budget: Obj, stamp: str, *, allowed: bool) -> dict[str, Any]:
    """The condition of a budget that says whether it allows a disruption."""
    return {
        "type": "DisruptionAllowed",
        "status": "True" if allowed else "False",
        "observedGeneration": budget["metadata"].get("generation", 0),
        "lastTransitionTime": stamp,
        "reason": "SufficientPods" if allowed else "InsufficientPods",
        "message": "",
    }


def _marked(registry: Registry, pod: Obj) -> Obj:
    """The pod with the condition that it is a target of a disruption."""
    conditions = pod["status"].get("conditions") or ()
    if any((c["type"], c["status"]) == ("DisruptionTarget", "True") for c in conditions):
        return pod
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": registry.stamp(),
        "reason": "EvictionByEvictionAPI",
        "message": "Eviction API: evicting",
    }
    return registry.set_status(PODS, pod, with_condition(pod["status"], condition))
