"""How many bytes a plan lets each rank send, forward and backward; a run counts and compares.

By exchange, with M the tokens of the largest rank (of non-last shards for FlashCP's), s and r the
needed tokens that a rank sends and receives, b a token's K and V in bytes and w in float32:
all-gather (N - 1) M b each way, or w where gradients go home by reduce-scatter; needed-only s b
forward and r b backward, in two levels the sums over both hops, in however many parts KV travels;
ring (N - 1) M b forward, and backward as much again plus N M w for the dKV, which comes home in one
more step.
"""

import numpy as np
from numpy.typing import NDArray

from executor.ways import Gradients
from flashcp.exchange import Exchange
from flashcp.plans import Plan


def planned_bytes(
    plan: Plan,
    *,
    kv_heads: int,
    head_dim: int,
    element_bytes: int,
    gradients: Gradients = "all-to-all",
) -> NDArray[np.int64]:
    """Return the bytes that leave each rank in forward and backward of one layer, int64 [cp].

    Args:
        plan: the plan.
        kv_heads: key/value heads.
        head_dim: head size.
        element_bytes: bytes of one element of q, k and v.
        gradients: how those of all-gathered KV go home.
    """
    kv_bytes = 2 * kv_heads * head_dim * element_bytes
    wide_bytes = kv_bytes * max(4 // element_bytes, 1)
    if plan.exchange is Exchange.ALL_TO_ALL_TWO_LEVEL:
        return sum(plan.two_level_tokens, np.zeros(plan.cp, dtype=np.int64)) * kv_bytes
    if plan.exchange is Exchange.ALL_TO_ALL_NEEDED:
        sent, received = plan.needed_tokens
        return (sent + received) * kv_bytes
    if plan.exchange is Exchange.RING:
        most = int(plan.rank_tokens.max())
        steps = plan.cp - 1
        total = 2 * steps * most * kv_bytes + (plan.cp * most * wide_bytes if steps else 0)
        return np.full(plan.cp, total, dtype=np.int64)
    whole = plan.exchange is Exchange.ALL_GATHER
    tokens = int((plan.rank_tokens if whole else plan.non_last_tokens).max())
    home_bytes = wide_bytes if gradients == "reduce-scatter" else kv_bytes
    return np.full(plan.cp, (plan.cp - 1) * tokens * (kv_bytes + home_bytes), dtype=np.int64)
