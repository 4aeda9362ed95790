"""Attention step by step for ring exchanges: which kernel call each rank makes on whose KV.

In step i rank r holds the KV of rank (r - i) mod N. Its own KV (step 0) it attends to causally;
of another rank's, its queries see whole shards only: a KV shard of the same document lies wholly
before a query shard or wholly after it. So each later step is one call without a causal mask, one
segment for each run of query shards of a document that see the same KV. A rank with nothing to see
makes no call; in plain ring rank 0 idles through every later step.
"""

import numpy as np
from numpy.typing import NDArray

from groundwork.jit import jit


@jit
def ring_segments(
    document: NDArray[np.int32],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    rank_splits: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """List the segments of every call of steps 1 to N-1.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        start: its first token, [shards].
        stop: one past its last token, [shards].
        rank_splits: rank r holds the shards rank_splits[r]:rank_splits[r + 1], [N + 1].

    Returns:
        Query lengths and key lengths, [segments], and splits, [(N - 1)·N + 1]: the call of rank r
        in step i (from 1) has the segments splits[(i-1)·N + r] up to the next split.
    """
    ranks = rank_splits.size - 1
    calls = max(ranks - 1, 0) * ranks
    splits = np.zeros(calls + 1, dtype=np.int64)
    # Step by step, query shards of rank r: at most every shard once a step.
    q_lens = np.empty(max(ranks - 1, 0) * document.size, dtype=np.int64)
    k_lens = np.empty_like(q_lens)
    count = 0
    call = 0
    for step in range(1, ranks):
        for rank in range(ranks):
            holder = (rank - step) % ranks
            kv = rank_splits[holder]
            kv_end = rank_splits[holder + 1]
            seen = 0  # tokens of the document's KV before the query shard
            call_first = count
            for q in range(rank_splits[rank], rank_splits[rank + 1]):
                fresh = q == rank_splits[rank] or document[q] != document[q - 1]
                if fresh:
                    seen = 0
                    while kv < kv_end and document[kv] < document[q]:
                        kv += 1
                grew = fresh
                while kv < kv_end and document[kv] == document[q] and stop[kv] <= start[q]:
                    seen += stop[kv] - start[kv]
                    kv += 1
                    grew = True
                if seen == 0:
                    continue
                size = stop[q] - start[q]
                if not grew and count > call_first:
                    q_lens[count - 1] += size
                else:
                    q_lens[count] = size
                    k_lens[count] = seen
                    count += 1
            call += 1
            splits[call] = count
    return q_lens[:count].copy(), k_lens[:count].copy(), splits


@jit
def local_segments(
    document: NDArray[np.int32],
    start: NDArray[np.int32],
    stop: NDArray[np.int32],
    rank_splits: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """List the segments of step 0: each rank's tokens of a document attend to one another.

    Args:
        document: each shard's document, [shards]; shards are canonical.
        start: its first token, [shards].
        stop: one past its last token, [shards].
        rank_splits: rank r holds the shards rank_splits[r]:rank_splits[r + 1], [N + 1].

    Returns:
        Lengths, [segments], query length = key length, and splits, [N + 1].
    """
    ranks = rank_splits.size - 1
    lens = np.empty(document.size, dtype=np.int64)
    splits = np.zeros(ranks + 1, dtype=np.int64)
    count = 0
    for rank in range(ranks):
        for q in range(rank_splits[rank], rank_splits[rank + 1]):
            size = stop[q] - start[q]
            if q > rank_splits[rank] and document[q] == document[q - 1]:
                lens[count - 1] += size
            else:
                lens[count] = size
                count += 1
        splits[rank + 1] = count
    return lens[:count].copy(), splits
