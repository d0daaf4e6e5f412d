"""The owner of a resource in AWS, which two tags name. Pure.

One tag has the cluster for which this project created the resource. The other has the stack and the
custom resource that created it. So two stacks that onboard the same cluster, or two regions with
clusters of one name, do not remove each other's resources.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from lambdas.common.names import CLUSTER_TAG, OWNER_TAG, SHARED_AS_TAG
from lambdas.onboarding import names

ACCOUNT_WIDE: Final = "account-wide"
"""Value of the owner tag on the one policy that all clusters of an account share."""


@dataclass(frozen=True)
class Owner:
    """One cluster and the custom resource that onboards it."""

    cluster_arn: str
    resource: str

    def tags(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The tags of a thing that we create; `extra` are the user's own tags."""
        return {
            **(extra or {}),
            **names.cluster_tags(self.cluster_arn),
            OWNER_TAG: self.resource,
        }

    def owns(self, tags: Mapping[str, str]) -> bool:
        """Whether a thing with these tags is ours to change and to delete."""
        return (
            tags.get(CLUSTER_TAG) == self.cluster_arn
            and tags.get(OWNER_TAG, self.resource) == self.resource
        )


def shared_tags(extra: Mapping[str, str], shared_as: str = "") -> dict[str, str]:
    """Tags of a thing that all clusters of the account share."""
    return {**extra, CLUSTER_TAG: ACCOUNT_WIDE, SHARED_AS_TAG: shared_as}


def is_shared(tags: Mapping[str, str]) -> bool:
    """Whether this project created the thing for all clusters of the account."""
    return tags.get(CLUSTER_TAG) == ACCOUNT_WIDE


def described(tags: Mapping[str, str]) -> str:
    """The owner of a thing that is not ours, for a message."""
    cluster = tags.get(CLUSTER_TAG)
    if not cluster:
        return "made by someone else"
    by = tags.get(OWNER_TAG)
    return f"belongs to {cluster}" + (f", onboarded by {by}" if by else "")
