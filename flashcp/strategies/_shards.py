"""Rows of shards, int32 [shards, 4]: rank, document, start, stop; and their canonical order.

Canonical rows are sorted by rank, document and start, and neighbouring ranges of one document on
one rank are joined: the kernel then sees one segment, not two.
"""

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit_as

Rows = NDArray[np.int32]


def columns(rows: Rows) -> tuple[NDArray[np.int32], ...]:
    """Return rank, document, start and stop of rows, read-only and contiguous, [shards] each.

    As a plan keeps them: compiled functions then see one type of array, and are compiled once.
    """
    split = np.ascontiguousarray(rows.T)
    split.flags.writeable = False
    return tuple(split)


def canonical(rows: Rows) -> Rows:
    """Return `rows` sorted, with ranges that touch joined.

    Args:
        rows: int32 [shards, 4], in any order.

    Returns:
        Canonical rows, int32 [at most shards, 4].
    """
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    opens = np.ones(len(rows), dtype=np.bool_)
    opens[1:] = (rows[1:, :2] != rows[:-1, :2]).any(axis=1) | (rows[1:, 2] != rows[:-1, 3])
    firsts = np.flatnonzero(opens)
    joined = rows[firsts]
    joined[:, 3] = rows[np.append(firsts[1:], len(rows)) - 1, 3]
    return joined


@jit_as("i8(i4[:,::1], i8, i8, i8, i8, i8)", lean=True)
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
