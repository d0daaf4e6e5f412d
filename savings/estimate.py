"""The estimate's result: plain data, from which table, JSON and page are written.

Money is in the currency of the prices, per hour. Amounts: see `savings.snapshot.Amounts`.
"""

from __future__ import annotations

from typing import Literal

from savings.snapshot import Amounts, Data, Market

StepName = Literal["fewer", "better", "spot"]


class Line(Data, frozen=True, kw_only=True):
    """Nodes that are alike."""

    instance_type: str
    market: Market
    zone: str
    group: str
    """Of a node that exists, its node group; of a new one, the group whose labels and taints it
    has."""
    count: int
    price: float
    """Of one node, per hour."""
    cost: float
    """count x price."""
    requested_cpu: float
    """Share of the allocatable processor that pods request, 0 to 1, DaemonSets' pods included."""
    requested_memory: float


class Now(Data, frozen=True, kw_only=True):
    """What the cluster costs now."""

    cost: float
    lines: tuple[Line, ...]
    """Sorted by group, market, type, zone."""
    requested: Amounts
    allocatable: Amounts
    """Of the nodes with a price."""
    idle_cost: float
    """What is requested by no pod: each node's price x (1 - mean of the requested shares of its
    processor and memory)."""


class Step(Data, frozen=True, kw_only=True):
    """The same pods, packed anew. Each step may do all that the steps before may."""

    name: StepName
    cost: float
    saved: float
    """Less than the step before costs; the first one: than now. Never negative."""
    lower_bound: float
    """No packing of these pods costs less, under the rules of this step."""
    low: float
    """The same nodes at the lowest spot prices of the history; high: at the highest."""
    high: float
    nodes: int
    lines: tuple[Line, ...]
    kept: int
    """Nodes that stay as they are, because of pods that cannot move."""


class Verdict(Data, frozen=True, kw_only=True):
    """Whether a workload tolerates spot instances."""

    namespace: str
    owner: str
    """`Deployment/web`; a pod without controller as `Pod/debug`."""
    pods: int
    tolerates_spot: bool
    reasons: tuple[str, ...]
    """Why not, each a sentence. Of a workload that tolerates them: empty."""
    on_spot: int
    """Pods that run on spot instances now."""
    cost: float
    """Its share of its nodes' prices in the last step: of each node, the mean of the shares of
    processor and of memory that are its pods', of what all pods but DaemonSets' request there."""
    gain: float
    """What it would bring, about, if it tolerated spot instances: its cost on on-demand nodes x (1
    - spot price / on-demand price of the same type). 0 for one that does."""


class Interruptions(Data, frozen=True, kw_only=True):
    """Interruptions of the last step's spot nodes in 30 days, by the Spot Advisor's ranges."""

    low: float
    high: float | None
    """None: a type is in the range without an upper end."""
    unknown: int
    """Spot nodes of a type that the advisor does not know."""


class Unpriced(Data, frozen=True, kw_only=True):
    """Nodes that the estimate leaves out, with their pods."""

    nodes: int
    pods: int
    reason: str
    """`Fargate`, `Windows`, `no price for m9x.large`."""


class Castai(Data, frozen=True, kw_only=True):
    """CAST AI's own estimate, in the same units."""

    cost: float
    """What the cluster costs now."""
    name: str
    """CAST AI's name of the recommendation."""
    cost_after: float
    percentage: float
    """Of the savings, 0 to 100."""
    updated: str


class Estimate(Data, frozen=True, kw_only=True):
    """The whole result."""

    cluster: str
    region: str
    currency: str
    taken: str
    """When the cluster was seen; prices_taken: when the prices."""
    prices_taken: str
    history_days: int
    nodes: int
    pods: int
    """Those that the plan places; DaemonSets' and static pods are not among them."""
    daemon_pods: int
    now: Now
    steps: tuple[Step, ...]
    """Three: fewer and better nodes of the types in use, better types, spot."""
    verdicts: tuple[Verdict, ...]
    """Those that cost most first."""
    unpriced: tuple[Unpriced, ...] = ()
    pods_without_requests: int
    pending: int
    """Pods that wait for a node, or whose node has just gone: not in the estimate."""
    immovable: int
    """Pods that stay where they are: on a node that is kept for one of them."""
    types_considered: int
    types_without_price: tuple[str, ...] = ()
    """Types in use, or like them, that have no price in the prices."""
    interruptions: Interruptions | None = None
    """None: no Spot Advisor data."""
    castai: tuple[Castai, ...] = ()

    @property
    def saved(self) -> float:
        """What the steps save together, per hour."""
        return sum(step.saved for step in self.steps)
