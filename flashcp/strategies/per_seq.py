"""Per-Seq (Llama 3 CP): the pack is cut in 2N equal chunks, whatever documents lie there.

Rank r takes chunks r and 2N-1-r of the pack. That balances one document as long as the pack; on
packed documents work follows where the long ones happen to lie (imbalance 1.8 on 128k packs of
WLB-LLM lengths at CP 8). Few documents are cut, so kernels run at full speed.
"""

import numpy as np
from numpy.typing import NDArray

from flashcp.strategies._chunks import chunk_start
from flashcp.strategies._shards import Rows, append
from groundwork.jit import jit


@jit
def per_seq_shards(lengths: NDArray[np.int32], cp: int) -> Rows:
    """Cut the pack in 2N chunks; rank r takes chunks r and 2N-1-r.

    Args:
        lengths: tokens of each packed document, [documents].
        cp: N, the ranks.

    Returns:
        Canonical shards, int32 [shards, 4]: rank, document, start, stop.
    """
    chunks = 2 * cp
    first = np.zeros(lengths.size + 1, dtype=np.int64)  # of each document within the pack
    for document in range(lengths.size):
        first[document + 1] = first[document] + lengths[document]
    rows = np.empty((lengths.size + chunks, 4), dtype=np.int32)
    count = 0
    for rank in range(cp):
        for chunk in (rank, chunks - 1 - rank):
            begin = chunk_start(first[-1], chunks, 0, chunk)
            end = chunk_start(first[-1], chunks, 0, chunk + 1)
            document = int(np.searchsorted(first, begin, side="right")) - 1
            while document < lengths.size and first[document] < end:
                start = max(begin - first[document], 0)
                stop = min(end, first[document + 1]) - first[document]
                count = append(rows, count, rank, document, start, stop)
                document += 1
    return rows[:count].copy()
