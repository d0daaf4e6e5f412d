"""EventBridge events as AWS delivers them."""

from __future__ import annotations

from typing import Any

INSTANCE = "i-0123456789abc0001"
EVENT_ID = "12345678-1234-1234-1234-123456789012"


def spot_notice(
    instance: object = INSTANCE,
    *,
    action: object = "terminate",
    time: object = "2026-11-21T10:00:00Z",
    **changes: Any,
) -> dict[str, Any]:
    """A spot interruption warning. `changes` replace or, as None, remove top-level fields."""
    event: dict[str, Any] = {
        "version": "0",
        "id": EVENT_ID,
        "detail-type": "EC2 Spot Instance Interruption Warning",
        "source": "aws.ec2",
        "account": "123456789012",
        "time": time,
        "region": "eu-central-1",
        "resources": [f"arn:aws:ec2:eu-central-1a:instance/{instance}"],
        "detail": {"instance-id": instance, "instance-action": action},
    }
    event |= {key.replace("_", "-"): value for key, value in changes.items()}
    return {key: value for key, value in event.items() if value is not None}
