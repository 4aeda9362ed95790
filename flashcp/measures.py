"""What a plan costs before any hardware is known: balance, traffic, padded work.

Three measures of traffic, each a share of a full all-gather, because they answer different
questions: what the plan's own exchange moves, what the paper's Eq. 5 counts (the largest rank's
tokens in shards that are not last), and what the ranks need (the largest rank's sent or received
tokens if each gets only what it attends to). Where ranks span nodes, what the plan's exchange sends
from node to node besides, in tokens: that is the dear part.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flashcp.errors import PlanError
from flashcp.exchange import Exchange, across_tokens, across_uniform
from flashcp.plans import Plan
from groundwork.jit import jit

TILE = 128


@dataclass(frozen=True)
class Measures:
    """A plan's balance, traffic and padding.

    Attributes:
        imbalance: largest rank's work over the mean.
        moved_share: tokens that the plan's exchange delivers to a rank, over C·(N-1)/N.
        eq5_share: largest rank's non-last tokens over C/N, the paper's measure.
        needed_share: largest rank's sent or received needed tokens over C·(N-1)/N.
        padded: largest rank's work in whole 128x128 tiles over the mean work.
        shards_per_rank: mean over ranks.
        across_tokens: tokens that the plan's exchange sends across nodes, all ranks together.
        across_largest_tokens: of the rank that sends or receives most of them.
    """

    imbalance: float
    moved_share: float
    eq5_share: float
    needed_share: float
    padded: float
    shards_per_rank: float
    across_tokens: float
    across_largest_tokens: float


def measure(plan: Plan, ranks_per_node: int | None = None) -> Measures:
    """Measure `plan`; with one rank nothing moves and every share is 0.

    Args:
        plan: the plan.
        ranks_per_node: ranks that share a node, a divisor of the CP degree; by default the plan's
            own, and all of them where it names none.

    Raises:
        PlanError: the plan is for other nodes.
    """
    mean_work = plan.rank_work.mean()
    largest_share = plan.rank_tokens.max()
    # A pack of fewer tokens than ranks still has a rank with one token.
    eq5 = float(plan.non_last_tokens.max() / largest_share) if plan.cp > 1 else 0.0
    sent, received = plan.needed_tokens
    full = plan.context_tokens * (plan.cp - 1) / plan.cp
    needed = float(max(sent.max(), received.max()) / full) if plan.cp > 1 else 0.0
    if plan.exchange is Exchange.ALL_GATHER_NON_LAST:
        moved = eq5
    elif plan.exchange is Exchange.ALL_TO_ALL_NEEDED:
        moved = needed
    elif plan.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL:
        across_sent, across_received, inside_sent, inside_received = plan.two_level_tokens
        busiest = max((across_sent + inside_sent).max(), (across_received + inside_received).max())
        moved = float(busiest / full) if plan.cp > 1 else 0.0
    else:
        moved = 1.0 if plan.cp > 1 else 0.0
    across, across_largest = _across(plan, ranks_per_node)
    tiles = padded_work(plan.start, plan.stop, plan.rank_splits)
    return Measures(
        imbalance=float(plan.rank_work.max() / mean_work),
        moved_share=moved,
        eq5_share=eq5,
        needed_share=needed,
        padded=float(tiles.max() / mean_work),
        shards_per_rank=plan.shards / plan.cp,
        across_tokens=across,
        across_largest_tokens=across_largest,
    )


def _across(plan: Plan, ranks_per_node: int | None) -> tuple[float, float]:
    """Return what crosses nodes, all ranks together and the busiest one's."""
    per_node = ranks_per_node or plan.ranks_per_node or plan.cp
    if plan.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL:
        if plan.ranks_per_node != per_node:
            raise PlanError(f"the plan is for nodes of {plan.ranks_per_node} ranks, not {per_node}")
        sent, received = plan.two_level_tokens[:2]
    elif plan.exchange is Exchange.ALL_TO_ALL_NEEDED:
        shards = (plan.document, plan.rank, plan.start, plan.stop)
        sent, received = across_tokens(*shards, plan.cp, per_node)
    else:
        whole = plan.exchange is not Exchange.ALL_GATHER_NON_LAST
        largest = (plan.rank_tokens if whole else plan.non_last_tokens).max()
        return across_uniform(plan.exchange, float(largest), plan.cp, per_node)
    return float(sent.sum()), float(max(sent.max(), received.max()))


@jit
def padded_work(
    start: NDArray[np.int32], stop: NDArray[np.int32], rank_splits: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Count each rank's query-key pairs when every touched 128x128 tile is computed whole.

    Args:
        start: each shard's first token, in rank order, [shards].
        stop: one past its last token, [shards].
        rank_splits: rank r holds the shards rank_splits[r]:rank_splits[r + 1], [ranks + 1].

    Returns:
        Pairs, [ranks].
    """
    work = np.zeros(rank_splits.size - 1, dtype=np.int64)
    for rank in range(work.size):
        for shard in range(rank_splits[rank], rank_splits[rank + 1]):
            # Tile row i has its last query at key min(start + 128·(i+1), stop).
            whole = (stop[shard] - start[shard]) // TILE
            first = np.int64(start[shard]) + TILE
            for row in range(whole):
                work[rank] += (first + TILE * row + TILE - 1) // TILE
            if whole * TILE < stop[shard] - start[shard]:
                work[rank] += (np.int64(stop[shard]) + TILE - 1) // TILE
        work[rank] *= TILE * TILE
    return work
