"""What pods request of a node, as kube-scheduler's plugin NodeResourcesFit counts it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from decimal import Decimal

from kubesim import syntax
from kubesim.resources import Obj

Amounts = Mapping[str, Decimal]

_OF_THE_WHOLE = ("cpu", "memory", "hugepages-")


def of_pod(spec: Obj) -> Amounts:
    """By resource: the containers and sidecars together, or the peak of the init containers if it
    is more; and the overhead. A request of the pod as a whole for processor, memory or huge pages
    replaces that resource's sum.
    """
    running = _sum(_requests(each) for each in spec.get("containers") or ())
    sidecars = _sum(())
    peak: dict[str, Decimal] = {}
    for container in spec.get("initContainers") or ():
        own = _requests(container)
        if container.get("restartPolicy") == "Always":
            sidecars = _sum((sidecars, own))
            own = {}
        for name, amount in _sum((sidecars, own)).items():
            peak[name] = max(amount, peak.get(name, Decimal(0)))
    running = _sum((running, sidecars))
    needed = {name: max(running[name], peak.get(name, Decimal(0))) for name in {*running, *peak}}
    whole = _requests(spec)
    needed |= {name: whole[name] for name in whole if name.startswith(_OF_THE_WHOLE)}
    return _sum((needed, _amounts(spec.get("overhead"))))


def insufficient(asked: Amounts, allocatable: Obj, others: Iterable[Obj]) -> list[str]:
    """The resources of which a node has too little left, in kube-scheduler's words.

    `others`: the specs of the pods that it has.
    """
    wanted = {name: amount for name, amount in asked.items() if amount}
    if not wanted:
        return []
    there = _amounts(allocatable)
    used = _sum(of_pod(spec) for spec in others)
    return [
        f"Insufficient {name}"
        for name, amount in sorted(wanted.items())
        if amount > there.get(name, Decimal(0)) - used[name]
    ]


def _requests(of: Obj) -> dict[str, Decimal]:
    return _amounts((of.get("resources") or {}).get("requests"))


def _amounts(quantities: Obj | None) -> dict[str, Decimal]:
    return {
        name: amount
        for name, given in (quantities or {}).items()
        if (amount := syntax.quantity(given)) is not None
    }


def _sum(each: Iterable[Amounts]) -> defaultdict[str, Decimal]:
    total: defaultdict[str, Decimal] = defaultdict(Decimal)
    for amounts in each:
        for name, amount in amounts.items():
            total[name] += amount
    return total
