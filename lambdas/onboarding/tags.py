"""Tags of AWS resources: the format of each service, and the correction of tags that differ."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lambdas.onboarding.context import Context


def tag_list(tags: Mapping[str, str]) -> Any:  # noqa: ANN401 - each service has its own type
    """Tags as IAM, EC2 and Secrets Manager take them."""
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def tag_map(tags: Any) -> dict[str, str]:  # noqa: ANN401 - each service has its own type
    """Tags as IAM, EC2 and Secrets Manager give them."""
    return {tag["Key"]: tag.get("Value", "") for tag in tags or ()}


def correct_tags(
    ctx: Context,
    label: str,
    found: Mapping[str, str],
    wanted: Mapping[str, str],
    *,
    put: Callable[[Mapping[str, str]], object],
    drop: Callable[[list[str]], object],
) -> bool:
    """Correct the tags of the thing `label`; returns whether they differed.

    A key of the user's tags before this Update is removed if it is no longer wanted. Tags that
    others set stay.
    """
    missing = {key: value for key, value in wanted.items() if found.get(key) != value}
    earlier = ctx.previous.tags if ctx.previous else {}
    dropped = sorted(key for key in earlier if key in found and key not in wanted)
    if not (missing or dropped):
        return False

    def write(tags: Mapping[str, str], keys: list[str]) -> None:
        if tags:
            put(tags)
        if keys:
            drop(keys)

    before = {key: found[key] for key in (*missing, *dropped) if key in found}
    added = [key for key in missing if key not in found]
    ctx.ledger.update(
        label,
        lambda: write(missing, dropped),
        undo=lambda: write(before, added),
        detail="tags",
    )
    return True
