"""The estimate as one JSON object, for programs."""

from __future__ import annotations

from typing import Any, Final

from msgspec import Struct
from msgspec.structs import fields

from savings.estimate import Estimate
from savings.prices import HOURS_PER_MONTH

FORMAT: Final = "castai-eks-savings-estimate/1"


def document(estimate: Estimate) -> dict[str, Any]:
    """Every field of the estimate under its name in camelCase, none left out, and beside them:

    - `format`: FORMAT. A field may be added without a new format; none changes or goes.
    - `units`: what the numbers are. `money`: the currency, per hour, for `cost`, `price`,
      `idleCost`, `saved`, `lowerBound`, `low` and `high` of steps, `costAfter`, `gain`.
      `hoursPerMonth`: what to multiply money with for a month. `cpu` and `memory`: of `requested`
      and `allocatable`. `shares`: `requestedCpu` and `requestedMemory`. `percentage`: of `castai`.
      `interruptions`: its `low` and `high`. `time`: of `taken`, `pricesTaken` and `updated`.
    - `saved`: what the steps save together.

    Numbers are exact, not rounded as in the table. A field of an object that is not known is null
    (`interruptions`, and its `high`); a list without entries is empty.
    """
    return {
        "format": FORMAT,
        "units": {
            "money": f"{estimate.currency} per hour",
            "hoursPerMonth": HOURS_PER_MONTH,
            "cpu": "millicores",
            "memory": "bytes",
            "shares": "0 to 1",
            "percentage": "0 to 100",
            "interruptions": "per 30 days",
            "time": "UTC, RFC 3339",
        },
        **_plain(estimate),
        "saved": estimate.saved,
    }


def _plain(value: Any) -> Any:  # noqa: ANN401 - any field
    """Like msgspec.to_builtins, but with the fields that have their default."""
    if isinstance(value, Struct):
        return {each.encode_name: _plain(getattr(value, each.name)) for each in fields(value)}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return dict(value) if isinstance(value, dict) else value
