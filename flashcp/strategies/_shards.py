"""A growing list of shards for compiled code, and its canonical order.

Rows are (rank, document, start, stop). `append` joins a range to the one just before it when both
are of one document on one rank and touch: the kernel then sees one segment, not two.
"""

import numpy as np
from numpy.typing import NDArray

from costmodel._jit import jit

Rows = NDArray[np.int32]


@jit
def append(rows: Rows, count: int, rank: int, document: int, start: int, stop: int) -> int:
    """Write one shard at `count` unless it is empty or continues the last one.

    Args:
        rows: int32 [capacity, 4], filled up to `count`.
        count: rows in use.
        rank: the shard's rank.
        document: the shard's document.
        start: its first token.
        stop: one past its last token.

    Returns:
        Rows in use afterwards.
    """
    if stop <= start:
        return count
    if count > 0:
        last = rows[count - 1]
        if last[0] == rank and last[1] == document and last[3] == start:
            last[3] = stop
            return count
    rows[count, 0] = rank
    rows[count, 1] = document
    rows[count, 2] = start
    rows[count, 3] = stop
    return count + 1
