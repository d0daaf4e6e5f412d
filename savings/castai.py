"""CAST AI's own estimate of a cluster, in the units of ours. It reads and registers nothing."""

from __future__ import annotations

from lambdas.common.castai import CastaiApi, UnknownClusterError
from savings.estimate import Castai
from savings.prices import HOURS_PER_MONTH
from savings.snapshot import Snapshot


def read(api: CastaiApi, snapshot: Snapshot) -> tuple[Castai, ...]:
    """One for each of CAST AI's recommendations, the cheapest last; none where CAST AI does not
    know the cluster or has no estimate of it yet.

    A month has 730 hours in CAST AI's cost report; that its estimate has the same is inferred.
    """
    cluster_id = api.find(snapshot.cluster, snapshot.region, snapshot.account)
    if not cluster_id:
        return ()
    try:
        estimate = api.estimated_savings(cluster_id)
    except UnknownClusterError:
        return ()
    found = [
        Castai(
            name=name,
            cost=each.monthly.price_before / HOURS_PER_MONTH,
            cost_after=each.monthly.price_after / HOURS_PER_MONTH,
            percentage=_percentage(each.monthly.price_before, each.monthly.price_after),
            updated=estimate.last_updated_at,
        )
        for name, each in estimate.recommendations.items()
    ]
    return tuple(sorted(found, key=lambda each: (-each.cost_after, each.name)))


def _percentage(before: float, after: float) -> float:
    return 100 * (1 - after / before) if before else 0.0
