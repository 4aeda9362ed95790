"""Per-Seq (Llama 3 CP): the pack is cut in 2N equal chunks, whatever documents lie there.

Rank r takes chunks r and 2N-1-r of the pack. That balances one document as long as the pack; on
packed documents work follows where the long ones happen to lie (imbalance 1.8 on 128k packs of
WLB-LLM lengths at CP 8). Few documents are cut, so kernels run at full speed.
"""

import numpy as np
from numpy.typing import NDArray

from flashcp.strategies._chunks import chunk_start
from flashcp.strategies._shards import Rows, canonical


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
    np.cumsum(lengths, out=first[1:])
    tokens = int(first[-1])
    begin = np.array([chunk_start(tokens, chunks, 0, chunk) for chunk in range(chunks)])
    # Every stretch between two cuts, be they of documents or of chunks, is a shard.
    cuts = np.unique(np.concatenate([first, begin]))
    start, stop = cuts[:-1], cuts[1:]
    document = np.searchsorted(first, start, side="right") - 1
    chunk = np.searchsorted(begin, start, side="right") - 1
    rank = np.minimum(chunk, chunks - 1 - chunk)
    columns = (rank, document, start - first[document], stop - first[document])
    return canonical(np.stack(columns, axis=1).astype(np.int32))
