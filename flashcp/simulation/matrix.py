"""Who sends how many tokens of KV to whom, forward, under a plan's exchange.

`ring` passes every rank's tokens to the next, N-1 times; the all-gathers give everyone a rank's
buffer, padded to the largest; `all-to-all-needed` gives each rank what its shards attend to, and
`all-to-all-two-level` the same by way of one rank of each node.
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
    if plan.exchange not in (Exchange.ALL_TO_ALL_NEEDED, Exchange.ALL_TO_ALL_TWO_LEVEL):
        gathers_all = plan.exchange is Exchange.ALL_GATHER
        matrix += (plan.rank_tokens if gathers_all else plan.non_last_tokens).max()
        matrix[ranks, ranks] = 0
        return matrix
    order = np.lexsort((plan.start, plan.document))
    for shards in np.split(order, np.flatnonzero(np.diff(plan.document[order])) + 1):
        holders = plan.rank[shards]
        for i, shard in enumerate(shards):
            holder, tokens = plan.rank[shard], plan.stop[shard] - plan.start[shard]
            later = np.setdiff1d(holders[i + 1 :], [holder])
            if plan.ranks_per_node is None:
                matrix[holder, later] += tokens
                continue
            node = later // plan.ranks_per_node
            away = node != holder // plan.ranks_per_node
            # Of each node the rank in the holder's place, which passes it on.
            first = np.where(
                away, node * plan.ranks_per_node + holder % plan.ranks_per_node, holder
            )
            matrix[holder, np.unique(first[away])] += tokens
            matrix[first[first != later], later[first != later]] += tokens
    return matrix
