"""The marks of a drain on a node, as CAST AI's own components set them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lambdas.spot_handler.objects import Taint

DRAIN_TAINT = Taint(key="autoscaling.cast.ai/draining", value="true", effect="NoSchedule")
DRAIN_LABEL = "autoscaling.cast.ai/draining"
# Takes the node out of load balancers, whose deregistration outlasts the drain. Its presence
# counts, whatever its value, so a value that the user gave it stays.
NO_BALANCER_LABEL = "node.kubernetes.io/exclude-from-external-load-balancers"


def is_drain_taint(taint: Mapping[str, Any]) -> bool:
    """Whether the taint of a node is the drain's, of any value: key and effect identify a taint."""
    return (taint.get("key"), taint.get("effect")) == (DRAIN_TAINT.key, DRAIN_TAINT.effect)
