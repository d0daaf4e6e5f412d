"""The marks of a drain on a node, as CAST AI's own components set them."""

from __future__ import annotations

from lambdas.spot_handler.objects import Taint

DRAIN_TAINT = Taint(key="autoscaling.cast.ai/draining", value="true", effect="NoSchedule")
DRAIN_LABEL = "autoscaling.cast.ai/draining"
# Takes the node out of load balancers, whose deregistration outlasts the drain. Its presence
# counts, whatever its value, so a value that the user gave it stays.
NO_BALANCER_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


def same(one: Taint, other: Taint) -> bool:
    """Kubernetes' own rule: key and effect identify a taint."""
    return (one.key, one.effect) == (other.key, other.effect)
