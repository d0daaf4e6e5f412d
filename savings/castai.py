"""CAST AI's own estimate for a cluster, in the units of ours. Reads only: it registers nothing."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from lambdas.common.castai import (
    BadAnswerError,
    CastaiApi,
    EstimatedSavings,
    PricePair,
    Recommendation,
    UnknownClusterError,
)
from savings.estimate import Castai
from savings.instance_types import positive
from savings.prices import HOURS_PER_MONTH

NOT_CONNECTED: Final = (
    "CAST AI has no estimate of this cluster: it does not know it yet, or its agent has not "
    "reported."
)


def read(api: CastaiApi, cluster: str, region: str, account: str) -> tuple[Castai, ...]:
    """CAST AI's recommendations, the cheapest last; none where it does not have the cluster.

    The cluster is found by name, region and account among those of the key's organization. An empty
    `account` fits every one; clusters of two accounts then give none. Raises the errors of
    `lambdas.common.castai`, BadAnswerError for an estimate without any price too.
    """
    found = [
        each.id
        for each in api.clusters()
        if each.eks
        and (each.eks.cluster_name, each.eks.region) == (cluster, region)
        and account in ("", each.eks.account_id)
    ]
    if len(found) != 1:
        return ()
    try:
        answer = api.estimated_savings(found[0])
    except UnknownClusterError:
        return ()
    estimates = sorted(estimates_of(answer), key=lambda each: (-each.cost_after, each.name))
    if answer.recommendations and not estimates:
        raise BadAnswerError(
            f"CAST AI's estimate of cluster {cluster} has no price: its answer has changed, or it "
            "is not CAST AI's."
        )
    return tuple(estimates)


def estimates_of(answer: EstimatedSavings) -> Iterator[Castai]:
    """The recommendations that have both prices."""
    for name, each in answer.recommendations.items():
        prices = _hourly(each)
        if prices:
            cost, after = prices
            yield Castai(
                cost=cost,
                name=name,
                cost_after=after,
                percentage=_percentage(each, cost, after),
                updated=answer.last_updated_at,
            )


def _hourly(found: Recommendation) -> tuple[float, float] | None:
    """Per hour. CAST AI states it beside the month; without it, a month is 730 hours, as the
    quotient of both in its answers.
    """
    for pair, hours in ((found.hourly, 1), (found.monthly, HOURS_PER_MONTH)):
        prices = _numbers(pair) if pair else None
        if prices:
            return prices[0] / hours, prices[1] / hours
    return None


def _numbers(pair: PricePair) -> tuple[float, float] | None:
    before, after = positive(pair.price_before), positive(pair.price_after)
    return (before, after) if before and after else None


def _percentage(found: Recommendation, cost: float, after: float) -> float:
    stated = positive(found.savings_percentage)
    return stated or 100 * (cost - after) / cost
