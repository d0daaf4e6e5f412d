"""What all stacks of the app have in common: names, the boundary of their roles, a condition."""

from __future__ import annotations

from aws_cdk import Environment, PermissionsBoundary, Stack
from constructs import Construct

from stacks.settings import Settings


class CastaiStack(Stack):
    """A stack named `<castai:namePrefix>-<part>`. app.py creates it if it is wanted."""

    PART: str
    DESCRIPTION: str

    def __init__(
        self, scope: Construct, settings: Settings, *, env: Environment | None = None
    ) -> None:
        self.prefix = f"{settings.app.name_prefix}-{self.PART}"
        super().__init__(
            scope,
            self.prefix,
            description=self.DESCRIPTION,
            env=env,
            permissions_boundary=_boundary(settings.app.permissions_boundary),
        )

    @classmethod
    def wanted(cls, settings: Settings) -> bool:  # noqa: ARG003 - stacks that are optional read it
        """Whether the settings need this stack."""
        return True


def _boundary(policy: str | None) -> PermissionsBoundary | None:
    if policy is None:
        return None
    if policy.startswith("arn:"):
        return PermissionsBoundary.from_arn(policy)
    return PermissionsBoundary.from_name(policy)
