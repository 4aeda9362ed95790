"""Per-Doc, ring and zigzag: every document cut evenly over all ranks.

Per-Doc (WLB-LLM) and ring with zigzag share one cut: 2N chunks of every document, rank r taking
chunks r and 2N-1-r, so that each rank has equal tokens and nearly equal work of every document.
They differ in how KV travels. Plain ring cuts N chunks, which leaves the last rank with 2 - 1/N
times the mean work. All three make slivers of short documents.
"""

import numpy as np
from numpy.typing import NDArray

from flashcp.strategies._chunks import chunk_start
from flashcp.strategies._shards import Rows, append
from groundwork.jit import jit


@jit
def zigzag_shards(lengths: NDArray[np.int32], cp: int) -> Rows:
    """Cut every document in 2N chunks; rank r takes chunks r and 2N-1-r.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: N, the ranks.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop.
    """
    chunks = 2 * cp
    rows = np.empty((min(lengths.size * chunks, lengths.sum()), 4), dtype=np.int32)
    count = 0
    for rank in range(cp):
        carry = 0
        for document in range(lengths.size):
            length = lengths[document]
            for chunk in (rank, chunks - 1 - rank):
                start = chunk_start(length, chunks, carry, chunk)
                stop = chunk_start(length, chunks, carry, chunk + 1)
                count = append(rows, count, rank, document, start, stop)
            carry = (carry + length) % chunks
    return rows[:count].copy()


@jit
def contiguous_shards(lengths: NDArray[np.int32], cp: int) -> Rows:
    """Cut every document in N chunks; rank r takes chunk r.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: N, the ranks.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop.
    """
    rows = np.empty((min(lengths.size * cp, lengths.sum()), 4), dtype=np.int32)
    count = 0
    for rank in range(cp):
        carry = 0
        for document in range(lengths.size):
            length = lengths[document]
            start = chunk_start(length, cp, carry, rank)
            stop = chunk_start(length, cp, carry, rank + 1)
            count = append(rows, count, rank, document, start, stop)
            carry = (carry + length) % cp
    return rows[:count].copy()
