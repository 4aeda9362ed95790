"""Who sends how many tokens of KV to whom, forward, under a plan's exchange.

`ring` passes every rank's tokens to the next, N-1 times; the all-gathers give everyone a rank's
buffer, padded to the largest; `all-to-all-needed` gives each rank what its shards attend to.
"""

from typing import TYPE_CHECKING

import numpy as np

from flashcp.exchange import Exchange

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flashcp.plans import Plan


def exchange_matrix(plan: "Plan") -> "NDArray[np.int64]":
    """Return the tokens that each rank sends to each other, int64 [cp from, cp to]."""
    ranks = np.arange(plan.cp)
    matrix = np.zeros((plan.cp, plan.cp), dtype=np.int64)
    if plan.cp == 1:
        return matrix
    if plan.exchange is Exchange.RING:
        # In step i a rank passes on the tokens of the rank i places before it.
        matrix[ranks, (ranks + 1) % plan.cp] = plan.context_tokens - np.roll(plan.rank_tokens, -1)
        return matrix
    if plan.exchange is not Exchange.ALL_TO_ALL_NEEDED:
        gathers_all = plan.exchange is Exchange.ALL_GATHER
        matrix += (plan.rank_tokens if gathers_all else plan.non_last_tokens).max()
        matrix[ranks, ranks] = 0
        return matrix
    order = np.lexsort((plan.start, plan.document))
    for shards in np.split(order, np.flatnonzero(np.diff(plan.document[order])) + 1):
        holders = plan.rank[shards]
        for i, shard in enumerate(shards):
            later = np.setdiff1d(holders[i + 1 :], [plan.rank[shard]])
            matrix[plan.rank[shard], later] += plan.stop[shard] - plan.start[shard]
    return matrix
