"""What a whole pod requests of its node, as kube-scheduler counts it. Pure.

Source: k8s.io/component-helpers/resource, `PodRequests`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import ROUND_CEILING, Decimal
from typing import Any, Final

from lightkube.utils.quantity import parse_quantity

from lambdas.common.errors import PermanentError
from savings.snapshot import CPU, MEMORY, PODS, Amounts, total

Object = Mapping[str, Any]

_MILLI: Final = 1000
_OF_THE_WHOLE: Final = (CPU, MEMORY, "hugepages-")
# What lightkube does not know: two suffixes, and the exponent's capital letter.
_SMALL: Final = {"n": "e-9", "u": "e-6"}
_EXPONENT: Final = re.compile(r"E(?=[+-]?\d)")


def requests_of(spec: Object, what: str) -> Amounts:
    """Of a pod's spec; `what` names the pod in errors.

    The containers and sidecars together, or the peak while the init containers run one after the
    other beside the sidecars that started before them; and the overhead of the RuntimeClass. A
    request of the pod as a whole for processor, memory or huge pages replaces that resource's sum.
    """
    sidecars: Amounts = {}
    peaks: list[Amounts] = []
    for container in spec.get("initContainers") or ():
        own = _requests(container, what)
        if container.get("restartPolicy") == "Always":
            sidecars = total([sidecars, own])
            own = {}
        peaks.append(total([sidecars, own]))
    containers = [_requests(container, what) for container in spec.get("containers") or ()]
    needed = dict(total([*containers, sidecars]))
    for peak in peaks:
        needed |= {name: max(amount, needed.get(name, 0)) for name, amount in peak.items()}
    whole = _requests(spec, what)
    needed |= {name: amount for name, amount in whole.items() if name.startswith(_OF_THE_WHOLE)}
    asked = total([needed, amounts(spec.get("overhead"), what)])
    return {name: amount for name, amount in sorted(asked.items()) if amount and name != PODS}


def with_limits(spec: Object) -> Object:
    """A template's spec as its pods will have it: a limit without a request is the request too, as
    the API server sets it when it creates a pod.
    """
    parts = {
        part: [_with_limits(container) for container in spec.get(part) or ()]
        for part in ("containers", "initContainers")
    }
    return _with_limits(spec) | parts


def _with_limits(of: Object) -> dict[str, Any]:
    limits = (of.get("resources") or {}).get("limits") or {}
    return {**of, "resources": {"requests": {**limits, **_given(of)}}}


def without_requests(spec: Object) -> bool:
    """Whether a container has no request for processor or for memory, nor the pod as a whole."""
    needed = {CPU, MEMORY} - set(_given(spec))
    return any(needed - set(_given(each)) for each in spec.get("containers") or ())


def amounts(given: Mapping[str, Any] | None, what: str) -> Amounts:
    """Quantities by resource name: processor in millicores, the rest in whole units, rounded up.

    Raises PermanentError for what is no quantity.
    """
    return {name: _amount(name, quantity, what) for name, quantity in sorted((given or {}).items())}


def _amount(name: str, quantity: Any, what: str) -> int:  # noqa: ANN401 - as the cluster has it
    text = _EXPONENT.sub("e", str(quantity))
    exponent = next((each for suffix, each in _SMALL.items() if text.endswith(suffix)), "")
    try:
        value = parse_quantity(f"{text[:-1]}{exponent}" if exponent else text)
    except ValueError as error:
        raise PermanentError(f"Correct the quantity {name}: {quantity!r} of {what}") from error
    exact = (value or Decimal(0)) * (_MILLI if name == CPU else 1)
    return int(exact.to_integral_value(rounding=ROUND_CEILING))


def _requests(of: Object, what: str) -> Amounts:
    return amounts(_given(of), what)


def _given(of: Object) -> Mapping[str, Any]:
    return (of.get("resources") or {}).get("requests") or {}
