"""CloudFormation's registry, as cfn-lint carries it."""

from __future__ import annotations

from cfnlint.schema.manager import PROVIDER_SCHEMA_MANAGER

REGION = "eu-central-1"


def permissions(kind: str) -> dict[str, set[str]]:
    """By operation: the actions that the handler of a resource type may call."""
    handlers = PROVIDER_SCHEMA_MANAGER.get_resource_schema(REGION, kind).schema["handlers"]
    return {operation: set(handler["permissions"]) for operation, handler in handlers.items()}
