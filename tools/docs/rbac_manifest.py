"""Write manifests/spot-handler-rbac.yaml from the objects that the onboarding applies."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import yaml

from lambdas.onboarding import spot_rbac

MANIFEST: Final = Path(__file__).parents[2] / "manifests" / "spot-handler-rbac.yaml"
_HEADER: Final = """\
# Written by `make docs` from lambdas/onboarding/spot_rbac.py. Change that file, not this one.
#
# The permissions of the spot handler in a cluster. Its role gets the group castai:spot-handler from
# an EKS access entry (the stack creates one for each cluster in castai:clusters) or from a mapRoles
# entry of the ConfigMap aws-auth.
#
#   kubectl apply --server-side -f manifests/spot-handler-rbac.yaml
#
# nodes: find the node of the instance, set taint, labels and unschedulable.
# pods: plan the drain, watch deletions, delete pods that a budget still blocks at the deadline.
# pods/eviction: evict within the budgets.
# events: show the drain in `kubectl describe node`.
# configmaps: read CAST AI's id of the cluster from this one ConfigMap.
"""


def current() -> str:
    """The text of the manifest."""
    objects = (spot_rbac.role(), spot_rbac.binding())
    return _HEADER + yaml.safe_dump_all(objects, sort_keys=False)


def main() -> None:
    """Write the manifest."""
    MANIFEST.write_text(current(), encoding="utf-8")


if __name__ == "__main__":
    main()
